//! Statements whose rows can't be shown: they are too long to be held, and so can be neither masked nor recorded, or have other
//! columns than were decided on. Each is ended by an error of its own, upstream too.

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
        let refused = too_long(header.size());
        match self.owed.front() {
            Some(Expect::Query(_) | Expect::Execute(_))
                if matches!(header.tag, tag::DATA_ROW | tag::COPY_DATA) =>
            {
                self.cut_run(refused);
                self.output.dropping = header.size();
                Ok(())
            }
            _ => Err(self.beyond(&refused)),
        }
    }

    /// Has what runs ended by this error.
    pub(super) fn cut_run(&mut self, refused: Refused) {
        if let Some(run) = self.running().filter(|run| run.cut.is_none()) {
            run.cut = Some(refused);
            self.output.cancel_due = true;
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
        let cut = self.running().and_then(|run| run.cut.clone());
        self.beyond(&cut.unwrap_or_else(|| too_long(0)))
    }

    fn beyond(&mut self, refused: &Refused) -> ServeError {
        self.farewell(refused.code, &refused.message, refused.hint.as_deref());
        self.told = true;
        ServeError::Upstream(format!("{}, and it was not to be stopped", refused.message))
    }
}

impl Run {
    fn is_cut(&self) -> bool {
        self.cut.is_some()
    }
}

fn too_long(size: usize) -> Refused {
    let message =
        format!("the server sent {size} bytes at once, and the gate masks or records at most {WHOLE}");
    // program_limit_exceeded
    Refused { hint: Some(HINT.into()), ..Refused::new("54000", message) }
}
