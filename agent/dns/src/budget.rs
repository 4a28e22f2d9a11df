//! How much one user may ask: enough for any program, too little for a tunnel.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::Refusal;

/// Questions a second, in the long run.
const A_SECOND: f64 = 50.0;
/// Questions at once.
const AT_ONCE: f64 = 200.0;
/// Different names that wildcards stand for.
const NAMES: usize = 256;
/// In this time.
const WINDOW: Duration = Duration::from_secs(3600);
/// Users that are remembered at most; those who asked least lately are forgotten.
const USERS: usize = 4096;

/// What every user has asked of late.
#[derive(Debug)]
pub(crate) struct Budgets<K>(HashMap<K, Budget>);

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
    window: Instant,
    names: HashSet<String>,
}

impl<K> Default for Budgets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Budgets<K> {
    /// Counts a question of a user.
    pub(crate) fn question(&mut self, user: &K, now: Instant) -> Result<(), Refusal> {
        let budget = self.of(user, now);
        let passed = now.saturating_duration_since(budget.at).as_secs_f64();
        budget.left = passed.mul_add(A_SECOND, budget.left).min(AT_ONCE);
        budget.at = now;
        if budget.left < 1.0 {
            return Err(Refusal::TooMany);
        }
        budget.left -= 1.0;
        Ok(())
    }

    /// Counts a name that a wildcard stands for.
    pub(crate) fn name(&mut self, user: &K, name: &str, now: Instant) -> Result<(), Refusal> {
        let budget = self.of(user, now);
        if now.saturating_duration_since(budget.window) >= WINDOW {
            budget.window = now;
            budget.names.clear();
        }
        if budget.names.contains(name) {
            return Ok(());
        }
        if budget.names.len() >= NAMES {
            return Err(Refusal::TooManyNames);
        }
        budget.names.insert(name.to_owned());
        Ok(())
    }

    fn of(&mut self, user: &K, now: Instant) -> &mut Budget {
        if self.0.len() >= USERS
            && !self.0.contains_key(user)
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, budget)| budget.at).map(|(user, _)| user.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.entry(user.clone()).or_insert_with(|| Budget {
            left: AT_ONCE,
            at: now,
            window: now,
            names: HashSet::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_let_in_again_as_time_passes() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let answered = (0..1000).filter(|_| budgets.question(&1, start).is_ok()).count();
        assert_eq!(answered, 200);
        assert_eq!(budgets.question(&2, start), Ok(()), "another user's flood is not one's own");
        let later = start + Duration::from_secs(1);
        let answered = (0..1000).filter(|_| budgets.question(&1, later).is_ok()).count();
        assert_eq!(answered, 50);
    }

    #[test]
    fn a_wildcard_s_names_run_out_but_those_known_stay_known() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        for number in 0..NAMES {
            budgets.name(&1, &format!("{number}.internal"), start).unwrap();
        }
        assert_eq!(budgets.name(&1, "one-more.internal", start), Err(Refusal::TooManyNames));
        assert_eq!(budgets.name(&1, "7.internal", start), Ok(()));
        assert_eq!(budgets.name(&1, "one-more.internal", start + WINDOW), Ok(()));
    }

    #[test]
    fn users_beyond_those_remembered_do_not_fill_memory() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        for uid in 0..=4096_u32 {
            budgets.question(&uid, start + Duration::from_millis(u64::from(uid))).unwrap();
        }
        assert_eq!(budgets.0.len(), USERS);
        assert!(!budgets.0.contains_key(&0));
    }
}
