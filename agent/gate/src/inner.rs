//! What the clones of one session's gate share.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tidegate_policy::{ContentMask, Effect, Held, Identity, Policy, Principal, Resource, Shape, Verdict};
use tokio::sync::watch;

use crate::{
    Action, Approvals, Cause, Credentials, Entry, Masker, Opening, Proofs, Rates, Record, RecordError,
    Refusal, Stopping, grounds::Grounds, verdicts::Verdicts,
};

/// What the clones of a gate share.
pub(crate) struct Inner {
    principal: Mutex<Arc<Principal>>,
    pub(super) identities: watch::Receiver<Arc<[Identity]>>,
    pub(super) proofs: Arc<dyn Proofs>,
    pub(super) destination: SocketAddr,
    pub(super) resource: Arc<Resource>,
    pub(super) server: Arc<str>,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) stopping: watch::Receiver<Stopping>,
    pub(super) credentials: Arc<dyn Credentials>,
    approvals: Arc<dyn Approvals>,
    pub(super) rates: Arc<Rates>,
    pub(super) masker: Arc<Masker>,
    pub(super) session: Arc<str>,
    opened_under: Arc<str>,
    pub(super) login: Mutex<Option<Admitted>>,
    record: Mutex<Option<Box<dyn Record>>>,
    verdicts: Mutex<Verdicts>,
    actions: AtomicU64,
    /// Bytes of data in the record.
    data: AtomicU64,
}

/// What the session stands on.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(super) shape: Arc<Shape>,
    /// What was approved for it.
    pub(super) holds: Vec<Held>,
    pub(super) grounds: Grounds,
}

impl Inner {
    /// Begins a session and its record.
    pub(crate) fn open(opening: Opening) -> Result<Self, RecordError> {
        let policy = opening.policy.load_full();
        let principal = Principal {
            identities: opening.identified.now.borrow().clone(),
            unproven: opening.identified.unproven,
            ..opening.origin.principal
        };
        let record = opening.records.open(Entry::Open {
            principal: Cow::Borrowed(&principal),
            destination: opening.origin.destination,
            resource: Cow::Borrowed(&opening.resource.name),
            protocol: Cow::Borrowed(&opening.resource.protocol),
            policy: Cow::Borrowed(&policy.digest),
            tier: Cow::Borrowed(&opening.tier),
        })?;
        Ok(Self {
            session: record.session().clone(),
            principal: Mutex::new(Arc::new(principal)),
            identities: opening.identified.now,
            proofs: opening.identified.proofs,
            destination: opening.origin.destination,
            resource: opening.resource,
            server: opening.server,
            policy: opening.policy,
            changes: opening.changes,
            stopping: opening.stopping,
            credentials: opening.credentials,
            approvals: opening.approvals,
            rates: opening.rates,
            masker: opening.masker,
            opened_under: policy.digest.clone(),
            login: Mutex::default(),
            record: Mutex::new(Some(record)),
            verdicts: Mutex::default(),
            actions: AtomicU64::new(0),
            data: AtomicU64::new(0),
        })
    }

    pub(crate) fn masker(&self) -> &Masker {
        &self.masker
    }

    pub(crate) fn approvals(&self) -> &Arc<dyn Approvals> {
        &self.approvals
    }

    pub(crate) fn session(&self) -> &Arc<str> {
        &self.session
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// What content masks hide of the resource, from whomever.
    pub(crate) fn masked_for_anybody(&self) -> Option<Arc<ContentMask>> {
        self.policy.load().masked_for_anybody(&self.resource.name)
    }

    pub(crate) fn policy_digest(&self) -> Arc<str> {
        self.policy.load().digest.clone()
    }

    /// Resolves when something that decisions depend on has changed since this was called; never, if nothing can
    /// change any more.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut policy, mut identities) = (self.changes.clone(), self.identities.clone());
        policy.mark_unchanged();
        identities.mark_unchanged();
        async move {
            tokio::select! {
                Ok(()) = policy.changed() => {}
                Ok(()) = identities.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow() > Stopping::No
    }

    /// What the policy in force says.
    pub(crate) fn verdict_now(&self, shape: &Arc<Shape>) -> Arc<Verdict> {
        self.verdict(&self.policy.load_full(), shape)
    }

    /// Writes an entry that something depends on.
    pub(crate) fn write(&self, entry: &Entry<'_>) -> Result<(), RecordError> {
        lock(&self.record).as_mut().ok_or_else(|| RecordError("it is closed".into()))?.write(entry)
    }

    /// Whether the record takes so many bytes of data more; what it doesn't take leaves it full.
    pub(crate) fn takes_data(&self, bytes: usize, limit: u64) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.data.fetch_add(bytes.min(limit), Ordering::Relaxed).saturating_add(bytes) <= limit
    }

    /// Adds an entry that nothing waits for.
    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if let Some(record) = lock(&self.record).as_mut() {
            record.note(entry);
        }
    }

    pub(super) fn verdict(&self, policy: &Arc<Policy>, shape: &Arc<Shape>) -> Arc<Verdict> {
        let principal = self.principal();
        let decide = || policy.decide(&principal, &self.resource.name, shape);
        lock(&self.verdicts).of(policy, &principal, shape, decide)
    }

    /// Who is asking. What issuers say may have changed since it was last asked for.
    pub(crate) fn principal(&self) -> Arc<Principal> {
        let mut known = lock(&self.principal);
        let now = self.identities.borrow().clone();
        if Arc::ptr_eq(&known.identities, &now) {
            return known.clone();
        }
        let principal = Arc::new(Principal { identities: now, ..(**known).clone() });
        *known = principal.clone();
        drop(known);
        self.note(&Entry::Event { event: "identity-changed".into(), detail: vouched(&principal).into() });
        principal
    }

    pub(super) fn record_action(
        &self,
        policy: &Policy,
        action: &Action<'_>,
        verdict: &Verdict,
    ) -> Result<u64, RecordError> {
        let mut record = lock(&self.record);
        let record = record.as_mut().ok_or_else(|| RecordError("it is closed".into()))?;
        let id = self.actions.fetch_add(1, Ordering::Relaxed) + 1;
        record.write(&Entry::Action {
            id,
            action: action.name.into(),
            text: self.as_recorded(action.text, verdict),
            decision: verdict.effect,
            rule: verdict.rule.as_deref().map(Into::into),
            reason: (verdict.effect != Effect::Allow).then(|| Cow::Borrowed(&*verdict.message)),
            policy: (policy.digest != self.opened_under).then(|| Cow::Borrowed(&*policy.digest)),
        })?;
        Ok(id)
    }

    /// A text without what the verdict masks.
    pub(super) fn as_recorded<'a>(&self, text: &'a str, verdict: &Verdict) -> Cow<'a, str> {
        let Some(mask) = &verdict.content else { return Cow::Borrowed(text) };
        match self.masker.scan(mask, text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
        }
    }

    /// Why the session may no longer exist, if so.
    pub(super) fn end(&self) -> Option<Refusal> {
        if self.is_stopping() {
            return Some(refusal(Cause::Shutdown, "the gate is stopping"));
        }
        let login = lock(&self.login).clone()?;
        self.no_longer("session", &login.shape, &login.holds)
    }

    /// Why what was allowed may not go on, if so; `holds` is what was approved for it.
    pub(crate) fn no_longer(&self, what: &str, shape: &Arc<Shape>, holds: &[Held]) -> Option<Refusal> {
        let verdict = self.verdict_now(shape);
        let stands = match verdict.effect {
            Effect::Allow => true,
            Effect::Hold => verdict.holds.iter().all(|held| holds.contains(held)),
            Effect::Deny => false,
        };
        (!stands).then(|| Refusal {
            message: format!("this {what} is no longer allowed: {}", verdict.message).into(),
            hint: verdict.hint.clone(),
            cause: Cause::Policy,
        })
    }

    pub(super) fn close(&self, reason: &str) {
        if let Some(record) = lock(&self.record).take() {
            record.close(reason);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close("the session's task ended");
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Who vouches for a principal, in words.
fn vouched(principal: &Principal) -> String {
    let told = principal.identities.iter().map(|known| {
        format!("{:?} says that it is {:?} until {}", known.issuer, known.subject, instant(known.expires))
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() { "no issuer says any more who it is".into() } else { told.join("; ") }
}

/// Seconds since 1970, as RFC 3339 writes them.
fn instant(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

pub(crate) fn refused(verdict: &Verdict) -> Refusal {
    Refusal { message: verdict.message.clone(), hint: verdict.hint.clone(), cause: Cause::Policy }
}

pub(crate) fn refusal(cause: Cause, message: &str) -> Refusal {
    Refusal { message: message.into(), hint: None, cause }
}

/// A lock whose holder panicked still guards whole values here: each is replaced, never half-written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
