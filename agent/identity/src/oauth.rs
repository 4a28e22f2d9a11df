//! What both grants send: the device flow's (RFC 8628) and the browser's (RFC 6749, section 4.1).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::keyring::Metadata;

/// `scope` of a login.
pub(crate) fn scope(asked: &[Arc<str>]) -> String {
    let more = asked.iter().map(|scope| &**scope).filter(|scope| *scope != "openid");
    ["openid"].into_iter().chain(more).collect::<Vec<_>>().join(" ")
}

/// The challenge to send (RFC 7636), unless the issuer's metadata says that it takes none of this method. Many issuers that
/// take it don't say so, and others ignore what they don't know (RFC 6749, section 3.1).
pub(crate) fn challenge(metadata: &Metadata, verifier: &str) -> Vec<(&'static str, String)> {
    const METHOD: &str = "S256";
    let methods = metadata.code_challenge_methods_supported.as_deref();
    if methods.is_some_and(|methods| methods.iter().all(|method| method != METHOD)) {
        return Vec::new();
    }
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    vec![("code_challenge", challenge), ("code_challenge_method", METHOD.to_owned())]
}
