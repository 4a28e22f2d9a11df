//! How often a rule lets one principal act.

use std::{fmt, sync::Arc, time::Duration};

/// Most actions that a rate may let through.
const MOST: u32 = 1_000_000;

/// At most so many actions in any stretch of time of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// The rate of a rule that matched, and whom it counts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The rule's name.
    pub rule: Arc<str>,
    /// How often.
    pub rate: Rate,
    /// Where the rule asks an issuer who is asking: each of its subjects by itself. Else each account.
    pub issuer: Option<Arc<str>>,
}

impl Rate {
    /// Reads `100/m`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| (1..=MOST).contains(count))?;
        Some(Self { count, per: Duration::from_secs(per) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per.as_secs() {
            1 => "a second",
            60 => "a minute",
            _ => "an hour",
        };
        write!(f, "{} {per}", self.count)
    }
}
