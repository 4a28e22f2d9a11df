//! Whose turn it is to have a long text read.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How many long texts are read at once: their syntax trees take a multiple of their size.
const MOST_READERS: usize = 4;

/// Those of this process.
pub(crate) static READERS: LazyLock<Readers> = LazyLock::new(|| Readers::new(MOST_READERS));

/// Readers of long texts: one account has one of them at a time, however many sessions it has, so that it can't keep
/// the others waiting with what takes long.
pub(crate) struct Readers {
    all: Semaphore,
    /// By user id.
    accounts: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

/// A turn: over when it is dropped.
pub(crate) struct Turn<'a> {
    _reader: Option<SemaphorePermit<'a>>,
    _account: Option<OwnedSemaphorePermit>,
}

impl Readers {
    fn new(most: usize) -> Self {
        Self { all: Semaphore::new(most), accounts: Mutex::default() }
    }

    /// Waits for this account's turn. Its sessions have theirs in the order in which they came.
    pub(crate) async fn turn(&self, account: u32) -> Turn<'_> {
        // Neither semaphore is ever closed.
        let own = self.of(account).acquire_owned().await.ok();
        Turn { _reader: self.all.acquire().await.ok(), _account: own }
    }

    fn of(&self, account: u32) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = accounts.get(&account).and_then(Weak::upgrade) {
            return known;
        }
        accounts.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Semaphore::new(1));
        accounts.insert(account, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_account_has_one_reader_and_leaves_the_rest_to_others() {
        let readers = Readers::new(2);
        let first = poll(pin!(readers.turn(1000)));
        assert!(first.is_ready());
        let mut second = pin!(readers.turn(1000));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(pin!(readers.turn(1001))).is_ready());
        drop(first);
        assert!(poll(second).is_ready());
    }

    #[test]
    fn no_more_texts_are_read_at_once_than_there_are_readers() {
        let readers = Readers::new(1);
        let first = poll(pin!(readers.turn(1000)));
        let mut other = pin!(readers.turn(1001));
        assert!(poll(other.as_mut()).is_pending());
        drop(first);
        assert!(poll(other).is_ready());
    }

    #[test]
    fn accounts_that_read_nothing_are_forgotten() {
        let readers = Readers::new(1);
        for account in 0..100 {
            assert!(poll(pin!(readers.turn(account))).is_ready());
        }
        assert!(readers.accounts.lock().unwrap().len() <= 1);
    }
}
