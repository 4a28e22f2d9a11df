//! Decisions remembered for as long as a policy is in force and a principal stays who it is.

use std::{collections::HashMap, sync::Arc};

use tidegate_policy::{Policy, Principal, Shape, Verdict};

/// Verdicts by shape. A shape is known by its address, which its entry keeps alive.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    under: Option<(Arc<Policy>, Arc<Principal>)>,
    known: HashMap<usize, (Arc<Shape>, Arc<Verdict>)>,
    /// What the shapes weigh.
    weight: usize,
}

/// How many shapes one session remembers before it starts over.
const MOST: usize = 256;

/// About how many bytes of shapes.
const MOST_BYTES: usize = 1 << 20;

/// The same where few shapes come again, and what they hold is the client's to choose.
const MOST_OPEN_BYTES: usize = 64 << 10;

impl Verdicts {
    /// The remembered verdict, or the one that `decide` makes now.
    pub(crate) fn of(
        &mut self,
        policy: &Arc<Policy>,
        principal: &Arc<Principal>,
        shape: &Arc<Shape>,
        decide: impl FnOnce() -> Verdict,
    ) -> Arc<Verdict> {
        let same =
            |(of, to): &(Arc<Policy>, Arc<Principal>)| Arc::ptr_eq(of, policy) && Arc::ptr_eq(to, principal);
        if !self.under.as_ref().is_some_and(same) {
            self.clear();
            self.under = Some((policy.clone(), principal.clone()));
        }
        let address = Arc::as_ptr(shape).addr();
        if let Some((_, verdict)) = self.known.get(&address) {
            return verdict.clone();
        }
        let (verdict, weight) = (Arc::new(decide()), shape.weight());
        let most = if shape.open { MOST_OPEN_BYTES } else { MOST_BYTES };
        if weight > most {
            return verdict;
        }
        if self.known.len() >= MOST || self.weight + weight > most {
            self.clear();
        }
        self.weight += weight;
        self.known.insert(address, (shape.clone(), verdict.clone()));
        verdict
    }

    fn clear(&mut self) {
        self.known.clear();
        self.weight = 0;
    }
}
