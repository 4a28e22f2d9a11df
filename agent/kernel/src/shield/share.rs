//! How many of a user's refusals are told, so that nobody fills the log or keeps its writer busy.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// For so long refusals are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// So many refusals of one user are told in a window.
const TOLD: u64 = 20;

/// Users of whom refusals are counted in a window; those of further ones are not told.
const USERS: usize = 1_024;

/// What was told in the present window.
#[derive(Debug)]
pub(super) struct Shares {
    began: Instant,
    by_user: BTreeMap<u32, u64>,
    of_others: u64,
}

impl Shares {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, by_user: BTreeMap::new(), of_others: 0 }
    }

    /// Whether this user's next refusal is told.
    pub(super) fn take(&mut self, user: u32) -> bool {
        if self.by_user.len() == USERS && !self.by_user.contains_key(&user) {
            self.of_others += 1;
            return false;
        }
        let count = self.by_user.entry(user).or_default();
        *count += 1;
        *count <= TOLD
    }

    /// If the window is over, how many refusals it left untold, by user; none stands for users beyond those counted.
    pub(super) fn untold(&mut self, now: Instant) -> Vec<(Option<u32>, u64)> {
        if now.duration_since(self.began) < WINDOW {
            return Vec::new();
        }
        self.began = now;
        let counted = std::mem::take(&mut self.by_user).into_iter();
        let mut untold: Vec<_> = counted
            .filter_map(|(user, count)| Some((Some(user), count.checked_sub(TOLD).filter(|left| *left > 0)?)))
            .collect();
        let others = std::mem::take(&mut self.of_others);
        untold.extend((others > 0).then_some((None, others)));
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_users_flood_is_counted_and_hides_nobody_elses() {
        let began = Instant::now();
        let mut shares = Shares::new(began);
        let told = (0..1_000).filter(|_| shares.take(1_000)).count();
        assert_eq!(told as u64, TOLD);
        assert!(shares.take(1_001), "another user has a share of its own");
        assert!(shares.untold(began).is_empty(), "the window is not over");
        assert_eq!(shares.untold(began + WINDOW), [(Some(1_000), 1_000 - TOLD)]);
        assert!(shares.take(1_000), "in the next window there is room again");
    }

    #[test]
    fn however_many_users_there_are_the_count_of_them_is_bounded() {
        let began = Instant::now();
        let mut shares = Shares::new(began);
        for user in 0..2_000 {
            assert_eq!(shares.take(user), (user as usize) < USERS);
        }
        assert_eq!(shares.untold(began + WINDOW), [(None, 2_000 - USERS as u64)]);
    }
}
