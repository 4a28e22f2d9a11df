//! Who answers.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

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
    /// The account is known to have no name, rather than none that could be told.
    pub nameless: bool,
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
    /// The host that vouches for the account; empty without an account.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub host: Arc<str>,
    /// User id.
    pub uid: Option<u32>,
    /// Whether that account's name is among `accounts`, or it is known to have none. Not noted by earlier versions,
    /// some of which can't read that it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<bool>,
    /// Issuer, by its URL, and subject of each identity.
    pub subjects: Vec<(Arc<str>, Arc<str>)>,
    /// Names that their accounts have: their own, its number, and those that issuers vouch for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Arc<str>>,
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

    /// By name, by number, and as issuers say.
    fn accounts(&self) -> Vec<Arc<str>> {
        let number = self.uid.map(|uid| uid.to_string().into());
        let vouched = self.identities.iter().filter_map(|identity| identity.account.clone());
        self.user.clone().into_iter().chain(number).chain(vouched).collect()
    }

    /// What is kept of them.
    pub fn who(&self) -> Who {
        Who {
            name: self.to_string(),
            host: self.host.clone(),
            uid: self.uid,
            named: Some(self.user.is_some() || self.nameless),
            subjects: subjects(&self.identities),
            accounts: self.accounts(),
            may_answer: Vec::new(),
        }
    }
}

impl Who {
    /// Who asks on this host.
    pub fn of(host: &Arc<str>, principal: &Principal) -> Self {
        let process = &principal.process;
        let person = Person {
            host: host.clone(),
            uid: Some(process.account()),
            user: process.user.clone(),
            nameless: process.nameless,
            identities: principal.identities.clone(),
            ..Person::default()
        };
        person.who()
    }

    /// Whether they may be the same, for what one person must not do twice: of one account, or one issuer's subject. The
    /// same name or number on two hosts counts as one account. That they are not is no proof of two people, unless an
    /// issuer says whose account is whose: an account whose own name could not be told may be everybody's whose account an
    /// issuer names, or another host's.
    pub fn may_be(&self, other: &Self) -> bool {
        self.is_by_what_is_told(other) || self.untold_between(other).is_some()
    }

    /// The same, by what is known of both.
    pub(crate) fn is_by_what_is_told(&self, other: &Self) -> bool {
        let same = |ours: &Arc<str>| {
            other.accounts.iter().any(|theirs| plain(theirs).eq_ignore_ascii_case(plain(ours)))
        };
        (self.uid.is_some() && self.uid == other.uid)
            || self.accounts.iter().any(same)
            || self.share_a_subject(other)
    }

    /// The account, of these two, whose name could not be told and may be one that the other is known by.
    pub(crate) fn untold_between(&self, other: &Self) -> Option<u32> {
        let untold = |who: &Self, other| who.uid.filter(|_| who.may_be_named_as(other));
        untold(self, other).or_else(|| untold(other, self))
    }

    fn is_named(&self) -> bool {
        // Names come before the number.
        let number = self.uid.map(|uid| uid.to_string());
        let by_name = || self.accounts.first().is_some_and(|first| Some(&**first) != number.as_deref());
        self.named.unwrap_or_else(by_name)
    }

    /// Whether the name of this one's account could not be told, and may be one that the other is known by.
    fn may_be_named_as(&self, other: &Self) -> bool {
        // Of an account of the same host the name is another, unless it is the same account; what issuers say comes behind.
        let number = other.uid.filter(|_| other.host == self.host).map(|uid| uid.to_string());
        let own = other.accounts.iter().position(|name| Some(&**name) == number.as_deref());
        let others = other.accounts.len() - own.map_or(0, |at| at + 1);
        self.uid.is_some() && !self.is_named() && others > 0
    }

    /// Whether they are the same, for what only this person may do: of one host's account, or one issuer's subject.
    pub fn is(&self, other: &Self) -> bool {
        let same_account = self.uid.is_some() && self.uid == other.uid && self.host == other.host;
        same_account || self.share_a_subject(other)
    }

    fn share_a_subject(&self, other: &Self) -> bool {
        self.subjects.iter().any(|subject| other.subjects.contains(subject))
    }
}

/// How many of these, none of whom [may be](Who::may_be) another, are known to be different people: as many as have
/// accounts of one host, or are subjects of one issuer. Who is known by a login has an account where its issuer says which.
pub(crate) fn told_apart<'a>(people: impl Iterator<Item = &'a Who>) -> usize {
    let mut accounts: HashMap<&str, usize> = HashMap::new();
    let mut logins: HashMap<&str, usize> = HashMap::new();
    let mut vouched = 0;
    for who in people {
        if who.uid.is_some() {
            *accounts.entry(&who.host).or_default() += 1;
        } else if !who.accounts.is_empty() {
            vouched += 1;
        }
        let issuers: HashSet<&str> = who.subjects.iter().map(|(issuer, _)| &**issuer).collect();
        for issuer in issuers {
            *logins.entry(issuer).or_default() += 1;
        }
    }
    let of_a_host = accounts.into_values().max().unwrap_or_default() + vouched;
    logins.into_values().max().unwrap_or_default().max(of_a_host)
}

/// An account's name without the realm or domain that directories write with it: `ann@corp.example`, `CORP\\ann`.
fn plain(name: &str) -> &str {
    let name = name.rsplit('\\').next().unwrap_or(name);
    let plain = name.split('@').next().unwrap_or(name);
    if plain.is_empty() { name } else { plain }
}

fn subjects(identities: &[Identity]) -> Vec<(Arc<str>, Arc<str>)> {
    let of = |identity: &Identity| {
        let issuer = if identity.url.is_empty() { &identity.issuer } else { &identity.url };
        (issuer.clone(), identity.subject.clone())
    };
    identities.iter().map(of).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn known_as(account: &str) -> Who {
        let accounts = vec![account.into()];
        Who {
            name: String::new(),
            host: "".into(),
            uid: None,
            named: None,
            subjects: Vec::new(),
            accounts,
            may_answer: Vec::new(),
        }
    }

    #[test]
    fn whether_an_account_had_a_name_is_told_of_what_earlier_versions_kept() {
        let login = known_as("bob");
        let kept = |accounts: &str| {
            let text =
                format!(r#"{{"name": "", "host": "h", "uid": 7, "subjects": [], "accounts": {accounts}}}"#);
            serde_json::from_str::<Who>(&text).unwrap()
        };
        assert!(!kept(r#"["ann", "7"]"#).may_be(&login));
        assert_eq!(kept(r#"["7"]"#).untold_between(&login), Some(7));
        assert_eq!(login.untold_between(&kept(r#"["7"]"#)), Some(7));
        // And is written as it was.
        assert!(!serde_json::to_string(&kept(r#"["7"]"#)).unwrap().contains("named"));
    }

    #[test]
    fn an_account_is_one_person_in_whatever_way_a_directory_writes_it() {
        let ann = known_as("ann");
        for name in ["ann", "Ann", "ann@corp.example", "CORP\\ann", "ANN@CORP", "corp\\ann@corp.example"] {
            assert!(ann.may_be(&known_as(name)) && known_as(name).may_be(&ann), "{name}");
        }
        for name in ["anna", "joann@ann", "ann\\bob", "@ann", ""] {
            assert!(!ann.may_be(&known_as(name)), "{name}");
        }
    }
}
