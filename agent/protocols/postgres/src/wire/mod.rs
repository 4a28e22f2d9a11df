//! The wire format of the frontend/backend protocol, versions 3.0 and 3.2: bytes in, messages out. Pure.
//!
//! It is whole: what the gate has no use for yet is there all the same.
//!
//! Every parser is total: any bytes give a message or a [`WireError`], and nothing is allocated beyond what the
//! bytes at hand can hold. Source: PostgreSQL documentation, "Message Formats".

#![cfg_attr(
    not(feature = "fuzzing"),
    expect(dead_code, reason = "the codec is whole, whatever the gate has a use for")
)]

pub(crate) mod backend;
pub(crate) mod fields;
pub(crate) mod frontend;
pub(crate) mod reader;
pub(crate) mod startup;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod tour;
pub(crate) mod write;

use std::fmt;

use thiserror::Error;

pub(crate) use fields::ErrorFields;
pub(crate) use startup::{Startup, startup};

/// Bytes before a message's body: its tag and its length word.
pub(crate) const HEADER_BYTES: usize = 5;

/// The largest length word that a server takes or sends: PostgreSQL's `MaxAllocSize`, one byte short of 1 GiB.
const MAX_LENGTH_WORD: u32 = 0x3fff_ffff;

/// What bytes can be wrong in. Who sent them is known to the caller, and so who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// The length word cannot be.
    #[error("message {:?} has the impossible length {length}", char::from(*tag))]
    Length {
        /// The message's tag.
        tag: u8,
        /// The length word.
        length: u32,
    },
    /// The length word of a packet without a tag cannot be.
    #[error("a startup packet has the impossible length {0}")]
    StartupLength(u32),
    /// The body is shorter than what it says it holds.
    #[error("the message ends before its {0}")]
    Ends(&'static str),
    /// The body is longer than what it holds.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// A string has no end.
    #[error("the {0} is not terminated")]
    Unterminated(&'static str),
    /// A string is not UTF-8 where nothing else can be understood.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A field has a value that the protocol does not know.
    #[error("{value} is no {what}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// The tag is none that this side may send.
    #[error("{:?} is no message type", char::from(*.0))]
    Tag(u8),
}

/// The start of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Message type.
    pub(crate) tag: u8,
    /// Bytes of the body that follows the header.
    pub(crate) length: usize,
}

impl Header {
    /// Bytes of the whole message.
    pub(crate) fn size(self) -> usize {
        HEADER_BYTES + self.length
    }
}

/// Reads a message's header; none while fewer than [`HEADER_BYTES`] are there.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, WireError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=MAX_LENGTH_WORD).contains(&length) {
        return Err(WireError::Length { tag, length });
    }
    Ok(Some(Header { tag, length: length as usize - 4 }))
}

/// A string of the protocol, without its terminator: bytes in whatever encoding the session has.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The bytes, none of them zero.
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The string, if it is UTF-8.
    pub(crate) fn to_str(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.0).map_err(|_| WireError::NotUtf8)
    }

    /// Whether it is the empty string: the name of the unnamed statement and portal.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// The type's text form.
    #[default]
    Text,
    /// The type's binary form.
    Binary,
}

impl Format {
    /// The code on the wire.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    fn parse(code: u16) -> Result<Self, WireError> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => Err(WireError::Value { what: "format code", value: other.into() }),
        }
    }
}

/// A list of format codes, each known to be one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Formats<'a>(&'a [[u8; 2]]);

impl<'a> Formats<'a> {
    /// How many codes were given; not the number of values that they are for.
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// The codes as given.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = Format> + 'a {
        self.0.iter().map(|code| if *code == [0, 0] { Format::Text } else { Format::Binary })
    }

    /// The format of one of the values of a Bind: no code means text, a single one counts for all values.
    /// None if there are codes, but not for this value.
    pub(crate) fn of(self, index: usize) -> Option<Format> {
        match self.0.len() {
            0 => Some(Format::Text),
            1 => self.iter().next(),
            _ => self.iter().nth(index),
        }
    }
}

/// A list of object ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Oids<'a>(&'a [[u8; 4]]);

impl<'a> Oids<'a> {
    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// The ids in order.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}
