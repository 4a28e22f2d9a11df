//! A query parameter.

use crate::target;

/// A query with the gate's parameter behind the client's others.
pub(super) fn with(query: Option<&str>, name: &str, password: &[u8]) -> String {
    let own = format!("{name}={}", target::encoded(password));
    let others = query.unwrap_or_default().split('&').map(|pair| without(pair, name));
    let all: Vec<String> = others.filter(|pair| !pair.is_empty()).chain([own]).collect();
    all.join("&")
}

/// What is between two `&` without a parameter of this name, however that is encoded, for servers that split at `;` too.
fn without(pair: &str, name: &str) -> String {
    let is_other = |part: &&str| {
        let written = part.split_once('=').map_or(*part, |(written, _)| written);
        target::form_decoded(written).is_ok_and(|decoded| decoded != name)
    };
    pair.split(';').filter(is_other).collect::<Vec<_>>().join(";")
}
