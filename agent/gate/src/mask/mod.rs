//! How sensitive values are shown.

mod email;
mod finds;
mod keys;
mod numbers;
mod stretches;

use std::{borrow::Cow, ops::Range};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tidegate_policy::{ContentMask, Show};

use self::keys::KeyShapes;
use crate::Secret;

/// What stands for a value that may not be seen and has no other text.
const REDACTED: &[u8] = b"***";

/// Shows sensitive values the way masks say. Holds the key of keyed tokens.
#[derive(Debug)]
pub struct Masker {
    key: hmac::Key,
    shapes: KeyShapes,
}

/// Something sensitive in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find<'m> {
    /// Which bytes.
    pub span: Range<usize>,
    /// How they are to be shown.
    pub show: &'m Show,
}

impl Masker {
    /// A masker whose tokens are keyed with `key` (32 bytes).
    #[expect(clippy::needless_pass_by_value, reason = "the caller's copy ends here")]
    pub fn new(key: Secret) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.expose()), shapes: KeyShapes::new() }
    }

    /// The value as a mask shows it; none for null.
    ///
    /// `Keep` counts Unicode scalar values in UTF-8 and bytes in anything else. An empty value holds nothing to hide,
    /// but is masked like any other, so that it can't be told from them.
    pub fn show(&self, show: &Show, value: &[u8]) -> Option<Vec<u8>> {
        match show {
            Show::Redact(text) => Some(text.as_bytes().to_vec()),
            Show::Keep { first, last } => Some(keep(*first, *last, value)),
            Show::Token => Some(self.token(value)),
            Show::Null => None,
        }
    }

    /// The text with every find of the detectors shown the way its mask says. Borrowed if nothing was found.
    ///
    /// Finds that overlap are one find, shown the way that hides most. Takes time linear in the text.
    pub fn scan<'a>(&self, mask: &ContentMask, text: &'a [u8]) -> Cow<'a, [u8]> {
        let finds = self.finds(mask, text);
        if finds.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut shown = Vec::with_capacity(text.len());
        let mut from = 0;
        for find in finds {
            shown.extend_from_slice(text.get(from..find.span.start).unwrap_or_default());
            let value = text.get(find.span.clone()).unwrap_or_default();
            match self.show(find.show, value) {
                Some(masked) => shown.extend_from_slice(&masked),
                None => shown.extend_from_slice(REDACTED),
            }
            from = find.span.end;
        }
        shown.extend_from_slice(text.get(from..).unwrap_or_default());
        Cow::Owned(shown)
    }

    /// What the detectors find, in order and without overlaps.
    pub fn finds<'m>(&self, mask: &'m ContentMask, text: &[u8]) -> Vec<Find<'m>> {
        finds::finds(&self.shapes, mask, text)
    }

    fn token(&self, value: &[u8]) -> Vec<u8> {
        let tag = hmac::sign(&self.key, value);
        // 128 bits: equal tokens of different values don't happen.
        let (half, _) = tag.as_ref().split_at(16);
        format!("tok_{}", URL_SAFE_NO_PAD.encode(half)).into_bytes()
    }
}

/// All but the first and last characters as `*`.
fn keep(first: usize, last: usize, value: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_ascii());
    let characters = text.map_or(value.len(), |text| text.chars().count());
    let Some(hidden) = characters.checked_sub(first.saturating_add(last)).filter(|hidden| *hidden > 0) else {
        return REDACTED.to_vec();
    };
    let begins = |character: usize| match text {
        Some(text) => text.char_indices().nth(character).map_or(value.len(), |(at, _)| at),
        None => character,
    };
    let (from, to) = (begins(first), begins(first + hidden));
    let mut shown = value.get(..from).unwrap_or_default().to_vec();
    shown.resize(from + hidden, b'*');
    shown.extend_from_slice(value.get(to..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests;
