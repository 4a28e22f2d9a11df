//! Cancel requests that reach the right session.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};
use tokio::sync::oneshot;

/// What a session's upstream takes as a cancel request for it.
#[derive(Clone)]
pub(crate) struct Target {
    /// Where its upstream is.
    pub(crate) address: SocketAddr,
    /// The upstream's process id for the session.
    pub(crate) process_id: u32,
    /// The upstream's secret for the session.
    pub(crate) secret: Arc<[u8]>,
    /// The account that the session belongs to; no other may cancel it.
    pub(crate) uid: u32,
    /// The session's id, for the record.
    pub(crate) session: Arc<str>,
    /// Reaches the session while nothing of it runs upstream.
    pub(crate) interrupt: Interrupt,
}

/// How a cancel request reaches a session that waits for a person.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Interrupt {
    /// From now on a cancel request is for what waits, until the receiver is dropped.
    pub(crate) fn arm(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *self.lock() = Some(sender);
        receiver
    }

    /// Whether something waited and is told.
    pub(crate) fn fire(&self) -> bool {
        self.lock().take().is_some_and(|waiting| waiting.send(()).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Option<oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("session", &self.session).finish_non_exhaustive()
    }
}

/// The cancel keys of the sessions that are open. Clients get keys of the gate's own, never the upstream's.
#[derive(Debug, Default)]
pub(crate) struct CancelKeys(Mutex<Bearers>);

/// By process id, the secrets and sessions that bear it: several upstreams may give the same one.
type Bearers = HashMap<u32, Vec<(Box<[u8]>, Target)>>;

/// A session's place among the cancel keys, given up when dropped.
#[derive(Debug)]
pub(crate) struct CancelKey {
    keys: Arc<CancelKeys>,
    process_id: u32,
    secret: Box<[u8]>,
}

impl CancelKeys {
    /// Registers a session under a fresh secret of `length` bytes. None if there is no randomness to be had.
    pub(crate) fn register(self: &Arc<Self>, target: Target, length: usize) -> Option<CancelKey> {
        let mut secret = vec![0; length].into_boxed_slice();
        rand::fill(&mut secret).ok()?;
        let process_id = target.process_id;
        self.lock().entry(process_id).or_default().push((secret.clone(), target));
        Some(CancelKey { keys: self.clone(), process_id, secret })
    }

    /// The session that a cancel request from this account means.
    pub(crate) fn find(&self, process_id: u32, secret: &[u8], uid: u32) -> Option<Target> {
        let keys = self.lock();
        let (_, target) = keys
            .get(&process_id)?
            .iter()
            .find(|(known, target)| target.uid == uid && verify_slices_are_equal(known, secret).is_ok())?;
        Some(target.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Bearers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelKey {
    /// The process id that the client is told: the upstream's own.
    pub(crate) fn process_id(&self) -> u32 {
        self.process_id
    }

    /// What the upstream takes as a cancel request for this session.
    pub(crate) fn target(&self) -> Option<Target> {
        let keys = self.keys.lock();
        let (_, target) = keys.get(&self.process_id)?.iter().find(|(secret, _)| *secret == self.secret)?;
        Some(target.clone())
    }

    /// The secret that the client is told.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        let mut keys = self.keys.lock();
        if let Some(bearers) = keys.get_mut(&self.process_id) {
            bearers.retain(|(secret, _)| *secret != self.secret);
            if bearers.is_empty() {
                keys.remove(&self.process_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 5432));
        let (secret, interrupt) = (Arc::from([1u8; 4]), Interrupt::default());
        Target { address, process_id: 7, secret, uid: 1000, session: "s".into(), interrupt }
    }

    #[test]
    fn a_key_finds_its_session_until_it_is_dropped() {
        let keys = Arc::new(CancelKeys::default());
        let key = keys.register(target(), 32).unwrap();
        let secret = key.secret().to_vec();
        assert!(keys.find(7, &secret, 1000).is_some());
        assert_eq!(key.target().map(|target| target.process_id), Some(7));
        drop(key);
        assert!(keys.find(7, &secret, 1000).is_none());
    }

    #[test]
    fn what_waits_is_interrupted_once_and_only_while_it_waits() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.fire());
        let mut waiting = interrupt.arm();
        assert!(interrupt.fire());
        assert!(waiting.try_recv().is_ok());
        assert!(!interrupt.fire());
        drop(interrupt.arm());
        assert!(!interrupt.fire());
    }

    #[test]
    fn another_account_or_another_secret_finds_nothing() {
        let keys = Arc::new(CancelKeys::default());
        let key = keys.register(target(), 4).unwrap();
        let mut wrong = key.secret().to_vec();
        assert!(keys.find(7, &wrong, 1001).is_none());
        wrong[0] ^= 1;
        assert!(keys.find(7, &wrong, 1000).is_none());
        assert!(keys.find(7, &[], 1000).is_none());
    }
}
