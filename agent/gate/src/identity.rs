//! Who issuers say that a process is.

use std::{fmt, sync::Arc};

use tidegate_policy::{Identity, Process, Unproven};
use tokio::sync::watch;

use crate::{BoxFuture, Secret};

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
    /// What the identities were taken from.
    pub proofs: Arc<dyn Proofs>,
}

/// The tokens that one process' identities were taken from, of issuers whose tokens a resource may be shown.
pub trait Proofs: fmt::Debug + Send + Sync {
    /// The token of this issuer that counts now; none once it has ended.
    fn proof(&self, issuer: &str) -> Option<Proof>;
}

/// An ID token, for the one place that it is shown to. Never part of an identity, which records have.
#[derive(Debug, Clone)]
pub struct Proof {
    /// As it was presented.
    pub token: Secret,
    /// Whom it is for.
    pub subject: Arc<str>,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

#[derive(Debug)]
struct NoProofs;

impl Proofs for NoProofs {
    fn proof(&self, _issuer: &str) -> Option<Proof> {
        None
    }
}

impl Identified {
    /// Nobody vouches for it, and nobody will.
    pub fn nobody() -> Self {
        Self::without_proofs(watch::Sender::new(Arc::default()).subscribe())
    }

    /// These identities, and nothing that they were taken from.
    pub fn without_proofs(now: watch::Receiver<Arc<[Identity]>>) -> Self {
        Self { now, unproven: Arc::default(), proofs: Arc::new(NoProofs) }
    }
}
