//! One after the other, each account by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// How many of one account may wait.
const MOST: usize = 64;

/// What takes long is done for one process of an account at a time, and holds up no other account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<u32, Arc<Turn<()>>>>>);

impl Turns {
    /// Waits for the account's turn, which lasts until what is returned is dropped. None if too many wait already.
    pub(crate) async fn of(&self, account: u32) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody has or waits for any more.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            let turn = turns.entry(account).or_default();
            if Arc::strong_count(turn) > MOST {
                return None;
            }
            turn.clone()
        };
        Some(turn.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    async fn at_once<T>(doing: impl Future<Output = T>) -> Option<T> {
        tokio::select! { biased; done = doing => Some(done), () = future::ready(()) => None }
    }

    #[tokio::test]
    async fn one_account_has_one_turn_at_a_time_and_holds_up_no_other() {
        let turns = Turns::default();
        let first = at_once(turns.of(1)).await.unwrap().unwrap();
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.of(1).await.is_some() }
        });
        assert!(at_once(turns.of(2)).await.unwrap().is_some());
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap());
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let turns = Turns::default();
        let _turn = turns.of(1).await.unwrap();
        let mut waiting: Vec<_> = (1..MOST).map(|_| Box::pin(turns.of(1))).collect();
        for wait in &mut waiting {
            assert!(at_once(wait).await.is_none());
        }
        assert!(at_once(turns.of(1)).await.unwrap().is_none());
        assert!(at_once(turns.of(2)).await.unwrap().is_some());
    }
}
