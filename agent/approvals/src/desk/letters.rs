//! What is still to be told to receivers.

use jiff::Timestamp;

use super::Desk;
use crate::{Letter, store::StoreError};

impl Desk {
    /// The time here.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Letters of this agent to this receiver: those that are due, then those that are due next.
    pub(crate) async fn letters(
        &self,
        hook: &str,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Letter>, StoreError> {
        self.0.store.letters(&self.0.host, hook, now, limit).await
    }

    /// An attempt to send it begins; false if it was taken back.
    pub(crate) async fn attempt(&self, letter: &Letter) -> Result<bool, StoreError> {
        self.0.store.attempt(&letter.id).await
    }

    /// It is tried again at this time.
    pub(crate) async fn put_off(&self, letter: &Letter, due: Timestamp) -> Result<(), StoreError> {
        self.0.store.postpone(&letter.id, Some(due)).await
    }

    /// It was taken, or given up.
    pub(crate) async fn done_with(&self, letter: &Letter) -> Result<(), StoreError> {
        self.0.store.postpone(&letter.id, None).await
    }
}
