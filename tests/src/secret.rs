//! Secrets of one run: made, kept in mind, and looked for where none may be.

use std::{
    fmt, fs,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};

/// 24 hexadecimal digits that nobody can guess, after a word that says what they are for.
pub fn random(word: &str) -> Result<String> {
    let mut bytes = [0; 12];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().fold(format!("{word}-"), |text, byte| format!("{text}{byte:02x}")))
}

/// Every secret that a test uses.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<Vec<Kept>>>);

struct Kept {
    what: String,
    /// The ways in which it may be written.
    written: Vec<Vec<u8>>,
    /// The file in which it belongs.
    home: Option<PathBuf>,
}

impl Secrets {
    /// From now on it may show up nowhere.
    pub fn keep(&self, what: &str, secret: impl AsRef<[u8]>) {
        self.add(what, secret.as_ref(), None);
    }

    /// What a file holds may show up in that file alone. Of a key in PEM form each line is a secret.
    pub fn keep_file(&self, path: &Path) -> Result<()> {
        let (bytes, what) = (fs::read(path)?, path.display().to_string());
        match std::str::from_utf8(&bytes).ok().filter(|text| text.contains("PRIVATE KEY")) {
            Some(pem) => {
                let lines = pem.lines().filter(|line| !line.starts_with("-----"));
                lines.for_each(|line| self.add(&what, line.as_bytes(), Some(path)));
            }
            None => self.add(&what, &bytes, Some(path)),
        }
        Ok(())
    }

    /// What of them is in these bytes, in words.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        self.found(bytes, None)
    }

    /// Every file under this directory that holds any of them, and which. Files that vanish meanwhile hold nothing.
    pub fn found_under(&self, directory: &Path) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                found.extend(self.found_under(&path)?);
            } else if let Ok(bytes) = fs::read(&path) {
                let hits = self.found(&bytes, Some(&path));
                found.extend(hits.into_iter().map(|what| format!("{}: {what}", path.display())));
            }
        }
        Ok(found)
    }

    fn found(&self, bytes: &[u8], file: Option<&Path>) -> Vec<String> {
        let kept = self.lock();
        let foreign = kept.iter().filter(|secret| file.is_none() || secret.home.as_deref() != file);
        let shown = foreign.filter(|secret| secret.written.iter().any(|written| contains(bytes, written)));
        let mut found: Vec<String> = shown.map(|secret| secret.what.clone()).collect();
        found.dedup();
        found
    }

    fn add(&self, what: &str, secret: &[u8], home: Option<&Path>) {
        /// What is shorter may be there by chance.
        const SHORTEST: usize = 12;
        if secret.len() >= SHORTEST {
            let hex = secret.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            let written = vec![secret.to_vec(), hex.into_bytes(), base64(secret)];
            self.lock().push(Kept { what: what.to_owned(), written, home: home.map(Path::to_owned) });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|secret| secret.what.clone())).finish()
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(wanted) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// RFC 4648, as far as it does not depend on what follows.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u32| DIGITS.get(value as usize & 63).copied().unwrap_or_default();
    let of_three = |three: &[u8; 3]| {
        let word = three.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        [digit(word >> 18), digit(word >> 12), digit(word >> 6), digit(word)]
    };
    let (threes, _) = bytes.as_chunks::<3>();
    threes.iter().flat_map(of_three).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_nested_file_is_found_and_named_by_what_it_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("deep")).unwrap();
        fs::write(directory.path().join("deep/log"), "password=hunter22-hunter22!").unwrap();
        fs::write(directory.path().join("clean"), "nothing").unwrap();
        let secrets = Secrets::default();
        secrets.keep("one that is nowhere", "absent-absent");
        secrets.keep("the password", "hunter22-hunter22");
        let found = secrets.found_under(directory.path()).unwrap();
        assert_eq!(found, [format!("{}: the password", directory.path().join("deep/log").display())]);
        assert!(!format!("{secrets:?}").contains("hunter22"));
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secrets = Secrets::default();
        secrets.keep("it", "hunter22-hunter22");
        for written in
            ["xhunter22-hunter22x", "68756e74657232322d68756e7465723232", "aHVudGVyMjItaHVudGVyMjI="]
        {
            assert_eq!(secrets.found_in(written.as_bytes()), ["it"], "{written}");
        }
        assert!(secrets.found_in(b"hunter22-hunter2").is_empty());
    }

    #[test]
    fn a_key_may_be_in_its_own_file_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.key");
        let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n";
        fs::write(&path, pem).unwrap();
        let secrets = Secrets::default();
        secrets.keep_file(&path).unwrap();
        assert!(secrets.found_under(directory.path()).unwrap().is_empty());
        fs::write(directory.path().join("copy"), pem).unwrap();
        assert_eq!(secrets.found_under(directory.path()).unwrap().len(), 1);
        assert_eq!(secrets.found_in(b"x MIGHAgEAMBMGByqGSM49 x").len(), 1);
    }
}
