//! What the server still owes: one entry for each message that it will answer, in the order it was sent.

use std::{collections::VecDeque, sync::Arc};

use tidegate_gate::{Outcome, Permit};

use super::{names::Name, results::Results};

/// Something that the server will answer.
#[derive(Debug)]
pub(super) enum Expect {
    /// A simple query: answered up to ReadyForQuery.
    Query(Run),
    /// ParseComplete for this name.
    Parse(Name),
    /// BindComplete for this name.
    Bind(Name),
    /// A description that the client asked for: of a portal (whose rows it may shape) or a statement.
    Describe(Option<Arc<Results>>),
    /// A description of a portal that the gate asked for, kept from the client.
    OwnDescribe(Arc<Results>),
    /// Rows, then CommandComplete, PortalSuspended or EmptyQueryResponse.
    Execute(Run),
    /// CloseComplete.
    Close,
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall(Run),
    /// ReadyForQuery.
    Sync,
    /// Nothing: where the client's copy data ended. A Sync before it is swallowed by a server that is copying in.
    CopyEnd,
    /// An error, for a message that was sent in place of one that was refused; the client gets this ErrorResponse.
    Refused {
        /// The whole message for the client.
        error: Box<[u8]>,
        /// It stands for a Query or FunctionCall, so that ReadyForQuery follows.
        ready: bool,
    },
}

/// A permitted action under way, and what has been shown of it.
#[derive(Debug)]
pub(super) struct Run {
    permit: Option<Permit>,
    outcome: Outcome,
    /// How its rows are shown.
    pub(super) results: Arc<Results>,
    /// Its completion changes definitions that the catalog remembers.
    pub(super) redefines: bool,
    /// Names it gives or takes, settled with it.
    pub(super) names: Vec<Name>,
}

impl Run {
    pub(super) fn new(permit: Option<Permit>, results: Arc<Results>, redefines: bool, names: Vec<Name>) -> Self {
        Self { permit, outcome: Outcome::default(), results, redefines, names }
    }

    pub(super) fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Counts a row as shown.
    pub(super) fn showed(&mut self, bytes: usize) {
        self.outcome.rows += 1;
        self.outcome.bytes += bytes as u64;
    }

    /// Counts copied bytes as shown; their rows are counted by CommandComplete.
    pub(super) fn copied(&mut self, bytes: usize) {
        self.outcome.bytes += bytes as u64;
    }

    /// Takes over how many rows a completion tag reports.
    pub(super) fn counted(&mut self, rows: u64) {
        self.outcome.rows = self.outcome.rows.max(rows);
    }

    /// Notes the error code that the server answered.
    pub(super) fn failed(&mut self, code: &str) {
        self.outcome.error = Some(code.to_owned());
    }

    /// Records the outcome.
    pub(super) fn settle(mut self) {
        if let Some(permit) = self.permit.take() {
            permit.done(&self.outcome);
        }
    }
}

/// The queue of what is owed.
#[derive(Debug, Default)]
pub(super) struct Owed(VecDeque<Expect>);

impl Owed {
    pub(super) fn push(&mut self, expect: Expect) {
        self.0.push_back(expect);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the server's next answer belongs to.
    pub(super) fn front(&mut self) -> Option<&mut Expect> {
        while matches!(self.0.front(), Some(Expect::CopyEnd)) {
            self.0.pop_front();
        }
        self.0.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        self.front()?;
        self.0.pop_front()
    }

    /// The server skips everything up to the next Sync after an error in the extended flow: takes that out.
    pub(super) fn skip_to_sync(&mut self) -> Vec<Expect> {
        let upto = self.0.iter().position(|expect| matches!(expect, Expect::Sync)).unwrap_or(self.0.len());
        self.0.drain(..upto).collect()
    }

    /// A server that copies in swallows the Syncs it gets before the copy's end. Says whether that end was sent.
    pub(super) fn swallow_syncs(&mut self) -> bool {
        let end = self.0.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        let mut index = 0;
        self.0.retain(|expect| {
            let before_end = end.is_none_or(|end| index < end);
            index += 1;
            !(before_end && matches!(expect, Expect::Sync))
        });
        end.is_some()
    }
}
