//! What a client is told when something may not happen.

use std::{sync::Arc, time::Duration};

/// A refusal, worded for the client; what is recorded is in the record already.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why, in a sentence that names the rule.
    pub message: Arc<str>,
    /// How to get access.
    pub hint: Option<Arc<str>>,
    /// What kind of refusal it is, for the protocol's own error codes.
    pub cause: Cause,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A rule, or the absence of one.
    Policy,
    /// The action could not be recorded, so it may not run.
    Record,
    /// The credential could not be had.
    Credential,
    /// The upstream could not be reached.
    Upstream,
    /// Nobody can be asked.
    Approvals,
    /// A rule lets through no more for now, and one more after this time.
    Rate(Duration),
    /// It does more at once than a rule ever lets through.
    TooMany,
    /// The agent is stopping.
    Shutdown,
}
