//! Asking a service that may be slow, or never answer, so that nobody is stopped but who waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tidegate_gate::Turns;
use tokio::{task::spawn_blocking, time::timeout};

/// How many are asked for at a time: of one account, and of all. Fewer than a lane has threads for.
const AT_ONCE: (usize, usize) = (1, 2);
/// How long what could not be told isn't asked for again.
const PAUSE: Duration = Duration::from_secs(10);

/// What is told of an account; none if it could not be.
type Told<T> = Option<T>;

/// What a service tells of accounts, remembered for a while.
pub(super) struct Lookup<T>(Arc<Inner<T>>);

struct Inner<T> {
    turns: Turns,
    patience: Duration,
    kept: Duration,
    known: Mutex<HashMap<u32, (Told<T>, Instant)>>,
    ask: Box<dyn Fn(u32) -> Told<T> + Send + Sync>,
}

impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> Lookup<T> {
    /// `ask` may block; it is waited for no longer than `patience`, and what it tells is remembered for as long as `kept`.
    pub(super) fn new(
        (patience, kept): (Duration, Duration),
        ask: impl Fn(u32) -> Told<T> + Send + Sync + 'static,
    ) -> Self {
        let (turns, known) = (Turns::new(AT_ONCE.0, AT_ONCE.1), Mutex::default());
        Self(Arc::new(Inner { turns, patience, kept, known, ask: Box::new(ask) }))
    }

    /// What is told of this account in time.
    pub(super) async fn of(&self, account: u32) -> Told<T> {
        if let Some(told) = self.known(account) {
            return told;
        }
        if let Ok(told) = timeout(self.0.patience, self.ask(account)).await {
            return told;
        }
        self.keep(account, None);
        None
    }

    /// The same, of what is remembered.
    pub(super) fn known(&self, account: u32) -> Option<Told<T>> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&account).filter(|(_, until)| Instant::now() < *until).map(|(told, _)| told.clone())
    }

    /// Remembers what was told. Whoever waited in vain forgets nothing that came meanwhile.
    pub(super) fn keep(&self, account: u32, told: Told<T>) {
        let now = Instant::now();
        let until = now + if told.is_some() { self.0.kept } else { PAUSE };
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, until)| now < *until);
        if told.is_some() || !known.contains_key(&account) {
            known.insert(account, (told, until));
        }
    }

    async fn ask(&self, account: u32) -> Told<T> {
        let turn = self.0.turns.of(account).await;
        // Who had the turn before may have asked for it.
        if let Some(told) = self.known(account) {
            return told;
        }
        let lookup = self.clone();
        let asked = spawn_blocking(move || {
            let told = (lookup.0.ask)(account);
            lookup.keep(account, told.clone());
            drop(turn);
            told
        });
        asked.await.unwrap_or_default()
    }
}
