//! The record of one session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tidegate_gate::{Entry, Record, RecordError};

use crate::{
    chain::Chain,
    flusher::SharedChain,
    log::{Log, leaf::Moment},
    store::Inner,
    summary::SessionSummary,
};

/// The record of one session, closed exactly once: by [`Record::close`] or by its guard.
pub(crate) struct SessionRecord {
    store: Arc<Inner>,
    /// None once it is closed.
    open: Option<Open>,
    session: Arc<str>,
}

/// A record that is not closed.
#[derive(Debug)]
pub(crate) struct Open {
    chain: SharedChain,
    summary: SessionSummary,
}

impl SessionRecord {
    pub(crate) fn new(store: Arc<Inner>, chain: Chain, summary: SessionSummary) -> Self {
        let session = summary.id.clone();
        Self { store, open: Some(Open { chain: Arc::new(Mutex::new(chain)), summary }), session }
    }

    fn finish(&mut self, reason: &str) {
        if let Some(open) = self.open.take() {
            self.store.close(open, reason.to_owned());
        }
    }
}

impl Open {
    /// Writes the closing line and its leaf. What of it was done is not done again when this is called again.
    pub(crate) fn close(&mut self, log: &Log, reason: &str) -> Result<&SessionSummary, String> {
        let link = lock(&self.chain).close(reason)?;
        log.append(Moment::Closed, &self.summary.id, link)
            .map_err(|error| format!("the log of records: {error}"))?;
        self.summary.add(Timestamp::now(), &Entry::Close { reason: reason.into() });
        Ok(&self.summary)
    }

    /// The session's id.
    pub(crate) fn session(&self) -> &Arc<str> {
        &self.summary.id
    }
}

fn lock(chain: &Mutex<Chain>) -> MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record for SessionRecord {
    fn session(&self) -> &Arc<str> {
        &self.session
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), RecordError> {
        let open = self.open.as_mut().ok_or_else(|| RecordError("it is closed".into()))?;
        lock(&open.chain).write(entry).map_err(RecordError)?;
        open.summary.add(open.summary.start, entry);
        Ok(())
    }

    fn note(&mut self, entry: &Entry<'_>) {
        let Some(open) = &mut self.open else { return };
        open.summary.add(open.summary.start, entry);
        let mut chain = lock(&open.chain);
        chain.note(entry);
        if chain.is_pending() && !std::mem::replace(&mut chain.awaited, true) {
            drop(chain);
            self.store.flusher.await_flush(&open.chain);
        }
    }

    fn close(mut self: Box<Self>, reason: &str) {
        self.finish(reason);
    }
}

impl Drop for SessionRecord {
    fn drop(&mut self) {
        self.finish("abandoned");
    }
}
