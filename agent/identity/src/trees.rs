//! Which identity counts for which processes.

mod lasting;
mod state;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tidegate_gate::Proof;
use tidegate_policy::{Identity, Issuer};
use tokio::sync::{oneshot, watch};

pub(crate) use self::lasting::Lasting;
use self::state::{Binding, Follower, Presented, State, Use};
use crate::{
    Defect,
    host::{Host, Login, Place, ProcessId},
    ledger::Remembered,
    renewal::Renewal,
    stolen::Witness,
    token::Spent,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What gets new tokens as long as it counts.
    pub(crate) renewal: Option<Renewal>,
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
            changed: watch::Sender::default(),
            witness,
            stolen: 0,
            next: 0,
            bindings: HashMap::new(),
            by_root: HashMap::new(),
            by_login: HashMap::new(),
            postponed: HashMap::new(),
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
        state.bindings.get(&id).map(|binding| (id, binding.is.identity.clone()))
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
        let Claim { issuer, place, root, login, how, got_with, renewal, verified, .. } = claim;
        let bound = state.put(Lasting {
            issuer: issuer.clone(),
            tree,
            login,
            how,
            identity: verified.identity,
            token: verified.key,
            proof: verified.proof,
            step: verified.step,
            got_with: got_with.map(|(token, _)| token),
            renewal,
        });
        state.remember(&*self.host, place, root);
        Ok(bound)
    }

    /// The identity was renewed: the same issuer says the same subject again. What was used for it, and by which tree;
    /// none if it is over.
    pub(crate) fn renew(&self, id: BindingId, verified: Verified) -> Result<Option<(Spent, Tree)>, Defect> {
        let mut state = self.state();
        state.bury(&*self.host, verified.key);
        let Some(Binding { is: Lasting { issuer, tree, token: former, .. }, .. }) = state.bindings.get(&id)
        else {
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
            binding.is.identity = verified.identity;
            binding.is.token = verified.key;
            binding.is.proof = verified.proof;
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
        let ids = state.all_of(root);
        state.end(&ids, "its process tree ended");
        state.members.retain(|_, of| *of != root);
    }

    /// Ends what was presented or logged in with, of one issuer or all, and counts for this place; how many.
    pub(crate) fn log_out(&self, place: &Place, issuer: Option<&str>) -> usize {
        let mut state = self.state();
        let asked = |id: &BindingId| {
            state.lasting(*id).is_some_and(|lasting| {
                lasting.how != How::Found && issuer.is_none_or(|issuer| *lasting.issuer.name == *issuer)
            })
        };
        let ids: Vec<BindingId> = state.all_covering(place).into_iter().filter(asked).collect();
        state.end(&ids, "it was logged out");
        ids.len()
    }

    /// Ends what is past its time, and what issuers that changed said.
    pub(crate) fn sweep(&self, now: i64) {
        let mut state = self.state();
        let past = |binding: &Binding| binding.is.until() <= now;
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
        let gone = |lasting: &Lasting| !issuers.iter().any(|issuer| **issuer == *lasting.issuer);
        let over: Vec<BindingId> = state.all().filter(|(_, of)| gone(of)).map(|(id, _)| id).collect();
        state.end(&over, "the bundle's issuer changed");
    }

    /// The token behind one of these bindings, of this issuer; none where it is over, or no resource may be shown it.
    pub(crate) fn proof(&self, of: &[BindingId], issuer: &str) -> Option<Proof> {
        let state = self.state();
        let mut bindings = of.iter().filter_map(|id| state.bindings.get(id));
        let is = &bindings.find(|binding| *binding.is.issuer.name == *issuer)?.is;
        let Identity { subject, expires, .. } = &is.identity;
        Some(Proof { token: is.proof.clone()?, subject: subject.clone(), expires: *expires })
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
