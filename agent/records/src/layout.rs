//! What lies where below the store's directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::{
    error::{At, StoreError},
    session_id,
};

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directories, for their owner only.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        for directory in [self.root.clone(), self.sessions(), self.log()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).at(&directory)?;
            std::fs::set_permissions(&directory, Permissions::from_mode(0o700)).at(&directory)?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    /// The record of a session; none if this is not a session's id.
    pub(crate) fn record(&self, session: &str) -> Option<PathBuf> {
        session_id::record_path(session).map(|path| self.sessions().join(path))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn leaves(&self) -> PathBuf {
        self.log().join("leaves")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.log().join("checkpoint")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.log().join("key")
    }

    pub(crate) fn public_key(&self) -> PathBuf {
        self.log().join("key.pub")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Takes the store for this process, for as long as the file is open.
    pub(crate) fn lock(&self) -> Result<File, StoreError> {
        let path = self.lock_file();
        let file = private().create(true).truncate(false).open(&path).at(&path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => Ok(file),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(StoreError::Locked(self.root.clone())),
            Err(error) => Err(error).at(path),
        }
    }

    /// Whether an agent is writing here now.
    pub(crate) fn is_live(&self) -> bool {
        let mut lock = whole_file();
        File::open(self.lock_file()).is_ok_and(|file| {
            fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != UNLOCKED
        })
    }
}

/// Options for a file that only its owner may read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Replaces a file so that a reader sees the old text or the new, whole. `sync`: also after a loss of power.
pub(crate) fn replace(path: &Path, text: &[u8], sync: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = private().create(true).truncate(true).open(&new)?;
    file.write_all(text)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) if sync => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

const UNLOCKED: libc::c_short = libc::F_UNLCK as libc::c_short;

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
