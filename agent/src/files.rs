//! The agent's own files and directories: made with exact modes, written whole or not at all.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::{fcntl::OFlag, unistd::Uid};
use zeroize::Zeroizing;

/// Makes the directory with this mode if it is missing. One that exists keeps its mode, but must be ours alone to write.
pub(crate) fn directory(path: &Path, mode: u32) -> io::Result<()> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    check_directory(path)
}

/// Whether a directory's entries can be trusted: it belongs to root or to us, and nobody else may write to it.
pub(crate) fn check_directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        check_unwritable(path)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// Whether a file or directory belongs to root or to us, and nobody else may write to it.
pub(crate) fn check_unwritable(path: &Path) -> io::Result<()> {
    trusted(&fs::metadata(path)?, 0o022).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Writes a file that appears whole, with this mode, or not at all; it replaces one of that name.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
    file.write_all(contents)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

/// Reads a regular file of at most `limit` bytes that belongs to root or to us, is no symbolic link and grants others
/// none of the mode bits in `forbidden`. The buffer is wiped when dropped.
pub(crate) fn read_trusted(path: &Path, limit: usize, forbidden: u32) -> io::Result<Zeroizing<Vec<u8>>> {
    let refuse = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    // Without O_NONBLOCK a FIFO would stop the agent here.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(code) if code == nix::Error::ELOOP as i32 => refuse("it is a symbolic link".into()),
            _ => error,
        }
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    trusted(&metadata, forbidden).map_err(refuse)?;
    // Room for one byte more: the buffer never grows, which would leave a copy behind.
    let expected = usize::try_from(metadata.len()).map_or(limit, |length| length.min(limit));
    let mut contents = Zeroizing::new(Vec::with_capacity(expected.saturating_add(1)));
    file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut contents)?;
    if contents.len() > limit {
        return Err(refuse(format!("it is longer than {limit} bytes")));
    }
    Ok(contents)
}

/// Whether the owner is root or us and others have none of the mode bits in `forbidden`.
fn trusted(metadata: &fs::Metadata, forbidden: u32) -> Result<(), String> {
    let (owner, us) = (metadata.uid(), Uid::effective().as_raw());
    if owner != 0 && owner != us {
        return Err(format!("it belongs to uid {owner}, not to root: chown root"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(format!("its mode is {mode:04o}: others must not have that access, chmod go-rwx"));
    }
    Ok(())
}
