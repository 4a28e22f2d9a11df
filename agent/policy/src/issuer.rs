//! Issuers of ID tokens, and what a rule asks of an identity.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{Identity, Principal, matcher::Globs};

/// An issuer whose ID tokens count (OpenID Connect Core 1.0). Serialised, it tells whether a later bundle says the same of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issuer {
    /// Its name in the bundle.
    pub name: Arc<str>,
    /// Its identifier: `iss` must be this to the letter, and its metadata is looked up below it.
    pub url: Arc<str>,
    /// What `aud` must be; tokens of a login are for their client instead.
    pub audience: Arc<str>,
    /// The signature algorithms that are taken. Never empty.
    pub algorithms: Vec<Algorithm>,
    /// Claims that every token must have.
    pub require: Claims,
    /// The claim that names the host's account of whoever a token is for; every token must have it then.
    pub account: Option<Arc<str>>,
    /// Where in the claims the groups are; empty if the issuer tells none.
    pub groups: Vec<Arc<str>>,
    /// The claims that are kept of a token, for rules and records.
    pub kept: BTreeSet<Arc<str>>,
    /// How far the issuer's clock may be from ours.
    pub clock_skew: Duration,
    /// How long known keys count while the issuer cannot be asked.
    pub offline: Duration,
    /// PEM file of the authorities that are trusted for its TLS; the system's without it.
    pub ca: Option<PathBuf>,
    /// Where tokens come from, in the order in which they are looked for.
    pub tokens: Vec<TokenSource>,
    /// The claim that says of which step a token is, and of which run of it; every token must have it then. All tokens of a step
    /// count for the process tree that presented the first of them.
    pub step: Option<Arc<str>>,
    /// A token that is presented elsewhere too, while it counts for the first.
    pub elsewhere: Elsewhere,
    /// A resource is used in its subjects' names, so that their tokens are kept to be shown for it.
    pub shown: bool,
}

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037). None without a key and none with a shared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the registry's own names")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Where a process' token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TokenSource {
    /// The endpoint that GitHub Actions names in a job's environment, asked for our own audience.
    GithubActions {
        /// The hosts that the endpoint may be on: names, `*.` and a name, with a port where it is not 443.
        hosts: Vec<Arc<str>>,
    },
    /// A variable in the process' environment.
    Variable {
        /// Its name.
        name: Arc<str>,
        /// Other processes that the same parent starts for the same account, one after the other, may use the token too.
        siblings: bool,
    },
    /// A file of the process' own account, as the process sees the file system.
    File(PathBuf),
    /// `tidegate present`.
    Present,
    /// `tidegate login`: the device flow (RFC 8628).
    Login {
        /// The client that the agent is to the issuer; tokens must be for it.
        client: Arc<str>,
        /// Scopes that are asked for beside `openid`.
        scopes: Vec<Arc<str>>,
    },
}

/// What becomes of a copy of a token that counts for another process tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// It does not count.
    #[default]
    Refuse,
    /// It counts.
    Allow,
}

/// Claims by name and what each must be; any of a claim's list may match.
#[derive(Debug, Clone, Default)]
pub struct Claims(pub(crate) Vec<(Arc<str>, Globs)>);

/// What a rule asks of who is asking.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) issuer: Arc<str>,
    pub(crate) subject: Option<Globs>,
    pub(crate) claims: Claims,
    pub(crate) groups: Option<Globs>,
}

/// Why a principal is not whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// The issuer does not vouch for it.
    Unknown,
    /// The issuer vouches for somebody else: this differs.
    Other(Arc<str>),
}

impl Claims {
    /// The first claim that is missing or is not what it must be.
    pub fn unmet(&self, claims: &serde_json::Map<String, Value>) -> Option<&Arc<str>> {
        let met = |(name, wanted): &&(Arc<str>, Globs)| {
            !claims.get(&**name).is_some_and(|claim| claim_matches(claim, wanted))
        };
        self.0.iter().find(met).map(|(name, _)| name)
    }

    /// The claims that are named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|(name, _)| name)
    }
}

impl Claims {
    /// As the bundle has them.
    fn written(&self) -> impl Iterator<Item = (&Arc<str>, &Vec<String>)> {
        self.0.iter().map(|(name, globs)| (name, &globs.written))
    }
}

impl PartialEq for Claims {
    fn eq(&self, other: &Self) -> bool {
        self.written().eq(other.written())
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.written())
    }
}

impl Eq for Claims {}

impl Who {
    /// Whether the principal is whom this asks for.
    pub(crate) fn is(&self, principal: &Principal) -> Result<(), Stranger> {
        let Some(identity) = principal.identity(&self.issuer) else { return Err(Stranger::Unknown) };
        self.differs(identity).map_or(Ok(()), |what| Err(Stranger::Other(what)))
    }

    fn differs(&self, identity: &Identity) -> Option<Arc<str>> {
        if self.subject.as_ref().is_some_and(|wanted| !wanted.matches(&identity.subject)) {
            return Some("sub".into());
        }
        let in_group = |wanted: &Globs| identity.groups.iter().any(|group| wanted.matches(group));
        if self.groups.as_ref().is_some_and(|wanted| !in_group(wanted)) {
            return Some("groups".into());
        }
        self.claims.unmet(&identity.claims).cloned()
    }
}

impl Issuer {
    /// How whoever has no token gets one, in words for the client.
    pub fn how_to_present(&self) -> String {
        let ways: Vec<_> = self.tokens.iter().map(|source| source.how(&self.name)).collect();
        match ways.split_last() {
            None => "no source of its tokens is configured".into(),
            Some((only, [])) => only.clone(),
            Some((last, others)) => format!("{}, or {last}", others.join(", ")),
        }
    }

    /// The client and the scopes of its device flow, if it has one.
    pub fn login(&self) -> Option<(&Arc<str>, &[Arc<str>])> {
        self.tokens.iter().find_map(|source| match source {
            TokenSource::Login { client, scopes } => Some((client, &**scopes)),
            _ => None,
        })
    }
}

impl TokenSource {
    fn how(&self, issuer: &str) -> String {
        match self {
            Self::GithubActions { .. } => {
                "give the workflow's job `permissions: {id-token: write}`".to_owned()
            }
            Self::Variable { name, .. } => format!("have the job set the variable {name} to an ID token"),
            Self::File(path) => format!("keep an ID token in {}", path.display()),
            Self::Present => "run `tidegate present --token-file FILE` in the job".to_owned(),
            Self::Login { .. } => format!("run `tidegate login --issuer {issuer}`"),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("its issuer does not say who is asking"),
            Self::Other(what) => write!(f, "it is for others: `{what}` is another"),
        }
    }
}

/// Whether a claim, or any member of a claim that is a list, is wanted. Numbers and flags are matched as JSON writes them.
fn claim_matches(claim: &Value, wanted: &Globs) -> bool {
    match claim {
        Value::String(text) => wanted.matches(text),
        Value::Number(number) => wanted.matches(&number.to_string()),
        Value::Bool(flag) => wanted.matches(if *flag { "true" } else { "false" }),
        Value::Array(members) => {
            members.iter().any(|member| !member.is_array() && claim_matches(member, wanted))
        }
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(claim: Value, wanted: &str) -> bool {
        claim_matches(&claim, &Globs::new([wanted]).unwrap())
    }

    #[test]
    fn a_claim_matches_by_its_text_or_by_any_member_of_its_list() {
        assert!(matches(json!("refs/heads/main"), "refs/heads/*"));
        assert!(matches(json!(42), "42"));
        assert!(matches(json!(true), "true"));
        assert!(matches(json!(["a", "b"]), "b"));
        assert!(!matches(json!(["a", "b"]), "c"));
    }

    #[test]
    fn what_has_no_text_matches_nothing() {
        for claim in [json!(null), json!({"a": "b"}), json!([]), json!([["b"]])] {
            assert!(!matches(claim, "*"));
        }
    }
}
