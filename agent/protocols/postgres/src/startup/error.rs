//! Why no session came of a connection.

use std::io;

use thiserror::Error;
use tidegate_gate::ServeError;

use crate::wire::WireError;

/// Why no session came of a connection: always the client's doing. The texts that reach the client are the server's.
#[derive(Debug, Error)]
pub(crate) enum StartupError {
    /// It closed without a byte, as port scanners and health checks do.
    #[error("the client closed the connection without a word")]
    Probe,
    /// It closed in the middle of start-up.
    #[error("the client went away in the middle of start-up")]
    Gone,
    /// The connection failed.
    #[error("the connection failed during start-up: {0}")]
    Io(#[source] io::Error),
    /// It took too long.
    #[error("the client took longer than 60 s to start up")]
    TimeLimit,
    /// The TLS handshake failed.
    #[error("the TLS handshake with the client failed: {0}")]
    Tls(#[source] io::Error),
    /// TLS without a request for it must name the protocol.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// A packet can't be understood.
    #[error("invalid startup packet: {0}")]
    Wire(WireError),
    /// A version that isn't spoken, or a request that came twice.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// It didn't say who it is.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A name that the server would cut.
    #[error("the {0} name is longer than 63 bytes")]
    LongName(&'static str),
}

impl StartupError {
    /// The SQLSTATE that a client reads.
    pub(super) fn sqlstate(&self) -> &'static str {
        match self {
            Self::Version { .. } => "0A000",
            Self::NoUser => "28000",
            Self::LongName(_) => "42622",
            Self::Wire(WireError::NotUtf8) => "22021",
            _ => "08P01",
        }
    }
}

impl From<io::Error> for StartupError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

impl From<StartupError> for ServeError {
    fn from(error: StartupError) -> Self {
        Self::Client(error.to_string())
    }
}
