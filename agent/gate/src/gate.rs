//! One session's gate.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidegate_policy::{Effect, Held, Identity, Policy, Principal, Resource, Shape, Verdict};
use tokio::{net::TcpStream, sync::watch};

use crate::{
    Approvals, Cause, Credential, Credentials, Decision, Entry, Hold, Identified, Masker, Matter, Origin,
    Permit, Put, Record, RecordError, Records, Refusal, verdicts::Verdicts,
};

/// One session's gate: `Clone`, so that the streams of a multiplexed protocol share it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

/// What a session needs from the agent.
pub struct Opening {
    /// What the kernel says.
    pub origin: Origin,
    /// Who issuers say that the process is; decisions follow it as it changes.
    pub identified: Identified,
    /// The resource that the destination is.
    pub resource: Arc<Resource>,
    /// The policy in force; decisions follow it as it changes.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Ticks whenever `policy` was replaced.
    pub changes: watch::Receiver<u64>,
    /// True once the agent is asked to stop.
    pub stopping: watch::Receiver<bool>,
    /// Where credentials come from.
    pub credentials: Arc<dyn Credentials>,
    /// Where records are kept.
    pub records: Arc<dyn Records>,
    /// Where people are asked.
    pub approvals: Arc<dyn Approvals>,
    /// What applies masks.
    pub masker: Arc<Masker>,
    /// What this kernel lets the agent enforce, by name.
    pub tier: Arc<str>,
}

/// A wish to connect upstream.
#[derive(Debug, Clone)]
pub struct Login {
    /// Its name in the protocol's words: `login`.
    pub name: &'static str,
    /// What the policy decides on.
    pub shape: Arc<Shape>,
    /// What is recorded: the names the client gave, never what it authenticated with.
    pub text: String,
}

/// Something that a principal wants to do.
#[derive(Debug)]
pub struct Action<'a> {
    /// Its name in the protocol's words: `statement`.
    pub name: &'static str,
    /// What the policy decides on.
    pub shape: &'a Arc<Shape>,
    /// What is recorded.
    pub text: &'a str,
}

/// A connection to the upstream, and what to sign in with. Only [`Gate::admit`], [`Gate::upstream`] and [`Gate::consult`]
/// make one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Upstream {
    /// The connection, before TLS and sign-in.
    pub stream: TcpStream,
    /// Where it leads.
    pub address: SocketAddr,
    /// What to sign in with; empty where the resource names no credential.
    pub credential: Credential,
}

/// What the clones of a gate share.
pub(crate) struct Inner {
    principal: Mutex<Arc<Principal>>,
    identities: watch::Receiver<Arc<[Identity]>>,
    destination: SocketAddr,
    resource: Arc<Resource>,
    policy: Arc<ArcSwap<Policy>>,
    changes: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    credentials: Arc<dyn Credentials>,
    approvals: Arc<dyn Approvals>,
    masker: Arc<Masker>,
    session: Arc<str>,
    opened_under: Arc<str>,
    login: Mutex<Option<Admitted>>,
    record: Mutex<Option<Box<dyn Record>>>,
    verdicts: Mutex<Verdicts>,
    actions: AtomicU64,
}

/// What the session stands on.
#[derive(Clone)]
struct Admitted {
    shape: Arc<Shape>,
    /// What was approved for it.
    holds: Vec<Held>,
}

impl Gate {
    /// Begins a session and its record. Without a record there is no session.
    pub fn open(opening: Opening) -> Result<Self, RecordError> {
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
        Ok(Self(Arc::new(Inner {
            session: record.session().clone(),
            principal: Mutex::new(Arc::new(principal)),
            identities: opening.identified.now,
            destination: opening.origin.destination,
            resource: opening.resource,
            policy: opening.policy,
            changes: opening.changes,
            stopping: opening.stopping,
            credentials: opening.credentials,
            approvals: opening.approvals,
            masker: opening.masker,
            opened_under: policy.digest.clone(),
            login: Mutex::default(),
            record: Mutex::new(Some(record)),
            verdicts: Mutex::default(),
            actions: AtomicU64::new(0),
        })))
    }

    /// The session's id.
    pub fn session(&self) -> &Arc<str> {
        &self.0.session
    }

    /// Who is asking, as it is known now.
    pub fn principal(&self) -> Arc<Principal> {
        self.0.principal()
    }

    /// The resource asked for.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.0.resource
    }

    /// Where the client meant to connect.
    pub fn destination(&self) -> SocketAddr {
        self.0.destination
    }

    /// What applies masks outside of a permit: to texts that belong to no action.
    pub fn masker(&self) -> &Arc<Masker> {
        &self.0.masker
    }

    /// Decides and records the wish, then connects to the upstream. A wish that is held waits here, and is withdrawn
    /// if the future is dropped.
    ///
    /// The permit is to be settled when the upstream has taken the credential, or has not.
    pub async fn admit(&self, login: Login) -> Result<(Upstream, Permit), Refusal> {
        let action = Action { name: login.name, shape: &login.shape, text: &login.text };
        let permit = match self.ask(action).await {
            Decision::Permit(permit) => permit,
            Decision::Hold(hold) => match hold.put(Matter::new(login.text.as_bytes())).await? {
                Put::Permit(permit) => permit,
                Put::Waits(mut waiting) => waiting.settled().await?.permit(&login.shape)?,
            },
            Decision::Refuse(refusal) => return Err(refusal),
        };
        let holds = permit.verdict().holds.clone();
        *lock(&self.0.login) = Some(Admitted { shape: login.shape, holds });
        Ok((self.dial().await?, permit))
    }

    /// A connection to the upstream for an action that was permitted: for protocols whose every action is admitted by
    /// itself.
    pub async fn upstream(&self, permit: &Permit) -> Result<Upstream, Refusal> {
        if !permit.is_of(&self.0) {
            return Err(refusal(Cause::Policy, "the permit is another session's"));
        }
        self.dial().await
    }

    /// A second connection to the upstream, for the gate's own questions about it. Refused before [`Gate::admit`].
    pub async fn consult(&self) -> Result<Upstream, Refusal> {
        if lock(&self.0.login).is_none() {
            return Err(refusal(Cause::Policy, "nobody has signed in on this session"));
        }
        self.dial().await
    }

    async fn dial(&self) -> Result<Upstream, Refusal> {
        let resource = &self.0.resource;
        let credential = match &resource.credential {
            Some(name) => self.credential(name).await?,
            None => Credential::default(),
        };
        let address = self.0.destination;
        let stream = connect(address, resource.connect_timeout).await.map_err(|error| {
            self.event("upstream-unreachable", &error.to_string());
            refusal(
                Cause::Upstream,
                &format!("could not connect to {:?} at {address}: {error}", resource.name),
            )
        })?;
        Ok(Upstream { stream, address, credential })
    }

    async fn credential(&self, name: &str) -> Result<Credential, Refusal> {
        self.0.credentials.credential(name).await.map_err(|error| {
            self.event("credential-unavailable", &error.to_string());
            let resource = &self.0.resource.name;
            Refusal {
                message: format!("the gate has no usable credential {name:?} for {resource:?}").into(),
                hint: Some(self.ask_who_runs_it()),
                cause: Cause::Credential,
            }
        })
    }

    /// What to do about a sign-in upstream that failed for the gate's own credential: a hint for the client.
    pub fn ask_who_runs_it(&self) -> Arc<str> {
        let session = &self.0.session;
        format!(
            "Your own password plays no part in this. Ask whoever runs the gate on this host: its record of session \
             {session} says what is wrong."
        )
        .into()
    }

    /// What would be decided, unrecorded: for what prepares an action that will itself be asked for. It may be held.
    pub fn foresee(&self, shape: &Arc<Shape>) -> Result<Arc<Verdict>, Refusal> {
        let verdict = self.0.verdict_now(shape);
        if verdict.effect == Effect::Deny { Err(refused(&verdict)) } else { Ok(verdict) }
    }

    /// Decides an action and records it; it may run once there is a permit.
    pub async fn ask(&self, action: Action<'_>) -> Decision {
        let policy = self.0.policy.load_full();
        let verdict = self.0.verdict(&policy, action.shape);
        match self.0.record_action(&policy, &action, &verdict) {
            Err(error) => {
                tracing::error!(session = %self.0.session, %error, "refused: not recorded");
                Decision::Refuse(refusal(Cause::Record, "the gate cannot record this, so it may not run"))
            }
            Ok(id) => match verdict.effect {
                Effect::Allow => {
                    Decision::Permit(Permit::new(self.0.clone(), id, verdict, action.shape.clone()))
                }
                Effect::Hold => {
                    let said = (action.name, self.0.as_recorded(action.text, &verdict).into_owned());
                    Decision::Hold(Hold::new(self.0.clone(), id, verdict, action.shape.clone(), said))
                }
                Effect::Deny => Decision::Refuse(refused(&verdict)),
            },
        }
    }

    /// Records and words the refusal of something that could not even be understood.
    pub fn refuse(&self, name: &'static str, text: &str, reason: &str) -> Refusal {
        let policy = self.0.policy.load_full();
        let verdict = Verdict {
            effect: Effect::Deny,
            rule: None,
            holds: Vec::new(),
            matched: Vec::new(),
            message: reason.into(),
            hint: None,
            results: Vec::new(),
            fields: None,
            content: None,
            withhold_errors: true,
            record_rows: false,
        };
        let action = Action { name, shape: &Arc::default(), text };
        if let Err(error) = self.0.record_action(&policy, &action, &verdict) {
            tracing::error!(session = %self.0.session, %error, "a refusal was not recorded");
        }
        refusal(Cause::Policy, reason)
    }

    /// Records something that is no action.
    pub fn event(&self, event: &str, detail: &str) {
        self.0.note(&Entry::Event { event: event.into(), detail: detail.into() });
    }

    /// Resolves when this session may no longer exist: its sign-in is no longer allowed, by the policy as it is now to
    /// whoever the process is now, or the agent stops.
    pub async fn revoked(&self) -> Refusal {
        let (mut changes, mut stopping) = (self.0.changes.clone(), self.0.stopping.clone());
        let mut identities = self.0.identities.clone();
        loop {
            if let Some(refusal) = self.0.end() {
                return refusal;
            }
            let gone = tokio::select! {
                changed = changes.changed() => changed.is_err(),
                changed = stopping.changed() => changed.is_err(),
                // Whoever vouched for nobody has nothing more to say.
                Ok(()) = identities.changed() => false,
            };
            if gone {
                return refusal(Cause::Shutdown, "the gate is stopping");
            }
        }
    }

    /// Closes the record with the reason. Later calls, and the guard, do nothing.
    pub fn close(&self, reason: &str) {
        self.0.close(reason);
    }
}

impl Inner {
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
        *self.stopping.borrow()
    }

    /// What the policy in force says.
    pub(crate) fn verdict_now(&self, shape: &Arc<Shape>) -> Arc<Verdict> {
        self.verdict(&self.policy.load_full(), shape)
    }

    /// Writes an entry that something depends on.
    pub(crate) fn write(&self, entry: &Entry<'_>) -> Result<(), RecordError> {
        lock(&self.record).as_mut().ok_or_else(|| RecordError("it is closed".into()))?.write(entry)
    }

    /// Adds an entry that nothing waits for.
    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if let Some(record) = lock(&self.record).as_mut() {
            record.note(entry);
        }
    }

    fn verdict(&self, policy: &Arc<Policy>, shape: &Arc<Shape>) -> Arc<Verdict> {
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

    fn record_action(
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
    fn as_recorded<'a>(&self, text: &'a str, verdict: &Verdict) -> Cow<'a, str> {
        let Some(mask) = &verdict.content else { return Cow::Borrowed(text) };
        match self.masker.scan(mask, text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
        }
    }

    /// Why the session may no longer exist, if so.
    fn end(&self) -> Option<Refusal> {
        if *self.stopping.borrow() {
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

    fn close(&self, reason: &str) {
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

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("origin", &self.origin).finish_non_exhaustive()
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

async fn connect(address: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn refused(verdict: &Verdict) -> Refusal {
    Refusal { message: verdict.message.clone(), hint: verdict.hint.clone(), cause: Cause::Policy }
}

fn refusal(cause: Cause, message: &str) -> Refusal {
    Refusal { message: message.into(), hint: None, cause }
}

/// A lock whose holder panicked still guards whole values here: each is replaced, never half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
