//! Tokens that were got, each for whom it was got, and what could not be had.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidegate_gate::Credential;

/// Most tokens that are kept.
const MOST: usize = 1_024;
/// How long after a token was taken for over the next one isn't: who asks for what refuses any token has no token got each time.
const AGAIN: Duration = Duration::from_secs(30);

/// What a token is known by: a digest of all that it was got with.
pub(super) type Key = [u8; 32];

/// A token, or why there is none.
pub(super) type Had = Result<Arc<Credential>, Arc<str>>;

/// What was had, as long as it counts.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<Key, Slot>>);

#[derive(Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    had: Option<(Had, Instant)>,
    /// When a token of it was last taken for over.
    forgotten: Option<Instant>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Slot {
    fn counts(&self, now: Instant) -> Option<&Had> {
        self.had.as_ref().filter(|(_, until)| *until > now).map(|(had, _)| had)
    }

    fn was_forgotten(&self, now: Instant) -> bool {
        self.forgotten.is_some_and(|then| now.duration_since(then) < AGAIN)
    }

    fn is_asked_for(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }
}

impl Kept {
    /// What was had for this, if it still counts.
    pub(super) fn had(&self, key: &Key) -> Option<Had> {
        self.lock().get(key)?.counts(Instant::now()).cloned()
    }

    /// One at a time asks for the same; nobody waits for what others ask.
    pub(super) fn turn(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut slots = self.lock();
        let now = Instant::now();
        slots.retain(|_, slot| slot.is_asked_for() || slot.counts(now).is_some() || slot.was_forgotten(now));
        if slots.len() >= MOST && !slots.contains_key(&key) {
            let until = |slot: &Slot| slot.had.as_ref().map(|(_, until)| *until);
            let idle = slots.iter().filter(|(_, slot)| !slot.is_asked_for());
            if let Some(first) = idle.min_by_key(|(_, slot)| until(slot)).map(|(key, _)| *key) {
                slots.remove(&first);
            }
        }
        slots.entry(key).or_default().turn.clone()
    }

    /// Keeps what was had for so long.
    pub(super) fn keep(&self, key: Key, had: Had, counts: Duration) {
        self.lock().entry(key).or_default().had = Some((had, Instant::now() + counts));
    }

    /// Takes a token for over, unless it came in place of one that was a moment ago.
    pub(super) fn forget(&self, token: &Arc<Credential>) {
        let is_it = |(had, _): &(Had, Instant)| had.as_ref().is_ok_and(|known| Arc::ptr_eq(known, token));
        let now = Instant::now();
        let mut slots = self.lock();
        let slot = slots.values_mut().find(|slot| slot.had.as_ref().is_some_and(is_it));
        if let Some(slot) = slot.filter(|slot| !slot.was_forgotten(now)) {
            (slot.had, slot.forgotten) = (None, Some(now));
        }
    }

    /// A lock whose holder panicked guards whole entries.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn there_is_room_for_so_many_and_the_one_that_ends_first_goes() {
        let kept = Kept::default();
        for number in 0..=MOST {
            drop(kept.turn(key(number)));
            kept.keep(key(number), Ok(Arc::default()), Duration::from_secs(1000 - (number as u64 % 500)));
        }
        assert!(kept.had(&key(MOST)).is_some() && kept.had(&key(0)).is_some());
        assert_eq!((0..=MOST).filter(|number| kept.had(&key(*number)).is_none()).count(), 1);
        assert!(kept.had(&key(499)).is_none());
    }

    #[test]
    fn what_counts_no_more_is_not_kept() {
        let kept = Kept::default();
        kept.keep(key(1), Ok(Arc::default()), Duration::ZERO);
        drop(kept.turn(key(2)));
        assert!(kept.had(&key(1)).is_none() && !kept.lock().contains_key(&key(1)));
    }
}
