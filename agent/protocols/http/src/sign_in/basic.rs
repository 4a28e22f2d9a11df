//! `Authorization: Basic` (RFC 7617).

use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_gate::Credential;
use zeroize::Zeroizing;

/// The field's value.
pub(super) fn authorization(user: &str, password: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    match user.contains(':') {
        true => Err("its user has a colon, which Basic cannot carry"),
        false => Ok(Zeroizing::new(format!("Basic {}", *encoded_pair(user, password)))),
    }
}

/// User and password as Basic has them; none without a user.
pub(crate) fn pair(credential: &Credential) -> Option<Zeroizing<String>> {
    Some(encoded_pair(credential.user.as_deref()?, credential.password.as_ref()?.expose()))
}

fn encoded_pair(user: &str, password: &[u8]) -> Zeroizing<String> {
    let pair = Zeroizing::new([user.as_bytes(), b":", password].concat());
    Zeroizing::new(STANDARD.encode(&*pair))
}
