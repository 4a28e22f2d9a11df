//! What a list of sessions shows of one.

use std::{fmt, net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;
use tidegate_gate::{
    Entry, Plain,
    policy::{Effect, Principal},
};

use crate::human::count;

/// One session in short. Its [`Display`](fmt::Display) is one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// The session's id.
    pub id: Arc<str>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; none while it is open.
    pub end: Option<Timestamp>,
    /// The bundle's subjects that the process was.
    pub subjects: Vec<Arc<str>>,
    /// The user's name, if the host knew one.
    pub user: Option<Arc<str>>,
    /// Real user id.
    pub uid: u32,
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub executable: Option<Arc<str>>,
    /// The resource's name.
    pub resource: Arc<str>,
    /// The protocol's name.
    pub protocol: Arc<str>,
    /// Where the client meant to connect.
    pub destination: SocketAddr,
    /// Actions asked for.
    pub actions: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Rows shown.
    pub rows: u64,
    /// Bytes shown.
    pub bytes: u64,
    /// Why it ended; none while it is open.
    pub reason: Option<Arc<str>>,
}

impl SessionSummary {
    /// Begins with a record's first entry; none if that is no opening one.
    pub(crate) fn begin(id: Arc<str>, start: Timestamp, opening: &Entry<'_>) -> Option<Self> {
        let Entry::Open { principal, destination, resource, protocol, .. } = opening else { return None };
        let Principal { subjects, process, .. } = &**principal;
        Some(Self {
            id,
            start,
            end: None,
            subjects: subjects.clone(),
            user: process.user.clone(),
            uid: process.uid,
            pid: process.pid,
            executable: process.executable.clone(),
            resource: Arc::from(&**resource),
            protocol: Arc::from(&**protocol),
            destination: *destination,
            actions: 0,
            refused: 0,
            rows: 0,
            bytes: 0,
            reason: None,
        })
    }

    /// Counts what an entry adds.
    pub(crate) fn add(&mut self, time: Timestamp, entry: &Entry<'_>) {
        match entry {
            Entry::Action { decision, .. } => {
                self.actions += 1;
                self.refused += u64::from(*decision == Effect::Deny);
            }
            Entry::Outcome { rows, bytes, .. } => {
                self.rows = self.rows.saturating_add(*rows);
                self.bytes = self.bytes.saturating_add(*bytes);
            }
            Entry::Close { reason } => {
                self.end = Some(time);
                self.reason = Some(Arc::from(&**reason));
            }
            Entry::Approval { step, .. } => self.refused += u64::from(is_refusal(step)),
            Entry::Open { .. }
            | Entry::Sent { .. }
            | Entry::Shown { .. }
            | Entry::DataEnds { .. }
            | Entry::Event { .. } => {}
        }
    }

    /// Who it was, for people: the user's name, or else the number.
    pub(crate) fn who(&self) -> String {
        self.user.as_deref().map_or_else(|| format!("uid {}", self.uid), str::to_owned)
    }
}

/// Whether a held action ends with this step without a permit.
fn is_refusal(step: &str) -> bool {
    !matches!(step, "asked" | "seen" | "agreed" | "approved" | "break-glass" | "granted")
}

impl fmt::Display for SessionSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executable = self.executable.as_deref().unwrap_or("?");
        write!(
            f,
            "{}  {:.0}  {} ({}, pid {}) -> {}: {}, {} refused, {}, {}",
            self.id,
            self.start,
            Plain(&self.who()),
            Plain(executable),
            self.pid,
            Plain(&self.resource),
            count(self.actions, "action"),
            self.refused,
            count(self.rows, "row"),
            count(self.bytes, "byte"),
        )?;
        match &self.reason {
            Some(reason) => write!(f, "; ended: {}", Plain(reason)),
            None => f.write_str("; open"),
        }
    }
}
