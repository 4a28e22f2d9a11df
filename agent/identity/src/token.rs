//! A token's form: a JWS in compact serialisation (RFC 7515, section 7.1) whose payload is a JSON object (RFC 7519).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use tidegate_policy::{Algorithm, Issuer};

use crate::{Defect, json};

/// Longest token, in bytes. Those of the large issuers have up to 4 KiB.
pub(crate) const LONGEST: usize = 16 * 1024;
/// Longest key id, in bytes.
const LONGEST_KEY_ID: usize = 512;

/// A token as it is written; nothing of it is verified.
pub(crate) struct Token<'a> {
    /// What is signed.
    pub(crate) signed: &'a str,
    /// The signature, in base64url.
    pub(crate) signature: &'a str,
    /// The name of the signing key.
    pub(crate) key_id: Option<String>,
    /// Its claims.
    pub(crate) claims: Map<String, Value>,
    algorithm: String,
}

/// What a token is known by when it is seen again: a digest of what is signed, so that another encoding of the same
/// signature is the same token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey([u8; 32]);

/// A token that counts for nobody else: what it is known by, and until when a replay of it is to be feared, in seconds
/// since 1970.
pub(crate) type Spent = (TokenKey, i64);

impl TokenKey {
    /// The key of these bytes, which are signed or secret.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(key)
    }

    /// As text.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// From text.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(Self(key))
    }
}

impl<'a> Token<'a> {
    /// Reads its form.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, Defect> {
        if text.len() > LONGEST {
            return Err(Defect::TooLong(LONGEST));
        }
        let text = std::str::from_utf8(text).map_err(|_| Defect::Malformed("it is not text"))?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Defect::Malformed("it has no parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(Defect::Malformed("it has too few parts"))?;
        if payload.contains('.') {
            return Err(Defect::Malformed("it has too many parts"));
        }
        let header = part(header)?;
        if header.contains_key("crit") {
            return Err(Defect::Critical);
        }
        if header.get("typ").is_some_and(is_of_another_kind) {
            return Err(Defect::OtherKind);
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(Defect::Malformed("its header names no algorithm"));
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= LONGEST_KEY_ID => Some(id.clone()),
            Some(_) => return Err(Defect::Malformed("its key id is not a short text")),
        };
        Ok(Self { signed, signature, key_id, algorithm: algorithm.clone(), claims: part(payload)? })
    }

    /// The algorithm, which must be one that is pinned.
    pub(crate) fn algorithm(&self, issuer: &Issuer) -> Result<Algorithm, Defect> {
        let pinned = issuer.algorithms.iter().find(|pinned| pinned.to_string() == self.algorithm);
        pinned.copied().ok_or_else(|| Defect::Algorithm(issuer.algorithms.clone()))
    }

    /// Whether it says that it is of this issuer.
    pub(crate) fn is_of(&self, issuer: &Issuer) -> bool {
        self.claims.get("iss").and_then(Value::as_str) == Some(&issuer.url)
    }

    /// What it is known by.
    pub(crate) fn key(&self) -> TokenKey {
        TokenKey::of(self.signed.as_bytes())
    }
}

/// Whether a header's `typ` says that a token is something else than an ID token: those have `JWT` or none, and kinds of
/// JWTs that must not be taken for each other end in `+jwt` (RFC 8725, section 3.11): access tokens are `at+jwt` (RFC 9068).
fn is_of_another_kind(kind: &Value) -> bool {
    kind.as_str().is_none_or(|kind| kind.to_ascii_lowercase().ends_with("+jwt"))
}

fn part(text: &str) -> Result<Map<String, Value>, Defect> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Defect::Malformed("a part is not base64url"))?;
    json::object(&bytes).map_err(Defect::Malformed)
}
