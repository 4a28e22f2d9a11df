//! Each defect of a token is a refusal of its own.

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tidegate_policy::{Algorithm, Issuer};

use super::{
    issuer::issuer,
    minted::{AUDIENCE, Signer, base64url, claims, key_set},
};
use crate::{
    Defect,
    keys::KeySet,
    registry::now,
    token::{LONGEST, Token},
    verify::{Expected, Verified},
};

struct Bench {
    issuer: Issuer,
    signer: Signer,
    keys: KeySet,
}

impl Bench {
    fn new() -> Self {
        let signer = Signer::rsa("key-1");
        let keys = KeySet::parse(key_set(&[&signer]).as_bytes()).unwrap();
        Self { issuer: (*issuer("https://issuer.example", None)).clone(), signer, keys }
    }

    fn claims(&self) -> Value {
        claims(&self.issuer, "job-1")
    }

    fn verify(&self, text: &str) -> Result<Verified, Defect> {
        let token = Token::parse(text.as_bytes())?;
        Expected { issuer: &self.issuer, audience: AUDIENCE, now: now() }.verify(&token, &self.keys)
    }

    /// What is wrong with a token that differs from a sound one in this claim.
    fn defect(&self, name: &str, value: Value) -> Defect {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        self.verify(&self.signer.sign(&claims)).unwrap_err()
    }
}

#[test]
fn a_sound_token_says_who_it_is_and_only_what_is_kept() {
    let mut bench = Bench::new();
    bench.issuer.groups = vec!["realm".into(), "roles".into()];
    let mut claims = bench.claims();
    claims["realm"] = json!({"roles": ["dba", 7, "ops"]});
    let identity = bench.verify(&bench.signer.sign(&claims)).unwrap().identity;
    assert_eq!(&*identity.subject, "job-1");
    assert_eq!(identity.groups, ["dba".into(), "ops".into()] as [std::sync::Arc<str>; 2]);
    assert_eq!(Value::from(identity.claims), json!({"repository": "acme/shop"}));
    assert_eq!(identity.expires, claims["exp"].as_i64().unwrap());
}

#[test]
fn a_token_of_each_kind_of_key_counts_where_it_is_pinned() {
    let mut bench = Bench::new();
    let ec = Signer::ec("key-2");
    bench.keys = KeySet::parse(key_set(&[&bench.signer, &ec]).as_bytes()).unwrap();
    let token = ec.sign(&bench.claims());
    assert_eq!(bench.verify(&token).unwrap_err(), Defect::Algorithm(vec![Algorithm::RS256]));
    bench.issuer.algorithms = vec![Algorithm::ES256];
    bench.verify(&token).unwrap();
}

#[test]
fn times_are_checked_within_the_clock_skew() {
    let bench = Bench::new();
    let skew = i64::try_from(bench.issuer.clock_skew.as_secs()).unwrap();
    assert!(matches!(bench.defect("exp", json!(now() - skew - 5)), Defect::Expired(_)));
    assert!(matches!(bench.defect("nbf", json!(now() + skew + 60)), Defect::NotYet(_)));
    assert!(matches!(bench.defect("iat", json!(now() + skew + 60)), Defect::NotYet(_)));
    let mut claims = bench.claims();
    claims["exp"] = json!(now() - skew + 20);
    claims["nbf"] = json!(now() + skew - 20);
    bench.verify(&bench.signer.sign(&claims)).unwrap();
}

#[test]
fn times_that_are_none_are_refused() {
    let bench = Bench::new();
    for wrong in [json!(null), json!("soon"), json!(-1), json!(1e300), json!(true)] {
        assert_eq!(bench.defect("exp", wrong), Defect::Claim("exp", "a time"));
    }
    assert_eq!(bench.defect("iat", json!(null)), Defect::Claim("iat", "a time"));
    assert_eq!(bench.defect("nbf", json!("now")), Defect::Claim("nbf", "a time"));
}

#[test]
fn another_audience_or_more_than_ours_is_refused() {
    let bench = Bench::new();
    for wrong in [json!("other"), json!([AUDIENCE, "other"]), json!([]), json!(null), json!(""), json!(7)] {
        assert_eq!(bench.defect("aud", wrong), Defect::Audience(AUDIENCE.into()));
    }
    let mut claims = bench.claims();
    claims["aud"] = json!([AUDIENCE]);
    bench.verify(&bench.signer.sign(&claims)).unwrap();
}

#[test]
fn another_issuer_is_refused_to_the_letter() {
    let bench = Bench::new();
    for wrong in ["https://issuer.example/", "https://ISSUER.example", "https://evil.example", ""] {
        assert_eq!(bench.defect("iss", json!(wrong)), Defect::Issuer("https://issuer.example".into()));
    }
}

#[test]
fn a_subject_that_is_missing_empty_or_too_long_is_refused() {
    let bench = Bench::new();
    for wrong in [json!(null), json!(""), json!(7), json!("x".repeat(256))] {
        assert_eq!(bench.defect("sub", wrong), Defect::Claim("sub", "a short text"));
    }
}

#[test]
fn a_claim_that_is_required_must_be_there_and_be_right() {
    let bench = Bench::new();
    for wrong in [json!(null), json!("acme/evil"), json!({"acme/shop": true})] {
        assert_eq!(bench.defect("repository", wrong), Defect::Required("repository".into()));
    }
}

#[test]
fn another_kind_of_token_of_the_same_issuer_is_refused() {
    let bench = Bench::new();
    let typed = |kind: serde_json::Value| {
        let header = json!({"alg": "RS256", "kid": "key-1", "typ": kind});
        bench.verify(&bench.signer.sign_as(&header, &bench.claims()))
    };
    for kind in [json!("at+jwt"), json!("application/AT+JWT"), json!("logout+jwt"), json!(7), json!(null)] {
        assert_eq!(typed(kind.clone()).unwrap_err(), Defect::OtherKind, "{kind}");
    }
    for kind in ["JWT", "jwt", "application/jwt"] {
        typed(json!(kind)).unwrap();
    }
}

#[test]
fn an_account_that_the_bundle_asks_for_must_be_told() {
    let mut bench = Bench::new();
    bench.issuer.account = Some("preferred_username".into());
    for wrong in [json!(null), json!(""), json!(["ann"]), json!(7)] {
        assert_eq!(bench.defect("preferred_username", wrong), Defect::Required("preferred_username".into()));
    }
    let mut claims = bench.claims();
    claims["preferred_username"] = json!("ann");
    let verified = bench.verify(&bench.signer.sign(&claims)).unwrap();
    assert_eq!(verified.identity.account.as_deref(), Some("ann"));
    assert_eq!(&*verified.identity.url, "https://issuer.example");
}

#[test]
fn no_algorithm_but_the_pinned_ones_counts() {
    let bench = Bench::new();
    let pinned = Defect::Algorithm(vec![Algorithm::RS256]);
    for algorithm in ["none", "None", "NONE", "HS256", "RS384", "ES256", "rs256", ""] {
        let token = bench.signer.sign_as(&json!({"alg": algorithm, "kid": "key-1"}), &bench.claims());
        assert_eq!(bench.verify(&token).unwrap_err(), pinned, "{algorithm}");
    }
    let signed = format!("{}.{}", base64url(r#"{"alg":"none"}"#), base64url(bench.claims().to_string()));
    assert_eq!(bench.verify(&format!("{signed}.")).unwrap_err(), pinned);
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let bench = Bench::new();
    let header = json!({"alg": "HS256", "kid": "key-1"});
    let signed = format!("{}.{}", base64url(header.to_string()), base64url(bench.claims().to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bench.signer.public_der());
    let token = format!("{signed}.{}", base64url(hmac::sign(&key, signed.as_bytes())));
    assert_eq!(bench.verify(&token).unwrap_err(), Defect::Algorithm(vec![Algorithm::RS256]));
}

#[test]
fn an_unknown_key_and_another_s_signature_are_told_apart() {
    let bench = Bench::new();
    let stranger = Signer::rsa("key-9");
    assert_eq!(bench.verify(&stranger.sign(&bench.claims())).unwrap_err(), Defect::UnknownKey);
    let impostor = Signer::rsa("key-1");
    assert_eq!(bench.verify(&impostor.sign(&bench.claims())).unwrap_err(), Defect::Signature);
}

#[test]
fn a_key_in_the_header_is_no_key() {
    let bench = Bench::new();
    let stranger = Signer::rsa("key-1");
    let header =
        json!({"alg": "RS256", "kid": "key-1", "jwk": stranger.jwk(), "jku": "https://evil.example"});
    assert_eq!(bench.verify(&stranger.sign_as(&header, &bench.claims())).unwrap_err(), Defect::Signature);
}

#[test]
fn a_token_that_names_no_key_is_tried_with_those_of_its_kind() {
    let bench = Bench::new();
    bench.verify(&bench.signer.sign_as(&json!({"alg": "RS256"}), &bench.claims())).unwrap();
}

#[test]
fn a_token_that_was_changed_anywhere_is_refused() {
    let bench = Bench::new();
    let token = bench.signer.sign(&bench.claims());
    let mut other = bench.claims();
    other["repository"] = json!("acme/other");
    let (_, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = token.split_once('.').unwrap();
    let changed = format!("{header}.{}.{signature}", base64url(other.to_string()));
    assert_eq!(bench.verify(&changed).unwrap_err(), Defect::Signature);
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(bench.verify(&String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
    }
    for at in 0..token.len() {
        assert!(bench.verify(&token[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_token_for_encryption_keys_or_of_another_kind_of_key_is_not_verified_with_them() {
    let mut bench = Bench::new();
    let mut jwk = bench.signer.jwk();
    jwk["use"] = json!("enc");
    let other = Signer::ec("other");
    let set =
        json!({"keys": [jwk, other.jwk(), {"kty": "oct", "k": "c2VjcmV0", "kid": "key-1"}, {"kty": "X"}, 7]});
    bench.keys = KeySet::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(bench.verify(&bench.signer.sign(&bench.claims())).unwrap_err(), Defect::UnknownKey);
}

#[test]
fn a_set_without_a_usable_key_is_refused() {
    for set in
        ["{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, r#"{"keys":{},"keys":[]}"#, "[]"]
    {
        assert!(KeySet::parse(set.as_bytes()).is_err(), "{set}");
    }
}

#[test]
fn the_same_claim_twice_is_refused_even_when_it_is_signed() {
    let bench = Bench::new();
    let claims = bench.claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let token = bench.signer.sign_text(r#"{"alg":"RS256","kid":"key-1"}"#, &claims);
    assert_eq!(bench.verify(&token).unwrap_err(), Defect::Malformed("a key is there twice in its JSON"));
    let header = r#"{"alg":"none","alg":"RS256","kid":"key-1"}"#;
    let token = bench.signer.sign_text(header, &bench.claims().to_string());
    assert_eq!(bench.verify(&token).unwrap_err(), Defect::Malformed("a key is there twice in its JSON"));
}

#[test]
fn a_huge_a_deep_and_a_shapeless_token_are_refused() {
    let bench = Bench::new();
    let mut claims = bench.claims();
    claims["filler"] = json!("x".repeat(LONGEST));
    assert_eq!(bench.verify(&bench.signer.sign(&claims)).unwrap_err(), Defect::TooLong(LONGEST));
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(4_000), "]".repeat(4_000));
    let token = bench.signer.sign_text(r#"{"alg":"RS256"}"#, &deep);
    assert_eq!(bench.verify(&token).unwrap_err(), Defect::Malformed("its JSON is nested too deeply"));
    for text in ["", ".", "..", "...", "a.b", "a.b.c.d.e", "\u{e9}.\u{e9}.\u{e9}", "e30.e30.e30"] {
        assert!(matches!(bench.verify(text).unwrap_err(), Defect::Malformed(_)), "{text:?}");
    }
}

#[test]
fn critical_extensions_are_refused() {
    let bench = Bench::new();
    let header = json!({"alg": "RS256", "kid": "key-1", "crit": ["exp"]});
    assert_eq!(bench.verify(&bench.signer.sign_as(&header, &bench.claims())).unwrap_err(), Defect::Critical);
}

#[test]
fn no_defect_repeats_any_of_the_token() {
    let bench = Bench::new();
    let secret = "s3cr3t-text-of-the-token";
    for name in ["iss", "aud", "sub", "exp", "nbf", "repository"] {
        let told = bench.defect(name, json!({secret: secret})).to_string();
        assert!(!told.contains(secret), "{told}");
    }
    let token = bench.signer.sign_as(&json!({"alg": secret, "kid": secret}), &bench.claims());
    assert!(!bench.verify(&token).unwrap_err().to_string().contains(secret));
}
