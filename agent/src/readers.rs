//! Executables that are seen the first time: reading one takes as long as whoever runs it likes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidegate_gate::Turns;
use tidegate_policy::Sharer;
use tokio::{sync::OnceCell, task::spawn_blocking, time::timeout};

/// Executables that are read at a time of one account, and of all accounts: with the large ones, fewer than a lane has
/// threads for.
const AT_ONCE: (usize, usize) = (1, 4);
/// The same of large ones, which have a queue of their own: most programs are small, and take no time.
const LARGE_AT_ONCE: (usize, usize) = (1, 2);
/// From how many bytes on one is large.
const LARGE: u64 = 32 << 20;
/// How long a connection waits. Without the digest no rule grants by it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A digest, once it is known; none if it can't be told.
type Digest = Arc<OnceCell<Option<Arc<str>>>>;

/// Reads executables for their digests, each once for all connections of an account that wait for it. `F` tells files apart.
pub(crate) struct Readers<F> {
    turns: Turns,
    large: Turns,
    patience: Duration,
    reading: Mutex<HashMap<(Sharer, F), Digest>>,
}

impl<F> Default for Readers<F> {
    fn default() -> Self {
        Self {
            turns: Turns::new(AT_ONCE.0, AT_ONCE.1),
            large: Turns::new(LARGE_AT_ONCE.0, LARGE_AT_ONCE.1),
            patience: PATIENCE,
            reading: Mutex::default(),
        }
    }
}

impl<F: Eq + Hash> Readers<F> {
    /// The digest that `read` reads of so many bytes, when it is this account's turn; none if that takes too long. Accounts share nothing: what
    /// one of them waits for stands behind all else that it has to be read.
    pub(crate) async fn digest(
        &self,
        account: impl Into<Sharer>,
        file: Option<F>,
        size: u64,
        read: impl FnOnce() -> Option<Arc<str>> + Send + 'static,
    ) -> Option<Arc<str>> {
        let account = account.into();
        let digest = file.map_or_else(Digest::default, |file| self.reading(account.clone(), file));
        let reading = digest.get_or_init(async || {
            let turns = if size < LARGE { &self.turns } else { &self.large };
            let turn = turns.of(account).await;
            let reading = spawn_blocking(move || {
                let digest = read();
                drop(turn);
                digest
            });
            reading.await.unwrap_or_default()
        });
        timeout(self.patience, reading).await.ok()?.clone()
    }

    fn reading(&self, account: Sharer, file: F) -> Digest {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more.
        reading.retain(|_, digest| Arc::strong_count(digest) > 1);
        reading.entry((account, file)).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Reads that begin when they may, and end when the sender is dropped.
    fn stuck() -> (mpsc::Sender<()>, impl FnOnce() -> Option<Arc<str>> + Send + 'static) {
        let (until, told) = mpsc::channel();
        (until, move || told.recv().err().map(|_| "digest".into()))
    }

    async fn by_now<T>(doing: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        tokio::select! { biased; done = doing => Some(done), () = std::future::ready(()) => None }
    }

    #[tokio::test]
    async fn one_file_is_read_once_for_all_that_wait_for_it() {
        let readers = Readers::<u8>::default();
        let (until, first) = stuck();
        let mut first = Box::pin(readers.digest(1, Some(7), 1, first));
        let mut others: Vec<_> = (0..1000)
            .map(|_| Box::pin(readers.digest(1, Some(7), 1, || Some("read again".into()))))
            .collect();
        assert!(by_now(&mut first).await.is_none());
        for other in &mut others {
            assert!(by_now(other).await.is_none());
        }
        drop(until);
        assert_eq!(first.await.as_deref(), Some("digest"));
        for other in others {
            assert_eq!(other.await.as_deref(), Some("digest"));
        }
    }

    #[tokio::test]
    async fn who_has_many_to_be_read_holds_up_no_other_account() {
        let readers = Readers::<u8>::default();
        let (until, first) = stuck();
        let mut first = Box::pin(readers.digest(1, Some(0), 1, first));
        assert!(by_now(&mut first).await.is_none());
        let mut next: Vec<_> =
            (1..200).map(|file| Box::pin(readers.digest(1, Some(file), 1, || Some("next".into())))).collect();
        for one in &mut next {
            assert!(by_now(one).await.is_none());
        }
        // The very file that the first one waits for, too.
        for file in [0, 1, 255] {
            let other = readers.digest(2, Some(file), 1, || Some("of another".into())).await;
            assert_eq!(other.as_deref(), Some("of another"));
        }
        drop(until);
        assert_eq!(first.await.as_deref(), Some("digest"));
        for one in next {
            assert_eq!(one.await.as_deref(), Some("next"));
        }
    }

    #[tokio::test]
    async fn a_small_executable_waits_for_no_large_one() {
        let readers = Readers::<u8>::default();
        let (until, first) = stuck();
        let mut first = Box::pin(readers.digest(1, Some(0), LARGE, first));
        assert!(by_now(&mut first).await.is_none());
        let small = readers.digest(1, Some(1), LARGE - 1, || Some("small".into())).await;
        assert_eq!(small.as_deref(), Some("small"));
        drop(until);
        assert_eq!(first.await.as_deref(), Some("digest"));
    }

    #[tokio::test]
    async fn a_connection_waits_so_long_and_no_longer() {
        let readers = Readers::<u8> { patience: Duration::ZERO, ..Readers::default() };
        let (until, first) = stuck();
        assert_eq!(readers.digest(1, None, 1, first).await, None);
        assert_eq!(readers.digest(1, None, 1, || Some("behind it".into())).await, None);
        drop(until);
    }
}
