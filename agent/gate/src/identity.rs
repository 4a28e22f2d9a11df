//! Who issuers say that a process is.

use std::sync::Arc;

use tidegate_policy::{Identity, Process, Unproven};
use tokio::sync::watch;

use crate::BoxFuture;

/// Where identities come from: tokens that a process, or one that it descends from, presented or holds.
pub trait Identities: Send + Sync {
    /// Who issuers say that this process is.
    fn identities<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Identified>;
}

/// What is known of a process from issuers.
#[derive(Debug, Clone)]
pub struct Identified {
    /// The identities that count, at most one of an issuer. It changes as they are renewed and end.
    pub now: watch::Receiver<Arc<[Identity]>>,
    /// Tokens that are there for it and do not count.
    pub unproven: Arc<[Unproven]>,
}

impl Identified {
    /// Nobody vouches for it, and nobody will.
    pub fn nobody() -> Self {
        Self { now: watch::Sender::new(Arc::default()).subscribe(), unproven: Arc::default() }
    }
}
