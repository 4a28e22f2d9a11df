//! COPY's binary format.

use super::Fields;
use crate::shown::{CannotShow, read::put_field, value::Look};

const SIGNATURE: [u8; 11] = *b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, and the length of the header's extension.
const HEAD: usize = 19;
/// Flags that a reader must understand; no server since 12 sets any.
const CRITICAL_FLAGS: u32 = 0xFFFF_0000;

/// Splits tuples into fields.
#[derive(Debug, Default)]
pub(super) struct Binary {
    state: State,
    /// Bytes of a fixed-size part that isn't whole yet.
    partial: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    Extension {
        remaining: usize,
    },
    Tuple,
    Length,
    Value {
        remaining: usize,
    },
    End,
}

impl Binary {
    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        fields: &mut Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), CannotShow> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let remaining = match self.state {
                State::Extension { remaining } | State::Value { remaining } => remaining,
                State::Head => HEAD - self.partial.len(),
                State::Tuple => 2 - self.partial.len(),
                State::Length => 4 - self.partial.len(),
                State::End => return Err(CannotShow::Malformed("COPY data after its end")),
            };
            let (part, after) = rest.split_at(remaining.min(rest.len()));
            rest = after;
            let remaining = remaining - part.len();
            match self.state {
                State::Extension { .. } => {
                    out.extend_from_slice(part);
                    self.state = if remaining == 0 { State::Tuple } else { State::Extension { remaining } };
                }
                State::Value { .. } => {
                    fields.part(part, out);
                    self.state = State::Value { remaining };
                    if remaining == 0 {
                        self.end_value(fields, out)?;
                    }
                }
                State::Head | State::Tuple | State::Length | State::End => {
                    self.partial.extend_from_slice(part);
                    if remaining == 0 {
                        self.take_partial(fields, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), CannotShow> {
        match self.state {
            State::End => Ok(()),
            _ => Err(CannotShow::Malformed("COPY data without its end")),
        }
    }

    fn take_partial(&mut self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let part = std::mem::take(&mut self.partial);
        match self.state {
            State::Tuple => self.begin_tuple(&part, fields, out),
            State::Length => self.begin_value(&part, fields, out),
            _ => {
                let extension = extension_length(&part)?;
                out.extend_from_slice(&part);
                self.state =
                    if extension == 0 { State::Tuple } else { State::Extension { remaining: extension } };
                Ok(())
            }
        }
    }

    /// A tuple's number of fields; -1 ends the data.
    fn begin_tuple(&mut self, part: &[u8], fields: &Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let count = part.first_chunk().map_or(-1, |bytes| i16::from_be_bytes(*bytes));
        out.extend_from_slice(part);
        self.state = match usize::try_from(count) {
            Ok(count) => {
                fields.columns.expect(count)?;
                if count == 0 { State::Tuple } else { State::Length }
            }
            Err(_) if count == -1 => State::End,
            Err(_) => return Err(CannotShow::Malformed("a COPY tuple with a negative count")),
        };
        Ok(())
    }

    fn begin_value(&mut self, part: &[u8], fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let length = part.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
        match usize::try_from(length) {
            Ok(length) => {
                if fields.is_plain() {
                    out.extend_from_slice(part);
                }
                self.state = State::Value { remaining: length };
                if length == 0 { self.end_value(fields, out) } else { Ok(()) }
            }
            Err(_) if length == -1 => {
                out.extend_from_slice(part);
                self.next(fields)
            }
            Err(_) => Err(CannotShow::Malformed("a COPY field with a negative length")),
        }
    }

    fn end_value(&mut self, fields: &mut Fields, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        if !fields.is_plain() {
            let look = match fields.unseen() {
                Some(look) => look,
                None => fields.look(&fields.held)?,
            };
            match look {
                Look::AsIs => put_field(Some(&fields.held), out)?,
                Look::Null => put_field(None, out)?,
                Look::Instead(shown) => put_field(Some(&shown), out)?,
            }
        }
        self.next(fields)
    }

    fn next(&mut self, fields: &mut Fields) -> Result<(), CannotShow> {
        fields.next()?;
        self.state = State::Length;
        if fields.at == fields.columns.len() {
            fields.end_row()?;
            self.state = State::Tuple;
        }
        Ok(())
    }
}

/// Checks the head; the length of the extension that follows it.
fn extension_length(head: &[u8]) -> Result<usize, CannotShow> {
    let malformed = CannotShow::Malformed("COPY data with an unknown head");
    let (Some(rest), Some(flags)) = (head.strip_prefix(&SIGNATURE), head.get(11..15)) else {
        return Err(malformed);
    };
    let flags = flags.first_chunk().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes));
    let length = rest.last_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
    if flags & CRITICAL_FLAGS != 0 {
        return Err(malformed);
    }
    usize::try_from(length).map_err(|_| malformed)
}
