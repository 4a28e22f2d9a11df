//! Which tokens were used, and by whom, kept over restarts: digests alone, until a replay is no longer to be feared.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    ProcessId,
    registry::now,
    token::{Spent, TokenKey},
    trees::Tree,
};

/// Most lines before those that count no longer are left out.
const MOST_LINES: usize = 400_000;
/// Longest file that is read, in bytes: as many lines, and more than any line has.
const LONGEST: u64 = 128 << 20;
/// What a boot is known by: process ids and start times are another's after the next one.
pub(crate) const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// One use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// What the token is known by.
    token: String,
    /// The boot that the processes are of.
    boot: String,
    root: (u32, u64),
    parent: Option<(u32, u64)>,
    /// The root's account.
    uid: Option<u32>,
    /// Until when it is remembered, in seconds since 1970.
    forget: i64,
}

/// The file of uses. Each is on disk before the identity counts.
pub(crate) struct Ledger {
    path: PathBuf,
    boot: String,
    file: Mutex<Written>,
}

/// What is on disk.
struct Written {
    file: File,
    lines: usize,
    /// Until when uses by trees of this boot are remembered.
    uses: HashMap<(TokenKey, ProcessId), i64>,
}

/// A use that still counts.
pub(crate) struct Remembered {
    pub(crate) token: TokenKey,
    /// The tree that used it; none: it is of an earlier boot.
    pub(crate) tree: Option<Tree>,
    pub(crate) forget: i64,
}

impl Ledger {
    /// Opens the file in this directory, or begins it, and tells what still counts.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Vec<Remembered>)> {
        let path = directory.join("used-tokens");
        let boot = fs::read_to_string(BOOT)?.trim().to_owned();
        let (written, remembered) = compact(&path, &boot)?;
        Ok((Self { path, boot, file: Mutex::new(written) }, remembered))
    }

    /// Keeps a tree's uses of tokens, each until its time, durably. What is kept already isn't written again. Blocks.
    pub(crate) fn keep(&self, used: &[Spent], tree: Tree) -> io::Result<()> {
        let mut written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |(token, forget): &&Spent| {
            written.uses.get(&(*token, tree.root)).is_none_or(|kept| kept < forget)
        };
        let new: Vec<_> = used.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        if written.lines >= MOST_LINES {
            *written = compact(&self.path, &self.boot)?.0;
        }
        let mut text = Vec::new();
        for (token, forget) in &new {
            text.extend(line(&self.used(*token, tree, *forget))?);
        }
        written.file.write_all(&text)?;
        written.file.sync_data()?;
        written.lines += new.len();
        written.uses.extend(new.into_iter().map(|(token, forget)| ((token, tree.root), forget)));
        Ok(())
    }

    /// Whether it is kept that this tree used a token.
    pub(crate) fn knows(&self, token: TokenKey, root: ProcessId) -> bool {
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        written.uses.contains_key(&(token, root))
    }

    fn used(&self, token: TokenKey, Tree { root, parent, uid }: Tree, forget: i64) -> Used {
        let plain = |id: ProcessId| (id.pid, id.started);
        let (token, boot) = (token.to_hex(), self.boot.clone());
        Used { token, boot, root: plain(root), parent: parent.map(plain), uid, forget }
    }
}

impl Used {
    fn remembered(&self, boot: &str) -> Option<Remembered> {
        let id = |(pid, started): (u32, u64)| ProcessId { pid, started };
        let tree = || Tree { root: id(self.root), parent: self.parent.map(id), uid: self.uid };
        Some(Remembered {
            token: TokenKey::from_hex(&self.token)?,
            tree: (self.boot == boot).then(tree),
            forget: self.forget,
        })
    }
}

/// Writes the file anew with what still counts, and tells that.
fn compact(path: &Path, boot: &str) -> io::Result<(Written, Vec<Remembered>)> {
    let used = read(path)?;
    let remembered: Vec<_> = used.iter().filter_map(|used| used.remembered(boot)).collect();
    let here = remembered.iter().filter_map(|used| Some(((used.token, used.tree?.root), used.forget)));
    let written = Written { file: begin(path, &used)?, lines: used.len(), uses: here.collect() };
    Ok((written, remembered))
}

/// What still counts: of each token the last use, which is what the next start goes by. A line that was cut off by the
/// machine's end never counted.
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
    let mut seen = HashSet::new();
    let mut last: Vec<Used> = used.into_iter().rev().filter(|one| seen.insert(one.token.clone())).collect();
    last.reverse();
    Ok(last)
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
    const TREE: Tree = Tree { root: ROOT, parent: Some(ROOT), uid: Some(1) };

    fn lines(directory: &Path) -> usize {
        fs::read_to_string(directory.join("used-tokens")).unwrap().lines().count()
    }

    fn token(number: u8) -> TokenKey {
        TokenKey::of(&[number])
    }

    #[test]
    fn a_use_is_remembered_until_it_may_be_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger.keep(&[(token(1), now() + 60), (token(2), now())], TREE).unwrap();
        drop(ledger);
        let (_, remembered) = Ledger::open(directory.path()).unwrap();
        let told: Vec<_> = remembered.iter().map(|used| (used.token, used.tree)).collect();
        assert_eq!(told, [(token(1), Some(TREE))]);
        let mode = fs::metadata(directory.path().join("used-tokens")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_use_that_is_repeated_is_written_once_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let used = [(token(1), now() + 60)];
        for _ in 0..2 {
            let (ledger, _) = Ledger::open(directory.path()).unwrap();
            for _ in 0..200 {
                ledger.keep(&used, TREE).unwrap();
            }
        }
        assert_eq!(lines(directory.path()), 1);
    }

    #[test]
    fn a_use_that_is_to_be_remembered_longer_is() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let later = now() + 120;
        ledger.keep(&[(token(1), now() + 60)], TREE).unwrap();
        ledger.keep(&[(token(1), later)], TREE).unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().1[0].forget, later);
    }

    #[test]
    fn of_a_token_s_uses_the_last_is_left_when_the_file_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let next = Tree { root: ProcessId { pid: 8, started: 80 }, ..TREE };
        for (number, tree) in [(1, TREE), (2, TREE), (1, next)] {
            ledger.keep(&[(token(number), now() + 60)], tree).unwrap();
        }
        let (_, remembered) = Ledger::open(directory.path()).unwrap();
        let told: Vec<_> = remembered.iter().map(|used| (used.token, used.tree)).collect();
        assert_eq!(told, [(token(2), Some(TREE)), (token(1), Some(next))]);
        assert_eq!(lines(directory.path()), 2);
    }

    #[test]
    fn processes_of_an_earlier_boot_are_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let ledger = Ledger { boot: "before".into(), ..ledger };
        ledger.keep(&[(token(1), now() + 60)], TREE).unwrap();
        let (_, remembered) = Ledger::open(directory.path()).unwrap();
        assert_eq!(remembered[0].tree, None);
    }

    #[test]
    fn a_line_that_was_cut_off_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger.keep(&[(token(1), now() + 60)], TREE).unwrap();
        let path = directory.path().join("used-tokens");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"token\":\"00");
        fs::write(&path, text).unwrap();
        let (ledger, remembered) = Ledger::open(directory.path()).unwrap();
        assert_eq!(remembered.len(), 1);
        ledger.keep(&[(token(2), now() + 60)], TREE).unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().1.len(), 2);
    }
}
