//! Shares of what there is a bounded number of.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_policy::Sharer;

/// How often something that anybody can bring about is said.
const SELDOM: Duration = Duration::from_secs(60);

/// How many of something each account, or container, has at once.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    of_one: usize,
    of_all: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<Sharer, usize>,
}

/// One of something, until dropped.
#[derive(Debug)]
#[must_use = "a share is given back when it is dropped"]
pub(super) struct Share {
    shares: Shares,
    user: Sharer,
}

impl Shares {
    /// So many of one user, and of all.
    pub(super) fn new(of_one: usize, of_all: usize) -> Self {
        Self { of_one, of_all, taken: Arc::default() }
    }

    /// None if the user has as many as they may, or all have.
    pub(super) fn take(&self, user: impl Into<Sharer>) -> Option<Share> {
        let user = user.into();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = taken.by_user.get(&user).copied().unwrap_or_default();
        if of_user >= self.of_one || taken.all >= self.of_all {
            return None;
        }
        taken.by_user.insert(user.clone(), of_user + 1);
        taken.all += 1;
        Some(Share { shares: self.clone(), user })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.by_user.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

/// Something that is said once a minute, however often it happens.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: Mutex<Option<Instant>>,
    unsaid: AtomicU64,
}

impl Seldom {
    /// Whether it is to be said now; if so, how often it was not since it last was.
    pub(super) fn is_due(&self) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < SELDOM) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *said = Some(Instant::now());
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_what_is_the_others() {
        let shares = Shares::new(3, 5);
        let mut own: Vec<_> = (0..3).map(|_| shares.take(61_001).unwrap()).collect();
        assert!(shares.take(61_001).is_none());
        let others = [shares.take(61_002).unwrap(), shares.take(61_003).unwrap()];
        assert!(shares.take(61_004).is_none(), "all are taken");
        own.pop();
        drop(shares.take(61_001).unwrap());
        drop((own, others));
        let taken = shares.taken.lock().unwrap();
        assert!(taken.by_user.is_empty() && taken.all == 0);
    }

    #[test]
    fn what_happens_all_the_time_is_said_once() {
        let seldom = Seldom::default();
        assert_eq!(seldom.is_due(), Some(0));
        assert!((0..100).all(|_| seldom.is_due().is_none()));
        *seldom.said.lock().unwrap() = None;
        assert_eq!(seldom.is_due(), Some(100));
    }
}
