//! What a session's gate is opened with.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tidegate_policy::{Policy, Resource};
use tokio::sync::watch;

use crate::{Approvals, Credentials, Identified, Masker, Origin, Rates, Records};

/// What a session needs from the agent.
pub struct Opening {
    /// What the kernel says.
    pub origin: Origin,
    /// Who issuers say that the process is; decisions follow it as it changes.
    pub identified: Identified,
    /// The resource that the destination is.
    pub resource: Arc<Resource>,
    /// Which of the resource's servers the destination is, as people know it: by one name where the bundle has names, else by
    /// address.
    pub server: Arc<str>,
    /// The policy in force; decisions follow it as it changes.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Ticks whenever `policy` was replaced.
    pub changes: watch::Receiver<u64>,
    /// How far the agent's end has come.
    pub stopping: watch::Receiver<Stopping>,
    /// Where credentials come from.
    pub credentials: Arc<dyn Credentials>,
    /// Where records are kept.
    pub records: Arc<dyn Records>,
    /// Where people are asked.
    pub approvals: Arc<dyn Approvals>,
    /// What everybody has done lately where rules say how often they may: one for all sessions.
    pub rates: Arc<Rates>,
    /// What applies masks.
    pub masker: Arc<Masker>,
    /// What this kernel lets the agent enforce, by name.
    pub tier: Arc<str>,
}

/// How far the agent's end has come. It only goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// It serves.
    #[default]
    No,
    /// It is asked to stop: nothing is begun any more, and what runs may come to its end.
    Asked,
    /// Its grace is over: what still runs is broken off.
    Now,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("origin", &self.origin).finish_non_exhaustive()
    }
}
