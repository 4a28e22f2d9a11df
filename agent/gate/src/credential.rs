//! What the gate signs in upstream with.

use std::sync::Arc;

use thiserror::Error;

use crate::{BoxFuture, Secret};

/// A credential for one upstream. Which parts are there depends on how the upstream authenticates.
#[derive(Debug, Clone, Default)]
pub struct Credential {
    /// The user to sign in as; none if the resource's options name one.
    pub user: Option<Arc<str>>,
    /// A password, or what else is as long-lived: a secret key.
    pub password: Option<Secret>,
    /// What goes with user and password where these are of a session that ends: a session token.
    pub token: Option<Secret>,
    /// A client certificate chain in PEM form.
    pub certificate: Option<Arc<[u8]>>,
    /// The certificate's private key in PEM form.
    pub key: Option<Secret>,
}

/// Where credentials come from: files, systemd's credential directory, a vault.
pub trait Credentials: Send + Sync {
    /// The credential of this name, read anew so that a rotated one counts at once.
    fn credential<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>>;
}

/// Why a credential could not be had. Never carries any part of it.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// No source has it.
    #[error("credential {0:?} is in none of the configured places")]
    Missing(String),
    /// A source has it, but must not be trusted with it or cannot be read.
    #[error("credential {name:?} cannot be used: {why}")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}
