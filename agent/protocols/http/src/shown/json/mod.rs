//! JSON, masked by field and by content, as it flows (RFC 8259).
//!
//! A field's address is `body` and the names on the way to it, joined by dots; arrays add nothing. What is masked becomes a
//! string or null. White space, order and numbers stay as they are.

mod met;

use std::{borrow::Cow, sync::Arc};

use serde::de::IgnoredAny;
use tidegate_gate::policy::Show;

use self::met::{Known, Met};
use super::Masks;

/// Longest string, number or name.
const LONGEST: usize = 4 * 1024 * 1024;
/// Deepest nesting.
const DEEPEST: usize = 256;

/// JSON on its way; one value after another, as in NDJSON, is JSON too.
#[derive(Debug)]
pub(super) struct Json<'a> {
    masks: Masks<'a>,
    /// What was not looked at yet: the beginning of a string, number or word.
    held: Vec<u8>,
    /// How much of that was looked through for its end already.
    looked: usize,
    levels: Vec<Level>,
    path: String,
    met: Met,
    /// Where `path` leads to, if that is remembered.
    known: Option<Known>,
    expected: Expected,
    /// Number of levels around a masked object: nothing inside is shown.
    hidden: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    is_object: bool,
    /// Length of the path to it.
    path: usize,
    /// The same, if that is remembered.
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    /// A value, or the end of an array that is empty so far.
    ValueOrEnd,
    Name,
    /// A name, or the end of an object that is empty so far.
    NameOrEnd,
    Colon,
    /// A comma, or the end of what it is in.
    CommaOrEnd,
}

const NO_JSON: &str = "it is not the JSON that it says it is";

impl<'a> Json<'a> {
    pub(super) fn new(masks: Masks<'a>) -> Self {
        const BODY: &str = "body";
        let (met, known) = Met::new(masks.field(BODY).cloned());
        Self {
            masks,
            held: Vec::new(),
            looked: 0,
            levels: Vec::new(),
            path: BODY.to_owned(),
            met,
            known: Some(known),
            expected: Expected::Value,
            hidden: None,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let mut held = std::mem::take(&mut self.held);
        if held.is_empty() {
            let taken = self.run(data, false, out)?;
            held.extend_from_slice(data.get(taken..).unwrap_or_default());
        } else {
            held.extend_from_slice(data);
            let taken = self.run(&held, false, out)?;
            held.drain(..taken);
        }
        if held.len() > LONGEST {
            return Err(format!("a value in it is longer than {LONGEST} bytes"));
        }
        self.held = held;
        Ok(())
    }

    pub(super) fn end(mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let input = std::mem::take(&mut self.held);
        let taken = self.run(&input, true, out)?;
        match taken == input.len() && self.levels.is_empty() {
            true => Ok(()),
            false => Err(NO_JSON.into()),
        }
    }

    /// Takes all whole tokens; how many bytes they were.
    fn run(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<usize, String> {
        let mut at = 0;
        while let Some(byte) = input.get(at) {
            let rest = input.get(at..).unwrap_or_default();
            let looked = std::mem::take(&mut self.looked);
            let length = match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
                    let length = rest.iter().take_while(is_space).count();
                    self.emit(rest.get(..length).unwrap_or_default(), out);
                    length
                }
                b'"' => match string_end(rest, looked.max(1)) {
                    Ok(length) => {
                        self.string(rest.get(..length).unwrap_or_default(), out)?;
                        length
                    }
                    Err(looked) => {
                        self.looked = looked;
                        return Ok(at);
                    }
                },
                b'{' | b'[' | b'}' | b']' | b':' | b',' => {
                    self.punctuation(*byte, out)?;
                    1
                }
                _ => {
                    let is_part =
                        |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                    let length = looked + rest.iter().skip(looked).take_while(is_part).count();
                    if length == rest.len() && !last {
                        self.looked = length;
                        return Ok(at);
                    }
                    self.scalar(rest.get(..length).unwrap_or_default(), out)?;
                    length
                }
            };
            at += length;
        }
        Ok(at)
    }

    fn emit(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.hidden.is_none() {
            out.extend_from_slice(bytes);
        }
    }

    fn punctuation(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), String> {
        match byte {
            b'{' | b'[' => return self.open(byte == b'{', out),
            b'}' | b']' => return self.close(byte == b'}', out),
            b':' if self.expected == Expected::Colon => self.expected = Expected::Value,
            b',' if self.expected == Expected::CommaOrEnd => match self.levels.last() {
                Some(Level { is_object: true, path, .. }) => {
                    self.path.truncate(*path);
                    self.expected = Expected::Name;
                }
                Some(Level { is_object: false, .. }) => self.expected = Expected::Value,
                None => return Err(NO_JSON.into()),
            },
            _ => return Err(NO_JSON.into()),
        }
        self.emit(&[byte], out);
        Ok(())
    }

    fn open(&mut self, is_object: bool, out: &mut Vec<u8>) -> Result<(), String> {
        self.value_may_begin()?;
        if self.levels.len() >= DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        // An array's members are masked one by one; of an object nothing is left.
        if is_object && self.hidden.is_none() && self.show().is_some() {
            self.hidden = Some(self.levels.len());
        }
        self.levels.push(Level { is_object, path: self.path.len(), known: self.known });
        self.expected = if is_object { Expected::NameOrEnd } else { Expected::ValueOrEnd };
        self.emit(if is_object { b"{" } else { b"[" }, out);
        Ok(())
    }

    fn close(&mut self, is_object: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let empty = if is_object { Expected::NameOrEnd } else { Expected::ValueOrEnd };
        let level = self.levels.pop().filter(|level| level.is_object == is_object);
        let (Some(level), true) = (level, self.expected == Expected::CommaOrEnd || self.expected == empty)
        else {
            return Err(NO_JSON.into());
        };
        self.path.truncate(level.path);
        self.known = level.known;
        self.emit(if is_object { b"}" } else { b"]" }, out);
        if self.hidden == Some(self.levels.len()) {
            self.hidden = None;
            // How much of it there is tells something too: it is shown as an empty value would be.
            self.masked(b"", out);
        }
        self.expected = self.behind_value();
        Ok(())
    }

    /// A string, as a name or as a value.
    fn string(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let text = unquoted(token);
        if matches!(self.expected, Expected::Name | Expected::NameOrEnd) {
            self.expected = Expected::Colon;
            self.name(token, &text, out);
            return Ok(());
        }
        self.value(token, &text, out)
    }

    fn name(&mut self, token: &[u8], text: &[u8], out: &mut Vec<u8>) {
        let of = self.levels.last().and_then(|level| level.known);
        if let Some((name, known)) = of.and_then(|of| self.met.name(of, text)) {
            self.path.push('.');
            self.path.push_str(name);
            self.known = Some(known);
            return self.emit(token, out);
        }
        let name = String::from_utf8_lossy(text);
        self.path.push('.');
        self.path.push_str(&name);
        self.known = None;
        match self.masks.scan(text) {
            Cow::Borrowed(_) => {
                if let (Some(of), Cow::Borrowed(name)) = (of, &name) {
                    self.known = self.met.remember(of, name, self.masks.field(&self.path));
                }
                self.emit(token, out);
            }
            Cow::Owned(masked) if self.hidden.is_none() => quote(&masked, out),
            Cow::Owned(_) => {}
        }
    }

    /// A number or a word.
    fn scalar(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if serde_json::from_slice::<IgnoredAny>(token).is_err() {
            return Err(NO_JSON.into());
        }
        self.value(token, token, out)
    }

    fn value(&mut self, token: &[u8], text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.value_may_begin()?;
        self.expected = self.behind_value();
        if self.hidden.is_some() {
            return Ok(());
        }
        if token != b"null" && self.show().is_some() {
            self.masked(text, out);
            return Ok(());
        }
        match self.masks.scan(text) {
            Cow::Borrowed(_) => out.extend_from_slice(token),
            Cow::Owned(masked) => quote(&masked, out),
        }
        Ok(())
    }

    fn value_may_begin(&self) -> Result<(), String> {
        match self.expected {
            Expected::Value | Expected::ValueOrEnd => Ok(()),
            _ => Err(NO_JSON.into()),
        }
    }

    fn behind_value(&self) -> Expected {
        if self.levels.is_empty() { Expected::Value } else { Expected::CommaOrEnd }
    }

    /// How the value at the path that is reached is shown, if it is masked.
    fn show(&self) -> Option<&Arc<Show>> {
        match self.known {
            Some(known) => self.met.show(known),
            None => self.masks.field(&self.path),
        }
    }

    /// A value at the path that is reached, as its mask shows it.
    fn masked(&self, text: &[u8], out: &mut Vec<u8>) {
        match self.show().and_then(|show| self.masks.masker.show(show, text)) {
            Some(shown) => quote(&shown, out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// The length of the string that begins here, looked for from where it was left; if it isn't all there, how far that was.
pub(crate) fn string_end(input: &[u8], mut at: usize) -> Result<usize, usize> {
    loop {
        let rest = input.get(at..).ok_or(at)?;
        at += memchr::memchr2(b'"', b'\\', rest).ok_or(input.len())?;
        match input.get(at) {
            Some(b'"') => return Ok(at + 1),
            _ => at += 2,
        }
    }
}

/// The text of a JSON string. What isn't Unicode (a lone surrogate, say) is left in its escapes.
pub(crate) fn unquoted(token: &[u8]) -> Cow<'_, [u8]> {
    let inside = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    serde_json::from_slice::<String>(token).map_or(Cow::Borrowed(inside), |text| text.into_bytes().into())
}

/// Writes a text as a JSON string.
pub(crate) fn quote(text: &[u8], out: &mut Vec<u8>) {
    // Nothing fails that is written to memory.
    let _ = serde_json::to_writer(out, &*String::from_utf8_lossy(text));
}
