//! Where processes are told apart: by the tokens that are found with them or were presented for them.

use std::{
    collections::HashMap,
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tidegate_gate::{BoxFuture, Identified, Identities, Proof, Proofs, Secret, Turn, Turns};
use tidegate_https::Https;
use tidegate_policy::{Issuer, Process, Sharer, Unproven};
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

use crate::{
    Defect, ProcessId,
    find::{self, Found, Surroundings, What},
    host::{Host, Place, Procfs},
    keyring::{Keyring, Unreachable},
    ledger::Ledger,
    renewal::{Renewal, Source},
    shelf::Shelf,
    stolen::Witness,
    token::{Spent, Token, TokenKey},
    trees::{BindingId, Bound, Claim, How, Tree, Trees},
    verify::{Expected, Verified},
};

/// How long a connection waits for its identity.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long what could not be had is not asked for again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked for what is past its time.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the token with which a job asks for ID tokens is remembered: no job takes longer (GitHub's limit is 5 days).
const LONGEST_JOB: Duration = Duration::from_secs(5 * 24 * 3600);
/// Looks at processes and their environments that an account has at a time, and all accounts together.
const LOOKS: (usize, usize) = (2, 8);
/// Most tokens whose failure is remembered.
const MOST_FAILED: usize = 1_024;

/// Knows who issuers say that processes are.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
    looks: Turns,
    pub(crate) runtime: Handle,
    _sweeping: Arc<Sweeping>,
}

/// Issuers that are ready to be asked, and not yet in force.
pub struct Prepared(Vec<Arc<Known>>);

/// An issuer and what is known of it.
pub(crate) struct Known {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) http: Https,
    pub(crate) keyring: Arc<Keyring>,
}

pub(crate) struct Inner {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) trees: Trees,
    pub(crate) ledger: Option<Arc<Ledger>>,
    shelf: Option<Shelf>,
    issuers: ArcSwap<Vec<Arc<Known>>>,
    /// One at a time gets an identity for the same token.
    busy: Mutex<HashMap<TokenKey, Arc<tokio::sync::Mutex<()>>>>,
    failed: Mutex<HashMap<TokenKey, (Instant, Defect)>>,
}

struct Sweeping(AbortHandle);

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Registry {
    /// Without issuers. What takes long is done on this runtime; what must outlive a restart is kept in this directory,
    /// if there is one. The witness is told of tokens that look stolen, and must not block.
    ///
    /// # Errors
    ///
    /// The ends of processes cannot be waited for, or the directory's files cannot be read and written.
    pub fn new(directory: Option<&Path>, runtime: Handle, witness: Witness) -> io::Result<Self> {
        Self::on(Arc::new(Procfs::open()?), directory, runtime, witness)
    }

    pub(crate) fn on(
        host: Arc<dyn Host>,
        directory: Option<&Path>,
        runtime: Handle,
        witness: Witness,
    ) -> io::Result<Self> {
        let (ledger, remembered) = directory.map(Ledger::open).transpose()?.unzip();
        let inner = Arc::new(Inner {
            trees: Trees::new(host.clone(), remembered.unwrap_or_default(), witness),
            ledger: ledger.map(Arc::new),
            shelf: directory.map(Shelf::open).transpose()?,
            host,
            issuers: ArcSwap::default(),
            busy: Mutex::default(),
            failed: Mutex::default(),
        });
        let sweeping = inner.clone();
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeping.trees.sweep(now());
                sweeping.issuers.load().iter().for_each(|known| known.keyring.ask_again());
            }
        });
        let looks = Turns::new(LOOKS.0, LOOKS.1);
        Ok(Self { inner, looks, runtime, _sweeping: Arc::new(Sweeping(task.abort_handle())) })
    }

    /// How many times a token was used that looks stolen.
    pub fn stolen(&self) -> u64 {
        self.inner.trees.stolen()
    }

    /// The issuers in force that can't be asked.
    pub fn unreachable(&self) -> Vec<Unreachable> {
        self.inner.issuers.load().iter().filter_map(|known| known.keyring.trouble()).collect()
    }

    /// Makes a bundle's issuers ready. The error names everything that is wrong.
    pub fn prepare(&self, issuers: &[Arc<Issuer>]) -> Result<Prepared, Vec<String>> {
        let former = self.inner.issuers.load_full();
        let (mut known, mut problems) = (Vec::new(), Vec::new());
        for issuer in issuers {
            let http = match Https::new(issuer.ca.as_deref()) {
                Ok(http) => http,
                Err(why) => {
                    problems.push(format!("issuer {:?}: {why}", issuer.name));
                    continue;
                }
            };
            let same = former.iter().find(|former| former.issuer.url == issuer.url);
            let keyring = match same {
                Some(same) => Keyring::succeed(&same.keyring, http.clone()),
                None => Keyring::new(issuer.url.clone(), http.clone(), self.inner.shelf.clone()),
            };
            known.push(Arc::new(Known { issuer: issuer.clone(), http, keyring: Arc::new(keyring) }));
        }
        if problems.is_empty() { Ok(Prepared(known)) } else { Err(problems) }
    }

    /// Puts issuers in force. What changed or gone ones said does not count any more.
    pub fn adopt(&self, prepared: Prepared) {
        let issuers: Vec<_> = prepared.0.iter().map(|known| known.issuer.clone()).collect();
        self.inner.issuers.store(Arc::new(prepared.0));
        self.inner.trees.keep_only(&issuers);
    }

    /// Who issuers say that a process is. `account`: the user who answers for it. What is looked at is as large as they make it,
    /// so they wait for their own looks.
    pub async fn identify(&self, id: ProcessId, account: impl Into<Sharer>) -> Identified {
        if self.inner.issuers.load().is_empty() {
            return Identified::nobody();
        }
        let turn = self.looks.of(account).await;
        let inner = self.inner.clone();
        // What one connection waits for, the next one wants too: once begun, it goes on when this one is gone.
        let identified = self.runtime.spawn(async move { inner.identify(id, turn).await }).await;
        identified.unwrap_or_else(|_| Identified::nobody())
    }
}

impl Identities for Registry {
    fn identities<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Identified> {
        Box::pin(async move {
            match process.start_time {
                Some(started) => {
                    self.identify(ProcessId { pid: process.pid, started }, process.sharer()).await
                }
                None => Identified::nobody(),
            }
        })
    }
}

/// The tokens behind the identities that one session follows.
struct Following {
    inner: Arc<Inner>,
    of: Vec<BindingId>,
}

impl Proofs for Following {
    fn proof(&self, issuer: &str) -> Option<Proof> {
        self.inner.trees.proof(&self.of, issuer)
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("of", &self.of).finish_non_exhaustive()
    }
}

/// What there is of one issuer for a process.
enum There {
    Bound(BindingId),
    Found(Vec<Result<Found, Defect>>),
}

impl Inner {
    async fn identify(self: Arc<Self>, id: ProcessId, turn: Turn) -> Identified {
        let issuers = self.issuers.load_full();
        let (looking, asked) = (self.clone(), issuers.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let place = Place::of(&*looking.host, id);
            let there = looking.look(&asked, &place);
            drop(turn);
            (place, there)
        });
        let Ok((place, there)) = looked.await else { return Identified::nobody() };
        let place = Arc::new(place);
        // All at once: an issuer that does not answer takes nothing from the others.
        let redeeming: Vec<_> = issuers
            .iter()
            .zip(there)
            .map(|(known, there)| {
                let redeeming = self.clone().redeem_any(known.clone(), place.clone(), there);
                tokio::spawn(timeout(PATIENCE, redeeming))
            })
            .collect();
        let (mut bound, mut unproven) = (Vec::new(), Vec::new());
        for (known, redeeming) in issuers.iter().zip(redeeming) {
            let late = || Err(Defect::NoKeys("no answer in time".into()));
            match redeeming.await.ok().and_then(Result::ok).unwrap_or_else(late) {
                Ok(id) => bound.extend(id),
                Err(defect) => {
                    let issuer = known.issuer.name.clone();
                    tracing::info!(%issuer, pid = id.pid, %defect, "a token does not count");
                    unproven.push(Unproven { issuer, why: defect.to_string().into() });
                }
            }
        }
        let now = self.trees.follow(bound.clone());
        Identified { now, unproven: unproven.into(), proofs: Arc::new(Following { inner: self, of: bound }) }
    }

    fn look(&self, issuers: &[Arc<Known>], place: &Place) -> Vec<There> {
        let bound = issuers.iter().map(|known| self.trees.covering(place, &known.issuer.name));
        let bound: Vec<_> = bound.map(|covering| covering.map(|(id, _)| id)).collect();
        let both = || issuers.iter().zip(&bound);
        let unknown = both().filter(|(_, bound)| bound.is_none()).map(|(known, _)| &*known.issuer);
        let surroundings = Surroundings::of(&*self.host, place, unknown);
        let there = both().map(|(known, bound)| match bound {
            Some(id) => There::Bound(*id),
            None => There::Found(surroundings.look(&known.issuer)),
        });
        there.collect()
    }

    /// Binds the first token that counts; none if there are none. If none counts, what is wrong with the first.
    async fn redeem_any(
        self: Arc<Self>,
        known: Arc<Known>,
        place: Arc<Place>,
        there: There,
    ) -> Result<Option<BindingId>, Defect> {
        let found = match there {
            There::Bound(id) => return Ok(Some(id)),
            There::Found(found) => found,
        };
        let mut first = None;
        for found in found {
            let redeemed = match found {
                Ok(found) => self.redeem(&known, &place, found).await,
                Err(defect) => Err(defect),
            };
            match redeemed {
                Ok(id) => return Ok(Some(id)),
                Err(defect) => first = first.or(Some(defect)),
            }
        }
        first.map_or(Ok(None), Err)
    }

    async fn redeem(
        self: &Arc<Self>,
        known: &Arc<Known>,
        place: &Place,
        found: Found,
    ) -> Result<BindingId, Defect> {
        let key = found.what.key();
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        if let Some((id, _)) = self.trees.covering(place, &known.issuer.name) {
            return Ok(id);
        }
        if let Some(defect) = self.failed_just_now(key) {
            return Err(defect);
        }
        let issuer = &known.issuer;
        let redeemed = async {
            match &found.what {
                What::Token(text) => self.verify(known, text, &issuer.audience).await,
                What::Request { url, bearer } => {
                    let text = find::request(&known.http, url.clone(), bearer, &issuer.audience).await?;
                    self.verify(known, &text, &issuer.audience).await
                }
            }
        };
        let verified = redeemed.await.inspect_err(|defect| self.remember_failure(key, defect))?;
        let (got_with, source) = match found.what {
            What::Token(_) => (None, None),
            What::Request { url, bearer } => {
                (Some((find::known_by(&bearer), longest_job())), Some(Source::Request { url, bearer }))
            }
        };
        let (renewal, identity) = (source.map(Renewal::new), verified.identity.clone());
        let claim = Claim {
            issuer,
            place,
            root: found.root,
            login: None,
            how: How::Found,
            siblings: found.siblings,
            got_with,
            renewal: renewal.clone(),
            verified,
        };
        let bound = self.bind(claim).await?;
        let id = bound.id;
        if let Some(renewal) = renewal {
            drop(tokio::spawn(renewal.keep(self.clone(), known.clone(), bound, identity)));
        }
        Ok(id)
    }

    /// Binds an identity, once that is written down, and waits for the end of its tree.
    pub(crate) async fn bind(self: &Arc<Self>, claim: Claim<'_>) -> Result<Bound, Defect> {
        let used: Vec<_> = claim.used().collect();
        let bound = self.trees.bind(claim)?;
        let root = bound.tree.root;
        self.write_down(bound.id, used, bound.tree).await?;
        if bound.is_new_tree {
            self.wait_for_the_end_of(root);
        }
        Ok(bound)
    }

    /// Ends what counts for a tree when its root ends.
    pub(crate) fn wait_for_the_end_of(self: &Arc<Self>, root: ProcessId) {
        let (inner, ended) = (self.clone(), self.host.ended(root));
        drop(tokio::spawn(async move {
            ended.await;
            inner.trees.end_root(root);
        }));
    }

    /// Renews a binding with a token of the same subject, unless that token counts for another tree.
    pub(crate) async fn renew(&self, id: BindingId, verified: Verified) -> Result<(), Defect> {
        match self.trees.renew(id, verified)? {
            Some((used, tree)) => self.write_down(id, vec![used], tree).await,
            None => Ok(()),
        }
    }

    /// Writes down which tokens a binding used; if that fails, it ends.
    pub(crate) async fn write_down(&self, id: BindingId, used: Vec<Spent>, tree: Tree) -> Result<(), Defect> {
        let Some(ledger) = self.ledger.clone() else { return Ok(()) };
        let kept = tokio::task::spawn_blocking(move || ledger.keep(&used, tree)).await;
        kept.unwrap_or_else(|_| Err(io::Error::other("it was cut off"))).map_err(|error| {
            tracing::error!(%error, "the use of a token cannot be written down");
            self.trees.end(id, "that its token was used could not be written down");
            Defect::NotKept
        })
    }

    /// Verifies a token of this issuer for this audience.
    pub(crate) async fn verify(
        &self,
        known: &Known,
        text: &[u8],
        audience: &str,
    ) -> Result<Verified, Defect> {
        let token = Token::parse(text)?;
        let algorithm = token.algorithm(&known.issuer)?;
        if !token.is_of(&known.issuer) {
            return Err(Defect::Issuer(known.issuer.url.to_string()));
        }
        let keys = known.keyring.keys(token.key_id.as_deref(), algorithm, known.issuer.offline).await?;
        let verified = Expected { issuer: &known.issuer, audience, now: now() }.verify(&token, &keys)?;
        let proof = known.issuer.shown.then(|| Secret::new(text.to_vec()));
        Ok(Verified { proof, ..verified })
    }

    pub(crate) fn issuers(&self) -> Arc<Vec<Arc<Known>>> {
        self.issuers.load_full()
    }

    fn turn(&self, key: TokenKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more.
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry(key).or_default().clone()
    }

    fn failed_just_now(&self, key: TokenKey) -> Option<Defect> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&key).filter(|(when, _)| when.elapsed() < PAUSE).map(|(_, defect)| defect.clone())
    }

    /// Whoever could not be asked is left alone for a while.
    fn remember_failure(&self, key: TokenKey, defect: &Defect) {
        if matches!(defect, Defect::NotHandedOut(_)) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.len() >= MOST_FAILED {
                failed.clear();
            }
            failed.insert(key, (Instant::now(), defect.clone()));
        }
    }
}

/// Until when what a job asks with is remembered that asks now, in seconds since 1970.
pub(crate) fn longest_job() -> i64 {
    now().saturating_add(i64::try_from(LONGEST_JOB.as_secs()).unwrap_or(i64::MAX))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A token's bytes without what a file or a shell puts around it.
pub(crate) fn trimmed(text: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.trim_ascii().to_vec())
}
