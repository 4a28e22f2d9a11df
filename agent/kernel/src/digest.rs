//! SHA-256 of executables, remembered while the file stays the same.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

/// Larger executables are not hashed.
const MAX_BYTES: u64 = 1 << 30;
/// Executables that are remembered; when there are more, all are forgotten.
const MAX_REMEMBERED: usize = 4_096;
const CHUNK: usize = 64 * 1024;

/// What changes when a file's content does: the change time can't be set back by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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
}

/// Digests of the executables seen so far.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<Version, Arc<str>>>);

impl Digests {
    /// SHA-256 of an open file, lower-case hex; none if it is too large or changed while it was read.
    pub(crate) fn sha256(&self, file: &mut File) -> io::Result<Option<Arc<str>>> {
        let version = Version::of(&file.metadata()?);
        if let Some(known) = self.lock().get(&version) {
            return Ok(Some(Arc::clone(known)));
        }
        if version.size > MAX_BYTES {
            return Ok(None);
        }
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
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
        let mut known = self.lock();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
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
    use std::io::Write as _;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_changed_file_gets_a_new_digest() {
        let digests = Digests::default();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let again = || digests.sha256(&mut File::open(file.path()).unwrap()).unwrap().unwrap();
        assert_eq!(&*again(), EMPTY);
        assert_eq!(&*again(), EMPTY);
        file.write_all(b"abc").unwrap();
        let changed = digests.sha256(&mut File::open(file.path()).unwrap()).unwrap().unwrap();
        assert_eq!(&*changed, ABC);
    }

    #[test]
    fn a_known_file_is_not_read_again() {
        let digests = Digests::default();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut open = File::open(file.path()).unwrap();
        let version = Version::of(&open.metadata().unwrap());
        digests.lock().insert(version, "remembered".into());
        assert_eq!(&*digests.sha256(&mut open).unwrap().unwrap(), "remembered");
    }

    #[test]
    fn a_file_that_is_too_large_has_no_digest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_BYTES + 1).unwrap();
        let digests = Digests::default();
        assert_eq!(digests.sha256(&mut File::open(file.path()).unwrap()).unwrap(), None);
    }
}
