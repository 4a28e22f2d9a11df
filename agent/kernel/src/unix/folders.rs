//! Whose the folders on the way to a Unix socket are: whoever may change one chooses what is found there.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const ROOT: u32 = 0;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Nobody but its owner removes or renames what lies in such a folder.
const STICKY: u32 = 0o1000;

/// Who may change what a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Folders {
    /// Root, and whoever the socket belongs to.
    Roots,
    /// The same; but everybody may write to a folder on the way, which in other mounts may be another.
    Shared,
    /// Somebody else. Says who.
    Others(String),
}

/// Whose a path's folders are now, those behind links included.
pub(super) fn of(path: &Path) -> Folders {
    let owners = match fs::metadata(path) {
        Ok(socket) => Owners { user: socket.uid(), group: socket.gid() },
        Err(_) => Owners { user: ROOT, group: ROOT },
    };
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let ways = [path.to_owned(), real];
    let judged = ways.iter().try_fold(Folders::Roots, |worst, way| {
        owners.judge(way).map(|found| if found == Folders::Shared { found } else { worst })
    });
    judged.unwrap_or_else(Folders::Others)
}

/// Who may change folders beside root: the socket's own user and group, who answer there.
struct Owners {
    user: u32,
    group: u32,
}

impl Owners {
    /// The answer is never [`Folders::Others`]: that is the error.
    fn judge(&self, path: &Path) -> Result<Folders, String> {
        let mut folders: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        folders.reverse();
        folders.push(path.to_owned());
        let (mut found, mut inside_shared) = (Folders::Roots, false);
        for part in folders {
            let metadata = match fs::symlink_metadata(&part) {
                Ok(metadata) => metadata,
                // What isn't there yet, only those can make who may write to the folder around it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !inside_shared => break,
                Err(error) => return Err(format!("{}: {error}", part.display())),
            };
            self.accept(&part, &metadata)?;
            inside_shared = metadata.is_dir() && metadata.mode() & OTHERS_WRITE != 0;
            if inside_shared {
                found = Folders::Shared;
            }
        }
        Ok(found)
    }

    fn accept(&self, part: &Path, metadata: &Metadata) -> Result<(), String> {
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if owner != ROOT && owner != self.user {
            return Err(format!("{} belongs to user {owner}", part.display()));
        }
        if !metadata.is_dir() || mode & STICKY != 0 {
            return Ok(());
        }
        if mode & OTHERS_WRITE != 0 {
            return Err(format!("everybody may write to {}", part.display()));
        }
        if mode & GROUP_WRITES != 0 && metadata.gid() != ROOT && metadata.gid() != self.group {
            return Err(format!("group {} may write to {}", metadata.gid(), part.display()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_everybody_may_write_to_is_others() {
        let folder = tempfile::tempdir_in("/run").unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert_eq!(of(&inner.join("socket")), Folders::Roots);
        set_mode(&inner, 0o777);
        assert!(matches!(of(&inner.join("socket")), Folders::Others(_)));
    }

    #[test]
    fn what_lies_in_a_sticky_folder_must_be_there_already() {
        let folder = tempfile::tempdir_in("/run").unwrap();
        set_mode(folder.path(), 0o1777);
        let socket = folder.path().join("socket");
        assert!(matches!(of(&socket), Folders::Others(_)));
        fs::write(&socket, "").unwrap();
        assert_eq!(of(&socket), Folders::Shared);
    }

    #[test]
    fn a_link_into_somebody_elses_folder_leads_there() {
        let folder = tempfile::tempdir_in("/run").unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::write(open.join("socket"), "").unwrap();
        set_mode(&open, 0o777);
        symlink(open.join("socket"), folder.path().join("link")).unwrap();
        assert!(matches!(of(&folder.path().join("link")), Folders::Others(_)));
    }
}
