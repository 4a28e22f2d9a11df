//! How one value is shown.

use hex::FromHex;
use serde::de::IgnoredAny;
use tidegate_gate::Masker;
use tidegate_policy::{ContentMask, Show, Shown};

use super::{
    array, json, number,
    read::{Malformed, Reader, Unreadable, put_field},
    record,
    rows::Format,
    types::Kind,
};

/// Arrays, records and ranges within each other, at most so deep.
const DEPTH_MAX: usize = 32;

/// What bounds the parts of a structured text, or quotes them.
const SYNTAX: &[u8] = b"\"'\\,;:=<>(){}[]";

/// How a value looks through a mask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As it was sent.
    AsIs,
    Null,
    Instead(Vec<u8>),
}

impl From<Option<Vec<u8>>> for Look {
    fn from(shown: Option<Vec<u8>>) -> Self {
        shown.map_or(Self::Null, Self::Instead)
    }
}

/// Shows a part of a text.
pub(super) type TextPart<'a> = dyn FnMut(&[u8]) -> Result<Look, Unreadable> + 'a;

/// Shows a part of a binary value, given its type.
pub(super) type BinaryPart<'a> = dyn FnMut(u32, &[u8]) -> Result<Look, Unreadable> + 'a;

/// Shows the values of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lens<'a> {
    pub(super) masker: &'a Masker,
    pub(super) shown: &'a Shown,
    depth: usize,
}

impl<'a> Lens<'a> {
    pub(super) fn new(masker: &'a Masker, shown: &'a Shown) -> Self {
        Self { masker, shown, depth: 0 }
    }

    pub(super) fn look(self, kind: Kind, format: Format, value: &[u8]) -> Result<Look, Unreadable> {
        match self.shown {
            Shown::Plain => Ok(Look::AsIs),
            Shown::Masked(show) => self.masked(show, kind, format, value),
            Shown::Scanned(mask) => self.scanned(mask, kind, format, value),
        }
    }

    /// How a value is shown that was too long to be looked at.
    pub(super) fn unseen(self, kind: Kind, format: Format) -> Look {
        let redact = Show::Redact("***".into());
        let show = match self.shown {
            Shown::Masked(show) if matches!(**show, Show::Redact(_) | Show::Null) => show,
            _ => &redact,
        };
        match kind {
            Kind::Array(_) => Look::Null,
            _ => self.masked(show, kind, format, b"").unwrap_or(Look::Null),
        }
    }

    fn masked(self, show: &Show, kind: Kind, format: Format, value: &[u8]) -> Result<Look, Unreadable> {
        Ok(match (kind, format) {
            (Kind::Text, _) => self.masker.show(show, value).into(),
            (Kind::Padded, _) => self.masker.show(show, value.trim_ascii_end()).into(),
            (Kind::Json, _) | (Kind::Jsonb, Format::Text) => json::masked(self.masker, show, value),
            (Kind::Jsonb, Format::Binary) => {
                let (version, text) = jsonb_version(value)?;
                with_version(version, json::masked(self.masker, show, text))
            }
            (Kind::Array(_), _) if *show == Show::Null => Look::Null,
            (Kind::Array(element), Format::Text) if Kind::of(element).is_text() => {
                array::text(value, &mut |text| self.masked(show, Kind::of(element), Format::Text, text))?
            }
            (Kind::Array(_), Format::Binary) => array::binary(value, &mut |element, bytes| {
                let kind = Kind::of(element);
                if kind.is_text() { self.masked(show, kind, Format::Binary, bytes) } else { Ok(Look::Null) }
            })?,
            (Kind::Unknown, Format::Text) if !is_structured(value) => self.masker.show(show, value).into(),
            _ => Look::Null,
        })
    }

    fn scanned(
        self,
        mask: &ContentMask,
        kind: Kind,
        format: Format,
        value: &[u8],
    ) -> Result<Look, Unreadable> {
        match (kind, format) {
            (Kind::Inert, _) => Ok(Look::AsIs),
            (Kind::Text | Kind::Padded, _) | (Kind::Bytea, Format::Binary) => {
                Ok(self.scanned_text(mask, value))
            }
            (Kind::Json, _) | (Kind::Jsonb, Format::Text) => Ok(json::scanned(self.masker, mask, value)?),
            (Kind::Jsonb, Format::Binary) => {
                let (version, text) = jsonb_version(value)?;
                Ok(with_version(version, json::scanned(self.masker, mask, text)?))
            }
            (Kind::Bytea, Format::Text) => self.scanned_bytea(mask, value),
            (Kind::Integer | Kind::Float | Kind::Numeric, Format::Binary) => {
                Ok(self.null_if_found(mask, number::text(kind, value)?.as_bytes()))
            }
            (Kind::Float, Format::Text) => Ok(self.null_if_found(mask, number::plain(value).as_bytes())),
            (
                Kind::Integer | Kind::Numeric | Kind::Encoded | Kind::Range(_) | Kind::Multirange(_),
                Format::Text,
            ) => Ok(self.null_if_found(mask, value)),
            (Kind::Range(element), Format::Binary) => self.scanned_range(mask, element, value),
            (Kind::Multirange(element), Format::Binary) => self.scanned_multirange(mask, element, value),
            (Kind::Array(element), Format::Text) => array::text(value, &mut |text| {
                self.inner()?.scanned(mask, Kind::of(element), Format::Text, text)
            }),
            (Kind::Array(_), Format::Binary) => {
                array::binary(value, &mut |element, bytes| self.scanned_part(mask, element, bytes))
            }
            (Kind::Record, Format::Text) => record::text(value, &mut |text| {
                self.inner()?.scanned(mask, Kind::Unknown, Format::Text, text)
            }),
            (Kind::Record, Format::Binary) => {
                record::binary(value, &mut |oid, bytes| self.scanned_part(mask, oid, bytes))
            }
            (Kind::Unknown, Format::Text) => Ok(self.scanned_unknown(mask, value)),
            (Kind::Encoded | Kind::Unknown, Format::Binary) => Err(Unreadable::Binary(None)),
        }
    }

    /// A binary part that names its own type.
    fn scanned_part(self, mask: &ContentMask, oid: u32, bytes: &[u8]) -> Result<Look, Unreadable> {
        self.inner()?.scanned(mask, Kind::of(oid), Format::Binary, bytes).map_err(|error| match error {
            Unreadable::Binary(None) => Unreadable::Binary(Some(oid)),
            error => error,
        })
    }

    fn inner(self) -> Result<Self, Unreadable> {
        if self.depth >= DEPTH_MAX {
            return Err(Malformed("values nested too deeply").into());
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn scanned_text(self, mask: &ContentMask, value: &[u8]) -> Look {
        match self.masker.scan(mask, value) {
            std::borrow::Cow::Borrowed(_) => Look::AsIs,
            std::borrow::Cow::Owned(shown) => Look::Instead(shown),
        }
    }

    fn null_if_found(self, mask: &ContentMask, text: &[u8]) -> Look {
        if self.masker.finds(mask, text).is_empty() { Look::AsIs } else { Look::Null }
    }

    /// `bytea` in text: hex or the older escape format (8.4 of the manual). Shown in hex if anything was found.
    fn scanned_bytea(self, mask: &ContentMask, value: &[u8]) -> Result<Look, Unreadable> {
        let bytes = match value.strip_prefix(b"\\x") {
            Some(digits) => Vec::from_hex(digits).map_err(|_| Malformed("bytea that is not hex"))?,
            None => unescape_bytea(value)?,
        };
        Ok(match self.scanned_text(mask, &bytes) {
            Look::Instead(shown) => Look::Instead(format!("\\x{}", hex::encode(shown)).into_bytes()),
            other => other,
        })
    }

    /// A flag byte, then each bound that is there (`range_send` in `rangetypes.c`).
    fn scanned_range(self, mask: &ContentMask, element: u32, value: &[u8]) -> Result<Look, Unreadable> {
        const EMPTY: u8 = 0x01;
        const LOWER_INFINITE: u8 = 0x08;
        const UPPER_INFINITE: u8 = 0x10;
        let mut reader = Reader::new(value);
        let [flags] = reader.array()?;
        let mut look = Look::AsIs;
        for absent in [EMPTY | LOWER_INFINITE, EMPTY | UPPER_INFINITE] {
            if flags & absent != 0 {
                continue;
            }
            let bound = reader.field()?.unwrap_or_default();
            if self.scanned_part(mask, element, bound)? != Look::AsIs {
                look = Look::Null;
            }
        }
        reader.finish()?;
        Ok(look)
    }

    /// A count, then each range with its length (`multirange_send` in `multirangetypes.c`).
    fn scanned_multirange(self, mask: &ContentMask, element: u32, value: &[u8]) -> Result<Look, Unreadable> {
        let mut reader = Reader::new(value);
        let mut look = Look::AsIs;
        for _ in 0..reader.count()? {
            let range = reader.field()?.unwrap_or_default();
            if self.scanned_range(mask, element, range)? != Look::AsIs {
                look = Look::Null;
            }
        }
        reader.finish()?;
        Ok(look)
    }

    /// Text of a type that only the server's catalog knows, or a record's field. What reads as a record, an array, JSON or
    /// hex is taken for one. In any other structure a find is masked in place if that can't touch the syntax; else the
    /// value is null. So is a number in which something was found, unless it is a value by itself: a record's field must
    /// stay what its type reads.
    fn scanned_unknown(self, mask: &ContentMask, value: &[u8]) -> Look {
        if self.depth > 0 && is_number(value) {
            return self.null_if_found(mask, value);
        }
        if value.starts_with(b"\\x") {
            return self.scanned_bytea(mask, value).unwrap_or_else(|_| self.scanned_text(mask, value));
        }
        if !is_structured(value) {
            return self.scanned_text(mask, value);
        }
        if let Some(look) = self.scanned_structure(mask, value) {
            return look;
        }
        let touches_syntax = |text: &[u8]| text.iter().any(|byte| SYNTAX.contains(byte));
        let is_safe = self.masker.finds(mask, value).iter().all(|find| {
            let found = value.get(find.span.clone()).unwrap_or_default();
            value.first() != Some(&b'[')
                && !touches_syntax(found)
                && !self.masker.show(find.show, found).is_some_and(|shown| touches_syntax(&shown))
        });
        if is_safe { self.scanned_text(mask, value) } else { Look::Null }
    }

    /// A record, an array or JSON by its looks; none if it is neither.
    fn scanned_structure(self, mask: &ContentMask, value: &[u8]) -> Option<Look> {
        let inner = self.inner().ok()?;
        let mut part = |text: &[u8]| Ok(inner.scanned_unknown(mask, text));
        let parsed = match value.first() {
            Some(b'(') => record::text(value, &mut part),
            _ => array::text(value, &mut part),
        };
        if let Ok(look) = parsed {
            return Some(look);
        }
        // `[1,2]` may as well be a range.
        let is_json = serde_json::from_slice::<IgnoredAny>(value).is_ok()
            && serde_json::from_slice::<(f64, f64)>(value).is_err();
        if is_json { json::scanned(self.masker, mask, value).ok() } else { None }
    }
}

/// Whether a text is a number and nothing else.
fn is_number(value: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    !value.starts_with(b"+") && !value.is_empty() && value.iter().all(is_part)
}

/// Whether a text begins as records, arrays, ranges, hstore, JSON or XML do.
fn is_structured(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'(' | b'{' | b'[' | b'"' | b'<'))
}

/// `jsonb_send` puts a version before the text, so far always 1.
fn jsonb_version(value: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    match value {
        [1, text @ ..] => Ok((1, text)),
        _ => Err(Malformed("jsonb of an unknown version")),
    }
}

fn with_version(version: u8, look: Look) -> Look {
    match look {
        Look::Instead(mut text) => {
            text.insert(0, version);
            Look::Instead(text)
        }
        other => other,
    }
}

fn unescape_bytea(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    loop {
        rest = match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return Err(Malformed("bytea with a broken escape")),
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// Writes a changed list of parts: what lies between the changes is copied as it was sent.
#[derive(Debug)]
pub(super) struct Patch<'a> {
    source: &'a [u8],
    copied: usize,
    out: Vec<u8>,
}

impl<'a> Patch<'a> {
    pub(super) fn new(source: &'a [u8]) -> Self {
        Self { source, copied: 0, out: Vec::new() }
    }

    /// Where to write what stands in place of these bytes.
    pub(super) fn replace(&mut self, span: std::ops::Range<usize>) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.source.get(self.copied..span.start).unwrap_or_default());
        self.copied = span.end;
        &mut self.out
    }

    /// Replaces a length-prefixed field.
    pub(super) fn replace_field(
        &mut self,
        span: std::ops::Range<usize>,
        value: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        put_field(value, self.replace(span))
    }

    pub(super) fn finish(mut self) -> Look {
        if self.copied == 0 {
            return Look::AsIs;
        }
        self.out.extend_from_slice(self.source.get(self.copied..).unwrap_or_default());
        Look::Instead(self.out)
    }
}
