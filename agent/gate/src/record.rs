//! The account of a session, and where accounts are kept.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidegate_policy::{Effect, Principal};

/// Where records are kept.
pub trait Records: Send + Sync {
    /// Begins the record of a session. It exists, on disk, when this returns.
    fn open(&self, opening: Entry<'_>) -> Result<Box<dyn Record>, RecordError>;
}

/// The record of one session. Dropped without [`close`](Self::close), it closes itself as abandoned.
pub trait Record: Send {
    /// The session's id.
    fn session(&self) -> &Arc<str>;
    /// Writes an entry through to the kernel before it returns, with all that was noted before.
    fn write(&mut self, entry: &Entry<'_>) -> Result<(), RecordError>;
    /// Adds an entry that may wait for the next write, for a bounded time; an error shows up there.
    fn note(&mut self, entry: &Entry<'_>);
    /// Writes the closing entry. Nothing follows it.
    fn close(self: Box<Self>, reason: &str);
}

/// One line of a record. The store adds sequence number, time and the hash of the line before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "it is borrowed from and written at once, never kept in numbers"
)]
pub enum Entry<'a> {
    /// The first line.
    Open {
        /// Who.
        principal: Cow<'a, Principal>,
        /// Where the client meant to connect.
        destination: SocketAddr,
        /// The resource's name.
        resource: Cow<'a, str>,
        /// The protocol's name.
        protocol: Cow<'a, str>,
        /// Digest of the bundle in force.
        policy: Cow<'a, str>,
        /// What this kernel let the agent enforce: `base`, `recommended`, `hardened` or `full`; empty if it wasn't said.
        #[serde(default)]
        tier: Cow<'a, str>,
    },
    /// An action and its decision.
    Action {
        /// Number within the session, from 1.
        id: u64,
        /// What it is, in the protocol's words: `login`, `statement`.
        action: Cow<'a, str>,
        /// The action itself: the statement's text.
        text: Cow<'a, str>,
        /// The decision.
        decision: Effect,
        /// The rule that decided.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        rule: Option<Cow<'a, str>>,
        /// Why, when it was not allowed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Cow<'a, str>>,
        /// Digest of the bundle that decided, when it differs from the opening line's.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        policy: Option<Cow<'a, str>>,
    },
    /// What became of an action that waits for a person.
    Approval {
        /// The action's number.
        id: u64,
        /// The question's id, as `tidegate approvals show` takes it.
        question: Cow<'a, str>,
        /// `asked`, `seen`, `agreed` (and more must), `approved`, `break-glass`, `granted` (by an earlier yes),
        /// `denied`, `expired`, `cancelled`, `withdrawn`, `revoked`, or `failed`.
        step: Cow<'a, str>,
        /// Who did that, if anybody.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Cow<'a, str>>,
        /// Why, as they say.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<Cow<'a, str>>,
    },
    /// How a permitted action ended.
    Outcome {
        /// The action's number.
        id: u64,
        /// `done`, `failed`, or `aborted` when the session ended first.
        outcome: Cow<'a, str>,
        /// The upstream's error code.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<Cow<'a, str>>,
        /// Rows shown.
        rows: u64,
        /// Bytes shown.
        bytes: u64,
        /// Bytes that the client sent with it: a request's body.
        #[serde(skip_serializing_if = "is_none", default)]
        sent: u64,
        /// What the upstream answered, in the protocol's words: a response's head.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        answer: Option<Cow<'a, str>>,
        /// Time from decision to the beginning of the answer, in microseconds, where there is one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        waited: Option<u64>,
        /// Time from decision to outcome, in microseconds.
        microseconds: u64,
    },
    /// Data that the client sent with an action, if the rule says so: as the masks show it, and credentials withheld.
    Sent {
        /// The action's number.
        id: u64,
        /// What was sent: text where it is UTF-8, else base64 after `base64:`.
        data: Cow<'a, str>,
    },
    /// Data as shown to the client, if the rule says so.
    Shown {
        /// The action's number.
        id: u64,
        /// What was shown: text where it is UTF-8, else base64 after `base64:`.
        data: Cow<'a, str>,
    },
    /// Of an action's data the record has no more from here on, although the rule says so.
    DataEnds {
        /// The action's number.
        id: u64,
        /// Why.
        reason: Cow<'a, str>,
    },
    /// Something worth an auditor's eye that is no action.
    Event {
        /// What happened, as a stable name.
        event: Cow<'a, str>,
        /// Particulars.
        detail: Cow<'a, str>,
    },
    /// The last line.
    Close {
        /// Why the session ended.
        reason: Cow<'a, str>,
    },
}

/// Whether there is none of it, and nothing to be written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// Why something could not be recorded.
#[derive(Debug, Error)]
#[error("the record cannot be written: {0}")]
pub struct RecordError(pub String);
