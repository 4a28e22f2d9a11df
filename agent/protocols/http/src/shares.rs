//! What one account may have of a resource at a time: connections, ports and memory are everybody's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tidegate_policy::Sharer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Requests.
const REQUESTS: usize = 2048;
/// Connections upstream: a seventh of the ports that a host has for one address.
const CONNECTIONS: usize = 4096;
/// Bytes of bodies that are read before they are decided on, or before they can be signed, and of what is held of responses to be
/// looked through, until it is taken.
const BODIES: usize = 64 * 1024 * 1024;
/// Bytes of responses that upstreams may send before their clients take them, over connections with ample windows.
const WINDOWS: usize = 256 * 1024 * 1024;

/// The windows of a connection of HTTP/2: as fast as most networks are.
const AMPLE: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);
/// The windows of the others, once an account has many: each is slower over a long way.
const SCANT: (u32, u32) = (64 * 1024, 128 * 1024);

/// The shares of all accounts that have sessions.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<Sharer, Weak<Share>>>);

/// One account's.
#[derive(Debug)]
pub(crate) struct Share {
    requests: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    windows: Arc<Semaphore>,
}

/// How much an upstream may send over HTTP/2 before it is taken, and its place among the account's.
#[derive(Debug)]
pub(crate) struct Window {
    /// Bytes of one response.
    pub(crate) of_stream: u32,
    /// Bytes of all responses of the connection.
    pub(crate) of_connection: u32,
    _room: Option<OwnedSemaphorePermit>,
}

/// What is held of one response, beyond its first bytes.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    share: &'a Share,
    taken: Option<OwnedSemaphorePermit>,
}

impl<'a> Room<'a> {
    /// Bytes that everybody may hold; beyond them room is taken in steps of as many.
    const FREE: usize = 64 * 1024;

    pub(crate) fn of(share: &'a Share) -> Self {
        Self { share, taken: None }
    }

    /// So many bytes are held from now on.
    pub(crate) fn holds(&mut self, bytes: usize) -> Result<(), Problem> {
        let wanted = bytes.saturating_sub(Self::FREE).next_multiple_of(Self::FREE);
        let had = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        match &mut self.taken {
            Some(taken) if wanted < had => drop(taken.split(had - wanted)),
            _ if wanted <= had => {}
            taken => {
                let more =
                    taken_of(&self.share.bodies, wanted - had, "bytes of responses that are not taken")?;
                match taken {
                    Some(taken) => taken.merge(more),
                    none => *none = Some(more),
                }
            }
        }
        Ok(())
    }
}

impl Shares {
    /// The share of an account, for as long as it has a session.
    pub(crate) fn of(&self, account: impl Into<Sharer>) -> Arc<Share> {
        let account = account.into();
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&account).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            requests: Arc::new(Semaphore::new(REQUESTS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            bodies: Arc::new(Semaphore::new(BODIES)),
            windows: Arc::new(Semaphore::new(WINDOWS)),
        });
        shares.insert(account, Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// Room for one more request.
    pub(crate) fn request(&self) -> Result<OwnedSemaphorePermit, Problem> {
        taken_of(&self.requests, 1, "requests under way")
    }

    /// Room for one more connection upstream.
    pub(crate) fn connection(&self) -> Result<OwnedSemaphorePermit, Problem> {
        taken_of(&self.connections, 1, "connections")
    }

    /// Room for so many bytes of a body.
    pub(crate) fn body(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        taken_of(&self.bodies, bytes, "bytes of requests that wait")
    }

    /// The windows of one more connection upstream: ample, while the account has room for them.
    pub(crate) fn window(&self) -> Window {
        let room = self.windows.clone().try_acquire_many_owned(AMPLE.1).ok();
        let (of_stream, of_connection) = if room.is_some() { AMPLE } else { SCANT };
        Window { of_stream, of_connection, _room: room }
    }
}

fn taken_of(of: &Arc<Semaphore>, count: usize, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    let taken = u32::try_from(count).ok().and_then(|count| of.clone().try_acquire_many_owned(count).ok());
    taken.ok_or_else(|| {
        Problem::busy(format!(
            "this account has as many {what} to this resource as it may: ask again when some are done"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_takes_all_it_may_leaves_the_others_theirs() {
        let shares = Shares::default();
        let (one, other) = (shares.of(1), shares.of(2));
        let all: Vec<_> = (0..CONNECTIONS).map(|_| one.connection().unwrap()).collect();
        assert!(shares.of(1).connection().is_err(), "another session of its own");
        assert!(other.connection().is_ok());
        drop(all);
        assert!(one.connection().is_ok());
        let room = one.body(BODIES).unwrap();
        assert!(one.body(1).is_err() && other.body(1).is_ok());
        drop(room);
        assert!(one.body(1).is_ok());
        assert!(one.body(usize::MAX).is_err());
    }

    #[test]
    fn an_account_with_many_connections_has_less_on_its_way_over_each_and_the_others_have_theirs() {
        let shares = Shares::default();
        let (one, other) = (shares.of(1), shares.of(2));
        let windows: Vec<_> = (0..CONNECTIONS).map(|_| one.window()).collect();
        let all: usize = windows.iter().map(|window| window.of_connection as usize).sum();
        assert!(all <= 768 * 1024 * 1024, "{all}");
        assert_eq!((windows[0].of_stream, windows[0].of_connection), AMPLE);
        assert_eq!((one.window().of_stream, one.window().of_connection), SCANT);
        assert_eq!(other.window().of_connection, AMPLE.1);
        drop(windows);
        assert_eq!(one.window().of_connection, AMPLE.1, "they have ended");
    }

    #[test]
    fn what_responses_hold_is_of_one_room_and_given_back_as_it_is_taken() {
        let shares = Shares::default();
        let share = shares.of(1);
        let (mut one, mut other) = (Room::of(&share), Room::of(&share));
        one.holds(Room::FREE).unwrap();
        assert!(share.body(BODIES).is_ok(), "the first bytes are everybody's");
        one.holds(BODIES + Room::FREE).unwrap();
        assert!(other.holds(Room::FREE + 1).is_err() && other.holds(Room::FREE).is_ok());
        one.holds(BODIES).unwrap();
        other.holds(Room::FREE + 1).unwrap();
        drop((one, other));
        assert!(share.body(BODIES).is_ok());
    }

    #[test]
    fn accounts_without_sessions_are_forgotten() {
        let shares = Shares::default();
        (0..100).for_each(|account| drop(shares.of(account)));
        assert_eq!(shares.0.lock().unwrap().len(), 1);
    }
}
