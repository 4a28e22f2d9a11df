//! The names that governed processes may ask for.

use std::{net::SocketAddr, sync::Arc};

/// Longest label that a wildcard stands for, in bytes: long labels are what tunnels are made of.
const LONGEST_LABEL: usize = 40;

/// What the agent's resolver is told, beside the names of resources and passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Names that are answered.
    pub allow: Vec<NamePattern>,
    /// The servers to ask; none for those of the host's configuration.
    pub servers: Vec<SocketAddr>,
}

/// A name, or the names one label below one. Lower-case, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// The name itself.
    Name(Arc<str>),
    /// `*.name`: one label more, of at most 40 bytes.
    Below(Arc<str>),
}

impl NamePattern {
    /// Whether it stands for this name, given in lower case and without a final dot.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Below(zone) => name.split_once('.').is_some_and(|(label, rest)| {
                *rest == **zone && !label.is_empty() && label.len() <= LONGEST_LABEL
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label_and_no_long_one() {
        let below = NamePattern::Below("internal".into());
        for name in ["db.internal", "a-1_b.internal"] {
            assert!(below.matches(name), "{name}");
        }
        let long = format!("{}.internal", "a".repeat(LONGEST_LABEL + 1));
        for name in ["internal", ".internal", "a.b.internal", "db.internal.example", "dbinternal", &long] {
            assert!(!below.matches(name), "{name}");
        }
    }
}
