//! COPY's text format: lines of fields, each escaped by backslashes.

use std::borrow::Cow;

use super::Fields;
use crate::shown::{CannotShow, value::Look};

/// Splits lines into fields. The server ends lines with a newline alone (`CopySendEndOfRow` in `copyto.c`).
#[derive(Debug)]
pub(super) struct Text {
    delimiter: u8,
    null: Vec<u8>,
    in_header: bool,
    is_escaped: bool,
    is_at_start: bool,
}

impl Text {
    pub(super) fn new(delimiter: u8, null: Vec<u8>, header: bool) -> Self {
        Self { delimiter, null, in_header: header, is_escaped: false, is_at_start: true }
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        fields: &mut Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), CannotShow> {
        let mut rest = chunk;
        while !rest.is_empty() {
            self.is_at_start = false;
            if self.is_escaped || self.in_header {
                rest = self.pass_one(rest, fields, out);
                continue;
            }
            let length = memchr::memchr3(self.delimiter, b'\n', b'\\', rest).unwrap_or(rest.len());
            let (part, after) = rest.split_at(length);
            fields.part(part, out);
            let Some((byte, after)) = after.split_first() else { return Ok(()) };
            rest = after;
            match byte {
                b'\\' => {
                    fields.part(b"\\", out);
                    self.is_escaped = true;
                }
                b'\n' => {
                    self.end_field(fields, out)?;
                    fields.end_row()?;
                    out.push(b'\n');
                    self.is_at_start = true;
                }
                _ => {
                    self.end_field(fields, out)?;
                    out.push(self.delimiter);
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        if self.is_at_start || self.in_header {
            return Ok(());
        }
        self.end_field(fields, out)?;
        fields.end_row()
    }

    /// The byte after a backslash, or all that is here of the header line.
    fn pass_one<'c>(&mut self, rest: &'c [u8], fields: &mut Fields, out: &mut Vec<u8>) -> &'c [u8] {
        if self.in_header {
            let end = memchr::memchr(b'\n', rest);
            let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            out.extend_from_slice(line);
            self.in_header = end.is_none();
            self.is_at_start = end.is_some();
            return after;
        }
        let (byte, after) = rest.split_at(1);
        fields.part(byte, out);
        self.is_escaped = false;
        after
    }

    fn end_field(&self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        if !fields.is_plain() {
            let look = match fields.unseen() {
                Some(look) => look,
                None if fields.held == self.null => Look::AsIs,
                None => fields.look(&unescaped(&fields.held))?,
            };
            match look {
                Look::AsIs => out.extend_from_slice(&fields.held),
                Look::Null => out.extend_from_slice(&self.null),
                Look::Instead(shown) => put_escaped(&shown, self.delimiter, out),
            }
        }
        fields.next()
    }
}

/// What a field's text stands for.
fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut value = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            value.push(*byte);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else {
            value.push(b'\\');
            break;
        };
        rest = after;
        match escape {
            b'b' => value.push(0x08),
            b'f' => value.push(0x0C),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b't' => value.push(b'\t'),
            b'v' => value.push(0x0B),
            b'0'..=b'7' => rest = put_number(escape - b'0', rest, 8, &mut value),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                rest = put_number(0, rest, 16, &mut value)
            }
            other => value.push(*other),
        }
    }
    Cow::Owned(value)
}

/// Two more digits at most of an octal or hexadecimal escape; what follows them.
fn put_number<'a>(first: u8, mut rest: &'a [u8], radix: u8, value: &mut Vec<u8>) -> &'a [u8] {
    let mut byte = first;
    for _ in 0..2 {
        let Some((digit, after)) = rest.split_first() else { break };
        let Some(digit) =
            char::from(*digit).to_digit(u32::from(radix)).and_then(|digit| u8::try_from(digit).ok())
        else {
            break;
        };
        byte = byte.wrapping_mul(radix).wrapping_add(digit);
        rest = after;
    }
    value.push(byte);
    rest
}

fn put_escaped(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x0B => out.extend_from_slice(b"\\v"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte if *byte == delimiter => out.extend_from_slice(&[b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
}
