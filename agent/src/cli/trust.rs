//! The system's store of authorities that its clients trust.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{authority::Certificate, files};

/// Such a store.
#[derive(Debug)]
pub(super) struct Store {
    /// Where certificates are put for it, each in a file of its own.
    directory: PathBuf,
    /// What takes in what was added.
    update: &'static [&'static str],
    /// What makes it anew, without what was removed.
    renew: &'static [&'static str],
    /// The store as one file.
    bundle: PathBuf,
}

impl Store {
    /// Debian's and its kin's, or Fedora's and its kin's.
    pub(super) fn find() -> Result<Self> {
        let known = [
            Self {
                directory: "/usr/local/share/ca-certificates".into(),
                update: &["update-ca-certificates"],
                renew: &["update-ca-certificates", "--fresh"],
                bundle: "/etc/ssl/certs/ca-certificates.crt".into(),
            },
            Self {
                directory: "/etc/pki/ca-trust/source/anchors".into(),
                update: &["update-ca-trust"],
                renew: &["update-ca-trust"],
                bundle: "/etc/pki/tls/certs/ca-bundle.crt".into(),
            },
        ];
        let looked = known.each_ref().map(|store| store.directory.display().to_string()).join(", ");
        let found = known.into_iter().find(|store| store.directory.is_dir());
        found.with_context(|| {
            format!(
                "this system has no store that is known here ({looked}): put `tidegate ca show` where its clients look"
            )
        })
    }

    /// Has it hold these authorities, and no other of this host's agent: their files.
    pub(super) fn install(&self, certificates: &[Certificate]) -> Result<Vec<PathBuf>> {
        let paths: Vec<_> = certificates.iter().map(|certificate| self.path(certificate)).collect();
        for (path, certificate) in paths.iter().zip(certificates) {
            files::write(path, certificate.pem.as_bytes(), 0o644)
                .with_context(|| path.display().to_string())?;
        }
        let others: Vec<_> = self.installed()?.into_iter().filter(|path| !paths.contains(path)).collect();
        self.drop_files(&others)?;
        run(if others.is_empty() { self.update } else { self.renew })?;
        Ok(paths)
    }

    /// Has it hold none: the files that were there.
    pub(super) fn remove(&self) -> Result<Vec<PathBuf>> {
        let installed = self.installed()?;
        if !installed.is_empty() {
            self.drop_files(&installed)?;
            run(self.renew)?;
        }
        Ok(installed)
    }

    /// Whether it holds any.
    pub(super) fn is_used(&self) -> Result<bool> {
        Ok(!self.installed()?.is_empty())
    }

    /// Whether clients that use it trust this one: what was put into its directory may not have been taken in.
    pub(super) fn holds(&self, certificate: &Certificate) -> Result<bool> {
        let text = fs::read_to_string(&self.bundle).with_context(|| self.bundle.display().to_string())?;
        Ok(unbroken(&text).contains(&unbroken(&certificate.pem)))
    }

    /// What clients with stores of their own need in their environment.
    pub(super) fn advice(&self) -> String {
        let bundle = self.bundle.display();
        format!(
            "curl, git, Go, Ruby, .NET and Rust's native stores use that store. Others are told in a job's environment:\n  \
             NODE_EXTRA_CA_CERTS={bundle}   (Node.js, npm)\n  \
             REQUESTS_CA_BUNDLE={bundle}    (Python requests, pip)\n  \
             SSL_CERT_FILE={bundle}         (Python httpx and ssl, other OpenSSL)\n  \
             AWS_CA_BUNDLE={bundle}         (AWS tools)\n\
             Java, with each of the files above: keytool -importcert -cacerts -noprompt -alias tidegate-... -file FILE\n"
        )
    }

    /// One file for each certificate: what makes a store may not take two from one.
    fn path(&self, certificate: &Certificate) -> PathBuf {
        let digest = certificate.sha256();
        self.directory.join(format!("tidegate-{}.crt", digest.get(..DIGITS).unwrap_or(&digest)))
    }

    /// This host's agent's files.
    fn installed(&self) -> Result<Vec<PathBuf>> {
        let reading = || self.directory.display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if is_ours(&path) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn drop_files(&self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.with_context(|| path.display().to_string())?,
            }
        }
        Ok(())
    }
}

/// How many digits of a certificate's digest stand in its file's name.
const DIGITS: usize = 16;

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix("tidegate-")?.strip_suffix(".crt"));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A text without ends of lines, which tools put where they like.
fn unbroken(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

fn run(command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else { bail!("no command") };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program}: install ca-certificates"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", complaints.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::authority::{Authority, tests::folder};

    fn store(directory: &Path, update: &'static [&'static str]) -> Store {
        Store { directory: directory.into(), update, renew: update, bundle: "/bundle.crt".into() }
    }

    fn certificates(directory: &Path) -> Vec<Certificate> {
        let folder = folder(directory, &[]);
        Authority::open(&folder, SystemTime::now()).unwrap();
        folder.renew(SystemTime::now()).unwrap();
        folder.trusted(SystemTime::now()).unwrap()
    }

    #[test]
    fn what_is_installed_is_one_file_each_and_can_be_removed_once() {
        let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, both) = (store(directory.path(), &["true"]), certificates(state.path()));
        fs::write(directory.path().join("tidegate-corporate.crt"), "somebody else's").unwrap();
        let paths = store.install(&both).unwrap();
        let read: Vec<_> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert!(read.iter().eq(both.iter().map(|certificate| &certificate.pem)) && read.len() == 2);
        assert_eq!(store.install(&both[1..]).unwrap(), paths[1..]);
        assert_eq!(store.remove().unwrap(), paths[1..]);
        assert!(store.remove().unwrap().is_empty() && !store.is_used().unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "others' files stay");
    }

    #[test]
    fn a_store_holds_what_clients_find_in_it_and_not_what_was_only_put_there_for_it() {
        let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bundle = state.path().join("bundle.crt");
        let both = certificates(state.path());
        fs::write(&bundle, format!("# others\n{}", both[0].pem.replace('\n', "\r\n"))).unwrap();
        let store = Store { bundle, ..store(directory.path(), &["false"]) };
        store.install(&both).unwrap_err();
        assert!(store.is_used().unwrap() && store.holds(&both[0]).unwrap());
        assert!(!store.holds(&both[1]).unwrap(), "its store could not be made anew");
    }

    #[test]
    fn a_store_that_cannot_be_made_anew_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = store(directory.path(), &["false"]).install(&[]).unwrap_err().to_string();
        assert!(error.contains("false failed"), "{error}");
    }

    #[test]
    fn clients_with_stores_of_their_own_are_told_of() {
        let advice = store(Path::new("/"), &["true"]).advice();
        assert!(advice.contains("NODE_EXTRA_CA_CERTS=/bundle.crt") && advice.contains("keytool"), "{advice}");
    }
}
