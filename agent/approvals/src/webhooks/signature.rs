//! Signatures by which a receiver knows who sent a letter, and that it is no old one (Standard Webhooks 1.0).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_gate::Secret;
use zeroize::Zeroizing;

/// What a secret begins with.
const PREFIX: &[u8] = b"whsec_";
/// Fewest and most bytes of a key.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that both sides have.
pub(super) struct Key(hmac::Key);

impl Key {
    /// Reads a secret as receivers hand it out: `whsec_` and base64. The error goes on after the secret's place.
    pub(super) fn parse(secret: &Secret) -> Result<Self, String> {
        let encoded = secret.expose().strip_prefix(PREFIX).map(<[u8]>::trim_ascii);
        let key = encoded.and_then(|encoded| STANDARD.decode(encoded).ok()).map(Zeroizing::new);
        match key.filter(|key| LENGTHS.contains(&key.len())) {
            Some(key) => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key))),
            None => Err("is not `whsec_` and the base64 of 24 to 64 bytes; make one: \
                         printf 'whsec_%s' \"$(openssl rand -base64 32)\""
                .into()),
        }
    }

    /// The header `webhook-signature`. `time` is in seconds since 1970.
    pub(super) fn sign(&self, id: &str, time: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{time}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Key, String> {
        Key::parse(&Secret::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_signature_is_the_one_of_the_specification_s_example() {
        // From the documentation of the reference implementations.
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_told() {
        for text in ["", "hunter2", "whsec_", "whsec_aHVudGVyMg==", "whsec_hunter2hunter2hunter2hunter2?"] {
            let error = key(text).err().unwrap();
            assert!(error.contains("openssl rand") && !error.contains("hunter2"), "{error}");
        }
    }
}
