//! JSON: a masked value is a JSON string; a scanned one keeps everything but the leaves in which something was found.

use std::borrow::Cow;

use tidegate_gate::Masker;
use tidegate_policy::{ContentMask, Show};

use super::{
    read::Malformed,
    value::{Look, Patch},
};

/// The whole value as a JSON string. What is masked is the text of a JSON string, or else the JSON itself.
pub(super) fn masked(masker: &Masker, show: &Show, value: &[u8]) -> Look {
    let text =
        serde_json::from_slice::<String>(value).map_or(Cow::Borrowed(value), |text| text.into_bytes().into());
    match masker.show(show, &text) {
        Some(shown) => Look::Instead(quoted(&shown)),
        None => Look::Null,
    }
}

/// Masks what is found in strings (names of members included) and numbers; each of them is a text of its own. A number
/// in which something was found becomes a string.
pub(super) fn scanned(masker: &Masker, mask: &ContentMask, value: &[u8]) -> Result<Look, Malformed> {
    let mut patch = Patch::new(value);
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let start = at;
        let text: Cow<'_, [u8]> = match byte {
            b'"' => {
                at = string_end(value, start)?;
                unquoted(value.get(start..at).unwrap_or_default())
            }
            b'-' | b'0'..=b'9' => {
                at = number_end(value, start);
                Cow::Borrowed(value.get(start..at).unwrap_or_default())
            }
            _ => {
                at += 1;
                continue;
            }
        };
        if let Cow::Owned(shown) = masker.scan(mask, &text) {
            patch.replace(start..at).extend_from_slice(&quoted(&shown));
        }
    }
    Ok(patch.finish())
}

/// Past the closing quote of the string that begins here.
fn string_end(value: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start + 1;
    loop {
        match value.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Malformed("JSON that cannot be read")),
        }
    }
}

fn number_end(value: &[u8], start: usize) -> usize {
    let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    start + value.get(start..).unwrap_or_default().iter().take_while(is_part).count()
}

/// The text of a JSON string. What isn't Unicode (a lone surrogate, say) is left in its escapes.
fn unquoted(string: &[u8]) -> Cow<'_, [u8]> {
    let inside = string.get(1..string.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    serde_json::from_slice::<String>(string).map_or(Cow::Borrowed(inside), |text| text.into_bytes().into())
}

fn quoted(text: &[u8]) -> Vec<u8> {
    serde_json::Value::from(String::from_utf8_lossy(text)).to_string().into_bytes()
}
