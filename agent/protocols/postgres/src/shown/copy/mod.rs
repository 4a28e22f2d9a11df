//! COPY data on its way to the client, in chunks of any size.

mod binary;
mod csv;
mod text;

use std::sync::Arc;

use tidegate_gate::Masker;
use tidegate_policy::{ResultMasks, Shown};

use self::{binary::Binary, csv::Csv, text::Text};
use super::{
    CannotShow,
    rows::{ColumnType, Columns, Format, begin_message, end_message},
    value::Look,
};

/// A masked field longer than this isn't looked at but shown as if it were all sensitive. In bytes as sent.
const FIELD_MAX: usize = 1024 * 1024;

/// What the COPY statement's options make of the data (the manual's page on COPY, "File Formats").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    Text { delimiter: u8, null: Vec<u8>, header: bool },
    Csv { delimiter: u8, quote: u8, escape: u8, null: Vec<u8>, header: bool },
    Binary,
}

/// Shows the data of one COPY ... TO STDOUT. Columns that aren't masked pass without being held.
#[derive(Debug)]
pub(crate) struct CopyMasker {
    parser: Parser,
    fields: Fields,
}

#[derive(Debug)]
enum Parser {
    Text(Text),
    Csv(Csv),
    Binary(Binary),
}

impl CopyMasker {
    /// None if the data passes untouched. `types` are the columns' type ids; where they aren't known, masked values are
    /// texts in text formats, null in binary, and binary columns can't be scanned.
    pub(crate) fn new(
        masks: &ResultMasks,
        format: CopyFormat,
        types: Option<&[u32]>,
        columns: usize,
        masker: Arc<Masker>,
    ) -> Result<Option<Self>, CannotShow> {
        let values = if format == CopyFormat::Binary { Format::Binary } else { Format::Text };
        let columns_types: Vec<_> = match types {
            Some(types) => types.iter().map(|oid| ColumnType { oid: *oid, format: values }).collect(),
            None => vec![ColumnType { oid: 0, format: values }; columns],
        };
        if columns_types.len() != columns {
            return Err(CannotShow::Columns { expected: columns, found: columns_types.len() });
        }
        let columns = Columns::new(masks, &columns_types, masker).map_err(|cannot| match cannot {
            CannotShow::Unscannable { .. } if types.is_none() => CannotShow::Untyped,
            other => other,
        });
        let Some(columns) = columns? else { return Ok(None) };
        let hides = masks.hide_all() || masks.columns.iter().any(|shown| matches!(shown, Shown::Masked(_)));
        if hides
            && matches!(&format, CopyFormat::Text { null, .. } if !matches!(null.as_slice(), b"" | b"\\N"))
        {
            return Err(CannotShow::NullString);
        }
        let parser = match format {
            CopyFormat::Text { delimiter, null, header } => Parser::Text(Text::new(delimiter, null, header)),
            CopyFormat::Csv { delimiter, quote, escape, null, header } => {
                Parser::Csv(Csv::new(csv::Dialect { delimiter, quote, escape, null }, header))
            }
            CopyFormat::Binary => Parser::Binary(Binary::default()),
        };
        Ok(Some(Self { parser, fields: Fields { columns, at: 0, held: Vec::new(), is_too_long: false } }))
    }

    /// Takes the payload of a `CopyData` message and appends to `out` a whole one with what can be shown by now, if
    /// anything can. After an error nothing was appended, and the copy can't go on.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), CannotShow> {
        self.message(out, |parser, fields, out| match parser {
            Parser::Text(text) => text.push(chunk, fields, out),
            Parser::Csv(csv) => csv.push(chunk, fields, out),
            Parser::Binary(binary) => binary.push(chunk, fields, out),
        })
    }

    /// The upstream's data is at its end: shows what is left of it. Data that ends within a row is an error.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CannotShow> {
        self.message(out, |parser, fields, out| match parser {
            Parser::Text(text) => text.finish(fields, out),
            Parser::Csv(csv) => csv.finish(fields, out),
            Parser::Binary(binary) => binary.finish(),
        })
    }

    fn message(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Parser, &mut Fields, &mut Vec<u8>) -> Result<(), CannotShow>,
    ) -> Result<(), CannotShow> {
        let start = begin_message(b'd', out);
        let head = out.len();
        let mut written = write(&mut self.parser, &mut self.fields, out);
        if written.is_ok() && out.len() > head {
            written = end_message(start, out);
        } else {
            out.truncate(start);
        }
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

/// The fields of the row that is on its way: plain ones go straight to the output, others are held until they end.
#[derive(Debug)]
struct Fields {
    columns: Columns,
    at: usize,
    held: Vec<u8>,
    is_too_long: bool,
}

impl Fields {
    /// A part of the present field, as sent.
    fn part(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_plain() {
            out.extend_from_slice(bytes);
        } else if self.is_too_long || self.held.len() + bytes.len() > FIELD_MAX {
            self.is_too_long = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn is_plain(&self) -> bool {
        self.columns.is_plain(self.at)
    }

    /// How the present field looks, given what its held bytes stand for.
    fn look(&self, value: &[u8]) -> Result<Look, CannotShow> {
        self.columns.look(self.at, value)
    }

    /// How the present field looks if it was too long to be held.
    fn unseen(&self) -> Option<Look> {
        self.is_too_long.then(|| self.columns.unseen(self.at))
    }

    /// The present field is written; the next one begins.
    fn next(&mut self) -> Result<(), CannotShow> {
        if self.at >= self.columns.len() {
            return Err(CannotShow::Columns { expected: self.columns.len(), found: self.at + 1 });
        }
        self.held.clear();
        self.is_too_long = false;
        self.at += 1;
        Ok(())
    }

    /// The row is written.
    fn end_row(&mut self) -> Result<(), CannotShow> {
        self.columns.expect(self.at)?;
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
