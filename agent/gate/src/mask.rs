//! How sensitive values are shown.

use std::borrow::Cow;

use tidegate_policy::{ContentMask, Show};

use crate::Secret;

/// Shows sensitive values the way masks say. Holds the key of keyed tokens.
#[derive(Debug)]
pub struct Masker {
    #[expect(dead_code, reason = "placeholder")]
    key: Secret,
}

impl Masker {
    /// A masker whose tokens are keyed with `key` (32 bytes).
    pub fn new(key: Secret) -> Self {
        Self { key }
    }

    /// The value as a mask shows it; none for null.
    pub fn show(&self, _show: &Show, _value: &[u8]) -> Option<Vec<u8>> {
        unimplemented!()
    }

    /// The text with every find of the detectors shown the way its mask says. Borrowed if nothing was found.
    pub fn scan<'a>(&self, _mask: &ContentMask, _text: &'a [u8]) -> Cow<'a, [u8]> {
        unimplemented!()
    }
}
