//! What can go wrong with the store, and who can mend it.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the store, or something in it, could not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system refused: full, read-only, gone, not ours.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process keeps its records here.
    #[error("{} is in use by another agent; two agents cannot share a record directory", .0.display())]
    Locked(PathBuf),
    /// What is there contradicts itself. Nothing is signed on top of it.
    #[error("{}: {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The index failed. The records are not concerned; it can be removed and is then made anew.
    #[error("the index of sessions: {0}")]
    Index(#[from] rusqlite::Error),
    /// No session has this id, or an id that begins like this.
    #[error("no session {0:?}")]
    Unknown(String),
    /// Several sessions' ids begin like this.
    #[error("several sessions begin with {0:?}; give more of the id")]
    Ambiguous(String),
    /// A key or checkpoint that was given is not one.
    #[error("not a {what}: {why}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// Where it differs.
        why: String,
    },
    /// The library of cryptography failed.
    #[error("the cryptographic library failed to {0}")]
    Crypto(&'static str),
}

/// Names the path in an I/O error.
pub(crate) trait At<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { path: path.into(), source })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, StoreError> {
        self.map_err(io::Error::from).at(path)
    }
}
