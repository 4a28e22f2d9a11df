//! What the kernel says of one connection.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use thiserror::Error;
use tidegate_policy::{Principal, Process};

use crate::{BoxFuture, Stream};

/// What the kernel says of one connection.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where the client meant to connect; if that was a Unix socket, where its server is.
    pub destination: SocketAddr,
    /// That Unix socket.
    pub socket: Option<UnixSocket>,
    /// The process and its label.
    pub principal: Principal,
}

/// A Unix socket that a client meant to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its path.
    pub path: PathBuf,
    /// The resource that it is.
    pub resource: Arc<str>,
}

/// An accepted connection, and who made it.
pub struct Arrival {
    /// What is known at once.
    pub origin: Origin,
    /// The digest of the process' executable, where that isn't known yet. To be waited for when the connection is counted: it
    /// takes as long as whoever made the executable likes. None if it can't be told.
    pub digest: Option<BoxFuture<'static, Option<Arc<str>>>>,
    /// What its account is called, where that isn't known yet. To be waited for likewise: a name service may be slow.
    pub name: Option<BoxFuture<'static, AccountName>>,
}

/// What an account is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountName {
    /// This.
    Is(Arc<str>),
    /// The host knows no such account.
    None,
    /// It could not be told, or not in time.
    Untold,
}

impl AccountName {
    /// Says so of a process of that account.
    pub fn tell(self, process: &mut Process) {
        process.nameless = self == Self::None;
        process.user = if let Self::Is(name) = self { Some(name) } else { None };
    }
}

/// Where origins come from.
pub trait Origins: Send + Sync {
    /// The origin of an accepted connection; each can be asked for once.
    fn origin<'a>(&'a self, connection: &'a Stream) -> BoxFuture<'a, Result<Arrival, OriginError>>;
}

/// Why a connection has no origin. It is refused.
#[derive(Debug, Error)]
pub enum OriginError {
    /// The kernel redirected no such connection: it was made to the listener directly.
    #[error("no governed process made this connection")]
    Unknown,
    /// The kernel could not be asked.
    #[error("the kernel's hand-off could not be read: {0}")]
    Kernel(String),
}
