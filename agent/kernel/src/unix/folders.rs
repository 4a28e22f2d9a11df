//! Whose the folders on the way to a Unix socket are: whoever may change one chooses what is found there.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{FUSE_SUPER_MAGIC, PROC_SUPER_MAGIC, statfs};

use super::accounts::Accounts;

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Links that the kernel follows on one way (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Further entries of a file's access list (acl(5)). Its mask is the mode's group bits.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// The way that a path leads, as it is now.
#[derive(Debug)]
pub(super) struct Way {
    /// The folders on it, those behind links included. What lies in the last of them need not be there yet.
    folders: Vec<PathBuf>,
    /// What is at its end, by the name that no link is needed for.
    pub(super) real: PathBuf,
    /// The socket there: its device and inode.
    pub(super) socket: Option<(u64, u64)>,
}

/// The files of the host as its first process sees them: nobody else's mounts count.
#[derive(Debug, Clone)]
pub(crate) struct Host(PathBuf);

impl Host {
    /// As this process sees them, if those are the first process's mounts too, or by that one's root directory, for which
    /// `CAP_SYS_PTRACE` is needed.
    pub(super) fn new(own: bool) -> Self {
        Self(if own { "/" } else { "/proc/1/root" }.into())
    }

    /// Goes the way of an absolute path, as the kernel would: link by link, and as far as there is one.
    ///
    /// # Errors
    ///
    /// There are too many links, or something on it is no folder.
    pub(super) fn follow(&self, path: &Path) -> io::Result<Way> {
        let root = PathBuf::from("/");
        let mut way = Way { folders: vec![root.clone()], real: root, socket: None };
        let mut ahead: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                way.real.pop();
                continue;
            }
            let next = way.real.join(name);
            let found = match fs::symlink_metadata(self.place(&next)) {
                Ok(found) => found,
                // What isn't there yet only those can make who may write to the folder around it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    way.real = ahead.into_iter().fold(next, |real, name| real.join(name));
                    break;
                }
                Err(error) => return Err(error),
            };
            if found.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = fs::read_link(self.place(&next))?;
                if target.is_absolute() {
                    way.real = "/".into();
                }
                names(&target).rev().for_each(|name| ahead.push_front(name));
                continue;
            }
            way.real = next;
            if found.is_dir() {
                way.folders.push(way.real.clone());
            } else if !ahead.is_empty() {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            } else if found.file_type().is_socket() {
                way.socket = Some((found.dev(), found.ino()));
            }
        }
        Ok(way)
    }

    /// Whether nobody governed may change what a way leads to.
    ///
    /// # Errors
    ///
    /// Somebody may, or that can't be told. Says who, and where.
    pub(super) fn judge(&self, way: &Way, accounts: &Accounts<'_>) -> Result<(), String> {
        way.folders.iter().try_for_each(|folder| {
            self.accept(folder, accounts).map_err(|why| format!("{}: {why}", folder.display()))
        })
    }

    fn accept(&self, folder: &Path, accounts: &Accounts<'_>) -> Result<(), String> {
        let place = self.place(folder);
        let metadata = fs::symlink_metadata(&place).map_err(|error| error.to_string())?;
        // What these show is each process's own, or whoever serves it.
        let kind = statfs(&place).map_err(|errno| errno.to_string())?.filesystem_type();
        if [PROC_SUPER_MAGIC, FUSE_SUPER_MAGIC].contains(&kind) {
            return Err("its filesystem shows others something else".to_owned());
        }
        accounts.may_own(metadata.uid())?;
        writers(&place, &metadata, accounts)
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Who beside its owner may write to a folder. That only owners remove what lies in it (the sticky bit) doesn't help: who made
/// the socket that is there now need not be who makes the next.
fn writers(place: &Path, metadata: &Metadata, accounts: &Accounts<'_>) -> Result<(), String> {
    let mode = metadata.mode();
    if mode & OTHERS_WRITE != 0 {
        return Err("everybody may write to it".to_owned());
    }
    if mode & GROUP_WRITES == 0 {
        return Ok(());
    }
    if has_access_list(place)? {
        return Err("its access list lets further accounts write to it".to_owned());
    }
    accounts.may_write(metadata.gid())
}

fn has_access_list(place: &Path) -> Result<bool, String> {
    match rustix::fs::lgetxattr_query(place, ACCESS_LIST) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(format!("its access list can't be read: {error}")),
    }
}

/// The names in a path, `..` among them.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn follow(path: &Path) -> Way {
        Host::new(true).follow(path).unwrap()
    }

    fn folders(way: &Way, within: &Path) -> Vec<String> {
        let inner = way.folders.iter().filter_map(|folder| folder.strip_prefix(within).ok());
        inner.map(|folder| folder.display().to_string()).collect()
    }

    /// The path of a directory of this test's own, without links.
    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        (directory, path)
    }

    #[test]
    fn every_folder_behind_every_link_is_on_the_way() {
        let (_directory, at) = directory();
        for folder in ["one", "middle", "end"] {
            fs::create_dir(at.join(folder)).unwrap();
        }
        symlink(at.join("middle/link"), at.join("one/link")).unwrap();
        symlink("../end", at.join("middle/link")).unwrap();
        let _socket = UnixListener::bind(at.join("end/socket")).unwrap();
        let way = follow(&at.join("one/link/socket"));
        assert_eq!(folders(&way, &at), ["", "one", "", "middle", "end"].map(str::to_owned).as_ref());
        assert_eq!(way.real, at.join("end/socket"));
        assert_eq!(way.socket, follow(&at.join("end/socket")).socket);
    }

    #[test]
    fn links_are_followed_on_the_way_to_what_is_not_there_yet() {
        let (_directory, at) = directory();
        fs::create_dir(at.join("home")).unwrap();
        symlink(at.join("home"), at.join("app")).unwrap();
        let way = follow(&at.join("app/later/socket"));
        assert_eq!(way.folders.last(), Some(&at.join("home")));
        assert_eq!((way.real, way.socket), (at.join("home/later/socket"), None));
    }

    #[test]
    fn links_without_end_are_an_error_and_so_is_a_file_on_the_way() {
        let (_directory, at) = directory();
        symlink(at.join("two"), at.join("one")).unwrap();
        symlink(at.join("one"), at.join("two")).unwrap();
        fs::write(at.join("file"), "").unwrap();
        let error = |path: &str| Host::new(true).follow(&at.join(path)).unwrap_err().raw_os_error();
        assert_eq!((error("one/socket"), error("file/socket")), (Some(libc::ELOOP), Some(libc::ENOTDIR)));
    }
}
