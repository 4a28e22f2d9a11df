//! A text of the client's that can't be understood at once: it takes turns with others, or the catalog has to be asked.
//!
//! Its message stays in the client's input, and nothing behind it is looked at; what the server owes goes on. When the text
//! is understood, the message is taken anew.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};

use super::{
    Session, Turn,
    holding::Stop,
    refuse::{self, Refused},
};
use crate::{
    database::{Misunderstood, UNDERSTANDING, Understood, Word},
    definitions::Changing,
    sql,
};

/// How long until the server is asked for what it owes: a client that pipelines may not have told it to answer yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// Resolves when a text is understood, or can't be.
type Reading = Pin<Box<dyn Future<Output = Result<Understood, Misunderstood>> + Send>>;

/// What was waited for to understand one message, and what is.
pub(super) struct Understanding {
    /// What became of the message's texts, by the catalog's word of then.
    read: Vec<(Arc<str>, Result<Understood, Refused>)>,
    waits: Option<Waits>,
    /// How long the message may yet wait.
    left: Duration,
}

/// A wait for one text.
struct Waits {
    text: Arc<str>,
    since: Instant,
    /// Never locked: it makes the session one that threads may share.
    reading: Mutex<Reading>,
    patience: Mutex<Option<Pin<Box<Sleep>>>>,
    /// As long as nothing of the session runs upstream, cancel requests are for what waits.
    cancelled: Option<oneshot::Receiver<()>>,
}

impl Session {
    /// What a text does. It waits where that isn't known, and can't be at once.
    pub(super) async fn understood(&mut self, text: &str) -> Result<Understood, Stop> {
        let (generation, word) = (self.database.generation(), self.word());
        if word == Word::Remembered
            && self.overlay.is_empty()
            && let Some(statements) = self.database.known(text, generation)
        {
            return Ok(Understood { statements, generation });
        }
        let read = match self.was_read(text, generation) {
            Some(read) => Some(read),
            None => self.begin_to_read(text, word).await,
        };
        // Others need not doubt for a change that waits again, or comes to nothing.
        if !matches!(read, Some(Ok(_))) && self.changing.as_ref().is_some_and(Changing::is_only_announced) {
            self.changing = None;
        }
        match read {
            None => Err(Stop::Waits),
            Some(Ok(understood)) => Ok(understood),
            Some(Err(refused)) => {
                self.gate.refuse("statement", &sql::redact(text), &refused.message);
                Err(refused.into())
            }
        }
    }

    /// What was read for the same message before, if the catalog still says the same.
    fn was_read(&self, text: &str, generation: u64) -> Option<Result<Understood, Refused>> {
        let mut read = self.waits.understanding.as_ref()?.read.iter();
        let is_current = |read: &Result<Understood, Refused>| {
            read.as_ref().map_or(true, |understood| understood.generation == generation)
        };
        read.find(|(of, read)| **of == *text && is_current(read)).map(|(_, read)| read.clone())
    }

    /// By which word of the catalog this session's texts are understood. A standby replays changes of definitions that went to
    /// another server, whenever it likes: where columns are masked, nothing that was read from it counts for the next text.
    pub(super) fn word(&self) -> Word {
        if self.standby && self.gate.standing_masks().columns { Word::Now } else { Word::Remembered }
    }

    /// None: that takes a while, for which the message waits.
    async fn begin_to_read(&mut self, text: &str, word: Word) -> Option<Result<Understood, Refused>> {
        let (text, since): (Arc<str>, _) = (text.into(), Instant::now());
        let left =
            self.waits.understanding.as_ref().map_or(UNDERSTANDING, |understanding| understanding.left);
        let (database, overlay, gate) = (self.database.clone(), self.overlay.clone(), self.gate.clone());
        let mut reading: Reading =
            Box::pin(database.understand(text.clone(), overlay, gate, word, since + left));
        let begun = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
        if let Poll::Ready(read) = begun {
            return Some(read.map_err(Refused::from));
        }
        let patience = Mutex::new(Some(Box::pin(sleep(PATIENCE))));
        let waits = Waits { text, since, reading: Mutex::new(reading), patience, cancelled: None };
        let new = || Box::new(Understanding { read: Vec::new(), waits: None, left });
        self.waits.understanding.get_or_insert_with(new).waits = Some(waits);
        None
    }

    /// Ready when the message that waits is to be taken anew, or the server is to answer meanwhile.
    pub(super) fn poll_understanding(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        let Some(understanding) = self.waits.understanding.as_deref_mut() else { return Poll::Pending };
        let Some(waits) = &mut understanding.waits else { return Poll::Pending };
        let reading = waits.reading.get_mut().unwrap_or_else(PoisonError::into_inner);
        let read = match reading.as_mut().poll(context) {
            Poll::Ready(read) => read.map_err(Refused::from),
            Poll::Pending if !self.owed.is_empty() => {
                let patience = waits.patience.get_mut().unwrap_or_else(PoisonError::into_inner);
                let over = patience.as_mut().is_some_and(|sleep| sleep.as_mut().poll(context).is_ready());
                if !over {
                    return Poll::Pending;
                }
                *patience = None;
                self.flush();
                return Poll::Ready(Turn::Told);
            }
            Poll::Pending => {
                let cancelled = waits.cancelled.get_or_insert_with(|| self.interrupt.arm());
                // An error would be the end of whoever cancels: the session itself.
                let Poll::Ready(Ok(())) = Pin::new(cancelled).poll(context) else { return Poll::Pending };
                Err(refuse::cancelled())
            }
        };
        understanding.left = understanding.left.saturating_sub(waits.since.elapsed());
        let text = waits.text.clone();
        understanding.waits = None;
        understanding.read.retain(|(of, _)| *of != text);
        understanding.read.push((text, read));
        Poll::Ready(Turn::Answered)
    }

    /// The client's message waits until it is understood.
    pub(super) fn is_understanding(&self) -> bool {
        self.waits.understanding.as_ref().is_some_and(|understanding| understanding.waits.is_some())
    }
}
