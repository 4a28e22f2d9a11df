//! How many connections there are, how many there may be, and what became of the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use thiserror::Error;
use tidegate_policy::Sharer;

use crate::config::Limits;

/// Counts connections and keeps them within limits.
#[derive(Debug)]
pub(crate) struct Live {
    limits: Limits,
    now: AtomicUsize,
    by_sharer: Mutex<HashMap<Sharer, usize>>,
    served: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    live: Arc<Live>,
    of: Option<Sharer>,
}

/// Why a connection was refused before its protocol was spoken. The client sees a reset.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    /// The limit of all.
    #[error("the agent has as many sessions as its limit allows")]
    Full,
    /// The limit of one principal.
    #[error("{0} has as many sessions as its limit allows")]
    PrincipalFull(Sharer),
    /// Made to the listener directly.
    #[error("no governed process made this connection")]
    UnknownOrigin,
    /// The kernel could not be asked.
    #[error("{0}")]
    Kernel(String),
    /// Redirected, but the bundle no longer has such a resource.
    #[error("the destination is no resource of the bundle in force")]
    NoResource,
    /// The address of the resource's server could not be found.
    #[error("the resource's server is nowhere to be found: {0}")]
    NoAddress(String),
    /// The record could not be begun.
    #[error("{0}")]
    NoRecord(String),
}

impl Refused {
    /// Its name among the counters.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Full => "limit",
            Self::PrincipalFull(_) => "limit-of-principal",
            Self::UnknownOrigin => "unknown-origin",
            Self::Kernel(_) => "kernel",
            Self::NoResource => "no-resource",
            Self::NoAddress(_) => "no-address",
            Self::NoRecord(_) => "no-record",
        }
    }
}

impl Live {
    /// Nobody yet.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            now: AtomicUsize::new(0),
            by_sharer: Mutex::default(),
            served: AtomicU64::new(0),
            refused: Mutex::default(),
        })
    }

    /// A place for a new connection, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place, Refused> {
        let place = Place { live: self.clone(), of: None };
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.sessions { Err(Refused::Full) } else { Ok(place) }
    }

    /// Connections now.
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Sessions that began since the start.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Connections refused since the start, by reason.
    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.refused).clone()
    }

    /// Counts a refusal.
    pub(crate) fn count(&self, refused: &Refused) {
        *lock(&self.refused).entry(refused.name()).or_default() += 1;
    }

    /// Counts a session that began.
    pub(crate) fn count_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Says whose it is, once that is known.
    pub(crate) fn claim(&mut self, sharer: Sharer) -> Result<(), Refused> {
        let mut by_sharer = lock(&self.live.by_sharer);
        let count = by_sharer.entry(sharer.clone()).or_default();
        if *count >= self.live.limits.sessions_per_principal {
            return Err(Refused::PrincipalFull(sharer));
        }
        *count += 1;
        self.of = Some(sharer);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.now.fetch_sub(1, Ordering::Relaxed);
        let Some(sharer) = &self.of else { return };
        let mut by_sharer = lock(&self.live.by_sharer);
        if let Some(count) = by_sharer.get_mut(sharer) {
            *count -= 1;
            if *count == 0 {
                by_sharer.remove(sharer);
            }
        }
    }
}

/// Counts stay whole whatever a holder does.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(sessions: usize, sessions_per_principal: usize) -> Arc<Live> {
        Live::new(Limits { sessions, sessions_per_principal })
    }

    #[test]
    fn a_full_house_refuses_until_somebody_leaves() {
        let live = live(2, 2);
        let (one, _two) = (live.enter().unwrap(), live.enter().unwrap());
        assert!(matches!(live.enter(), Err(Refused::Full)));
        assert_eq!(live.now(), 2);
        drop(one);
        live.enter().unwrap();
    }

    #[test]
    fn one_principal_cannot_take_the_places_of_the_others() {
        let live = live(10, 1);
        let (mut one, mut two, mut three) =
            (live.enter().unwrap(), live.enter().unwrap(), live.enter().unwrap());
        let (ann, container) = (Sharer::Account(61_001), Sharer::Container("4f2".into()));
        one.claim(ann.clone()).unwrap();
        let refused = two.claim(ann.clone()).unwrap_err();
        assert_eq!(refused.to_string(), "uid 61001 has as many sessions as its limit allows");
        three.claim(container).unwrap();
        drop(one);
        two.claim(ann).unwrap();
        drop((two, three));
        assert!(lock(&live.by_sharer).is_empty());
    }
}
