//! How results are shown: masks on rows and COPY data of every wire format, and on errors and notices.
//!
//! A masked value is still a value of its column's type, since clients decode it. Text (and what is read as text: names,
//! XML, enumerations, domains over text) is shown as the mask says. JSON is shown as a JSON string. An array of these is
//! shown element by element. A value of any other type can't be shown in part, so it is null, whatever the mask says.
//!
//! A scanned value keeps its syntax: elements, fields and JSON leaves are taken out, masked and quoted again. Numbers in
//! which something is found are null. Types that can't hold what detectors look for (dates, booleans, UUIDs, network
//! addresses, geometry, object ids) pass, own patterns included. What can't be decoded is refused.
//!
//! A null is shown as null: that a value is absent isn't hidden.

mod array;
mod copy;
mod errors;
mod json;
mod number;
mod read;
mod record;
mod rows;
mod types;
mod value;

pub(crate) use copy::{CopyFormat, CopyMasker};
pub(crate) use errors::error_fields;
pub(crate) use rows::{ColumnType, RowMasker};

/// Why something can't be shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotShow {
    /// The client asked for a binary format that the gate doesn't read; columns count from one.
    #[error("column {column} (type {oid} in binary) cannot be scanned for content; cast it to text")]
    Unscannable { column: usize, oid: u32 },
    /// Nothing says what the binary values of a COPY are.
    #[error(
        "COPY in binary cannot be scanned for content where the columns' types are not known beforehand, as for a \
         query: copy in text or csv format"
    )]
    Untyped,
    /// The upstream's result isn't the one that was decided on.
    #[error("the result has {found} columns, but masks were decided for {expected}")]
    Columns { expected: usize, found: usize },
    /// The upstream's bytes break the protocol.
    #[error("the server sent {0}")]
    Malformed(&'static str),
    /// The statement asks for COPY data that the gate doesn't read.
    #[error("masked data can't be copied with {0}: leave that option out")]
    Layout(&'static str),
    /// A value that is the NULL string would be taken for NULL and stay unmasked.
    #[error("in COPY's text format a masked value may equal the NULL string: leave that as \\N, or empty")]
    NullString,
    /// Masked, the message is longer than the protocol's limit.
    #[error("the masked message is too long for the protocol")]
    TooLong,
}
