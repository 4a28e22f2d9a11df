//! COPY's CSV format.

use super::Fields;
use crate::shown::{CannotShow, value::Look};

/// The options that shape the data.
#[derive(Debug)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    pub(super) escape: u8,
    pub(super) null: Vec<u8>,
}

/// Splits records into fields: a newline within quotes is part of a value.
#[derive(Debug)]
pub(super) struct Csv {
    dialect: Dialect,
    in_header: bool,
    in_quotes: bool,
    is_escaped: bool,
    is_at_start: bool,
}

impl Csv {
    pub(super) fn new(dialect: Dialect, header: bool) -> Self {
        Self { dialect, in_header: header, in_quotes: false, is_escaped: false, is_at_start: true }
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
            let length = self.special(rest).unwrap_or(rest.len());
            let (part, after) = rest.split_at(length);
            self.part(part, fields, out);
            let Some((byte, after)) = after.split_first() else { return Ok(()) };
            rest = after;
            self.take(*byte, fields, out)?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        if self.in_quotes {
            return Err(CannotShow::Malformed("CSV that ends within quotes"));
        }
        if self.is_at_start || self.in_header {
            return Ok(());
        }
        self.end_field(fields, out)?;
        fields.end_row()
    }

    /// Where the next byte is that may change the state.
    fn special(&self, rest: &[u8]) -> Option<usize> {
        let Dialect { delimiter, quote, escape, .. } = self.dialect;
        if self.is_escaped {
            Some(0)
        } else if self.in_quotes {
            memchr::memchr2(quote, escape, rest)
        } else {
            memchr::memchr3(delimiter, b'\n', quote, rest)
        }
    }

    fn take(&mut self, byte: u8, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let Dialect { delimiter, quote, escape, .. } = self.dialect;
        if self.is_escaped {
            self.is_escaped = false;
            self.part(&[byte], fields, out);
        } else if byte == quote {
            // A doubled quote ends and begins: the value goes on.
            self.in_quotes = !self.in_quotes;
            self.part(&[byte], fields, out);
        } else if self.in_quotes && byte == escape {
            self.is_escaped = true;
            self.part(&[byte], fields, out);
        } else if byte == b'\n' {
            if self.in_header {
                self.in_header = false;
            } else {
                self.end_field(fields, out)?;
                fields.end_row()?;
            }
            out.push(b'\n');
            self.is_at_start = true;
        } else {
            if !self.in_header {
                self.end_field(fields, out)?;
            }
            out.push(delimiter);
        }
        Ok(())
    }

    fn part(&self, bytes: &[u8], fields: &mut Fields, out: &mut Vec<u8>) {
        if self.in_header {
            out.extend_from_slice(bytes);
        } else {
            fields.part(bytes, out);
        }
    }

    fn end_field(&self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        if !fields.is_plain() {
            let look = match fields.unseen() {
                Some(look) => look,
                None if fields.held == self.dialect.null => Look::AsIs,
                None => fields.look(&self.dialect.unquoted(&fields.held))?,
            };
            match look {
                Look::AsIs => out.extend_from_slice(&fields.held),
                Look::Null => out.extend_from_slice(&self.dialect.null),
                Look::Instead(shown) => self.dialect.put(&shown, out),
            }
        }
        fields.next()
    }
}

impl Dialect {
    /// What a field's text stands for.
    fn unquoted(&self, field: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(field.len());
        let mut in_quotes = false;
        let mut bytes = field.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if in_quotes
                && byte == self.escape
                && let Some(next) = bytes.next_if(|next| *next == self.quote || *next == self.escape)
            {
                value.push(next);
                continue;
            }
            if byte == self.quote {
                in_quotes = !in_quotes;
            } else {
                value.push(byte);
            }
        }
        value
    }

    /// Writes a value in quotes where it needs them. That its field had them would tell of what is hidden.
    fn put(&self, value: &[u8], out: &mut Vec<u8>) {
        let is_special = |byte: &u8| {
            *byte == self.delimiter
                || *byte == self.quote
                || *byte == self.escape
                || matches!(byte, b'\n' | b'\r')
        };
        if value != self.null && value != b"\\." && !value.iter().any(is_special) {
            out.extend_from_slice(value);
            return;
        }
        out.push(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}
