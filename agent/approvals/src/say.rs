//! What can be said to a question.

use serde::{Deserialize, Serialize};

/// What can be said to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Say {
    /// Yes.
    Approve,
    /// No.
    Deny,
    /// It runs at once, and is reviewed later.
    BreakGlass,
    /// What ran at once was looked at.
    Review,
    /// The yes counts no longer.
    Revoke,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// What is said.
    pub say: Say,
    /// Why.
    pub reason: Option<&'a str>,
    /// The [seal](crate::Inquiry::seal) of the question as it was shown: it counts for that and nothing else. Without it, a yes
    /// counts for what this person looked at last, if they did.
    pub shown: Option<&'a str>,
}

impl Say {
    /// Everything that can be said.
    pub const ALL: [Self; 5] = [Self::Approve, Self::Deny, Self::BreakGlass, Self::Review, Self::Revoke];

    /// Whether what is asked may run by it.
    pub(crate) fn lets_run(self) -> bool {
        matches!(self, Self::Approve | Self::BreakGlass)
    }

    /// Its word on the command line and in forms.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::BreakGlass => "break-glass",
            Self::Review => "review",
            Self::Revoke => "revoke",
        }
    }
}
