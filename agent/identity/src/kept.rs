//! Identities that outlive the agent, as bytes that somebody keeps in memory between two agents: they hold what secrets renew them by.

use std::{fs, io, sync::Arc, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_gate::Secret;
use tidegate_policy::{Identity, Issuer};
use tokio::sync::{Semaphore, watch};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    Registry,
    host::{Login, ProcessId},
    ledger::BOOT,
    registry::{Inner, Known, now},
    renewal::{NotRenewed, Renewal, Source},
    token::TokenKey,
    trees::{BindingId, Bound, How, Lasting, Tree},
};

/// What these bytes are; another number whenever they come to mean something else. An agent takes up no other form than its own.
const FORM: u32 = 1;
/// How soon an issuer is asked again that could not be asked for an identity whose token expired between two agents, the first
/// time and at the latest: each time it is twice as long.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(80));
/// How many are renewed at a time: after a long pause all are due.
const AT_ONCE: usize = 8;

/// What all forms have.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

/// Everything, at one moment of one boot.
#[derive(Serialize, Deserialize)]
struct All {
    form: u32,
    /// Process ids and start times are another's after the next boot.
    boot: String,
    /// Nanoseconds since that boot.
    at: u128,
    bindings: Vec<Kept>,
    /// Members of trees and their roots.
    members: Vec<(Id, Id)>,
}

/// A process id and a start time.
type Id = (u32, u64);

/// One binding.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// All that the bundle said of the issuer: who it knows depends on it.
    terms: Value,
    root: Id,
    parent: Option<Id>,
    uid: Option<u32>,
    /// A login session and the account's id in it.
    login: Option<(u32, u32)>,
    how: How,
    identity: Identity,
    token: String,
    /// The token itself, where a resource may be shown it.
    proof: Option<Zeroizing<String>>,
    step: Option<String>,
    got_with: Option<String>,
    renewal: Option<KeptSource>,
}

/// What renews it.
#[derive(Serialize, Deserialize)]
enum KeptSource {
    Request { url: Url, bearer: Zeroizing<String> },
    Refresh { client: Arc<str>, refresh_token: Zeroizing<String> },
}

/// What became of the identities that an earlier agent knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenUp {
    /// Which of several was the latest.
    pub which: usize,
    /// They count on, or will once their issuer was asked.
    pub counting: usize,
    /// Their process has ended, their issuer is another one now, or their time is over.
    pub ended: usize,
}

impl Registry {
    /// Ticks whenever what [`kept`](Self::kept) tells has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.trees.changes()
    }

    /// All identities, and what they are renewed by, for the next agent: secrets that must be on no disk.
    ///
    /// # Errors
    ///
    /// The boot cannot be told.
    pub fn kept(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let (bindings, members) = self.inner.trees.lasting();
        let bindings: Vec<Kept> = bindings.iter().map(Kept::of).collect::<Result<_, _>>()?;
        let members = members.into_iter().map(|(id, root)| (plain(id), plain(root))).collect();
        let all = All { form: FORM, boot: boot()?, at: since_boot(), bindings, members };
        Ok(Zeroizing::new(serde_json::to_vec(&all)?))
    }

    /// Whether there is nothing to be kept.
    pub fn is_idle(&self) -> bool {
        self.inner.trees.is_empty()
    }

    /// Takes up what an earlier agent knew, by the latest of these, once the issuers are in force: each identity counts for its tree
    /// as long as that has the very process for its root that it had. Blocks.
    ///
    /// # Errors
    ///
    /// None is of this form and this boot: nothing counts.
    pub fn take_up(&self, kept: &[Zeroizing<Vec<u8>>]) -> io::Result<TakenUp> {
        let (mut latest, mut wrong) = (None::<(usize, All)>, None);
        for (which, kept) in kept.iter().enumerate() {
            match read(kept) {
                Ok(all) if latest.as_ref().is_none_or(|(_, other)| other.at < all.at) => {
                    latest = Some((which, all));
                }
                Ok(_) => {}
                Err(error) => wrong = Some(error),
            }
        }
        let (which, All { bindings, members, .. }) = match (latest, wrong) {
            (Some(latest), _) => latest,
            (None, Some(error)) => return Err(error),
            (None, None) => return Ok(TakenUp::default()),
        };
        let _runtime = self.runtime.enter();
        let (issuers, mut taken) = (self.inner.issuers(), TakenUp { which, ..TakenUp::default() });
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        for kept in bindings {
            let of_terms = |known: &&Arc<Known>| terms(&known.issuer).is_ok_and(|terms| terms == kept.terms);
            let known = issuers.iter().find(of_terms).cloned();
            let is_taken = known.is_some_and(|known| {
                let lasting = kept.lasting(known.issuer.clone());
                lasting.is_some_and(|lasting| self.inner.clone().go_on(known, lasting, &turns))
            });
            if is_taken { taken.counting += 1 } else { taken.ended += 1 }
        }
        for (id, root) in members {
            self.inner.trees.restore_member(process(id), process(root));
        }
        Ok(taken)
    }
}

impl Inner {
    /// Has an identity count on; false if it is over. One whose token expired meanwhile is renewed first.
    fn go_on(self: Arc<Self>, known: Arc<Known>, lasting: Lasting, turns: &Arc<Semaphore>) -> bool {
        if let Err(error) = self.note(&lasting) {
            tracing::error!(%error, "the use of a token cannot be written down");
            return false;
        }
        let (renewal, identity) = (lasting.renewal.clone(), lasting.identity.clone());
        if lasting.until() > now() {
            let bound = self.trees.restore(lasting);
            return bound.map(|bound| self.goes_on(known, bound, renewal, identity)).is_some();
        }
        let Some(renewal) = renewal else { return false };
        let root = lasting.tree.root;
        let Some(id) = self.trees.postpone(lasting) else { return false };
        let turns = turns.clone();
        drop(tokio::spawn(async move {
            let ended = self.host.ended(root);
            tokio::select! {
                () = self.renew_first(&known, id, &renewal, identity, &turns) => {}
                () = ended => {
                    self.trees.end(id, "its process tree ended");
                    renewal.dismiss(&known).await;
                }
            }
        }));
        true
    }

    /// What its tree used is written down, if the agent before came to its end before it was.
    fn note(&self, lasting: &Lasting) -> io::Result<()> {
        match &self.ledger {
            Some(ledger) if !ledger.knows(lasting.token, lasting.tree.root) => {
                ledger.keep(&lasting.used().collect::<Vec<_>>(), lasting.tree)
            }
            _ => Ok(()),
        }
    }

    fn goes_on(
        self: Arc<Self>,
        known: Arc<Known>,
        bound: Bound,
        renewal: Option<Renewal>,
        identity: Identity,
    ) {
        if bound.is_new_tree {
            self.wait_for_the_end_of(bound.tree.root);
        }
        if let Some(renewal) = renewal {
            drop(tokio::spawn(renewal.keep(self, known, bound, identity)));
        }
    }

    async fn renew_first(
        self: &Arc<Self>,
        known: &Arc<Known>,
        id: BindingId,
        renewal: &Renewal,
        before: Identity,
        turns: &Semaphore,
    ) {
        let (issuer, subject, mut pause) = (&known.issuer.name, before.subject, AGAIN.0);
        while self.trees.is_postponed(id) {
            let turn = turns.acquire().await;
            let renewed = renewal.renew(self, known).await;
            drop(turn);
            let why = match renewed {
                Ok(verified) if verified.identity.subject == subject => {
                    let identity = verified.identity.clone();
                    let Some((bound, used)) = self.trees.restore_renewed(id, verified) else { break };
                    if self.write_down(bound.id, vec![used], bound.tree).await.is_ok() {
                        self.clone().goes_on(known.clone(), bound, Some(renewal.clone()), identity);
                    }
                    return;
                }
                Ok(_) => "the issuer says that it is somebody else now".to_owned(),
                Err(NotRenewed::Never(why)) => why,
                Err(NotRenewed::Later(why)) => {
                    tracing::warn!(%issuer, %subject, why, "an identity could not be renewed yet");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.trees.renewed_or_over(id) => {}
                    }
                    pause = AGAIN.1.min(2 * pause);
                    continue;
                }
            };
            self.trees.end(id, &why);
            return;
        }
        renewal.dismiss(known).await;
    }
}

impl Kept {
    fn of(lasting: &Lasting) -> io::Result<Self> {
        let Lasting {
            issuer,
            tree: Tree { root, parent, uid },
            login,
            how,
            identity,
            token,
            proof,
            step,
            got_with,
            renewal,
        } = lasting;
        Ok(Self {
            terms: terms(issuer)?,
            root: plain(*root),
            parent: parent.map(plain),
            uid: *uid,
            login: login.map(|login| (login.session, login.uid)),
            how: *how,
            identity: identity.clone(),
            token: token.to_hex(),
            proof: proof.as_ref().and_then(text),
            step: step.map(TokenKey::to_hex),
            got_with: got_with.map(TokenKey::to_hex),
            renewal: renewal.as_ref().and_then(|renewal| KeptSource::of(renewal.source())),
        })
    }

    /// None if it is not what this agent writes.
    fn lasting(self, issuer: Arc<Issuer>) -> Option<Lasting> {
        let key = |text: Option<&String>| match text {
            Some(text) => TokenKey::from_hex(text).map(Some),
            None => Some(None),
        };
        let (step, got_with) = (key(self.step.as_ref())?, key(self.got_with.as_ref())?);
        Some(Lasting {
            issuer,
            tree: Tree { root: process(self.root), parent: self.parent.map(process), uid: self.uid },
            login: self.login.map(|(session, uid)| Login { session, uid }),
            how: self.how,
            token: TokenKey::from_hex(&self.token)?,
            proof: self.proof.map(secret),
            step,
            got_with,
            renewal: self.renewal.map(|source| Renewal::new(source.source())),
            identity: self.identity,
        })
    }
}

impl KeptSource {
    fn of(source: Source) -> Option<Self> {
        Some(match source {
            Source::Request { url, bearer } => Self::Request { url, bearer: text(&bearer)? },
            Source::Refresh { client, refresh_token } => {
                Self::Refresh { client, refresh_token: text(&refresh_token)? }
            }
        })
    }

    fn source(self) -> Source {
        match self {
            Self::Request { url, bearer } => Source::Request { url, bearer: secret(bearer) },
            Self::Refresh { client, refresh_token } => {
                Source::Refresh { client, refresh_token: secret(refresh_token) }
            }
        }
    }
}

fn read(kept: &[u8]) -> io::Result<All> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    // Nothing of what stands there: it is secret.
    let unread = |_| wrong("they cannot be read".into());
    let Form { form } = serde_json::from_slice(kept).map_err(unread)?;
    if form != FORM {
        return Err(wrong(format!("they are of form {form}, and this agent knows form {FORM}")));
    }
    let all: All = serde_json::from_slice(kept).map_err(unread)?;
    if all.boot == boot()? { Ok(all) } else { Err(wrong("they are of another boot".into())) }
}

fn since_boot() -> u128 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0)).as_nanos()
}

/// None where it is no text, which no issuer's is.
fn text(secret: &Secret) -> Option<Zeroizing<String>> {
    Some(Zeroizing::new(std::str::from_utf8(secret.expose()).ok()?.to_owned()))
}

#[expect(clippy::needless_pass_by_value, reason = "it is wiped")]
fn secret(text: Zeroizing<String>) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn terms(issuer: &Issuer) -> serde_json::Result<Value> {
    serde_json::to_value(issuer)
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim().to_owned())
}

fn plain(id: ProcessId) -> Id {
    (id.pid, id.started)
}

fn process((pid, started): Id) -> ProcessId {
    ProcessId { pid, started }
}
