//! How often each account does something.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_policy::Sharer;

/// For how long what somebody did counts.
const WINDOW: Duration = Duration::from_secs(60);

/// What each account did within the last minute, in memory: whoever does it too often costs nobody anything.
#[derive(Debug, Default)]
pub struct Pace(Mutex<HashMap<Sharer, VecDeque<Timestamp>>>);

impl Pace {
    /// Whether an account may do it once more, of so many times within a minute. If so, it counts from now on. What was done
    /// later than a minute from now was done before the clock was set back, and doesn't count.
    pub fn take(&self, account: impl Into<Sharer>, most: usize, now: Timestamp) -> bool {
        let since = now.checked_sub(WINDOW).unwrap_or(Timestamp::MIN);
        let until = now.checked_add(WINDOW).unwrap_or(Timestamp::MAX);
        let counts = |time: &Timestamp| since < *time && *time <= until;
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        done.retain(|_, times| times.back().is_some_and(counts));
        let times = done.entry(account.into()).or_default();
        times.retain(counts);
        let may = times.len() < most;
        if may {
            times.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_may_so_often_within_a_minute_and_takes_nothing_from_others() {
        let (pace, start) = (Pace::default(), Timestamp::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(pace.take(1, 2, at(0)) && pace.take(1, 2, at(30)));
        assert!(!pace.take(1, 2, at(31)) && pace.take(2, 2, at(31)));
        // What it may not do does not count.
        assert!(pace.take(1, 2, at(60)) && !pace.take(1, 2, at(60)));
        assert!(pace.take(1, 2, at(90)));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nobody_up_and_lets_nobody_do_more_at_once() {
        let (pace, start) = (Pace::default(), Timestamp::now());
        let earlier = start - Duration::from_secs(3600);
        assert!(pace.take(1, 2, start) && pace.take(1, 2, start));
        // As those do that took the time before others, and come after them.
        assert!(!pace.take(1, 2, start - Duration::from_secs(59)));
        assert!(pace.take(1, 2, earlier) && pace.take(1, 2, earlier));
        assert!(!pace.take(1, 2, earlier));
    }

    #[test]
    fn accounts_that_do_nothing_are_forgotten() {
        let (pace, start) = (Pace::default(), Timestamp::now());
        for account in 0..100 {
            assert!(pace.take(account, 1, start));
        }
        assert!(pace.take(100, 1, start + WINDOW));
        assert_eq!(pace.0.lock().unwrap().len(), 1);
    }
}
