//! One session's gate.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use tidegate_policy::{
    Address, Carried, Effect, FieldMasks, Fill, Host, Principal, Resource, Shape, StandingMasks, Verdict,
};
use tokio::{net::TcpStream, sync::watch};

use crate::{
    Cause, Credential, Decision, Entry, Hold, Masker, Matter, Opening, Permit, Proof, Put, RecordError,
    Refusal, Stopping,
    inner::{Admitted, Inner, lock, refusal, refused},
};

/// An idle upstream is asked after so many seconds whether it is still there, then so often, and then so many times.
const IDLE: u32 = 60;
const INTERVAL: u32 = 10;
const PROBES: u32 = 6;

/// One session's gate: `Clone`, so that the streams of a multiplexed protocol share it.
#[derive(Debug, Clone)]
pub struct Gate(pub(crate) Arc<Inner>);

/// A wish to connect upstream.
#[derive(Debug, Clone)]
pub struct Login {
    /// Its name in the protocol's words: `login`.
    pub name: &'static str,
    /// What the policy decides on.
    pub shape: Arc<Shape>,
    /// What is recorded: the names the client gave, never what it authenticated with.
    pub text: String,
    /// What a yes counts for where it is held.
    pub matter: Matter,
    /// As in [`Action`].
    pub count: u32,
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
    /// How many things it does at once, for rates; 0 for what goes on with or ends what was counted.
    pub count: u32,
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

impl Gate {
    /// Begins a session and its record. Without a record there is no session.
    pub fn open(opening: Opening) -> Result<Self, RecordError> {
        Ok(Self(Arc::new(Inner::open(opening)?)))
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

    /// The name of the resource that a host's name and port are, if the bundle has one there.
    pub fn resource_at(&self, host: &str, port: u16) -> Option<Arc<str>> {
        let policy = self.0.policy.load();
        let is_it = |address: &Address| {
            address.port == Some(port) && matches!(&address.host, Host::Name(name) if **name == *host)
        };
        let found = policy.resources.iter().find(|resource| resource.addresses.iter().any(is_it));
        found.map(|resource| resource.name.clone())
    }

    /// Where the client meant to connect.
    pub fn destination(&self) -> SocketAddr {
        self.0.destination
    }

    /// What applies masks outside of a permit: to texts that belong to no action.
    pub fn masker(&self) -> &Arc<Masker> {
        &self.0.masker
    }

    /// The masks of whoever is asking, by the policy as it is now: for what the upstream says that belongs to no action.
    pub fn standing_masks(&self) -> StandingMasks {
        self.0.policy.load().standing_masks(&self.0.principal(), &self.0.resource.name)
    }

    /// The masks on fields of the resource, whomever they are for: for what is shown to people of whom nobody knows what they may
    /// see.
    pub fn fields_masked_for_anybody(&self) -> Option<Arc<FieldMasks>> {
        self.0.policy.load().fields_masked_for_anybody(&self.0.resource.name)
    }

    /// Whether a field of this table (or what the protocol has instead) may be masked for whoever is asking.
    pub fn masks_table(&self, table: &str) -> bool {
        self.0.policy.load().masks_table(&self.0.principal(), &self.0.resource.name, table)
    }

    /// Resolves when something of the resource is masked for whoever is asking: for what masks can't be applied to.
    pub async fn masked(&self) {
        loop {
            let changed = self.0.changed();
            if !self.standing_masks().are_none() {
                return;
            }
            changed.await;
        }
    }

    /// Decides and records the wish, then connects to the upstream. A wish that is held waits here, and is withdrawn
    /// if the future is dropped.
    ///
    /// The permit is to be settled when the upstream has taken the credential, or has not.
    pub async fn admit(&self, login: Login) -> Result<(Upstream, Permit), Refusal> {
        let action = Action { name: login.name, shape: &login.shape, text: &login.text, count: login.count };
        let permit = match self.ask(action).await {
            Decision::Permit(permit) => permit,
            Decision::Hold(hold) => match hold.put(login.matter).await? {
                Put::Permit(permit) => permit,
                Put::Waits(mut waiting) => waiting.settled().await?.permit(&login.shape, None).await?,
            },
            Decision::Refuse(refusal) => return Err(refusal),
        };
        let holds = permit.verdict().holds.clone();
        let grounds = permit.grounds().clone();
        *lock(&self.0.login) = Some(Admitted { shape: login.shape, holds, grounds });
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

    /// The credential that a placeholder of a permitted action stands for, read anew.
    pub async fn stands_for(&self, fill: &Fill, permit: &Permit) -> Result<Credential, Refusal> {
        let is_let = permit.verdict().carried.fills.iter().any(|known| **known == *fill);
        if !permit.is_of(&self.0) || !is_let {
            return Err(refusal(Cause::Policy, "no rule fills this placeholder here"));
        }
        self.credential(&fill.credential).await
    }

    /// The token of whoever is asking, to be shown for a permitted action: of the issuer that the resource names, and only while
    /// it counts for them.
    pub fn proof(&self, permit: &Permit) -> Result<Proof, Refusal> {
        let principal = self.0.principal();
        let issuer = self.0.resource.identity.as_deref().filter(|_| permit.is_of(&self.0));
        let proof = issuer.and_then(|issuer| {
            let identity = principal.identity(issuer)?;
            self.0.proofs.proof(issuer).filter(|proof| proof.subject == identity.subject)
        });
        proof.ok_or_else(|| {
            refusal(Cause::Policy, "the token of whoever is asking counts no more; present one again")
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

    /// Whether the decision depends on a field that the action doesn't have yet: for what costs something to look for.
    pub fn depends_on(&self, field: &str, shape: &Shape) -> bool {
        let policy = self.0.policy.load();
        policy.depends_on(field, &self.0.principal(), &self.0.resource.name, shape)
    }

    /// Decides an action and records it; it may run once there is a permit.
    pub async fn ask(&self, action: Action<'_>) -> Decision {
        let policy = self.0.policy.load_full();
        let mut verdict = self.0.verdict(&policy, action.shape);
        let mut cause = Cause::Policy;
        let (rates, principal) = (&self.0.rates, self.0.principal());
        // What is held counts when it is let through.
        let counted = match verdict.effect {
            Effect::Hold => rates.look(action.count, &verdict.limits, &principal, Instant::now()),
            _ => rates.take(action.count, &verdict.limits, &principal, Instant::now()),
        };
        if let Err(over) = counted {
            cause = over.cause();
            verdict = Arc::new(over.refused(&verdict));
        }
        match self.0.record_action(&policy, &action, &verdict) {
            Err(error) => {
                tracing::error!(session = %self.0.session, %error, "refused: not recorded");
                Decision::Refuse(refusal(Cause::Record, "the gate cannot record this, so it may not run"))
            }
            Ok(id) => match verdict.effect {
                Effect::Allow => {
                    Decision::Permit(Permit::new(self.0.clone(), id, verdict, action.shape.clone()))
                }
                Effect::Hold => Decision::Hold(Hold::new(self.0.clone(), id, verdict, &action)),
                Effect::Deny => Decision::Refuse(Refusal { cause, ..refused(&verdict) }),
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
            masks_columns: true,
            record_data: None,
            carried: Carried::default(),
            limits: Vec::new(),
        };
        let action = Action { name, shape: &Arc::default(), text, count: 0 };
        if let Err(error) = self.0.record_action(&policy, &action, &verdict) {
            tracing::error!(session = %self.0.session, %error, "a refusal was not recorded");
        }
        refusal(Cause::Policy, reason)
    }

    /// Records something that is no action.
    pub fn event(&self, event: &str, detail: &str) {
        self.0.note(&Entry::Event { event: event.into(), detail: detail.into() });
    }

    /// Ticks when a bundle was put in force, from the session's beginning on.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.0.changes.clone()
    }

    /// Whether the bundle in force says something else of the resource than the one that the session began with: its rules are
    /// those of now in any case.
    pub fn is_redefined(&self) -> bool {
        let policy = self.0.policy.load();
        policy.resource(&self.0.resource.name).is_none_or(|now| **now != *self.0.resource)
    }

    /// Resolves when this session may no longer exist: its sign-in is no longer allowed, by the policy as it is now to
    /// whoever the process is now; or the yes was taken back by which it was admitted before this call; or the agent stops.
    pub async fn revoked(&self) -> Refusal {
        let grounds = lock(&self.0.login).as_ref().map(|login| login.grounds.clone()).unwrap_or_default();
        let mut taken_back = pin!(grounds.taken_back(&self.0, "session"));
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
                refusal = &mut taken_back => return refusal,
            };
            if gone {
                return refusal(Cause::Shutdown, "the gate is stopping");
            }
        }
    }

    /// Resolves when the grace of a stopping agent is over: what still runs is to be broken off, and the client told.
    pub async fn over(&self) -> Refusal {
        let mut stopping = self.0.stopping.clone();
        // An error is the end of the agent itself.
        let _ = stopping.wait_for(|stopping| *stopping == Stopping::Now).await;
        refusal(Cause::Shutdown, "the gate is stopping, and its grace is over")
    }

    /// Closes the record with the reason. Later calls, and the guard, do nothing.
    pub fn close(&self, reason: &str) {
        self.0.close(reason);
    }
}

async fn connect(address: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    keep_alive(&stream)?;
    Ok(stream)
}

/// Has a peer noticed that is gone without a word. No `TCP_USER_TIMEOUT`: it would end a peer, too, that is there and takes
/// nothing for a while (a server whose statement waits for a lock).
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &INTERVAL)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_upstream_that_is_gone_without_a_word_is_noticed_in_two_minutes() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = connect(address, Duration::from_secs(5)).await.unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        let idle = getsockopt(&stream, sockopt::TcpKeepIdle).unwrap();
        let probes = getsockopt(&stream, sockopt::TcpKeepInterval).unwrap()
            * getsockopt(&stream, sockopt::TcpKeepCount).unwrap();
        assert_eq!(idle + probes, 120);
    }
}
