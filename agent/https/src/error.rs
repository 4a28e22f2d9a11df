//! Why something could not be fetched or sent.

use thiserror::Error;

use crate::AuthoritiesError;

/// Why there is no answer. The text names no URL, which may hold what is nobody's business.
#[derive(Debug, Error)]
pub enum HttpsError {
    /// Nobody to trust.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// Nothing can be sent at all.
    #[error("HTTPS can't be set up: {0}")]
    SetUp(String),
    /// The bearer token can't stand in a request.
    #[error("the request token is no header's text")]
    Token,
    /// There is no connection to the server: the system's words.
    #[error("{0}")]
    NotReached(String),
    /// The server is not whom it is taken for, or speaks no TLS that can be agreed on.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("{0}")]
    Broken(String),
    /// The server took too long.
    #[error("no answer in time")]
    TimedOut,
    /// More bytes than are read.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl HttpsError {
    /// The innermost cause says most.
    pub(crate) fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let mut cause: &(dyn std::error::Error + 'static) = &error;
        loop {
            if let Some(error) = tls(cause) {
                return Self::Tls(error.clone());
            }
            match cause.source() {
                Some(source) => cause = source,
                None if error.is_connect() => return Self::NotReached(cause.to_string()),
                None => return Self::Broken(cause.to_string()),
            }
        }
    }
}

/// What TLS says stands inside of `io::Error`s, which do not give it for their source.
fn tls<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let inside = || tls(error.downcast_ref::<std::io::Error>()?.get_ref()?);
    error.downcast_ref().or_else(inside)
}
