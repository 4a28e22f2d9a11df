//! Questions as they are, and how they change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tidegate_gate::{Pace, Revocation, Turns};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
};

use super::Limits;
use crate::{
    Audience, Clock, Inquiry, Letter, State,
    store::{Store, StoreError},
};

/// How often a change is tried anew because somebody else was faster.
pub(super) const ATTEMPTS: usize = 32;

/// What a desk has.
pub(super) struct Inner {
    pub(super) host: Arc<str>,
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) limits: Limits,
    pub(super) audience: Audience,
    /// How often accounts ask, and how often they come back to what they may have asked.
    pub(super) asks: Pace,
    pub(super) returns: Pace,
    /// Whose turn it is to be looked up in the store: no account is there more often than others, however often it asks.
    pub(super) turns: Turns,
    /// Questions that somebody waits for here, by id.
    pub(super) waited: Mutex<HashMap<Arc<str>, watch::Sender<Arc<Inquiry>>>>,
    /// Questions whose yes somebody here relies on, by id: how many do.
    pub(super) relied: Mutex<HashMap<Arc<str>, usize>>,
    pub(super) changes: watch::Sender<u64>,
    /// What was asked or changed, in short.
    pub(super) briefs: broadcast::Sender<Arc<Inquiry>>,
    /// Yeses that were taken back.
    pub(super) revoked: broadcast::Sender<Arc<Revocation>>,
    /// Where what nobody waits for is done.
    pub(super) home: Handle,
}

impl Inner {
    /// Changes a question by what is known of it now, until nobody was faster. What was refused may change it, too: by
    /// having noticed that it expired. None if there is no such question.
    pub(super) async fn change<T, E>(
        &self,
        id: &str,
        change: impl Fn(&mut Inquiry, Timestamp) -> Result<T, E>,
    ) -> Result<Option<Result<Inquiry, E>>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.store.load(id).await? else { return Ok(None) };
            let mut after = before.clone();
            let outcome = change(&mut after, self.clock.now());
            if after != before {
                if !self.store.replace(&after, &self.letters(&before, &after)?).await? {
                    continue;
                }
                after.version += 1;
                self.publish(&after);
            }
            return Ok(Some(outcome.map(|_| after)));
        }
        Err(StoreError::new("everybody changes this question at once; try again"))
    }

    /// Tells whoever waits for it, and whoever watches.
    pub(super) fn publish(&self, inquiry: &Inquiry) {
        if let Some(waits) = self.waited().get(&inquiry.id) {
            waits.send_if_modified(|known| {
                let newer = known.version < inquiry.version;
                if newer {
                    *known = Arc::new(inquiry.clone());
                }
                newer
            });
        }
        self.tell(inquiry, Inquiry::brief);
    }

    /// Tells whoever relies on a yes that it was taken back, and whoever watches. What in short is made only if somebody does.
    pub(super) fn tell(&self, inquiry: &Inquiry, in_short: impl FnOnce(&Inquiry) -> Inquiry) {
        if let Some(revocation) = revocation(inquiry) {
            // Nobody may rely on it.
            let _ = self.revoked.send(revocation.into());
        }
        if self.is_watched() {
            let _ = self.briefs.send(Arc::new(in_short(inquiry)));
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Who took one of these yeses back, if anybody did. Nothing shows that one which is no longer kept, or can't be read any more,
    /// still stands.
    pub(super) async fn revocation(&self, questions: &[Arc<str>]) -> Result<Option<Revocation>, StoreError> {
        self.first_ended(questions, revocation).await
    }

    /// The same of yeses that nothing was let in by yet: one whose time is over lets nothing in any more.
    pub(super) async fn ended(&self, questions: &[Arc<str>]) -> Result<Option<Revocation>, StoreError> {
        let now = self.clock.now();
        let over = |inquiry: &Inquiry| inquiry.is_over(now).then(|| gone(&inquiry.id, "its time is over"));
        self.first_ended(questions, |inquiry| revocation(inquiry).or_else(|| over(inquiry))).await
    }

    async fn first_ended(
        &self,
        questions: &[Arc<str>],
        how: impl Fn(&Inquiry) -> Option<Revocation>,
    ) -> Result<Option<Revocation>, StoreError> {
        for id in questions {
            let ended = match self.store.load(id).await {
                Ok(Some(inquiry)) => how(&inquiry),
                Ok(None) => Some(gone(id, "it is no longer kept")),
                Err(error) if error.is_of_one() => Some(gone(id, "it can't be read any more")),
                Err(error) => return Err(error),
            };
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    /// Tells whoever relies on it if this yes was taken back.
    pub(super) async fn look_back(&self, id: &Arc<str>) -> Result<(), StoreError> {
        if let Some(revocation) = self.revocation(std::slice::from_ref(id)).await? {
            let _ = self.revoked.send(revocation.into());
        }
        Ok(())
    }

    /// What the change from one to the other tells the outside.
    fn letters(&self, before: &Inquiry, after: &Inquiry) -> Result<Vec<Letter>, StoreError> {
        let new = after.trail.get(before.trail.len()..).unwrap_or_default();
        self.audience.letters(&self.host, after, new)
    }

    pub(super) fn is_waited_for(&self, id: &str) -> bool {
        self.waited().contains_key(id)
    }

    pub(super) fn waited(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Sender<Arc<Inquiry>>>> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Yeses that somebody here relies on.
    pub(super) fn relied(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.relied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody here watches all questions.
    pub(super) fn is_watched(&self) -> bool {
        self.briefs.receiver_count() > 0
    }
}

/// Somebody relies on these yeses, until dropped.
pub(super) struct Relies<'a> {
    desk: &'a Inner,
    questions: &'a [Arc<str>],
}

impl<'a> Relies<'a> {
    pub(super) fn on(desk: &'a Inner, questions: &'a [Arc<str>]) -> Self {
        let mut relied = desk.relied();
        for id in questions {
            *relied.entry(id.clone()).or_default() += 1;
        }
        drop(relied);
        Self { desk, questions }
    }
}

impl Drop for Relies<'_> {
    fn drop(&mut self) {
        let mut relied = self.desk.relied();
        for id in self.questions {
            if let Some(count) = relied.get_mut(id) {
                *count -= 1;
            }
        }
        relied.retain(|_, count| *count > 0);
    }
}

/// Who took its yes back, if anybody did.
fn revocation(inquiry: &Inquiry) -> Option<Revocation> {
    if inquiry.state != State::Revoked {
        return None;
    }
    let last = inquiry.trail.iter().rfind(|event| event.step == "revoked");
    let (by, reason) = last.map(|event| (event.by.clone(), event.reason.clone())).unwrap_or_default();
    Some(Revocation { question: inquiry.id.clone(), by, reason })
}

fn gone(id: &Arc<str>, why: &str) -> Revocation {
    Revocation { question: id.clone(), by: None, reason: Some(why.into()) }
}
