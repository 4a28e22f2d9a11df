//! SHA-256 of executables, remembered while the file stays the same.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

/// Larger executables are not hashed.
const MAX_BYTES: u64 = 256 << 20;
/// Executables that are remembered; when there are more, some are forgotten, whosever they are.
const MAX_REMEMBERED: usize = 4_096;
/// Of so many remembered one is forgotten then.
const FORGOTTEN: usize = 8;
const CHUNK: usize = 64 * 1024;
/// How long ago a file must have changed for the next change to show: file systems count time in steps (kernels in up to
/// 10 ms, FAT in 2 s).
const SETTLED: Duration = Duration::from_secs(3);

/// What changes when a settled file's content does: the change time can't be set back by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What is known of a file without asking whoever keeps it, which may never answer.
#[derive(Debug)]
pub(crate) struct Remembered {
    version: Version,
    /// Id of the mount that it was found by, where that is on no block device: there a process may make the content up.
    pub(crate) mount: Option<u64>,
}

impl Remembered {
    /// Of an open file, also one that was opened for its path alone (`O_PATH`).
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let asked = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let found = statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, asked)?;
        let version = Version {
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            size: found.stx_size,
            modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into()),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec.into()),
        };
        Ok(Self { version, mount: (found.stx_dev_major == 0).then_some(found.stx_mnt_id) })
    }
}

impl Version {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Whether the file's next change will have another time than the last one.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.changed;
        let changed = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        changed.is_some_and(|(seconds, nanoseconds)| {
            now.checked_sub(Duration::new(seconds, nanoseconds)).is_some_and(|since| since > SETTLED)
        })
    }
}

/// Digests of the executables seen so far.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<Version, Arc<str>>>);

/// An executable whose digest is not known yet.
#[derive(Debug)]
pub struct Unread {
    file: File,
    version: Version,
    settled: bool,
}

impl Unread {
    /// What others that are the same file would have, too; none if it changed just now and might again without that showing.
    pub fn version(&self) -> Option<Version> {
        self.settled.then_some(self.version)
    }

    /// Its length, in bytes.
    pub fn size(&self) -> u64 {
        self.version.size
    }
}

/// What is known of a file's digest.
#[derive(Debug)]
pub(crate) enum Known {
    /// It; none of a file that is too large.
    Digest(Option<Arc<str>>),
    /// It must be read.
    Unread(Unread),
}

impl Digests {
    /// What is known of a file that was opened, at least for its path.
    pub(crate) fn known(&self, file: File, Remembered { version, .. }: Remembered) -> Known {
        if let Some(known) = self.lock().get(&version) {
            return Known::Digest(Some(Arc::clone(known)));
        }
        if version.size > MAX_BYTES {
            Known::Digest(None)
        } else {
            Known::Unread(Unread { file, version, settled: version.is_settled() })
        }
    }

    /// SHA-256 in lower-case hex, unless somebody has read it meanwhile; none if the file changes while it is read.
    pub(crate) fn read(&self, Unread { file, version, settled }: Unread) -> io::Result<Option<Arc<str>>> {
        if let Some(known) = self.lock().get(&version) {
            return Ok(Some(Arc::clone(known)));
        }
        // What was opened for its path is now opened to be read, which may take as long as reading it.
        let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK];
        // Somebody may make it longer all the while.
        let mut content = (&file).take(version.size);
        loop {
            match content.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => context.update(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if Version::of(&file.metadata()?) != version {
            return Ok(None);
        }
        let digest: Arc<str> = hex::encode(context.finish()).into();
        if !settled {
            return Ok(Some(digest));
        }
        let mut known = self.lock();
        if known.len() >= MAX_REMEMBERED {
            // The map's order is nobody's to choose: whoever runs many programs makes few of the others' be read again.
            let mut number = 0;
            known.retain(|_, _| {
                number += 1;
                number % FORGOTTEN != 0
            });
        }
        known.insert(version, Arc::clone(&digest));
        Ok(Some(digest))
    }

    /// A panic elsewhere leaves a map of true digests.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Version, Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn known(digests: &Digests, file: &File) -> Known {
        digests.known(file.try_clone().unwrap(), Remembered::of(file).unwrap())
    }

    fn digest(digests: &Digests, file: &File) -> Option<Arc<str>> {
        match known(digests, file) {
            Known::Digest(digest) => digest,
            Known::Unread(unread) => digests.read(unread).unwrap(),
        }
    }

    #[test]
    fn a_changed_file_gets_a_new_digest() {
        let digests = Digests::default();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let again = || digest(&digests, &File::open(file.path()).unwrap()).unwrap();
        assert_eq!(&*again(), EMPTY);
        assert_eq!(&*again(), EMPTY);
        file.write_all(b"abc").unwrap();
        assert_eq!(&*digest(&digests, &File::open(file.path()).unwrap()).unwrap(), ABC);
    }

    #[test]
    fn a_file_that_is_changed_at_once_is_not_taken_for_what_it_was() {
        // Of the same size, and within one step of the kernel's clock: nothing but the content tells.
        let (digests, mut file) = (Digests::default(), tempfile::NamedTempFile::new().unwrap());
        file.write_all(b"xyz").unwrap();
        assert_ne!(&*digest(&digests, &File::open(file.path()).unwrap()).unwrap(), ABC);
        file.as_file().write_all_at(b"abc", 0).unwrap();
        assert_eq!(&*digest(&digests, &File::open(file.path()).unwrap()).unwrap(), ABC);
    }

    #[test]
    fn a_file_is_told_and_read_that_was_opened_for_its_path_alone() {
        let path = std::env::current_exe().unwrap();
        let by_path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(Remembered::of(&by_path).unwrap().version, Version::of(&file.metadata().unwrap()));
        let digests = Digests::default();
        assert_eq!(digest(&digests, &by_path), digest(&Digests::default(), &file));
    }

    #[test]
    fn only_a_file_that_has_settled_is_remembered() {
        let old = File::open(std::env::current_exe().unwrap()).unwrap();
        let mut version = Version::of(&old.metadata().unwrap());
        version.changed = (1, 0);
        assert!(version.is_settled());
        version.changed = (i64::MAX, 0);
        assert!(!version.is_settled(), "nobody knows when it will be");
    }

    #[test]
    fn a_known_file_is_not_read_again() {
        let digests = Digests::default();
        let file = File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        let Known::Unread(unread) = known(&digests, &file) else { panic!("it is known") };
        digests.lock().insert(unread.version, "remembered".into());
        assert_eq!(&*digests.read(unread).unwrap().unwrap(), "remembered", "whoever waited reads it again");
        assert!(matches!(known(&digests, &file), Known::Digest(Some(known)) if &*known == "remembered"));
    }

    #[test]
    fn who_runs_many_programs_makes_few_of_the_others_be_read_again() {
        let (digests, file) = (Digests::default(), File::open(std::env::current_exe().unwrap()).unwrap());
        let Known::Unread(unread) = known(&digests, &file) else { panic!("it is known") };
        let numbered = |inode| Version { inode, ..unread.version };
        digests.lock().extend((0..4_096).map(|inode| (numbered(inode), "known".into())));
        digests.read(Unread { settled: true, ..unread }).unwrap();
        let left = digests.lock().len();
        assert!((3_000..4_096).contains(&left), "{left}");
    }

    #[test]
    fn a_file_that_is_too_large_has_no_digest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(digest(&Digests::default(), file.as_file()), None);
    }
}
