//! Big-endian fields of PostgreSQL's binary formats.

/// What the upstream sent isn't what the protocol or its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Why a value can't be read; the caller knows its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Malformed(Malformed),
    /// Nothing here reads the binary format of its type, or of this type of one of its parts.
    Binary(Option<u32>),
}

impl From<Malformed> for Unreadable {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// Reads from the front.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed("a value cut short"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("a value cut short"))?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Malformed("a value cut short"))
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A count that must not be negative.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.i32()?).map_err(|_| Malformed("a negative count"))
    }

    /// Length and value; none for null (a length of -1).
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed("a negative length"))?;
                self.take(length).map(Some)
            }
        }
    }

    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Malformed("bytes after a value's end")) }
    }
}

/// Appends length and value; none for null.
pub(super) fn put_field(value: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = value.map_or(Ok(-1), |value| i32::try_from(value.len()));
    let length = length.map_err(|_| Malformed("a value longer than 2 GiB"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
    Ok(())
}
