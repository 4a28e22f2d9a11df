//! HTTP/1.1 on the client's side: bytes in, heads and bodies out (RFC 9112). Pure.
//!
//! Stricter than the RFC allows a server to be: what another server might read differently is an error.

mod body;
mod head;
mod write;

pub(crate) use body::{Decoded, Decoder};
pub(crate) use head::{Framing, Head, HeadReader, MOST_FIELDS, content_length};
pub(crate) use write::{Length, chunk, last_chunk, response_head};

use thiserror::Error;

/// A client's bytes that are no HTTP/1.1, or that another server might read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// Not to be understood; the text says what.
    #[error("{0}")]
    Malformed(&'static str),
    /// A head larger than is read.
    #[error("the head is larger than {} KiB, or has more than {} fields", head::LARGEST / 1024, head::MOST_FIELDS)]
    TooLarge,
    /// It is the beginning of HTTP/2.
    #[error("it begins as HTTP/2, which is not spoken here")]
    Preface,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
}

impl WireError {
    /// The status to answer with.
    pub(crate) fn status(self) -> http::StatusCode {
        match self {
            Self::Malformed(_) => http::StatusCode::BAD_REQUEST,
            Self::TooLarge => http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version | Self::Preface => http::StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}
