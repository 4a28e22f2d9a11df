//! Who may let a held action run, and for how long that counts.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// The terms of one rule's hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Whose yes counts. Never the asker's own.
    pub by: People,
    /// How many different people must say yes; at least 1.
    pub approvers: u32,
    /// What a yes is given for.
    pub scope: Scope,
    /// How long the question stands.
    pub wait: Duration,
    /// How long a yes counts beyond the action that waited for it; none: it counts once.
    pub grant: Option<Duration>,
    /// Whose sessions a yes counts in that lasts.
    #[serde(default)]
    pub sessions: Sessions,
    /// An answer needs a reason.
    pub reason: bool,
    /// Who may act at once, the asker included: with a reason, an alert and a review that somebody of `by` owes.
    pub break_glass: Option<People>,
}

/// What a yes is given for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// This very action: its text, its parameters and where it runs, byte for byte.
    #[default]
    Action,
    /// Any action that does the same to the same things, as far as rules can see.
    Shape,
    /// Anything on the resource that this rule holds.
    Resource,
}

/// Whose sessions a yes counts in that lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sessions {
    /// The one that asked: it ends with that.
    #[default]
    One,
    /// All of whoever asked.
    Any,
}

/// People by what an issuer or the host vouches for: whoever is any of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    /// Groups that an issuer names in a verified token.
    pub groups: Vec<Arc<str>>,
    /// The issuer whose `groups` count; none where there are no groups.
    pub issuer: Option<Arc<str>>,
    /// Accounts of the host: names, or decimal user ids.
    pub users: Vec<Arc<str>>,
    /// Groups of the host.
    pub unix_groups: Vec<Arc<str>>,
}

/// A rule that holds an action, and on which terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What it holds, as it is written.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub what: Arc<str>,
    /// Its terms.
    pub approval: Arc<Approval>,
}

impl Approval {
    /// What a yes counts for, and how long, in words.
    pub fn reach(&self) -> String {
        let whose = match self.sessions {
            Sessions::One => "while the session lasts",
            Sessions::Any => "in any session",
        };
        match self.grant {
            None => format!("{}, once", self.scope),
            Some(grant) => format!("{}, {} s and {whose}", self.scope, grant.as_secs()),
        }
    }
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.approvers > 1 {
            write!(f, "{} of ", self.approvers)?;
        }
        write!(f, "{}", self.by)
    }
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = self.issuer.as_ref().map_or_else(String::new, |issuer| format!(" ({issuer})"));
        let groups = self.groups.iter().map(|name| format!("group {name}{issuer}"));
        let users = self.users.iter().map(|name| format!("user {name}"));
        let unix_groups = self.unix_groups.iter().map(|name| format!("members of the host's group {name}"));
        let all: Vec<String> = groups.chain(users).chain(unix_groups).collect();
        f.write_str(&all.join(", "))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Action => "this action",
            Self::Shape => "actions of this shape",
            Self::Resource => "what this rule holds on the resource",
        })
    }
}
