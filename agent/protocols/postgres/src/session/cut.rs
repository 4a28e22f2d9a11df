//! Statements whose rows are too long to be held, and so can be neither masked nor recorded: each is ended by an error of
//! its own, upstream too.

use std::mem;

use tidegate_gate::ServeError;
use tokio::time::timeout;

use super::{
    Session,
    ending::CANCEL,
    expect::{Expect, Run},
    refuse::Refused,
};
use crate::wire::{Header, backend::tag};

/// A message that must be seen whole may not be longer, in bytes.
pub(super) const WHOLE: usize = 64 << 20;

const HINT: &str = "Select fewer or shorter columns.";

impl Session {
    /// Has the statement ended that a message too long to be held belongs to. That message, and whatever else would be shown
    /// of the statement, is thrown away. What belongs to no statement ends the session.
    pub(super) fn cut(&mut self, header: &Header) -> Result<(), ServeError> {
        let message = message(header.size());
        let session = self.gate.session().clone();
        match self.owed.front() {
            Some(Expect::Query(run) | Expect::Execute(run))
                if matches!(header.tag, tag::DATA_ROW | tag::COPY_DATA) =>
            {
                if !run.is_cut() {
                    let error = Refused { hint: Some(HINT.into()), ..Refused::new("54000", message) };
                    run.cut(error.error_response(&session));
                    self.output.cancel_due = true;
                }
                self.output.dropping = header.size();
                Ok(())
            }
            _ => Err(self.beyond(message)),
        }
    }

    /// Whether nothing more is shown of what runs.
    pub(super) fn is_cut(&mut self) -> bool {
        self.running().is_some_and(|run| run.is_cut())
    }

    /// Has the server cancel what was cut, if that is still to be done.
    pub(super) async fn cancel_cut(&mut self) -> Result<(), ServeError> {
        if mem::take(&mut self.output.cancel_due)
            && !matches!(timeout(CANCEL, self.cancel()).await, Ok(Ok(())))
        {
            return Err(self.outrun());
        }
        Ok(())
    }

    /// The server has completed what was to be cancelled: an error would tell the client of a transaction that isn't there.
    pub(super) fn outrun(&mut self) -> ServeError {
        self.beyond(
            "the server sent more at once than the gate masks or records, and was not to be stopped".into(),
        )
    }

    fn beyond(&mut self, message: String) -> ServeError {
        // program_limit_exceeded
        self.farewell("54000", &message, Some(HINT));
        self.told = true;
        ServeError::Upstream(message)
    }
}

impl Run {
    /// Nothing more is shown of it, and its end is this ErrorResponse.
    fn cut(&mut self, error: Box<[u8]>) {
        self.cut = Some(error);
    }

    fn is_cut(&self) -> bool {
        self.cut.is_some()
    }
}

fn message(size: usize) -> String {
    format!("the server sent {size} bytes at once, and the gate masks or records at most {WHOLE}")
}
