//! What is bound and used, as one lock guards it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tidegate_policy::{Elsewhere, Identity, Issuer};
use tokio::sync::{oneshot, watch};

use super::{BindingId, Bound, Claim, Lasting, MOST, MOST_MEMBERS, MOST_USED, Tree};
use crate::{
    Defect,
    host::{Host, Login, Place, ProcessId},
    stolen::{Stolen, Witness},
    token::{Spent, TokenKey},
    verify::Verified,
};

pub(super) struct State {
    /// Ticks with each change of what outlives the agent.
    pub(super) changed: watch::Sender<()>,
    pub(super) witness: Witness,
    pub(super) stolen: u64,
    pub(super) next: BindingId,
    pub(super) bindings: HashMap<BindingId, Binding>,
    pub(super) by_root: HashMap<ProcessId, Vec<BindingId>>,
    pub(super) by_login: HashMap<Login, Vec<BindingId>>,
    /// What is to be renewed before it counts again, after a restart.
    pub(super) postponed: HashMap<BindingId, Lasting>,
    /// Processes that were seen to descend from a root.
    pub(super) members: HashMap<ProcessId, ProcessId>,
    pub(super) used: HashMap<TokenKey, Use>,
    pub(super) followers: Vec<Follower>,
}

/// An identity that counts for a tree.
pub(super) struct Binding {
    pub(super) is: Lasting,
    /// Resolves for whoever renews it when it is over.
    pub(super) _over: oneshot::Sender<()>,
}

/// Who used a token first.
pub(super) struct Use {
    pub(super) tree: Tree,
    pub(super) live: bool,
    pub(super) forget: i64,
}

/// A session that follows bindings.
pub(super) struct Follower {
    pub(super) of: Vec<BindingId>,
    pub(super) sender: watch::Sender<Arc<[Identity]>>,
}

/// Who presents a token.
pub(super) struct Presented<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) identity: &'a Identity,
    pub(super) tree: Tree,
    pub(super) siblings: bool,
}

impl State {
    /// Puts a binding in the place of the one that its root has of the same issuer, if it has one.
    pub(super) fn put(&mut self, lasting: Lasting) -> Bound {
        let (tree, login, identity) = (lasting.tree, lasting.login, &lasting.identity);
        let root = tree.root;
        tracing::info!(
            issuer = %identity.issuer, subject = %identity.subject, root = root.pid, how = ?lasting.how,
            "identity bound"
        );
        let is_new_tree = !self.by_root.contains_key(&root);
        let same = self.of_root(root, &lasting.issuer.name);
        let id = same.unwrap_or(self.next);
        if same.is_none() {
            self.next += 1;
            self.by_root.entry(root).or_default().push(id);
            if let Some(login) = login {
                self.by_login.entry(login).or_default().push(id);
            }
        }
        let (now, (sender, over)) = (lasting.tokens(), oneshot::channel());
        if let Some(former) = self.bindings.insert(id, Binding { is: lasting, _over: sender }) {
            let unused = former.is.tokens().into_iter().flatten();
            self.is_over(root, unused.filter(|token| !now.contains(&Some(*token))));
        }
        self.tell(&[id]);
        Bound { id, tree, is_new_tree, over }
    }

    /// All that is bound or postponed.
    pub(super) fn all(&self) -> impl Iterator<Item = (BindingId, &Lasting)> {
        let bound = self.bindings.iter().map(|(id, binding)| (*id, &binding.is));
        bound.chain(self.postponed.iter().map(|(id, lasting)| (*id, lasting)))
    }

    pub(super) fn lasting(&self, id: BindingId) -> Option<&Lasting> {
        self.bindings.get(&id).map(|binding| &binding.is).or_else(|| self.postponed.get(&id))
    }

    /// All of a tree.
    pub(super) fn all_of(&self, root: ProcessId) -> Vec<BindingId> {
        let postponed = self.postponed.iter().filter(|(_, lasting)| lasting.tree.root == root);
        let bound = self.by_root.get(&root).into_iter().flatten();
        bound.chain(postponed.map(|(id, _)| id)).copied().collect()
    }

    pub(super) fn of_root(&self, root: ProcessId, issuer: &str) -> Option<BindingId> {
        let ids = self.by_root.get(&root)?;
        let of_issuer =
            |id: &&BindingId| self.bindings.get(id).is_some_and(|binding| *binding.is.issuer.name == *issuer);
        ids.iter().find(of_issuer).copied()
    }

    /// The roots that a place descends from, nearest first.
    pub(super) fn roots(&self, place: &Place) -> Vec<ProcessId> {
        let mut roots = Vec::new();
        for id in place.ids() {
            let member = self.members.get(&id).filter(|root| self.by_root.contains_key(root));
            roots.extend(self.by_root.contains_key(&id).then_some(id).or(member.copied()));
        }
        roots
    }

    pub(super) fn covering(&self, place: &Place, issuer: &str) -> Option<(BindingId, ProcessId)> {
        let by_tree =
            self.roots(place).into_iter().find_map(|root| Some((self.of_root(root, issuer)?, root)));
        by_tree.or_else(|| {
            let ids = self.by_login.get(&place.login?)?;
            let bindings = ids.iter().filter_map(|id| Some((*id, self.bindings.get(id)?)));
            let mut of_issuer = bindings.filter(|(_, binding)| *binding.is.issuer.name == *issuer);
            of_issuer.next().map(|(id, binding)| (id, binding.is.tree.root))
        })
    }

    /// All that counts for a place, or would once it is renewed.
    pub(super) fn all_covering(&self, place: &Place) -> Vec<BindingId> {
        let by_tree = self.roots(place).into_iter().filter_map(|root| self.by_root.get(&root));
        let by_login = place.login.and_then(|login| self.by_login.get(&login));
        let above: HashSet<ProcessId> =
            place.ids().flat_map(|id| [Some(id), self.members.get(&id).copied()]).flatten().collect();
        let is_above = |lasting: &Lasting| {
            above.contains(&lasting.tree.root) || (lasting.login.is_some() && lasting.login == place.login)
        };
        let postponed = self.postponed.iter().filter(|(_, lasting)| is_above(lasting));
        let ids: HashSet<BindingId> =
            by_tree.chain(by_login).flatten().chain(postponed.map(|(id, _)| id)).copied().collect();
        ids.into_iter().collect()
    }

    pub(super) fn check(&mut self, claim: &Claim<'_>, tree: Tree) -> Result<(), Defect> {
        if self.bindings.len() >= MOST {
            return Err(Defect::Full);
        }
        let Verified { identity, step, .. } = &claim.verified;
        let subject = &identity.subject;
        let is_other =
            |binding: &Binding| binding.is.identity.subject != *subject || binding.is.step != *step;
        if let Some((id, _)) = self.covering(claim.place, &claim.issuer.name)
            && self.bindings.get(&id).is_some_and(is_other)
        {
            return Err(Defect::SomebodyElse);
        }
        let presented = Presented { issuer: claim.issuer, identity, tree, siblings: claim.siblings };
        claim.used().try_for_each(|(token, _)| self.check_token(&presented, token))
    }

    /// Whether a token may count for a tree: it must not have counted for another.
    pub(super) fn check_token(&mut self, presented: &Presented<'_>, token: TokenKey) -> Result<(), Defect> {
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

    pub(super) fn claim_token(&mut self, tree: Tree, (token, forget): Spent) {
        let before = self.used.get(&token);
        // While it counts for the first, it stays the first's.
        let tree = before.filter(|used| used.live).map_or(tree, |used| used.tree);
        // Who uses it again doesn't have it forgotten earlier.
        let forget = before.map_or(forget, |used| used.forget.max(forget));
        self.used.insert(token, Use { tree, live: true, forget });
    }

    /// The processes between a place and a root belong to its tree, whatever becomes of those between them.
    pub(super) fn remember(&mut self, host: &dyn Host, place: &Place, root: ProcessId) {
        if self.members.len() >= MOST_MEMBERS {
            self.members.retain(|id, _| host.seen(id.pid).is_some_and(|seen| seen.id == *id));
        }
        if self.members.len() >= MOST_MEMBERS || !place.lineage.iter().any(|seen| seen.id == root) {
            return;
        }
        let mut is_new = false;
        for seen in place.lineage.iter().take_while(|seen| seen.id != root) {
            is_new |= self.members.insert(seen.id, root) != Some(root);
        }
        if is_new {
            self.changed.send_replace(());
        }
    }

    /// Tokens count for this tree no longer.
    pub(super) fn is_over(&mut self, root: ProcessId, tokens: impl IntoIterator<Item = TokenKey>) {
        for token in tokens {
            if let Some(used) = self.used.get_mut(&token).filter(|used| used.tree.root == root) {
                used.live = false;
            }
        }
    }

    /// If whoever used the token first has ended, and that was not told yet, it is over now.
    pub(super) fn bury(&mut self, host: &dyn Host, token: TokenKey) {
        let Some(used) = self.used.get_mut(&token).filter(|used| used.live) else { return };
        let root = used.tree.root;
        if host.seen(root.pid).is_none_or(|seen| seen.id != root) {
            used.live = false;
            let ids = self.all_of(root);
            self.end(&ids, "its process tree ended");
        }
    }

    /// Ends what is bound or postponed.
    pub(super) fn end(&mut self, ids: &[BindingId], why: &str) {
        for id in ids {
            let bound = self.bindings.remove(id).map(|binding| binding.is);
            let Some(is) = bound.or_else(|| self.postponed.remove(id)) else { continue };
            let root = is.tree.root;
            self.is_over(root, is.tokens().into_iter().flatten());
            forget(&mut self.by_root, &root, *id);
            if let Some(login) = is.login {
                forget(&mut self.by_login, &login, *id);
            }
            let identity = &is.identity;
            tracing::info!(issuer = %identity.issuer, subject = %identity.subject, why, "identity ended");
        }
        self.tell(ids);
    }

    pub(super) fn tell(&mut self, changed: &[BindingId]) {
        self.changed.send_replace(());
        self.followers.retain(|follower| !follower.sender.is_closed());
        for follower in &self.followers {
            if follower.of.iter().any(|id| changed.contains(id)) {
                follower.sender.send_replace(self.identities(&follower.of));
            }
        }
    }

    pub(super) fn identities(&self, of: &[BindingId]) -> Arc<[Identity]> {
        of.iter().filter_map(|id| self.bindings.get(id)).map(|binding| binding.is.identity.clone()).collect()
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
