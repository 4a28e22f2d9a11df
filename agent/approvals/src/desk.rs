//! Where questions come in and people answer them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use aws_lc_rs::rand;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_gate::{
    Answer, ApprovalError, Approvals, BoxFuture, Inquiry as Asking, Question, Revocation, Step, Yes,
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
    time::{sleep, sleep_until},
};

use crate::{
    Answered, Audience, Clock, Inquiry, Letter, Person, Refused, Say, State,
    inquiry::Cover,
    store::{Inserted, Most, Store, StoreError},
};

/// How often a store that others change is looked at for questions that somebody here waits for.
const LOOK: Duration = Duration::from_millis(500);
/// How often a store is looked at for a yes that was taken back elsewhere, or that it could not be asked about.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// How many yeses taken back one who relies on another may be behind before they ask the store.
const BACKLOG: usize = 64;
/// How often a change is tried anew because somebody else was faster.
const ATTEMPTS: usize = 32;
/// Of what an id is made: nothing that looks like something else.
const LETTERS: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";

/// How many questions may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of everybody on the host.
    pub all: usize,
    /// Of one principal.
    pub of_principal: usize,
}

/// What one person may know of all questions.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Newest first.
    pub inquiries: Vec<Inquiry>,
}

/// Where questions come in and people answer them.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    host: Arc<str>,
    clock: Clock,
    store: Arc<dyn Store>,
    limits: Limits,
    audience: Audience,
    /// Questions that somebody waits for here, by id.
    waited: Mutex<HashMap<Arc<str>, watch::Sender<Arc<Inquiry>>>>,
    changes: watch::Sender<u64>,
    /// Questions whose yes was taken back here.
    revoked: broadcast::Sender<Arc<str>>,
    /// Where what nobody waits for is done.
    home: Handle,
}

/// Somebody who waits.
struct Waits {
    desk: Desk,
    id: Arc<str>,
    session: Arc<str>,
    now: watch::Receiver<Arc<Inquiry>>,
    /// How much of the trail was told.
    told: usize,
}

impl Desk {
    /// A desk of this host, within a runtime that outlives whoever asks.
    pub fn open(host: &str, store: Arc<dyn Store>, limits: Limits, audience: Audience) -> Self {
        Self::open_by(Clock::default(), host, store, limits, audience)
    }

    /// The same, by another clock than the system's.
    pub fn open_by(
        clock: Clock,
        host: &str,
        store: Arc<dyn Store>,
        limits: Limits,
        audience: Audience,
    ) -> Self {
        let inner = Inner {
            host: host.into(),
            clock,
            store,
            limits,
            audience,
            waited: Mutex::default(),
            changes: watch::Sender::new(0),
            revoked: broadcast::Sender::new(BACKLOG),
            home: Handle::current(),
        };
        let desk = Self(Arc::new(inner));
        if desk.0.store.is_shared() {
            desk.0.home.spawn(look(Arc::downgrade(&desk.0)));
        }
        desk
    }

    /// Where questions are kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The host that asks here.
    pub fn host(&self) -> &Arc<str> {
        &self.0.host
    }

    /// Ticks whenever a question is asked or changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What this person may know: questions that wait, owe a review, or whose yes still counts; or `all`.
    pub async fn list(&self, person: &Person, all: bool, limit: u32) -> Result<Overview, StoreError> {
        let now = self.0.clock.now();
        let mut inquiries = self.0.store.list(all, now, limit).await?;
        for inquiry in &mut inquiries {
            inquiry.expire(now);
        }
        inquiries.retain(|inquiry| {
            let lives =
                all || inquiry.review_owed || matches!(inquiry.state, State::Waiting | State::Approved);
            lives && inquiry.is_visible_to(person)
        });
        Ok(Overview { inquiries: inquiries.into_iter().map(Inquiry::shown).collect() })
    }

    /// One question; that somebody who may answer has seen it is noted.
    pub async fn show(&self, person: &Person, id: &str) -> Result<Inquiry, Failed> {
        self.change(person, id, |inquiry, now| {
            inquiry.seen(person, now);
            Ok(())
        })
        .await
    }

    /// Takes an answer.
    pub async fn answer(&self, person: &Person, id: &str, answered: Answered<'_>) -> Result<Inquiry, Failed> {
        let Answered { say, reason, shown } = answered;
        let taken = self
            .change(person, id, |inquiry, now| {
                if shown.is_some_and(|shown| inquiry.seal() != shown) {
                    return Err(Refused::NotShown(inquiry.id.clone()));
                }
                inquiry.take(person, say, reason, now)
            })
            .await?;
        if say == Say::BreakGlass {
            tracing::error!(question = id, by = %person, reason, "glass broken: a review is owed");
        }
        Ok(taken)
    }

    /// Changes a question that this person may know of.
    async fn change(
        &self,
        person: &Person,
        id: &str,
        change: impl Fn(&mut Inquiry, Timestamp) -> Result<(), Refused>,
    ) -> Result<Inquiry, Failed> {
        let change = |inquiry: &mut Inquiry, now| match inquiry.is_visible_to(person) {
            true => change(inquiry, now),
            false => Err(Refused::Unknown(id.to_owned())),
        };
        match self.0.change(id, change).await? {
            Some(changed) => Ok(changed?.shown()),
            None => Err(Refused::Unknown(id.to_owned()).into()),
        }
    }
}

/// Why somebody's answer did not count.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// They may not, or it is too late.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Inner {
    /// Changes a question by what is known of it now, until nobody was faster. What was refused may change it, too: by
    /// having noticed that it expired. None if there is no such question.
    async fn change<T, E>(
        &self,
        id: &str,
        change: impl Fn(&mut Inquiry, Timestamp) -> Result<T, E>,
    ) -> Result<Option<Result<Inquiry, E>>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.store.load(id).await? else { return Ok(None) };
            let mut after = before.clone();
            let outcome = change(&mut after, self.clock.now());
            if after != before {
                if !self.store.replace(&after, &self.letters(&before, &after)).await? {
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
    fn publish(&self, inquiry: &Inquiry) {
        if let Some(waits) = self.waited().get(&inquiry.id) {
            waits.send_if_modified(|known| {
                let newer = known.version < inquiry.version;
                if newer {
                    *known = Arc::new(inquiry.clone());
                }
                newer
            });
        }
        if inquiry.state == State::Revoked {
            // Nobody may rely on it.
            let _ = self.revoked.send(inquiry.id.clone());
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Who took one of these yeses back, if anybody did.
    async fn revocation(&self, questions: &[Arc<str>]) -> Result<Option<Revocation>, StoreError> {
        for id in questions {
            let Some(inquiry) = self.store.load(id).await? else { continue };
            if inquiry.state == State::Revoked {
                let last = inquiry.trail.iter().rfind(|event| event.step == "revoked");
                let (by, reason) =
                    last.map(|event| (event.by.clone(), event.reason.clone())).unwrap_or_default();
                return Ok(Some(Revocation { question: id.clone(), by, reason }));
            }
        }
        Ok(None)
    }

    /// What the change from one to the other tells the outside.
    fn letters(&self, before: &Inquiry, after: &Inquiry) -> Vec<Letter> {
        let new = after.trail.get(before.trail.len()..).unwrap_or_default();
        self.audience.letters(&self.host, after, new)
    }

    fn is_waited_for(&self, id: &str) -> bool {
        self.waited().contains_key(id)
    }

    fn waited(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Sender<Arc<Inquiry>>>> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Finds what covers all of a question, and claims it where it counts for one only.
    async fn known(&self, asked: &Inquiry) -> Result<Option<Vec<Yes>>, StoreError> {
        let now = self.0.clock.now();
        let mut covering: Vec<(Inquiry, Cover)> = Vec::new();
        for term in &asked.terms {
            let cover = |inquiry: &Inquiry| {
                let attended = self.0.is_waited_for(&inquiry.id) || inquiry.host != asked.host;
                inquiry.covers(&term.key, &asked.session, attended, now)
            };
            let found = self.0.store.find(&term.key, now).await?;
            let mut found = found.into_iter().map(|inquiry| (cover(&inquiry), inquiry));
            let Some((cover, inquiry)) = found.find(|(cover, _)| *cover != Cover::No) else {
                return Ok(None);
            };
            covering.push((inquiry, cover));
        }
        for (inquiry, cover) in &covering {
            if *cover == Cover::OnceClaimed && !self.claim(&inquiry.id, &asked.session).await? {
                return Ok(None);
            }
        }
        let mut yeses: Vec<Yes> = Vec::new();
        for (inquiry, _) in covering {
            if yeses.iter().all(|yes| yes.id != inquiry.id) {
                let by: Vec<String> = inquiry.agreed.into_iter().map(|who| who.name).collect();
                yeses.push(Yes { id: inquiry.id, by: by.join(", ") });
            }
        }
        Ok((!yeses.is_empty()).then_some(yeses))
    }

    /// The yes goes to this session. True if it did, now or before.
    async fn claim(&self, id: &str, session: &Arc<str>) -> Result<bool, StoreError> {
        let claimed = self
            .0
            .change(id, |inquiry, _| {
                let ours = inquiry.claim(session) || inquiry.claimed.as_ref() == Some(session);
                if ours && inquiry.state == State::Approved { Ok(()) } else { Err(()) }
            })
            .await?;
        Ok(matches!(claimed, Some(Ok(_))))
    }

    /// A question that was left standing is taken up by whoever asks the very same.
    async fn take_up(&self, asked: &Inquiry) -> Result<Option<Waits>, StoreError> {
        let Some(term) = asked.terms.first() else { return Ok(None) };
        let now = self.0.clock.now();
        for inquiry in self.0.store.find(&term.key, now).await? {
            if inquiry.state != State::Waiting || now >= inquiry.expires || !inquiry.is_same(asked) {
                continue;
            }
            let Some(waits) = self.wait_for(&inquiry, &asked.session) else { continue };
            let again = |inquiry: &mut Inquiry, now| {
                inquiry.asked_again(asked, now);
                Ok::<_, ()>(())
            };
            self.0.change(&inquiry.id, again).await?;
            return Ok(Some(waits));
        }
        Ok(None)
    }

    async fn ask(&self, mut asked: Inquiry) -> Result<Waits, ApprovalError> {
        let Limits { all, of_principal } = self.0.limits;
        for _ in 0..ATTEMPTS {
            asked.id = id()?;
            let letters = self.0.audience.letters(&self.0.host, &asked, &asked.trail);
            let Some(waits) = self.wait_for(&asked, &asked.session) else { continue };
            match self.0.store.insert(&asked, Most { all, of_principal }, &letters).await.map_err(failed)? {
                Inserted::Done => {
                    self.0.publish(&asked);
                    return Ok(waits);
                }
                Inserted::Taken => {}
                Inserted::Full => {
                    return Err(ApprovalError(format!("{all} questions wait already, as many as may")));
                }
                Inserted::PrincipalFull => {
                    let text = format!("{of_principal} of your questions wait already, as many as may");
                    return Err(ApprovalError(text));
                }
            }
        }
        Err(ApprovalError("no id is free".into()))
    }

    /// None if somebody waits for it already.
    fn wait_for(&self, inquiry: &Inquiry, session: &Arc<str>) -> Option<Waits> {
        let mut waited = self.0.waited();
        if waited.contains_key(&inquiry.id) {
            return None;
        }
        let (sender, now) = watch::channel(Arc::new(inquiry.clone()));
        waited.insert(inquiry.id.clone(), sender);
        let told = inquiry.trail.len();
        Some(Waits { desk: self.clone(), id: inquiry.id.clone(), session: session.clone(), now, told })
    }
}

impl Approvals for Desk {
    fn put(&self, question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
        Box::pin(async move {
            let asked = Inquiry::new("".into(), self.0.host.clone(), question, self.0.clock.now());
            if let Some(yeses) = self.known(&asked).await.map_err(failed)? {
                return Ok(Answer::Known(yeses));
            }
            let waits = match self.take_up(&asked).await.map_err(failed)? {
                Some(waits) => waits,
                None => self.ask(asked).await?,
            };
            Ok(Answer::Waits(Box::new(waits)))
        })
    }

    fn revoked<'a>(&'a self, questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
        Box::pin(async move {
            // From before the first look, so that none is missed.
            let mut revoked = self.0.revoked.subscribe();
            loop {
                let again = match self.0.revocation(questions).await {
                    Ok(Some(revocation)) => return revocation,
                    Ok(None) => self.0.store.is_shared(),
                    Err(error) => {
                        tracing::warn!(?questions, %error, "whether a yes still stands is not known");
                        true
                    }
                };
                tokio::select! {
                    () = hears_of(&mut revoked, questions) => {}
                    () = sleep(LOOK_BACK), if again => {}
                }
            }
        })
    }
}

impl Asking for Waits {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Step, ApprovalError>> {
        Box::pin(async move {
            loop {
                let now = self.now.borrow_and_update().clone();
                if let Some(event) = now.trail.get(self.told) {
                    let step = match (event.step.as_str(), event.by.clone(), event.reason.clone()) {
                        ("seen", by, _) => Some(Step::Seen { by: by.unwrap_or_default() }),
                        ("agreed", by, reason) => Some(Step::Agreed { by: by.unwrap_or_default(), reason }),
                        (word @ ("approved" | "break-glass"), by, reason) => {
                            let claimed = self.desk.claim(&self.id, &self.session).await.map_err(failed)?;
                            let (by, urgent) = (by.unwrap_or_default(), word == "break-glass");
                            claimed.then_some(Step::Approved { by, reason, urgent })
                        }
                        (
                            word @ ("denied" | "expired" | "withdrawn" | "cancelled" | "revoked"),
                            by,
                            reason,
                        ) => Some(Step::Refused { word: word.into(), by, reason }),
                        _ => None,
                    };
                    self.told += 1;
                    match step {
                        Some(step) => return Ok(step),
                        None => continue,
                    }
                }
                tokio::select! {
                    changed = self.now.changed() => {
                        changed.map_err(|_| ApprovalError("the agent ends".into()))?;
                    }
                    () = sleep_until(self.desk.0.clock.until(now.expires)) => {
                        let expire = |inquiry: &mut Inquiry, now| {
                            inquiry.expire(now);
                            Ok::<_, ()>(())
                        };
                        let settled = self.desk.0.change(&self.id, expire).await.map_err(failed)?;
                        let gone = || ApprovalError("the question is no longer kept".into());
                        if let Ok(inquiry) = settled.ok_or_else(gone)? {
                            // It may have been settled elsewhere in the last moment.
                            self.desk.0.publish_newer(&inquiry);
                        }
                    }
                }
            }
        })
    }

    fn withdraw(self: Box<Self>, word: &str) {
        let (desk, id, word) = (self.desk.clone(), self.id.clone(), word.to_owned());
        let home = desk.0.home.clone();
        home.spawn(async move {
            let withdraw = |inquiry: &mut Inquiry, now| {
                inquiry.withdraw(&word, now);
                Ok::<_, ()>(())
            };
            if let Err(error) = desk.0.change(&id, withdraw).await {
                tracing::warn!(question = %id, %error, "not withdrawn; it stands until it expires");
            }
            // Only now may somebody else take it up.
            drop(self);
        });
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.desk.0.waited().remove(&self.id);
    }
}

/// Ready when one of these yeses may have been taken back.
async fn hears_of(revoked: &mut broadcast::Receiver<Arc<str>>, questions: &[Arc<str>]) {
    while let Ok(id) = revoked.recv().await {
        if questions.contains(&id) {
            return;
        }
    }
}

/// Looks for answers that came in through other agents, until the desk is gone.
async fn look(desk: Weak<Inner>) {
    loop {
        sleep(LOOK).await;
        let Some(desk) = desk.upgrade() else { return };
        let waited: Vec<Arc<str>> = desk.waited().keys().cloned().collect();
        for id in waited {
            match desk.store.load(&id).await {
                Ok(Some(inquiry)) => desk.publish_newer(&inquiry),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "answers from elsewhere are not seen");
                    break;
                }
            }
        }
    }
}

impl Inner {
    /// The same as [`publish`](Self::publish), for what may be known.
    fn publish_newer(&self, inquiry: &Inquiry) {
        let known = self.waited().get(&inquiry.id).map(|waits| waits.borrow().version);
        if known.is_some_and(|known| known < inquiry.version) {
            self.publish(inquiry);
        }
    }
}

/// Eight letters, 40 bits.
fn id() -> Result<Arc<str>, ApprovalError> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| ApprovalError("there is no randomness".into()))?;
    let letter = |byte: &u8| char::from(*LETTERS.get(usize::from(byte % 32)).unwrap_or(&b'0'));
    let text: String = bytes.iter().map(letter).collect();
    let (one, other) = text.split_at(4);
    Ok(format!("{one}-{other}").into())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: StoreError) -> ApprovalError {
    ApprovalError(error.to_string())
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("host", &self.0.host).finish_non_exhaustive()
    }
}
