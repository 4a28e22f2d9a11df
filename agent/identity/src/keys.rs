//! The keys that an issuer publishes: a JWK set (RFC 7517).

use jsonwebtoken::{
    Algorithm as Jwa, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;
use tidegate_policy::Algorithm;

use crate::{Defect, json, token::Token};

/// More keys than any issuer has at once.
const MOST: usize = 64;

/// Public keys for signatures.
#[derive(Default)]
pub(crate) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a set. Keys of kinds that are not known here are left out (RFC 7517, section 5), and shared ones are never
    /// taken.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let set = json::object(text)?;
        let Some(Value::Array(keys)) = set.get("keys") else { return Err("it has no keys") };
        let keys: Vec<Key> = keys.iter().take(MOST).filter_map(Key::read).collect();
        if keys.is_empty() { Err("it has no key that is known here") } else { Ok(Self(keys)) }
    }

    /// Whether there is a key for this token.
    pub(crate) fn has(&self, key_id: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(key_id, algorithm).next().is_some()
    }

    /// Whether one of the keys signed the token.
    pub(crate) fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> Result<(), Defect> {
        if !self.has(token.key_id.as_deref(), algorithm) {
            return Err(Defect::UnknownKey);
        }
        let mut candidates = self.candidates(token.key_id.as_deref(), algorithm);
        let signed = |key: &Key| {
            jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &key.key, jwa(algorithm))
        };
        if candidates.any(|key| matches!(signed(key), Ok(true))) { Ok(()) } else { Err(Defect::Signature) }
    }

    /// The keys that the token may be signed with: the one it names, or any if it names none.
    fn candidates(&self, key_id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            key.algorithms.contains(&algorithm) && key_id.is_none_or(|id| key.id.as_deref() == Some(id))
        })
    }
}

impl Key {
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = fitting(&jwk.algorithm);
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| named(*algorithm) == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// The algorithms that a key of this kind can be for. A key never counts for those of another kind.
fn fitting(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => Vec::new(),
    }
}

fn jwa(algorithm: Algorithm) -> Jwa {
    match algorithm {
        Algorithm::RS256 => Jwa::RS256,
        Algorithm::RS384 => Jwa::RS384,
        Algorithm::RS512 => Jwa::RS512,
        Algorithm::PS256 => Jwa::PS256,
        Algorithm::PS384 => Jwa::PS384,
        Algorithm::PS512 => Jwa::PS512,
        Algorithm::ES256 => Jwa::ES256,
        Algorithm::ES384 => Jwa::ES384,
        Algorithm::EdDSA => Jwa::EdDSA,
    }
}

fn named(algorithm: Algorithm) -> KeyAlgorithm {
    match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
    }
}
