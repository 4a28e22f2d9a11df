//! Forms, masked by field and by content, pair by pair as they flow (WHATWG URL, 5.1).

use std::borrow::Cow;

use super::Masks;
use crate::target;

/// Longest pair.
const LONGEST: usize = 64 * 1024;

/// A form on its way: what follows the last `&` is held back.
#[derive(Debug)]
pub(super) struct Urlencoded<'a> {
    masks: Masks<'a>,
    held: Vec<u8>,
    /// It was seen to be none of what is no form at all.
    begun: bool,
}

impl<'a> Urlencoded<'a> {
    pub(super) fn new(masks: Masks<'a>) -> Self {
        Self { masks, held: Vec::new(), begun: false }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.held.extend_from_slice(data);
        self.begin()?;
        let whole = memchr::memrchr(b'&', &self.held).map_or(0, |at| at + 1);
        let rest = self.held.split_off(whole);
        let pairs = std::mem::replace(&mut self.held, rest);
        for pair in pairs.strip_suffix(b"&").iter().flat_map(|pairs| pairs.split(|byte| *byte == b'&')) {
            self.pair(pair, out)?;
            out.push(b'&');
        }
        match self.held.len() > LONGEST {
            true => Err(format!("a value in it is longer than {LONGEST} bytes")),
            false => Ok(()),
        }
    }

    pub(super) fn end(self, out: &mut Vec<u8>) -> Result<(), String> {
        self.pair(&self.held, out)
    }

    /// A value that is labelled as a form would be one pair, with a name that no mask has.
    fn begin(&mut self) -> Result<(), String> {
        let first = self.held.iter().find(|byte| !byte.is_ascii_whitespace()).filter(|_| !self.begun);
        match first {
            Some(b'{' | b'[' | b'"' | b'<') => {
                Err("it says that it is a form and looks like something else".into())
            }
            first => {
                self.begun |= first.is_some();
                Ok(())
            }
        }
    }

    fn pair(&self, pair: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let text = std::str::from_utf8(pair).map_err(|_| "it is not the form that it says it is")?;
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let decoded = |written: &str| target::form_decoded(written).map_err(|why| why.0.to_owned());
        let (name, value) = (decoded(name)?, decoded(value)?);
        let shown_name = self.masks.scan(name.as_bytes());
        let shown_value = match self.masks.field(&format!("body.{name}")) {
            Some(show) => Cow::Owned(self.masks.masker.show(show, value.as_bytes()).unwrap_or_default()),
            None => self.masks.scan(value.as_bytes()),
        };
        if let (Cow::Borrowed(_), Cow::Borrowed(_)) = (&shown_name, &shown_value) {
            out.extend_from_slice(pair);
            return Ok(());
        }
        out.extend_from_slice(target::encoded(&shown_name).as_bytes());
        out.push(b'=');
        out.extend_from_slice(target::encoded(&shown_value).as_bytes());
        Ok(())
    }
}
