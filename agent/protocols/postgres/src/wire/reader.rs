//! A cursor over a message's body.

use super::{Format, Formats, Oids, Text, WireError};

/// What is left of a body. Errors name the part that is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Ends(what))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.array(what).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, WireError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireError::Ends(what))?;
        self.0 = rest;
        Ok(head)
    }

    /// A string up to its terminator.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<Text<'a>, WireError> {
        let end = memchr::memchr(0, self.0).ok_or(WireError::Unterminated(what))?;
        let (head, rest) = self.0.split_at(end);
        self.0 = rest.split_first().map_or(&[][..], |(_, rest)| rest);
        Ok(Text(head))
    }

    /// A value after its length word; none for null (-1).
    pub(crate) fn value(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        match self.i32(what)? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length)
                    .map_err(|_| WireError::Value { what: "value length", value: length.into() })?;
                self.bytes(length, what).map(Some)
            }
        }
    }

    /// Format codes after their count.
    pub(crate) fn formats(&mut self, what: &'static str) -> Result<Formats<'a>, WireError> {
        let count = usize::from(self.u16(what)?);
        let (codes, _) = self.bytes(count * 2, what)?.as_chunks::<2>();
        for code in codes {
            Format::parse(u16::from_be_bytes(*code))?;
        }
        Ok(Formats(codes))
    }

    /// Object ids after their count.
    pub(crate) fn oids(&mut self, what: &'static str) -> Result<Oids<'a>, WireError> {
        let count = usize::from(self.u16(what)?);
        Ok(Oids(self.bytes(count * 4, what)?.as_chunks::<4>().0))
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}
