//! Who answers.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tidegate_gate::policy::{Identity, People, Principal};

/// Somebody at a terminal of a host or behind a verified token, as the kernel and issuers vouch for them.
#[derive(Debug, Clone, Default)]
pub struct Person {
    /// The host that vouches for the account; empty without an account.
    pub host: Arc<str>,
    /// User id; none for somebody who is known by a token alone.
    pub uid: Option<u32>,
    /// Name of the account.
    pub user: Option<Arc<str>>,
    /// Groups of the account.
    pub unix_groups: Vec<Arc<str>>,
    /// What issuers say.
    pub identities: Arc<[Identity]>,
}

/// What is kept of somebody who answered: enough to tell whether two are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// For people.
    pub name: String,
    /// User id.
    pub uid: Option<u32>,
    /// Issuer and subject of each identity.
    pub subjects: Vec<(Arc<str>, Arc<str>)>,
    /// Keys of the terms that their yes counts for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_answer: Vec<String>,
}

impl Person {
    /// Whether they are among these people. Accounts and their groups count on the host that asks, and only there.
    pub fn is_one_of(&self, people: &People, host: &str) -> bool {
        let at_home = *self.host == *host && self.uid.is_some();
        let group = |identity: &Identity| {
            people.issuer.as_ref() == Some(&identity.issuer)
                && identity.groups.iter().any(|group| people.groups.contains(group))
        };
        self.identities.iter().any(group)
            || (at_home && people.users.iter().any(|name| self.is_account(name)))
            || (at_home && self.unix_groups.iter().any(|group| people.unix_groups.contains(group)))
    }

    /// Whether this is the account's name, or its number.
    fn is_account(&self, name: &str) -> bool {
        self.user.as_deref() == Some(name) || self.uid.is_some_and(|uid| uid.to_string() == name)
    }

    /// Whether they run this host.
    pub fn is_root(&self, host: &str) -> bool {
        *self.host == *host && self.uid == Some(0)
    }

    /// What is kept of them.
    pub fn who(&self) -> Who {
        Who {
            name: self.to_string(),
            uid: self.uid,
            subjects: subjects(&self.identities),
            may_answer: Vec::new(),
        }
    }
}

impl Who {
    /// Who asks.
    pub fn of(principal: &Principal) -> Self {
        let process = &principal.process;
        let person = Person {
            uid: Some(process.account()),
            user: process.user.clone(),
            identities: principal.identities.clone(),
            ..Person::default()
        };
        person.who()
    }

    /// Whether they may be the same: of one account, or one issuer's subject. The same number on two hosts counts as
    /// one account.
    pub fn may_be(&self, other: &Self) -> bool {
        let same_account = self.uid.is_some() && self.uid == other.uid;
        same_account || self.subjects.iter().any(|subject| other.subjects.contains(subject))
    }
}

fn subjects(identities: &[Identity]) -> Vec<(Arc<str>, Arc<str>)> {
    identities.iter().map(|identity| (identity.issuer.clone(), identity.subject.clone())).collect()
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<String> =
            self.identities.iter().map(|who| format!("{} of {}", who.subject, who.issuer)).collect();
        match (&self.user, self.uid) {
            (Some(user), _) => f.write_str(user)?,
            (None, Some(uid)) => write!(f, "uid {uid}")?,
            (None, None) => return f.write_str(&subjects.join(", ")),
        }
        if subjects.is_empty() { Ok(()) } else { write!(f, " ({})", subjects.join(", ")) }
    }
}
