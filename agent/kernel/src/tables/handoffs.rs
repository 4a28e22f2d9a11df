//! Connections that were redirected and not yet accepted, and how many those of each user are.

use std::collections::{BTreeMap, HashSet};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use tidegate_abi::{ALL_USERS, Handoff, HandoffKey, OTHER_USERS, Waiting};

use super::{found, gone, named, take};
use crate::KernelError;

/// Connections that wait.
pub(crate) struct HandoffTable {
    entries: HashMap<MapData, HandoffKey, Handoff>,
    /// How many there were, by user and in all; the programs count them.
    waiting: HashMap<MapData, u32, Waiting>,
    /// How many of these were taken. Nobody else writes it.
    taken: HashMap<MapData, u32, u64>,
    /// What the programs had counted when it was last tidied up.
    before: BTreeMap<u32, Waiting>,
}

impl HandoffTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        let mut waiting: HashMap<_, u32, Waiting> = take(object, "WAITING")?;
        // Before users can take all the room.
        for all in [ALL_USERS, OTHER_USERS] {
            if found(waiting.get(&all, 0), "WAITING")?.is_none() {
                waiting.insert(all, Waiting::default(), 0).map_err(named("WAITING"))?;
            }
        }
        let (entries, taken) = (take(object, "HANDOFFS")?, take(object, "TAKEN")?);
        Ok(Self { entries, waiting, taken, before: BTreeMap::new() })
    }

    /// Looks an entry up and deletes it. It is counted first: an agent that is killed in between lets its user have one more,
    /// and not one less for good.
    pub(crate) fn remove(&mut self, key: &HandoffKey) -> Result<Option<Handoff>, KernelError> {
        let Some(handoff) = found(self.entries.get(key, 0), "HANDOFFS")? else { return Ok(None) };
        let counted = handoff.counted();
        self.count(counted, |taken| taken.saturating_add(1))?;
        if let Err(error) = self.entries.remove(key) {
            // Its connection has ended meanwhile, and the programs have counted that.
            self.count(counted, |taken| taken.saturating_sub(1))?;
            gone(error).map_err(named("HANDOFFS"))?;
        }
        Ok(Some(handoff))
    }

    /// Changes how many were taken of a user's and in all; nobody else writes that.
    fn count(&mut self, counted: u32, change: fn(u64) -> u64) -> Result<(), KernelError> {
        for user in [counted, ALL_USERS] {
            let taken = found(self.taken.get(&user, 0), "TAKEN")?.unwrap_or(0);
            self.taken.insert(user, change(taken), 0).map_err(named("TAKEN"))?;
        }
        Ok(())
    }

    /// Forgets the counts of users of whom nothing waits, and nothing has come or gone since this was last done: there is
    /// room for so many users.
    pub(crate) fn tidy(&mut self) -> Result<(), KernelError> {
        let entries = self.entries.iter().filter_map(Result::ok);
        let mut kept: HashSet<u32> = entries.map(|(_, handoff)| handoff.counted()).collect();
        kept.extend([ALL_USERS, OTHER_USERS]);
        let counts: BTreeMap<u32, Waiting> = self.waiting.iter().filter_map(Result::ok).collect();
        let is_idle =
            |user: &u32, count: &Waiting| !kept.contains(user) && self.before.get(user) == Some(count);
        let idle: HashSet<u32> =
            counts.iter().filter(|(user, count)| is_idle(user, count)).map(|(user, _)| *user).collect();
        for user in &idle {
            self.waiting.remove(user).or_else(gone).map_err(named("WAITING"))?;
        }
        // Second, so that nobody is refused meanwhile; and what an agent left that was killed in between.
        let taken: Vec<u32> = self.taken.keys().filter_map(Result::ok).collect();
        for user in taken.iter().filter(|user| idle.contains(user) || !counts.contains_key(user)) {
            self.taken.remove(user).or_else(gone).map_err(named("TAKEN"))?;
        }
        self.before = counts;
        Ok(())
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.keys().filter(Result::is_ok).count()
    }
}
