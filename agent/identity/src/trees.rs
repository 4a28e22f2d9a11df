//! Which identity counts for which processes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_gate::{Proof, Secret};
use tidegate_policy::{Elsewhere, Identity, Issuer};
use tokio::sync::{oneshot, watch};

use crate::{
    Defect,
    host::{Host, Login, Place, ProcessId},
    ledger::Remembered,
    stolen::{Stolen, Witness},
    token::{Spent, TokenKey},
    verify::Verified,
};

/// Most bindings at once.
const MOST: usize = 50_000;
/// Most processes that are remembered as members of a tree.
const MOST_MEMBERS: usize = 50_000;
/// Most tokens that are remembered against a replay.
const MOST_USED: usize = 200_000;

/// Identities, bound to process trees and login sessions.
pub(crate) struct Trees {
    host: Arc<dyn Host>,
    state: Mutex<State>,
}

/// A binding's number.
pub(crate) type BindingId = u64;

/// How a token came to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It was found with the process.
    Found,
    /// `tidegate present`.
    Presented,
    /// `tidegate login`.
    LoggedIn,
}

/// A wish that an identity count for a tree.
pub(crate) struct Claim<'a> {
    pub(crate) issuer: &'a Arc<Issuer>,
    /// Where whoever presents the token stands; `root` is among it.
    pub(crate) place: &'a Place,
    /// The process that the tree grows from.
    pub(crate) root: ProcessId,
    /// The login session that counts beside the tree.
    pub(crate) login: Option<Login>,
    pub(crate) how: How,
    /// A tree that the same parent starts for the same account after the first has ended may use the token too.
    pub(crate) siblings: bool,
    /// What the token was asked for with.
    pub(crate) got_with: Option<Spent>,
    pub(crate) verified: Verified,
}

impl Claim<'_> {
    /// What counts for nobody else from now on.
    pub(crate) fn used(&self) -> impl Iterator<Item = Spent> + use<> {
        [self.verified.used(self.issuer)].into_iter().chain(self.verified.used_step()).chain(self.got_with)
    }

    fn tree(&self, host: &dyn Host) -> Tree {
        let lineage = &self.place.lineage;
        let at = lineage.iter().position(|seen| seen.id == self.root);
        let parent = at.and_then(|at| lineage.get(at + 1)).map(|seen| seen.id);
        Tree { root: self.root, parent, uid: host.uid(self.root) }
    }
}

/// A process tree, as it is remembered with the tokens that it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) root: ProcessId,
    /// The process that started the root.
    pub(crate) parent: Option<ProcessId>,
    /// The root's account.
    pub(crate) uid: Option<u32>,
}

impl Tree {
    /// Whether another tree was started by the same process for the same account.
    fn is_sibling(&self, other: &Self) -> bool {
        self.parent.is_some() && self.parent == other.parent && self.uid.is_some() && self.uid == other.uid
    }
}

struct State {
    witness: Witness,
    stolen: u64,
    next: BindingId,
    bindings: HashMap<BindingId, Binding>,
    by_root: HashMap<ProcessId, Vec<BindingId>>,
    by_login: HashMap<Login, Vec<BindingId>>,
    /// Processes that were seen to descend from a root.
    members: HashMap<ProcessId, ProcessId>,
    used: HashMap<TokenKey, Use>,
    followers: Vec<Follower>,
}

struct Binding {
    issuer: Arc<Issuer>,
    tree: Tree,
    login: Option<Login>,
    how: How,
    identity: Identity,
    token: TokenKey,
    /// The token itself, where a resource may be shown it.
    proof: Option<Secret>,
    /// What all tokens of its step are known by.
    step: Option<TokenKey>,
    /// What the token was asked for with.
    got_with: Option<TokenKey>,
    /// Resolves for whoever renews it when it is over.
    _over: oneshot::Sender<()>,
}

/// Who used a token first.
struct Use {
    tree: Tree,
    live: bool,
    forget: i64,
}

/// A session that follows bindings.
struct Follower {
    of: Vec<BindingId>,
    sender: watch::Sender<Arc<[Identity]>>,
}

/// A binding that was made.
pub(crate) struct Bound {
    pub(crate) id: BindingId,
    pub(crate) tree: Tree,
    /// The tree is new: its end must be waited for.
    pub(crate) is_new_tree: bool,
    /// Resolves when it is over.
    pub(crate) over: oneshot::Receiver<()>,
}

impl Trees {
    /// `remembered`: tokens that were used before this start.
    pub(crate) fn new(host: Arc<dyn Host>, remembered: Vec<Remembered>, witness: Witness) -> Self {
        // No process has this id.
        let gone = Tree { root: ProcessId { pid: 0, started: 0 }, parent: None, uid: None };
        let lives = |id: ProcessId| host.seen(id.pid).is_some_and(|seen| seen.id == id);
        let used = remembered.into_iter().map(|Remembered { token, tree, forget }| {
            let live = tree.is_some_and(|tree| lives(tree.root));
            (token, Use { tree: tree.unwrap_or(gone), live, forget })
        });
        let state = State {
            witness,
            stolen: 0,
            next: 0,
            bindings: HashMap::new(),
            by_root: HashMap::new(),
            by_login: HashMap::new(),
            members: HashMap::new(),
            used: used.collect(),
            followers: Vec::new(),
        };
        Self { host, state: Mutex::new(state) }
    }

    /// How many times a token was used that looks stolen.
    pub(crate) fn stolen(&self) -> u64 {
        self.state().stolen
    }

    /// The binding of this issuer that counts for a process: the nearest.
    pub(crate) fn covering(&self, place: &Place, issuer: &str) -> Option<(BindingId, Identity)> {
        let mut state = self.state();
        let (id, root) = state.covering(place, issuer)?;
        state.remember(&*self.host, place, root);
        state.bindings.get(&id).map(|binding| (id, binding.identity.clone()))
    }

    /// Binds an identity to a tree.
    pub(crate) fn bind(&self, claim: Claim<'_>) -> Result<Bound, Defect> {
        let mut state = self.state();
        for (token, _) in claim.used() {
            state.bury(&*self.host, token);
        }
        let tree = claim.tree(&*self.host);
        state.check(&claim, tree)?;
        for used in claim.used() {
            state.claim_token(tree, used);
        }
        let Claim { issuer, root, login, how, got_with, verified, .. } = claim;
        let is_new_tree = !state.by_root.contains_key(&root);
        let (sender, over) = oneshot::channel();
        let binding = Binding {
            issuer: issuer.clone(),
            tree,
            login,
            how,
            identity: verified.identity,
            token: verified.key,
            proof: verified.proof,
            step: verified.step,
            got_with: got_with.map(|(token, _)| token),
            _over: sender,
        };
        let same = state.of_root(root, &issuer.name);
        let id = same.unwrap_or(state.next);
        if same.is_none() {
            state.next += 1;
            state.by_root.entry(root).or_default().push(id);
            if let Some(login) = login {
                state.by_login.entry(login).or_default().push(id);
            }
        }
        let identity = &binding.identity;
        tracing::info!(
            issuer = %identity.issuer, subject = %identity.subject, root = root.pid, how = ?how, "identity bound"
        );
        let now = binding.tokens();
        if let Some(former) = state.bindings.insert(id, binding) {
            state.is_over(
                root,
                former.tokens().into_iter().flatten().filter(|token| !now.contains(&Some(*token))),
            );
        }
        state.remember(&*self.host, claim.place, root);
        state.tell(&[id]);
        Ok(Bound { id, tree, is_new_tree, over })
    }

    /// The identity was renewed: the same issuer says the same subject again. What was used for it, and by which tree;
    /// none if it is over.
    pub(crate) fn renew(&self, id: BindingId, verified: Verified) -> Result<Option<(Spent, Tree)>, Defect> {
        let mut state = self.state();
        state.bury(&*self.host, verified.key);
        let Some(Binding { issuer, tree, token: former, .. }) = state.bindings.get(&id) else {
            return Ok(None);
        };
        let (issuer, tree, former, used) = (issuer.clone(), *tree, *former, verified.used(issuer));
        let identity = &verified.identity;
        state.check_token(&Presented { issuer: &issuer, identity, tree, siblings: false }, verified.key)?;
        state.claim_token(tree, used);
        if former != verified.key {
            state.is_over(tree.root, [former]);
        }
        if let Some(binding) = state.bindings.get_mut(&id) {
            binding.identity = verified.identity;
            binding.token = verified.key;
            binding.proof = verified.proof;
            state.tell(&[id]);
        }
        Ok(Some((used, tree)))
    }

    /// Ends one binding.
    pub(crate) fn end(&self, id: BindingId, why: &str) {
        self.state().end(&[id], why);
    }

    /// Ends everything of a tree whose root has ended.
    pub(crate) fn end_root(&self, root: ProcessId) {
        let mut state = self.state();
        let ids = state.by_root.get(&root).cloned().unwrap_or_default();
        state.end(&ids, "its process tree ended");
        state.members.retain(|_, of| *of != root);
    }

    /// Ends what was presented or logged in with, of one issuer or all, and counts for this place; how many.
    pub(crate) fn log_out(&self, place: &Place, issuer: Option<&str>) -> usize {
        let mut state = self.state();
        let ids = state.all_covering(place);
        let asked = |id: &BindingId| {
            state.bindings.get(id).is_some_and(|binding| {
                binding.how != How::Found && issuer.is_none_or(|issuer| *binding.issuer.name == *issuer)
            })
        };
        let ids: Vec<BindingId> = ids.into_iter().filter(asked).collect();
        state.end(&ids, "it was logged out");
        ids.len()
    }

    /// Ends what is past its time, and what issuers that changed said.
    pub(crate) fn sweep(&self, now: i64) {
        let mut state = self.state();
        let past = |binding: &Binding| {
            let skew = i64::try_from(binding.issuer.clock_skew.as_secs()).unwrap_or(0);
            binding.identity.expires.saturating_add(skew) <= now
        };
        let over: Vec<BindingId> =
            state.bindings.iter().filter(|(_, binding)| past(binding)).map(|(id, _)| *id).collect();
        state.end(&over, "its token expired");
        let State { used, by_root, .. } = &mut *state;
        used.retain(|_, used| used.forget > now || (used.live && by_root.contains_key(&used.tree.root)));
        state.followers.retain(|follower| !follower.sender.is_closed());
    }

    /// Ends what no issuer of these said: one that was changed may not say it any more.
    pub(crate) fn keep_only(&self, issuers: &[Arc<Issuer>]) {
        let mut state = self.state();
        let gone = |binding: &Binding| !issuers.iter().any(|issuer| **issuer == *binding.issuer);
        let over: Vec<BindingId> =
            state.bindings.iter().filter(|(_, binding)| gone(binding)).map(|(id, _)| *id).collect();
        state.end(&over, "the bundle's issuer changed");
    }

    /// The token behind one of these bindings, of this issuer; none where it is over, or no resource may be shown it.
    pub(crate) fn proof(&self, of: &[BindingId], issuer: &str) -> Option<Proof> {
        let state = self.state();
        let mut bindings = of.iter().filter_map(|id| state.bindings.get(id));
        let binding = bindings.find(|binding| *binding.issuer.name == *issuer)?;
        let Identity { subject, expires, .. } = &binding.identity;
        Some(Proof { token: binding.proof.clone()?, subject: subject.clone(), expires: *expires })
    }

    /// Follows bindings for a session.
    pub(crate) fn follow(&self, of: Vec<BindingId>) -> watch::Receiver<Arc<[Identity]>> {
        let mut state = self.state();
        let (sender, receiver) = watch::channel(state.identities(&of));
        if !of.is_empty() {
            state.followers.push(Follower { of, sender });
        }
        receiver
    }

    /// A lock whose holder panicked guards maps whose entries are whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Binding {
    /// What counts for nobody else as long as it lives.
    fn tokens(&self) -> [Option<TokenKey>; 3] {
        [Some(self.token), self.step, self.got_with]
    }
}

/// Who presents a token.
struct Presented<'a> {
    issuer: &'a Issuer,
    identity: &'a Identity,
    tree: Tree,
    siblings: bool,
}

impl State {
    fn of_root(&self, root: ProcessId, issuer: &str) -> Option<BindingId> {
        let ids = self.by_root.get(&root)?;
        let of_issuer =
            |id: &&BindingId| self.bindings.get(id).is_some_and(|binding| *binding.issuer.name == *issuer);
        ids.iter().find(of_issuer).copied()
    }

    /// The roots that a place descends from, nearest first.
    fn roots(&self, place: &Place) -> Vec<ProcessId> {
        let mut roots = Vec::new();
        for id in place.ids() {
            let member = self.members.get(&id).filter(|root| self.by_root.contains_key(root));
            roots.extend(self.by_root.contains_key(&id).then_some(id).or(member.copied()));
        }
        roots
    }

    fn covering(&self, place: &Place, issuer: &str) -> Option<(BindingId, ProcessId)> {
        let by_tree =
            self.roots(place).into_iter().find_map(|root| Some((self.of_root(root, issuer)?, root)));
        by_tree.or_else(|| {
            let ids = self.by_login.get(&place.login?)?;
            let bindings = ids.iter().filter_map(|id| Some((*id, self.bindings.get(id)?)));
            let mut of_issuer = bindings.filter(|(_, binding)| *binding.issuer.name == *issuer);
            of_issuer.next().map(|(id, binding)| (id, binding.tree.root))
        })
    }

    fn all_covering(&self, place: &Place) -> Vec<BindingId> {
        let by_tree = self.roots(place).into_iter().filter_map(|root| self.by_root.get(&root));
        let by_login = place.login.and_then(|login| self.by_login.get(&login));
        let ids: HashSet<BindingId> = by_tree.chain(by_login).flatten().copied().collect();
        ids.into_iter().collect()
    }

    fn check(&mut self, claim: &Claim<'_>, tree: Tree) -> Result<(), Defect> {
        if self.bindings.len() >= MOST {
            return Err(Defect::Full);
        }
        let Verified { identity, step, .. } = &claim.verified;
        let subject = &identity.subject;
        let is_other = |binding: &Binding| binding.identity.subject != *subject || binding.step != *step;
        if let Some((id, _)) = self.covering(claim.place, &claim.issuer.name)
            && self.bindings.get(&id).is_some_and(is_other)
        {
            return Err(Defect::SomebodyElse);
        }
        let presented = Presented { issuer: claim.issuer, identity, tree, siblings: claim.siblings };
        claim.used().try_for_each(|(token, _)| self.check_token(&presented, token))
    }

    /// Whether a token may count for a tree: it must not have counted for another.
    fn check_token(&mut self, presented: &Presented<'_>, token: TokenKey) -> Result<(), Defect> {
        if self.used.len() >= MOST_USED {
            return Err(Defect::Full);
        }
        let Presented { issuer, identity: Identity { subject, .. }, tree, siblings } = presented;
        let Some(used) = self.used.get(&token).filter(|used| used.tree.root != tree.root) else {
            return Ok(());
        };
        let (first, defect) = match used.live {
            true if issuer.elsewhere == Elsewhere::Refuse => (Some(used.tree.root.pid), Defect::Elsewhere),
            false if !(*siblings && used.tree.is_sibling(tree)) => (None, Defect::Replayed),
            _ => return Ok(()),
        };
        let (issuer, subject) = (issuer.name.clone(), subject.clone());
        let stolen = Stolen { issuer, subject, first, here: tree.root.pid, uid: tree.uid };
        tracing::warn!("stolen? {stolen}");
        (self.witness)(&stolen);
        self.stolen = self.stolen.saturating_add(1);
        Err(defect)
    }

    fn claim_token(&mut self, tree: Tree, (token, forget): Spent) {
        // While it counts for the first, it stays the first's.
        let first = self.used.get(&token).filter(|used| used.live).map(|used| used.tree);
        self.used.insert(token, Use { tree: first.unwrap_or(tree), live: true, forget });
    }

    /// The processes between a place and a root belong to its tree, whatever becomes of those between them.
    fn remember(&mut self, host: &dyn Host, place: &Place, root: ProcessId) {
        if self.members.len() >= MOST_MEMBERS {
            self.members.retain(|id, _| host.seen(id.pid).is_some_and(|seen| seen.id == *id));
        }
        if self.members.len() >= MOST_MEMBERS || !place.lineage.iter().any(|seen| seen.id == root) {
            return;
        }
        for seen in place.lineage.iter().take_while(|seen| seen.id != root) {
            self.members.insert(seen.id, root);
        }
    }

    /// Tokens count for this tree no longer.
    fn is_over(&mut self, root: ProcessId, tokens: impl IntoIterator<Item = TokenKey>) {
        for token in tokens {
            if let Some(used) = self.used.get_mut(&token).filter(|used| used.tree.root == root) {
                used.live = false;
            }
        }
    }

    /// If whoever used the token first has ended, and that was not told yet, it is over now.
    fn bury(&mut self, host: &dyn Host, token: TokenKey) {
        let Some(used) = self.used.get_mut(&token).filter(|used| used.live) else { return };
        let root = used.tree.root;
        if host.seen(root.pid).is_none_or(|seen| seen.id != root) {
            used.live = false;
            let ids = self.by_root.get(&root).cloned().unwrap_or_default();
            self.end(&ids, "its process tree ended");
        }
    }

    fn end(&mut self, ids: &[BindingId], why: &str) {
        for id in ids {
            let Some(binding) = self.bindings.remove(id) else { continue };
            let root = binding.tree.root;
            self.is_over(root, binding.tokens().into_iter().flatten());
            forget(&mut self.by_root, &root, *id);
            if let Some(login) = binding.login {
                forget(&mut self.by_login, &login, *id);
            }
            let identity = &binding.identity;
            tracing::info!(issuer = %identity.issuer, subject = %identity.subject, why, "identity ended");
        }
        self.tell(ids);
    }

    fn tell(&mut self, changed: &[BindingId]) {
        self.followers.retain(|follower| !follower.sender.is_closed());
        for follower in &self.followers {
            if follower.of.iter().any(|id| changed.contains(id)) {
                follower.sender.send_replace(self.identities(&follower.of));
            }
        }
    }

    fn identities(&self, of: &[BindingId]) -> Arc<[Identity]> {
        of.iter().filter_map(|id| self.bindings.get(id)).map(|binding| binding.identity.clone()).collect()
    }
}

fn forget<K: std::hash::Hash + Eq>(ids: &mut HashMap<K, Vec<BindingId>>, key: &K, id: BindingId) {
    if let Some(of_key) = ids.get_mut(key) {
        of_key.retain(|other| *other != id);
        if of_key.is_empty() {
            ids.remove(key);
        }
    }
}
