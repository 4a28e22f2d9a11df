//! Why the agent does not start or a command fails. Each variant names the stage that failed.

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

use crate::{authority::AuthorityError, bundle::BundleError, config::ConfigError};

/// Why the agent does not start, or stopped.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The configuration.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The bundle.
    #[error("bundle: {0}")]
    Bundle(#[from] BundleError),
    /// The host's own authority.
    #[error("certificate authority: {0}")]
    Authority(#[from] AuthorityError),
    /// The log.
    #[error("log: {0}")]
    Log(String),
    /// Not root.
    #[error("the agent must run as root: it loads kernel programs and holds credentials")]
    NotRoot,
    /// The process could not be made safe.
    #[error("hardening: {what}: {errno}")]
    Hardening {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        errno: nix::Error,
    },
    /// The process could not be confined to what it needs.
    #[error("confinement: {what}: {problem}")]
    Confinement {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        problem: String,
    },
    /// A file or directory of the agent's own.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key of masking tokens is not one.
    #[error("{}: not a key of 32 bytes; restore it, or remove it and accept that tokens change", .0.display())]
    TokenKey(PathBuf),
    /// Credentials that resources need; all of them.
    #[error("credentials:\n{}", .0.join("\n"))]
    Credentials(Vec<String>),
    /// The record store.
    #[error("records: {0}")]
    Records(String),
    /// Where people are asked.
    #[error("approvals: {0}")]
    Approvals(String),
    /// A listener.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The kernel side.
    #[error("kernel: {0}")]
    Kernel(String),
    /// What this host lacks, without which nothing is enforced.
    #[error("this host can't enforce what the agent is for:\n{}", .0.join("\n"))]
    Unenforceable(Vec<String>),
    /// Another agent answers on the admin socket.
    #[error("another agent is running: it answers on {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// The runtime.
    #[error("runtime: {0}")]
    Runtime(io::Error),
}

impl Error {
    /// For `map_err` on operations on the agent's own files.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }

    /// One text for each thing that is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Bundle(error) => error.problems(),
            Self::Credentials(problems) | Self::Unenforceable(problems) => problems.clone(),
            other => vec![other.to_string()],
        }
    }
}
