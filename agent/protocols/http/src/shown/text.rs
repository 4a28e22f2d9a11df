//! Text, masked by content.

use std::borrow::Cow;

use super::{Markup, Masks};

/// Longest stretch without a line's end that is held back; one that cannot be cut anywhere else is refused.
const LONGEST: usize = 64 * 1024;
/// Longest key that is waited for (PEM, RFC 7468).
const LONGEST_KEY: usize = 64 * 1024;

/// Text on its way: shown by whole lines, so that no value is cut where the upstream cut its body.
#[derive(Debug)]
pub(super) struct Text<'a> {
    masks: Masks<'a>,
    markup: Option<Markup>,
    held: Vec<u8>,
}

impl<'a> Text<'a> {
    pub(super) fn new(masks: Masks<'a>, markup: Option<Markup>) -> Self {
        Self { masks, markup, held: Vec::new() }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if memchr::memchr(0, data).is_some() {
            return Err("it has zero bytes, as UTF-16 has, in which no value is known".into());
        }
        self.held.extend_from_slice(data);
        let end = memchr::memrchr(b'\n', &self.held).map_or(0, |at| at + 1);
        let mut end = self.before_key(end);
        if self.held.len() - end > LONGEST {
            end = self.elsewhere()?;
        }
        let rest = self.held.split_off(end);
        out.extend_from_slice(&self.scanned()?);
        self.held = rest;
        Ok(())
    }

    pub(super) fn end(self, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(&self.scanned()?);
        Ok(())
    }

    fn scanned(&self) -> Result<Cow<'_, [u8]>, String> {
        match self.markup {
            Some(markup) => self.masks.scan_markup(markup, &self.held),
            None => Ok(self.masks.scan(&self.held)),
        }
    }

    /// Not past the beginning of a key whose end isn't there yet.
    fn before_key(&self, end: usize) -> usize {
        let text = self.held.get(..end).unwrap_or_default();
        match memchr::memmem::rfind(text, b"-----BEGIN") {
            Some(begins)
                if end - begins < LONGEST_KEY
                    && memchr::memmem::find(text.get(begins..).unwrap_or_default(), b"-----END")
                        .is_none() =>
            {
                begins
            }
            _ => end,
        }
    }

    /// Where a long line can be cut: behind what is in no value.
    fn elsewhere(&self) -> Result<usize, String> {
        // A reference ends with a semicolon, and may be in the midst of a value.
        let is_between = |byte: &u8| {
            *byte == b';' && self.markup.is_none()
                || matches!(
                    byte,
                    b',' | b'('
                        | b')'
                        | b'{'
                        | b'}'
                        | b'['
                        | b']'
                        | b'<'
                        | b'>'
                        | b'"'
                        | b'\''
                        | b'\t'
                        | b'|'
                        | b'\n'
                )
        };
        match self.held.iter().rposition(is_between) {
            Some(at) => Ok(at + 1),
            None => {
                Err(format!("it has more than {LONGEST} bytes in which no value can be told from the next"))
            }
        }
    }
}
