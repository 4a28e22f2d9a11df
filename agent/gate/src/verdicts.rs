//! Decisions remembered for as long as a policy is in force.

use std::{collections::HashMap, sync::Arc};

use tidegate_policy::{Policy, Shape, Verdict};

/// Verdicts by shape. A shape is known by its address, which its entry keeps alive.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    policy: Option<Arc<Policy>>,
    known: HashMap<usize, (Arc<Shape>, Arc<Verdict>)>,
}

/// How many shapes one session remembers before it starts over.
const MOST: usize = 256;

impl Verdicts {
    /// The remembered verdict, or the one that `decide` makes now.
    pub(crate) fn of(
        &mut self,
        policy: &Arc<Policy>,
        shape: &Arc<Shape>,
        decide: impl FnOnce() -> Verdict,
    ) -> Arc<Verdict> {
        if self.policy.as_ref().is_none_or(|known| !Arc::ptr_eq(known, policy)) {
            self.known.clear();
            self.policy = Some(policy.clone());
        }
        let address = Arc::as_ptr(shape).addr();
        if let Some((_, verdict)) = self.known.get(&address) {
            return verdict.clone();
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let verdict = Arc::new(decide());
        self.known.insert(address, (shape.clone(), verdict.clone()));
        verdict
    }
}
