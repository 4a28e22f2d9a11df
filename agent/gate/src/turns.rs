//! Work that takes long, shared out among accounts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tidegate_policy::Sharer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Does what takes long for few at a time: so many of one account, so many of all. Accounts take turns, however much one of
/// them asks for. How many may wait is for the caller to bound.
#[derive(Debug, Clone)]
pub struct Turns {
    of_one: usize,
    all: Arc<Semaphore>,
    accounts: Arc<Mutex<HashMap<Sharer, Arc<Semaphore>>>>,
}

/// Somebody's turn, which lasts until it is dropped.
#[derive(Debug)]
#[must_use = "a turn is over when it is dropped"]
pub struct Turn {
    _of_account: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// How many of one account, and of all, at a time; neither is 0.
    pub fn new(of_one: usize, all: usize) -> Self {
        Self { of_one, all: Arc::new(Semaphore::new(all)), accounts: Arc::default() }
    }

    /// Waits for this account's next turn.
    pub async fn of(&self, account: impl Into<Sharer>) -> Turn {
        // Of those who wait for all, each account has as many as may run: so the first who comes is fair to all. An error
        // would be a semaphore's end, and these have none.
        let of_account = self.account(account.into()).acquire_owned().await.ok();
        Turn { _of_account: of_account, _of_all: self.all.clone().acquire_owned().await.ok() }
    }

    fn account(&self, account: Sharer) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody has a turn of, or waits for, any more.
        accounts.retain(|_, turns| Arc::strong_count(turns) > 1);
        accounts.entry(account).or_insert_with(|| Arc::new(Semaphore::new(self.of_one))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use super::*;

    /// What is done by now, without waiting.
    async fn by_now<T>(doing: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        tokio::select! { biased; done = doing => Some(done), () = std::future::ready(()) => None }
    }

    #[tokio::test]
    async fn an_account_waits_for_its_own_turns_and_holds_up_no_other() {
        let turns = Turns::new(1, 2);
        let first = turns.of(1).await;
        let mut second = pin!(turns.of(1));
        assert!(by_now(second.as_mut()).await.is_none());
        let _other = by_now(pin!(turns.of(2))).await.unwrap();
        drop(first);
        assert!(by_now(second).await.is_some());
    }

    #[tokio::test]
    async fn whoever_asks_for_much_is_behind_those_who_ask_for_little() {
        let turns = Turns::new(1, 1);
        let first = turns.of(1).await;
        let mut many: Vec<_> = (0..100).map(|_| Box::pin(turns.of(1))).collect();
        for next in &mut many {
            assert!(by_now(next.as_mut()).await.is_none());
        }
        let mut other = pin!(turns.of(2));
        assert!(by_now(other.as_mut()).await.is_none());
        drop(first);
        // One of the many is no longer in its own account's way, and comes behind the other, who waited before.
        for next in &mut many {
            assert!(by_now(next.as_mut()).await.is_none());
        }
        assert!(by_now(other).await.is_some());
    }

    #[tokio::test]
    async fn accounts_that_want_nothing_are_forgotten() {
        let turns = Turns::new(1, 2);
        drop(turns.of(1).await);
        drop(turns.of(2).await);
        assert_eq!(turns.accounts.lock().unwrap().len(), 1);
    }
}
