//! What a token's claims must say (OpenID Connect Core 1.0, section 3.1.3.7). Pure.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tidegate_gate::Secret;
use tidegate_policy::{Identity, Issuer};

use crate::{
    Defect,
    keys::KeySet,
    token::{Spent, Token, TokenKey},
};

/// Longest `sub`, in characters (OpenID Connect Core 1.0, section 2).
const LONGEST_SUBJECT: usize = 255;
/// For how long after a token of a step has expired another of the same step may count, in seconds: no CI's lives longer.
pub(crate) const LONGEST_STEP: i64 = 5 * 24 * 3600;
/// More groups than anybody is in; further ones don't count.
const MOST_GROUPS: usize = 1_000;

/// What a sound token says.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    /// Whom it is for.
    pub(crate) identity: Identity,
    /// What it is known by.
    pub(crate) key: TokenKey,
    /// The token itself, where a resource may be shown it.
    pub(crate) proof: Option<Secret>,
    /// What all tokens of its step are known by, if it says of which it is.
    pub(crate) step: Option<TokenKey>,
}

/// What a token must be, beside what its issuer says of all.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a Issuer,
    pub(crate) audience: &'a str,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

impl Verified {
    /// What it is known by, and until when it could be presented again, in seconds since 1970.
    pub(crate) fn used(&self, issuer: &Issuer) -> Spent {
        let skew = i64::try_from(issuer.clock_skew.as_secs()).unwrap_or(i64::MAX);
        (self.key, self.identity.expires.saturating_add(skew))
    }

    /// What its step is known by, and until when another token of it may come.
    pub(crate) fn used_step(&self) -> Option<Spent> {
        Some((self.step?, self.identity.expires.saturating_add(LONGEST_STEP)))
    }
}

impl Expected<'_> {
    /// Verifies a token with these keys of its issuer.
    pub(crate) fn verify(&self, token: &Token<'_>, keys: &KeySet) -> Result<Verified, Defect> {
        let issuer = self.issuer;
        let algorithm = token.algorithm(issuer)?;
        if !token.is_of(issuer) {
            return Err(Defect::Issuer(issuer.url.to_string()));
        }
        keys.verify(token, algorithm)?;
        let claims = &token.claims;
        self.audience(claims)?;
        let expires = self.times(claims)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject))
                if !subject.is_empty() && subject.chars().count() <= LONGEST_SUBJECT =>
            {
                Arc::from(subject.as_str())
            }
            _ => return Err(Defect::Claim("sub", "a short text")),
        };
        if let Some(name) = issuer.require.unmet(claims) {
            return Err(Defect::Required(name.to_string()));
        }
        let account = match &issuer.account {
            None => None,
            Some(name) => match claims.get(&**name) {
                Some(Value::String(account)) if !account.is_empty() => Some(Arc::from(account.as_str())),
                _ => return Err(Defect::Required(name.to_string())),
            },
        };
        let step = match &issuer.step {
            None => None,
            Some(name) => {
                Some(step(issuer, claims.get(&**name)).ok_or_else(|| Defect::Required(name.to_string()))?)
            }
        };
        let kept = claims.iter().filter(|(name, _)| issuer.kept.contains(name.as_str()));
        let identity = Identity {
            issuer: issuer.name.clone(),
            url: issuer.url.clone(),
            account,
            subject,
            groups: groups(claims, &issuer.groups),
            expires,
            claims: kept.map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        Ok(Verified { identity, key: token.key(), proof: None, step })
    }

    /// A token that is for others too could be presented by any of them.
    fn audience(&self, claims: &Map<String, Value>) -> Result<(), Defect> {
        let is_ours = |value: &Value| value.as_str() == Some(self.audience) && !self.audience.is_empty();
        let sound = match claims.get("aud") {
            Some(Value::Array(all)) => !all.is_empty() && all.iter().all(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if sound { Ok(()) } else { Err(Defect::Audience(self.audience.to_owned())) }
    }

    /// Checks `exp`, `nbf` and `iat`; `exp`.
    fn times(&self, claims: &Map<String, Value>) -> Result<i64, Defect> {
        let skew = i64::try_from(self.issuer.clock_skew.as_secs()).unwrap_or(i64::MAX);
        let expires = moment(claims, "exp")?.ok_or(Defect::Claim("exp", "a time"))?;
        let past = self.now.saturating_sub(expires.saturating_add(skew));
        if past >= 0 {
            return Err(Defect::Expired(between(expires, self.now)));
        }
        if moment(claims, "iat")?.is_none() {
            return Err(Defect::Claim("iat", "a time"));
        }
        for name in ["nbf", "iat"] {
            if let Some(begins) = moment(claims, name)?
                && begins.saturating_sub(skew) > self.now
            {
                return Err(Defect::NotYet(between(self.now, begins)));
            }
        }
        Ok(expires)
    }
}

/// What all tokens of a step of this issuer's are known by.
fn step(issuer: &Issuer, claim: Option<&Value>) -> Option<TokenKey> {
    let value = match claim? {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(TokenKey::of(format!("step {} {value}", issuer.url).as_bytes()))
}

/// A time claim in seconds since 1970, if it is there (RFC 7519, section 2: NumericDate).
pub(crate) fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Defect> {
    // Beyond this a double has no whole seconds any more.
    const LAST: f64 = 9_007_199_254_740_991.0;
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) if seconds >= 0 => Ok(Some(seconds)),
            #[expect(clippy::cast_possible_truncation, reason = "it is within what fits")]
            (None, Some(seconds)) if (0.0..LAST).contains(&seconds) => Ok(Some(seconds as i64)),
            _ => Err(Defect::Claim(name, "a time")),
        },
        Some(_) => Err(Defect::Claim(name, "a time")),
    }
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_secs(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// The groups at this path; none if there is nothing of that kind.
fn groups(claims: &Map<String, Value>, path: &[Arc<str>]) -> Vec<Arc<str>> {
    let Some((first, rest)) = path.split_first() else { return Vec::new() };
    let found = rest.iter().try_fold(claims.get(&**first), |at, part| at.map(|value| value.get(&**part)));
    match found.flatten() {
        Some(Value::String(one)) => vec![one.as_str().into()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(Value::as_str).take(MOST_GROUPS).map(Into::into).collect()
        }
        _ => Vec::new(),
    }
}
