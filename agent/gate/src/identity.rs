//! Who an issuer says that a process is.

use thiserror::Error;
use tidegate_policy::{Identity, Process};

use crate::BoxFuture;

/// Where identities come from: tokens that a process, or one that it descends from, presented or holds.
pub trait Identities: Send + Sync {
    /// The identity that counts for this process now; none if no token was presented for it.
    ///
    /// # Errors
    ///
    /// A token was presented and does not count. What is said of it never holds any part of it.
    fn identity<'a>(&'a self, process: &'a Process)
    -> BoxFuture<'a, Result<Option<Identity>, IdentityError>>;
}

/// Why a token that was presented does not count, worded for whoever presented it.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct IdentityError(pub String);
