//! Rows of queries: `DataRow` messages.

use std::sync::Arc;

use tidegate_gate::Masker;
use tidegate_policy::{ResultMasks, Shown};

use super::{
    CannotShow,
    read::{Malformed, Reader, Unreadable, put_field},
    types::Kind,
    value::{Lens, Look},
};
pub(crate) use crate::wire::Format;

/// A column as `RowDescription` and the portal's result formats give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnType {
    /// Its type's object id.
    pub(crate) oid: u32,
    /// What its values are sent in.
    pub(crate) format: Format,
}

/// Shows the rows of one result.
#[derive(Debug)]
pub(crate) struct RowMasker {
    columns: Columns,
}

impl RowMasker {
    /// None if rows pass untouched. Refuses what can't be scanned before any row is sent.
    pub(crate) fn new(
        masks: &ResultMasks,
        types: &[ColumnType],
        masker: Arc<Masker>,
    ) -> Result<Option<Self>, CannotShow> {
        Ok(Columns::new(masks, types, masker)?.map(|columns| Self { columns }))
    }

    /// Appends the whole masked message to `out`, given the body of a `DataRow`. On an error nothing is appended.
    pub(crate) fn data_row(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let start = out.len();
        let shown = self.append(body, out);
        if shown.is_err() {
            out.truncate(start);
        }
        shown
    }

    fn append(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), CannotShow> {
        let message = begin_message(b'D', out);
        out.reserve(body.len());
        let mut reader = Reader::new(body);
        let count = u16::from_be_bytes(reader.array()?);
        self.columns.expect(usize::from(count))?;
        let mut copied = 0;
        for index in 0..self.columns.len() {
            let start = reader.position();
            let Some(value) = reader.field()? else { continue };
            let shown = match self.columns.look(index, value)? {
                Look::AsIs => continue,
                Look::Null => None,
                Look::Instead(shown) => Some(shown),
            };
            out.extend_from_slice(body.get(copied..start).unwrap_or_default());
            put_field(shown.as_deref(), out)?;
            copied = reader.position();
        }
        reader.finish()?;
        out.extend_from_slice(body.get(copied..).unwrap_or_default());
        end_message(message, out)
    }
}

/// The columns of one result, and how each is shown.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    masker: Arc<Masker>,
}

#[derive(Debug)]
struct Column {
    oid: u32,
    kind: Kind,
    format: Format,
    shown: Shown,
}

impl Columns {
    /// None if all are shown as they are.
    pub(super) fn new(
        masks: &ResultMasks,
        types: &[ColumnType],
        masker: Arc<Masker>,
    ) -> Result<Option<Self>, CannotShow> {
        if masks.is_plain() {
            return Ok(None);
        }
        if masks.whole.is_none() && masks.columns.len() != types.len() {
            return Err(CannotShow::Columns { expected: masks.columns.len(), found: types.len() });
        }
        let shown = |index: usize| match &masks.whole {
            Some(shown) => shown.clone(),
            None => masks.columns.get(index).cloned().unwrap_or_default(),
        };
        let column = |(index, column): (usize, &ColumnType)| {
            let (kind, shown) = (Kind::of(column.oid), shown(index));
            let is_scanned = matches!(shown, Shown::Scanned(_));
            if is_scanned && column.format == Format::Binary && !kind.is_read_in_binary() {
                return Err(CannotShow::Unscannable { column: index + 1, oid: column.oid });
            }
            Ok(Column { oid: column.oid, kind, format: column.format, shown })
        };
        let columns = types.iter().enumerate().map(column).collect::<Result<_, _>>()?;
        Ok(Some(Self { columns, masker }))
    }

    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// The upstream sends as many columns as were decided on.
    pub(super) fn expect(&self, found: usize) -> Result<(), CannotShow> {
        let expected = self.columns.len();
        if found == expected { Ok(()) } else { Err(CannotShow::Columns { expected, found }) }
    }

    /// Whether the values of this column are shown as they are.
    pub(super) fn is_plain(&self, index: usize) -> bool {
        self.columns.get(index).is_some_and(|column| matches!(column.shown, Shown::Plain))
    }

    /// How a value looks.
    pub(super) fn look(&self, index: usize, value: &[u8]) -> Result<Look, CannotShow> {
        let Some(column) = self.columns.get(index) else {
            return Err(CannotShow::Columns { expected: self.columns.len(), found: index + 1 });
        };
        if matches!(column.shown, Shown::Plain) {
            return Ok(Look::AsIs);
        }
        Lens::new(&self.masker, &column.shown).look(column.kind, column.format, value).map_err(|error| {
            match error {
                Unreadable::Malformed(error) => error.into(),
                Unreadable::Binary(part) => {
                    CannotShow::Unscannable { column: index + 1, oid: part.unwrap_or(column.oid) }
                }
            }
        })
    }

    /// How a value looks that was too long to be looked at.
    pub(super) fn unseen(&self, index: usize) -> Look {
        match self.columns.get(index) {
            Some(column) => Lens::new(&self.masker, &column.shown).unseen(column.kind, column.format),
            None => Look::Null,
        }
    }
}

impl From<Malformed> for CannotShow {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

/// Writes a message's head with its length left open; where it begins.
pub(super) fn begin_message(tag: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    start
}

/// Writes the length of the message that begins at `start`.
pub(super) fn end_message(start: usize, out: &mut [u8]) -> Result<(), CannotShow> {
    let length = i32::try_from(out.len().saturating_sub(start + 1)).map_err(|_| CannotShow::TooLong)?;
    match out.get_mut(start + 1..start + 5) {
        Some(field) => field.copy_from_slice(&length.to_be_bytes()),
        None => return Err(CannotShow::Malformed("a message without a head")),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
