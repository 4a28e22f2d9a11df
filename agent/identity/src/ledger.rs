//! Which tokens were used, and by whom, kept over restarts: digests alone, until a replay is no longer to be feared.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{ProcessId, registry::now, token::TokenKey};

/// Most lines before those that count no longer are left out.
const MOST_LINES: usize = 400_000;
/// Longest file that is read, in bytes: as many lines, and more than any line has.
const LONGEST: u64 = 128 << 20;
/// What a boot is known by: process ids and start times are another's after the next one.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// One use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// What the token is known by.
    token: String,
    /// The boot that the processes are of.
    boot: String,
    root: (u32, u64),
    parent: Option<(u32, u64)>,
    /// Until when it is remembered, in seconds since 1970.
    forget: i64,
}

/// The file of uses. Each is on disk before the identity counts.
pub(crate) struct Ledger {
    path: PathBuf,
    boot: String,
    file: Mutex<(File, usize)>,
}

/// A use that still counts.
pub(crate) struct Remembered {
    pub(crate) token: TokenKey,
    /// The tree that used it; none: it is of an earlier boot.
    pub(crate) root: Option<ProcessId>,
    pub(crate) parent: Option<ProcessId>,
    pub(crate) forget: i64,
}

impl Ledger {
    /// Opens the file in this directory, or begins it, and tells what still counts.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Vec<Remembered>)> {
        let path = directory.join("used-tokens");
        let boot = fs::read_to_string(BOOT)?.trim().to_owned();
        let used = read(&path)?;
        let file = Mutex::new((begin(&path, &used)?, used.len()));
        let ledger = Self { path, boot, file };
        let remembered = used.iter().filter_map(|used| ledger.remembered(used)).collect();
        Ok((ledger, remembered))
    }

    /// Keeps a use, durably. Blocks.
    pub(crate) fn keep(
        &self,
        (token, forget): (TokenKey, i64),
        root: ProcessId,
        parent: Option<ProcessId>,
    ) -> io::Result<()> {
        let plain = |id: ProcessId| (id.pid, id.started);
        let boot = self.boot.clone();
        let used = Used { token: token.to_hex(), boot, root: plain(root), parent: parent.map(plain), forget };
        let mut kept = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, lines) = &mut *kept;
        if *lines >= MOST_LINES {
            let left = read(&self.path)?;
            *file = begin(&self.path, &left)?;
            *lines = left.len();
        }
        file.write_all(&line(&used)?)?;
        file.sync_data()?;
        *lines += 1;
        Ok(())
    }

    fn remembered(&self, used: &Used) -> Option<Remembered> {
        let here = used.boot == self.boot;
        let id = |(pid, started): (u32, u64)| ProcessId { pid, started };
        Some(Remembered {
            token: TokenKey::from_hex(&used.token)?,
            root: here.then(|| id(used.root)),
            parent: used.parent.filter(|_| here).map(id),
            forget: used.forget,
        })
    }
}

/// What still counts. A line that was cut off by the machine's end never counted.
fn read(path: &Path) -> io::Result<Vec<Used>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LONGEST).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let now = now();
    let (mut used, mut unread) = (Vec::new(), 0);
    for line in text.lines() {
        match serde_json::from_str::<Used>(line) {
            Ok(one) if one.forget > now => used.push(one),
            Ok(_) => {}
            Err(_) => unread += 1,
        }
    }
    if unread > 0 {
        tracing::warn!(path = %path.display(), unread, "lines about used tokens cannot be read");
    }
    Ok(used)
}

/// Writes the file anew, whole or not at all, and leaves it open for more.
fn begin(path: &Path, used: &[Used]) -> io::Result<File> {
    let mut text = Vec::new();
    for one in used {
        text.extend(line(one)?);
    }
    replace(path, &text)?;
    OpenOptions::new().append(true).open(path)
}

fn line(used: &Used) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(used)?;
    line.push(b'\n');
    Ok(line)
}

/// Replaces a file by one of root's alone, whole or not at all.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: ProcessId = ProcessId { pid: 7, started: 70 };

    fn token(number: u8) -> TokenKey {
        TokenKey::of(&[number])
    }

    #[test]
    fn a_use_is_remembered_until_it_may_be_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger.keep((token(1), now() + 60), ROOT, None).unwrap();
        ledger.keep((token(2), now()), ROOT, None).unwrap();
        drop(ledger);
        let (_, remembered) = Ledger::open(directory.path()).unwrap();
        let told: Vec<_> = remembered.iter().map(|used| (used.token, used.root)).collect();
        assert_eq!(told, [(token(1), Some(ROOT))]);
        let mode = fs::metadata(directory.path().join("used-tokens")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn processes_of_an_earlier_boot_are_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let ledger = Ledger { boot: "before".into(), ..ledger };
        ledger.keep((token(1), now() + 60), ROOT, Some(ROOT)).unwrap();
        let (_, remembered) = Ledger::open(directory.path()).unwrap();
        assert_eq!((remembered[0].root, remembered[0].parent), (None, None));
    }

    #[test]
    fn a_line_that_was_cut_off_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger.keep((token(1), now() + 60), ROOT, None).unwrap();
        let path = directory.path().join("used-tokens");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"token\":\"00");
        fs::write(&path, text).unwrap();
        let (ledger, remembered) = Ledger::open(directory.path()).unwrap();
        assert_eq!(remembered.len(), 1);
        ledger.keep((token(2), now() + 60), ROOT, None).unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().1.len(), 2);
    }
}
