//! What follows a target's `?`.

use std::sync::Arc;

use super::{Ambiguous, decoded, push};
use crate::overriding;

/// A query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// As it is sent.
    pub(crate) text: String,
    /// Its parameters as `name=value`, decoded (WHATWG URL, 5.1). Where a server might split at `;`, those parts too.
    pub(crate) parameters: Vec<Arc<str>>,
}

impl Query {
    /// Reads what follows the `?`.
    pub(crate) fn parse(written: &str) -> Result<Self, Ambiguous> {
        let mut text = String::with_capacity(written.len());
        for byte in written.bytes() {
            match byte {
                0..=0x20 | 0x7f.. => return Err(Ambiguous("the query has characters that must be encoded")),
                b'#' => return Err(Ambiguous("the target has a fragment (#)")),
                _ => push(
                    &mut text,
                    byte,
                    !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'),
                ),
            }
        }
        let mut parameters = Vec::new();
        for pair in written.split('&') {
            let parts = pair.split(';').filter(|_| pair.contains(';'));
            for part in std::iter::once(pair).chain(parts).filter(|part| !part.is_empty()) {
                let parameter = parameter(part)?;
                if is_read_otherwise(name_of(&parameter)) {
                    return Err(Ambiguous(
                        "the name of a parameter of its query begins with a blank, or has a [ alone",
                    ));
                }
                parameters.push(parameter);
            }
        }
        Ok(Self { text, parameters })
    }

    /// Whether a parameter is there that some servers obey instead of the method.
    pub(crate) fn changes_the_method(&self) -> bool {
        self.parameters.iter().any(|parameter| overriding::parameter(name_of(parameter)))
    }
}

/// A parameter as `name=value`, decoded.
fn parameter(pair: &str) -> Result<Arc<str>, Ambiguous> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(format!("{}={}", form_decoded(name)?, form_decoded(value)?).into())
}

/// The name of a parameter that is written as `name=value`.
fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Whether some servers (PHP's) read a parameter's name as another: without what it begins with, or with an underscore in it.
fn is_read_otherwise(name: &str) -> bool {
    name.starts_with(char::is_whitespace) || name.contains('[') && !name.contains(']')
}

/// A name or a value of a form or query, decoded.
pub(crate) fn form_decoded(written: &str) -> Result<String, Ambiguous> {
    let mut plain = Vec::with_capacity(written.len());
    let mut bytes = written.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => decoded(&mut bytes)?,
            b'+' => b' ',
            byte => byte,
        });
    }
    if plain.contains(&0) {
        return Err(Ambiguous("it has a zero byte (%00)"));
    }
    String::from_utf8(plain).map_err(|_| Ambiguous("it is not UTF-8"))
}
