//! How an attack ended.

use std::fmt;

use serde::Serialize;

use crate::{Attack, Layer};

/// What came of one attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It got through: the canary saw a byte of it, or it holds what it must not have.
    Passed {
        /// What was seen, and where.
        seen: String,
    },
    /// Nothing arrived.
    Stopped {
        /// Where the attack was refused: the step and the error, or that its packets vanished.
        how: String,
    },
    /// It can't be tried on this host, so nothing is known of it.
    Inexpressible {
        /// What is missing.
        why: String,
    },
}

/// One line of a report.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The attack's name.
    pub name: &'static str,
    /// What it tries.
    pub tries: &'static str,
    /// What closes it.
    pub layer: Layer,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Row {
    /// The line of this attack.
    pub fn new(attack: &Attack, outcome: Outcome) -> Self {
        Self { name: attack.name, tries: attack.tries, layer: attack.layer, outcome }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed { seen } => write!(f, "PASSED THROUGH ({seen})"),
            Self::Stopped { how } => write!(f, "stopped ({how})"),
            Self::Inexpressible { why } => write!(f, "not expressible here ({why})"),
        }
    }
}
