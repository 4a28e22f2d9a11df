//! What of bindings outlives the agent, and how the next one takes it up.

use std::sync::Arc;

use tidegate_gate::Secret;
use tidegate_policy::{Identity, Issuer};
use tokio::sync::watch;

use super::{
    BindingId, Bound, How, MOST, MOST_MEMBERS, Tree, Trees,
    state::{Presented, State},
};
use crate::{
    host::{Host, Login, ProcessId},
    registry::longest_job,
    renewal::Renewal,
    token::{Spent, TokenKey},
    verify::{LONGEST_STEP, Verified},
};

/// What outlives the agent of a binding.
#[derive(Clone)]
pub(crate) struct Lasting {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) tree: Tree,
    pub(crate) login: Option<Login>,
    pub(crate) how: How,
    pub(crate) identity: Identity,
    pub(crate) token: TokenKey,
    /// The token itself, where a resource may be shown it.
    pub(crate) proof: Option<Secret>,
    /// What all tokens of its step are known by.
    pub(crate) step: Option<TokenKey>,
    /// What the token was asked for with.
    pub(crate) got_with: Option<TokenKey>,
    pub(crate) renewal: Option<Renewal>,
}

impl Lasting {
    /// What counts for nobody else as long as it lives.
    pub(super) fn tokens(&self) -> [Option<TokenKey>; 3] {
        [Some(self.token), self.step, self.got_with]
    }

    /// What its tree used, and until when that is remembered.
    pub(crate) fn used(&self) -> impl Iterator<Item = Spent> + use<> {
        let step = self.step.map(|step| (step, self.identity.expires.saturating_add(LONGEST_STEP)));
        let got_with = self.got_with.map(|token| (token, longest_job()));
        [(self.token, self.until())].into_iter().chain(step).chain(got_with)
    }

    /// Until when it counts unless it is renewed, in seconds since 1970.
    pub(crate) fn until(&self) -> i64 {
        let skew = i64::try_from(self.issuer.clock_skew.as_secs()).unwrap_or(0);
        self.identity.expires.saturating_add(skew)
    }
}

impl Trees {
    /// Binds an identity again that an earlier agent had bound; none if its tree has no root any more, if too many are bound, if
    /// somebody was bound there meanwhile. Nobody presents anything by that: its tokens counted for the tree, and do.
    pub(crate) fn restore(&self, lasting: Lasting) -> Option<Bound> {
        self.state().restore(&*self.host, lasting)
    }

    /// An identity that is to be renewed before it counts again. Its number is that of no binding; none if its tree has no root any
    /// more, or too many are bound.
    pub(crate) fn postpone(&self, lasting: Lasting) -> Option<BindingId> {
        let mut state = self.state();
        if !state.may_restore(&*self.host, lasting.tree.root) {
            return None;
        }
        let id = state.next;
        state.next += 1;
        state.postponed.insert(id, lasting);
        state.changed.send_replace(());
        Some(id)
    }

    /// Whether it is not over, nor bound again.
    pub(crate) fn is_postponed(&self, id: BindingId) -> bool {
        self.state().postponed.contains_key(&id)
    }

    /// Resolves when it is not postponed any more.
    pub(crate) async fn renewed_or_over(&self, id: BindingId) {
        let mut changes = self.changes();
        while self.is_postponed(id) && changes.changed().await.is_ok() {}
    }

    /// Binds one that was postponed, by the token that renews it: as what, and what it used. None also if it is over, or if that
    /// token counts for another tree.
    pub(crate) fn restore_renewed(&self, id: BindingId, verified: Verified) -> Option<(Bound, Spent)> {
        let mut state = self.state();
        let before = state.postponed.remove(&id)?;
        state.changed.send_replace(());
        let used = verified.used(&before.issuer);
        let (issuer, identity) = (&before.issuer, &verified.identity);
        let presented = Presented { issuer, identity, tree: before.tree, siblings: false };
        state.check_token(&presented, verified.key).ok()?;
        let Verified { identity, key: token, proof, .. } = verified;
        let bound = state.restore(&*self.host, Lasting { identity, token, proof, ..before })?;
        Some((bound, used))
    }

    /// A process belongs to the tree of this root, as an earlier agent saw.
    pub(crate) fn restore_member(&self, id: ProcessId, root: ProcessId) {
        let mut state = self.state();
        if !state.all_of(root).is_empty() && state.members.len() < MOST_MEMBERS {
            state.members.insert(id, root);
        }
    }

    /// All that outlives the agent: bindings, and the members of their trees with their roots.
    pub(crate) fn lasting(&self) -> (Vec<Lasting>, Vec<(ProcessId, ProcessId)>) {
        let state = self.state();
        let bindings = state.all().map(|(_, lasting)| lasting.clone()).collect();
        (bindings, state.members.iter().map(|(id, root)| (*id, *root)).collect())
    }

    /// Whether nothing outlives the agent.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().all().next().is_none()
    }

    /// Ticks with each change of what outlives the agent.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.state().changed.subscribe()
    }

    /// What gets new tokens has changed.
    pub(crate) fn changed(&self) {
        self.state().changed.send_replace(());
    }
}

impl State {
    fn may_restore(&self, host: &dyn Host, root: ProcessId) -> bool {
        let lives = host.seen(root.pid).is_some_and(|seen| seen.id == root);
        lives && self.bindings.len() + self.postponed.len() < MOST
    }

    fn restore(&mut self, host: &dyn Host, lasting: Lasting) -> Option<Bound> {
        let Lasting { issuer, tree, .. } = &lasting;
        if !self.may_restore(host, tree.root) || self.of_root(tree.root, &issuer.name).is_some() {
            return None;
        }
        for token in lasting.tokens().into_iter().flatten() {
            self.claim_token(lasting.tree, (token, lasting.until()));
        }
        Some(self.put(lasting))
    }
}
