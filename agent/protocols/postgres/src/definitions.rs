//! Definitions that change while others' statements are on their way.
//!
//! The server looks up what a statement names one by one, when its turn comes, and may wait for a lock at each: until it has read
//! all of it, a statement counts by the definitions that it was decided by. So whoever changes definitions says so and waits
//! for the statements that were begun before; those begun afterwards know that they are in doubt.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use crate::database::Database;

/// Who changes the definitions of one database, and who has statements that the server has yet to read.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// Sessions that change definitions in a transaction that has not ended.
    changing: AtomicUsize,
    eras: Mutex<Eras>,
}

/// A change begins an era. Nobody joins an old one.
#[derive(Debug, Default)]
struct Eras {
    now: Arc<Era>,
    past: Vec<Weak<Era>>,
}

/// Its channel closes when the last statement of the era was read.
#[derive(Debug)]
struct Era(watch::Sender<()>);

impl Default for Era {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Definitions {
    fn eras(&self) -> MutexGuard<'_, Eras> {
        self.eras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_era(&self) -> Older {
        let mut eras = self.eras();
        let old = std::mem::take(&mut eras.now);
        eras.past.retain(|era| era.strong_count() > 0);
        eras.past.push(Arc::downgrade(&old));
        let alive = eras.past.iter().filter_map(Weak::upgrade);
        Older(alive.map(|era| era.0.subscribe()).collect())
    }
}

/// A session changes definitions, from before the statement is sent to the end of its transaction.
#[derive(Debug)]
pub(crate) struct Changing(Arc<Database>);

impl Changing {
    /// Says so. The statement may be sent when those of the older eras were read.
    pub(crate) fn begin(database: &Arc<Database>) -> (Self, Older) {
        database.definitions.changing.fetch_add(1, Ordering::SeqCst);
        (Self(database.clone()), database.definitions.next_era())
    }
}

impl Changing {
    /// Nobody else changes definitions now.
    pub(crate) fn is_only(&self) -> bool {
        self.0.definitions.changing.load(Ordering::SeqCst) == 1
    }
}

impl Drop for Changing {
    /// What comes from now on finds nothing remembered of the definitions as they were.
    fn drop(&mut self) {
        self.0.forget();
        self.0.definitions.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The statements that were begun before definitions began to change.
#[derive(Debug)]
pub(crate) struct Older(Vec<watch::Receiver<()>>);

impl Older {
    /// Resolves when the server has read all of them.
    pub(crate) async fn are_read(self) {
        for mut era in self.0 {
            // An error is the era's end.
            while era.changed().await.is_ok() {}
        }
    }
}

/// A statement from before it is understood until the server has read it.
#[derive(Debug)]
pub(crate) struct Unread {
    _era: Arc<Era>,
    /// Definitions were being changed when it was begun: nobody can see what they will be when the server reads it.
    pub(crate) in_doubt: bool,
}

impl Unread {
    pub(crate) fn begin(database: &Database) -> Self {
        let era = database.definitions.eras().now.clone();
        // In this order: whoever has begun to change by now is seen here, and whoever has not will wait for this era.
        let in_doubt = database.definitions.changing.load(Ordering::SeqCst) > 0;
        Self { _era: era, in_doubt }
    }
}
