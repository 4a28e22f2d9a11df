//! What the server still owes: one entry for each message that it will answer, in the order it was sent.

use std::{collections::VecDeque, sync::Arc};

use tidegate_gate::{Outcome, Permit};

use super::{names::Name, refuse::Refused, results::Results};

/// Something that the server will answer.
#[derive(Debug)]
pub(super) enum Expect {
    /// A simple query: answered up to ReadyForQuery.
    Query(Run),
    /// ParseComplete for this name.
    Parse(Name),
    /// BindComplete for this name.
    Bind {
        /// The portal.
        name: Name,
        /// As [`Run::unread`].
        unread: bool,
    },
    /// A description that the client asked for.
    Describe,
    /// A description of a portal that the gate asked for, kept from the client.
    OwnDescribe(Arc<Results>),
    /// A description of this statement that the gate asked for, for its parameters' types; likewise.
    OwnParameters(Name),
    /// Rows, then CommandComplete, PortalSuspended or EmptyQueryResponse.
    Execute(Run),
    /// CloseComplete for this name.
    Close(Name),
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall(Run),
    /// ReadyForQuery.
    Sync,
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
    /// What was decided depends on definitions that others must not change before the server has read them.
    pub(super) unread: bool,
    /// A statement of it was completed.
    completed: bool,
    /// The server has said what the rows or copy data will be that it gives.
    described: bool,
    /// Nothing more is shown of it: what the client gets for the server's error.
    pub(super) cut: Option<Refused>,
    /// Names it gives or takes, settled with it.
    pub(super) names: Vec<Name>,
}

impl Run {
    pub(super) fn new(
        permit: Option<Permit>,
        results: Arc<Results>,
        redefines: bool,
        names: Vec<Name>,
    ) -> Self {
        Self {
            permit,
            outcome: Outcome::default(),
            results,
            redefines,
            unread: false,
            completed: false,
            described: false,
            cut: None,
            names,
        }
    }

    pub(super) fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Notes that the server has said what rows or copy data will be, or takes copy data.
    pub(super) fn described(&mut self) {
        self.described = true;
    }

    /// Its only statement gives or takes rows, or is about to.
    fn has_begun(&self) -> bool {
        !self.results.are_several() && (self.described || self.outcome.rows > 0)
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

    pub(super) fn has_failed(&self) -> bool {
        self.outcome.error.is_some()
    }

    /// Notes that a statement of it was completed.
    pub(super) fn completed(&mut self) {
        self.completed = true;
    }

    /// The server has completed a statement of it, or failed it.
    pub(super) fn is_answered(&self) -> bool {
        self.completed || self.has_failed()
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

/// More than this many answers owed, and nothing more is taken from the client.
const MOST: usize = 4096;

/// More than about this many bytes held for what is owed, and likewise.
const MOST_BYTES: usize = 8 << 20;

impl Expect {
    /// About how many bytes are held for it.
    fn weight(&self) -> usize {
        match self {
            Self::Query(run) | Self::Execute(run) | Self::FunctionCall(run) => run.results.weight(),
            Self::Refused { error, .. } => error.len(),
            Self::Parse(_)
            | Self::Bind { .. }
            | Self::Describe
            | Self::OwnDescribe(_)
            | Self::OwnParameters(_)
            | Self::Close(_)
            | Self::Sync => 0,
        }
    }

    /// Others must not change definitions before it is answered. What is only prepared is planned anew when they do.
    fn is_unread(&self) -> bool {
        match self {
            Self::Query(run) | Self::Execute(run) => run.unread,
            Self::Bind { unread, .. } => *unread,
            _ => false,
        }
    }

    /// The server answers it by and by, whether or not anything follows.
    fn is_flushed(&self) -> bool {
        matches!(
            self,
            Self::Query(_) | Self::FunctionCall(_) | Self::Sync | Self::Refused { ready: true, .. }
        )
    }
}

/// The queue of what is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    queue: VecDeque<Expect>,
    /// What the queue's entries weigh.
    weight: usize,
    /// How many of them are unread.
    unread: usize,
    /// The server may keep its answers to itself until it is asked for them.
    unflushed: bool,
}

impl Owed {
    pub(super) fn push(&mut self, expect: Expect) {
        self.weight += expect.weight();
        self.unread += usize::from(expect.is_unread());
        self.unflushed = !expect.is_flushed();
        self.queue.push_back(expect);
    }

    /// The server is asked for its answers.
    pub(super) fn flushed(&mut self) {
        self.unflushed = false;
    }

    /// Nobody has asked the server yet for the last of its answers.
    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed && !self.queue.is_empty()
    }

    /// The newest entry is a Bind that others must wait for.
    pub(super) fn ends_with_unread_bind(&self) -> bool {
        matches!(self.queue.back(), Some(Expect::Bind { unread: true, .. }))
    }

    /// The newest entry, if it is a Bind that others must wait for, they need not wait for any more. Its portal's name.
    pub(super) fn let_go_of_bind(&mut self) -> Option<&Name> {
        match self.queue.back_mut() {
            Some(Expect::Bind { name, unread }) if *unread => {
                *unread = false;
                self.unread -= 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// What is owed before all else from here on.
    pub(super) fn push_front(&mut self, expect: Expect) {
        self.weight += expect.weight();
        self.unread += usize::from(expect.is_unread());
        self.queue.push_front(expect);
    }

    /// No more should be asked for before some of it has come.
    pub(super) fn is_much(&self) -> bool {
        self.queue.len() >= MOST || self.weight >= MOST_BYTES
    }

    /// Something under way changes definitions.
    pub(super) fn redefines(&self) -> bool {
        self.queue.iter().any(|expect| {
            matches!(expect,
                Expect::Query(run) | Expect::Execute(run) | Expect::FunctionCall(run) if run.redefines)
        })
    }

    /// The server has looked up all that the statements name which it was sent, as far as that matters: none of these is
    /// owed, or one alone that has begun to give rows.
    pub(super) fn are_read(&self) -> bool {
        let has_begun = || matches!(self.queue.front(), Some(Expect::Query(run) | Expect::Execute(run)) if run.unread && run.has_begun());
        self.unread == 0 || self.unread == 1 && has_begun()
    }

    /// The newest of what is owed may copy in: what the server makes of the messages behind it depends on how far
    /// that comes, so there must be none.
    pub(super) fn copies_in(&self) -> bool {
        matches!(self.queue.back(), Some(Expect::Query(run) | Expect::Execute(run)) if run.results.copies_in())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the server's next answer belongs to.
    pub(super) fn front(&mut self) -> Option<&mut Expect> {
        self.queue.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Expect> {
        let expect = self.queue.pop_front()?;
        self.weight -= expect.weight();
        self.unread -= usize::from(expect.is_unread());
        Some(expect)
    }

    /// A Sync is among what was sent.
    pub(super) fn has_sync(&self) -> bool {
        self.queue.iter().any(|expect| matches!(expect, Expect::Sync))
    }

    /// The server skips everything up to the next Sync after an error in the extended flow: takes that out.
    pub(super) fn skip_to_sync(&mut self) -> Vec<Expect> {
        let upto =
            self.queue.iter().position(|expect| matches!(expect, Expect::Sync)).unwrap_or(self.queue.len());
        let skipped: Vec<Expect> = self.queue.drain(..upto).collect();
        self.weight -= skipped.iter().map(Expect::weight).sum::<usize>();
        self.unread -= skipped.iter().filter(|expect| expect.is_unread()).count();
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::{super::names::Space, *};

    fn parse(name: &str) -> Expect {
        Expect::Parse(Name(Space::Statements, name.as_bytes().into()))
    }

    #[test]
    fn after_an_error_what_is_owed_begins_with_the_next_sync() {
        let mut owed = Owed::default();
        for expect in [parse("a"), parse("b"), Expect::Sync, parse("c")] {
            owed.push(expect);
        }
        assert_eq!(owed.skip_to_sync().len(), 2);
        assert!(matches!(owed.pop(), Some(Expect::Sync)));
        assert!(matches!(owed.pop(), Some(Expect::Parse(_))));
    }
}
