//! Why signing in failed.

use std::{io, time::Duration};

use thiserror::Error;
use tidegate_gate::{ServeError, policy::Resource};

use crate::wire::{ErrorFields, WireError, fields::code};

/// Why signing in failed. Never carries any part of the credential.
#[derive(Debug, Error)]
pub(crate) enum SignInError {
    /// The connection failed.
    #[error("the connection failed during sign-in: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection during sign-in")]
    Closed,
    /// The server was too slow.
    #[error("the server took longer than the connect timeout of {0:?} to sign in")]
    TimeLimit(Duration),
    /// The resource asks for TLS, and the server has none.
    #[error("the server does not offer TLS, which the resource asks for")]
    TlsNotOffered,
    /// The TLS handshake failed; a certificate that isn't trusted is named in the text.
    #[error("the TLS handshake with the server failed: {0}")]
    Tls(#[source] io::Error),
    /// The server broke the protocol.
    #[error("the server broke the protocol: it sent {0}")]
    Protocol(String),
    /// A message of the server can't be understood.
    #[error("the server broke the protocol: {0}")]
    Wire(#[from] WireError),
    /// The server asks for the password in clear on a connection in clear.
    #[error(
        "the server asks for the password in clear, and the connection is not encrypted: set tls to require or more"
    )]
    CleartextPassword,
    /// The server asks for a way to authenticate that isn't spoken here.
    #[error("the server asks for {0}, which is not supported")]
    Unsupported(&'static str),
    /// The server asks for channel binding, but its certificate has none.
    #[error("the server offers channel binding, which its certificate's signature algorithm does not define")]
    ChannelBinding,
    /// The resource requires channel binding.
    #[error("the server signs in without channel binding, which the resource's options require")]
    NotBound,
    /// SCRAM failed: above all, the server didn't prove that it knows the password.
    #[error("SCRAM failed: {0}")]
    Scram(String),
    /// The session begins with a setting that makes the server read statements otherwise than the gate.
    #[error("the session begins with a setting that it may not have: {0}")]
    Setting(&'static str),
    /// The credential can't be used.
    #[error("the credential can't be used: {0}")]
    Unusable(&'static str),
    /// The server doesn't accept the credential.
    #[error("the server did not accept the credential: {}", .0.summary())]
    Rejected(ErrorFields<'static>),
    /// The server refuses the session for a reason of its own.
    #[error("the server refused the session: {}", .0.summary())]
    Refused(ErrorFields<'static>),
}

impl SignInError {
    /// What the server's error means: class 28 is about who signs in, and that is the gate.
    pub(super) fn refused(fields: ErrorFields<'_>) -> Self {
        let fields = fields.into_owned();
        match fields.get(code::SQLSTATE) {
            Some(sqlstate) if sqlstate.starts_with(b"28") => Self::Rejected(fields),
            _ => Self::Refused(fields),
        }
    }

    pub(super) fn unexpected(tag: u8) -> Self {
        Self::Protocol(format!("a message of type {:?} during sign-in", char::from(tag)))
    }

    /// What the client may read: the server's own error where it is about the session, and nothing of the gate's
    /// credential but its name, nor of the server's certificate. `hint` says what to do where the gate is to blame.
    pub(crate) fn for_client(&self, resource: &Resource, hint: &str) -> ErrorFields<'static> {
        match self {
            Self::Refused(fields) => fields.clone(),
            Self::Io(_) | Self::Closed | Self::TimeLimit(_) => ErrorFields::new(
                "FATAL",
                "08006",
                "the gate's connection to the server failed during sign-in",
            ),
            Self::Protocol(_) | Self::Wire(_) => {
                ErrorFields::new("FATAL", "08P01", "the server broke the protocol during the gate's sign-in")
            }
            Self::Setting(why) => {
                let message =
                    format!("the server began the session with a setting that it may not have: {why}");
                ErrorFields::new("FATAL", "08004", &message).with(code::HINT, hint).into_owned()
            }
            Self::TlsNotOffered
            | Self::Tls(_)
            | Self::CleartextPassword
            | Self::Unsupported(_)
            | Self::ChannelBinding
            | Self::NotBound
            | Self::Scram(_)
            | Self::Unusable(_)
            | Self::Rejected(_) => {
                let (name, credential) = (&resource.name, resource.credential.as_deref().unwrap_or_default());
                let message =
                    format!("the gate could not sign in to {name:?} with its credential {credential:?}");
                ErrorFields::new("FATAL", "08004", &message).with(code::HINT, hint).into_owned()
            }
        }
    }
}

impl From<SignInError> for ServeError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Unusable(_) | SignInError::Rejected(_) => Self::Gate(error.to_string()),
            _ => Self::Upstream(error.to_string()),
        }
    }
}
