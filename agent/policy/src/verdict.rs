//! What a policy answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Carried, Held, Limit, content::Content, plan, rule::Columns};

/// The answer to one action's shape.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Allowed, held or denied.
    pub effect: Effect,
    /// The rule that decided; none for the default deny.
    pub rule: Option<Arc<str>>,
    /// What must be approved first, by rule name; empty unless held.
    pub holds: Vec<Held>,
    /// Every rule that matched, in the bundle's order.
    pub matched: Vec<Arc<str>>,
    /// For the client: what was refused and why, naming the rule. Empty when allowed.
    pub message: Arc<str>,
    /// For the client: how to get access, as the rule says it.
    pub hint: Option<Arc<str>>,
    /// How each result is shown, parallel to [`Shape::results`](crate::Shape::results).
    pub results: Vec<ResultMasks>,
    /// Masks on fields that the answer names: all that is known of an [`open`](crate::Shape::open) action's, and otherwise, where
    /// a table is touched that holds masked fields, a second look at what was planned. None if nothing is masked there.
    pub fields: Option<Arc<FieldMasks>>,
    /// Content masks for everything that is no result column: notices, errors, notifications.
    pub content: Option<Arc<ContentMask>>,
    /// Error details may carry a masked field's value and are withheld.
    pub withhold_errors: bool,
    /// Columns are masked for this principal on this resource, whether or not the action has to do with them: what
    /// code of the upstream's says on its own may carry their values.
    pub masks_columns: bool,
    /// The data too goes into the record, as it was shown: rows, bodies. Up to so many bytes in one session; none: it doesn't.
    pub record_data: Option<u64>,
    /// What it may carry of credentials. Nothing when denied.
    pub carried: Carried,
    /// How often the principal may do this: each must leave room. Empty when denied.
    pub limits: Vec<Limit>,
}

/// The masks of a principal on a resource, whatever it does there: for what belongs to no action of its own.
#[derive(Debug, Clone)]
pub struct StandingMasks {
    /// What every detector looks for.
    pub content: Option<Arc<ContentMask>>,
    /// Columns are masked.
    pub columns: bool,
}

impl StandingMasks {
    /// Nothing is masked.
    pub fn are_none(&self) -> bool {
        self.content.is_none() && !self.columns
    }
}

/// Masks on fields by their address.
#[derive(Debug)]
pub struct FieldMasks(pub(crate) Vec<(Arc<Columns>, Arc<Show>)>);

impl FieldMasks {
    /// How the field at this address is shown, where it is masked: the way that shows least.
    pub fn show(&self, field: &str) -> Option<&Arc<Show>> {
        let covering = self.0.iter().filter(|(columns, _)| columns.cover(field)).map(|(_, show)| show);
        covering.reduce(|a, b| plan::stricter(a, b))
    }

    /// How what has to do with all of these fields is shown, where one of them is masked: the way that shows least.
    pub fn strictest<'f>(&self, fields: impl IntoIterator<Item = &'f str>) -> Option<Arc<Show>> {
        let shows = fields.into_iter().filter_map(|field| self.show(field));
        shows.reduce(|a, b| plan::stricter(a, b)).cloned()
    }

    /// Whether these come from the same masks of the bundle.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |((columns, show), (others, shown)): (&(Arc<_>, Arc<_>), &(Arc<_>, Arc<_>))| {
            Arc::ptr_eq(columns, others) && Arc::ptr_eq(show, shown)
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same)
    }

    /// Whether a field whose address begins like this could be masked. Says yes in doubt.
    pub fn reach(&self, beginning: &str) -> bool {
        self.0.iter().any(|(columns, _)| columns.reach(beginning))
    }
}

/// Allowed, held or denied.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It may run.
    Allow,
    /// It waits for a person.
    Hold,
    /// It is refused.
    Deny,
}

/// How the columns of one result are shown.
#[derive(Debug, Clone, Default)]
pub struct ResultMasks {
    /// By position.
    pub columns: Vec<Shown>,
    /// The lineage wasn't known: how every column is shown, whatever their number.
    pub whole: Option<Shown>,
}

impl ResultMasks {
    /// No column differs from what the upstream sent.
    pub fn is_plain(&self) -> bool {
        let mut all = self.columns.iter().chain(&self.whole);
        all.all(|column| matches!(column, Shown::Plain))
    }

    /// Every column is masked, whatever it holds.
    pub fn hide_all(&self) -> bool {
        matches!(self.whole, Some(Shown::Masked(_)))
    }
}

/// How one column is shown.
#[derive(Debug, Clone, Default)]
pub enum Shown {
    /// As it is.
    #[default]
    Plain,
    /// The whole value is masked, whatever it holds.
    Masked(Arc<Show>),
    /// What the detectors find in it is masked.
    Scanned(Arc<ContentMask>),
}

/// What to look for, and how each find is shown.
#[derive(Debug, Clone)]
pub struct ContentMask {
    /// Detector and how its finds are shown.
    pub finds: Vec<(Content, Arc<Show>)>,
}

/// How a sensitive value is shown. Lengths are in characters (Unicode scalar values).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// Replaced by this text.
    Redact(Arc<str>),
    /// All but the first and last characters replaced by `*`; a value not longer than both is redacted whole.
    Keep {
        /// Characters kept at the start.
        first: usize,
        /// Characters kept at the end.
        last: usize,
    },
    /// A keyed token (HMAC-SHA-256): equal values give equal tokens.
    Token,
    /// SQL NULL, or what the protocol has instead; in the middle of a text: redacted.
    Null,
}
