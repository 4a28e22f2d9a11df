//! Which columns the constants and parameters of a text have to do with: for whoever is shown the text and may not see what is
//! in them.
//!
//! A value is tied to all columns that the operators and functions around it compare or compute it with, and to the column
//! that it is written into. AND, OR and NOT tie nothing together. Of a value that is tied to none, nobody can say what it is.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use pg_query::{
    NodeEnum,
    protobuf::{Node, Token},
};
use tidegate_policy::Path;

use super::{Catalog, Overlay, Parsed, expression::inner, flow::Flow, parse::undisturbed, tracer::Tracer};

/// A constant or parameter of a text, and the columns that it is tied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tie {
    pub(crate) place: Place,
    pub(crate) columns: BTreeSet<Path>,
    /// What it has to do with could not be followed.
    pub(crate) untraced: bool,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// From this byte of the text on.
    Text(usize),
    /// It is a parameter of this number, from 1 on.
    Parameter(usize),
}

/// A piece of a text that may hold a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `'...'`, its quotes within doubled.
    String,
    /// A string in another notation.
    Notation,
    Number,
    Comment,
}

/// The ties of a text's values. None where the catalog would have to be asked first, or it takes more steps than this.
pub(crate) fn ties(steps: usize, parsed: &Parsed, catalog: &Catalog, overlay: &Overlay) -> Option<Vec<Tie>> {
    let mut tracer = Tracer::new(catalog, overlay);
    tracer.most_work = steps;
    tracer.ties = Some(Vec::new());
    for raw in &parsed.statements {
        tracer.statement(raw.stmt.as_deref()?).ok()?;
    }
    let is_known = tracer.wanted.is_empty();
    tracer.ties.filter(|_| is_known)
}

/// Where the values and comments of a text stand. None where it can't even be cut into tokens.
pub(crate) fn pieces(text: &str) -> Option<Vec<Piece>> {
    let tokens = undisturbed(|| pg_query::scan(text)).ok()?.tokens;
    let piece = |token: &pg_query::protobuf::ScanToken| {
        let span = usize::try_from(token.start).ok()?..usize::try_from(token.end).ok()?;
        let kind = match Token::try_from(token.token).ok()? {
            Token::Sconst if text.get(span.clone())?.starts_with('\'') => Kind::String,
            Token::Sconst | Token::Usconst | Token::Bconst | Token::Xconst => Kind::Notation,
            Token::Iconst | Token::Fconst => Kind::Number,
            Token::SqlComment | Token::CComment => Kind::Comment,
            _ => return None,
        };
        Some(Piece { span, kind })
    };
    Some(tokens.iter().filter_map(piece).collect())
}

impl Tracer<'_> {
    /// How many values were met.
    pub(super) fn tied(&self) -> usize {
        self.ties.as_ref().map_or(0, Vec::len)
    }

    /// A constant or parameter. Those of views stand in no text of the client's.
    pub(super) fn meet(&mut self, node: &NodeEnum) {
        if self.in_view == 0
            && let (Some(place), Some(ties)) = (place(node), &mut self.ties)
        {
            ties.push(Tie { place, columns: BTreeSet::new(), untraced: false });
        }
    }

    /// What was met since there were so many has to do with what an expression is made from.
    pub(super) fn tie_since(&mut self, before: usize, flow: &Flow) {
        for tie in self.ties.iter_mut().flat_map(|ties| ties.iter_mut().skip(before)) {
            tie.columns.extend(flow.sources.iter().cloned());
            tie.untraced |= flow.untraced.is_some();
        }
    }

    /// The same, with these columns.
    pub(super) fn tie_to(&mut self, before: usize, columns: impl Iterator<Item = Path> + Clone) {
        for tie in self.ties.iter_mut().flat_map(|ties| ties.iter_mut().skip(before)) {
            tie.columns.extend(columns.clone());
        }
    }

    /// The values of rows that are written out go into columns of these tables, by their position.
    pub(super) fn tie_rows(&mut self, rows: Option<&Node>, order: Option<&[Arc<str>]>, tables: &[Path]) {
        let (Some(NodeEnum::SelectStmt(select)), Some(order)) = (rows.and_then(inner), order) else { return };
        let Some(ties) = &mut self.ties else { return };
        let lists = select.values_lists.iter().filter_map(|list| match inner(list) {
            Some(NodeEnum::List(list)) => Some(&list.items),
            _ => None,
        });
        for (column, value) in lists.flat_map(|values| order.iter().zip(values)) {
            let Some(place) = written(value) else { continue };
            for tie in ties.iter_mut().filter(|tie| tie.place == place) {
                tie.columns.extend(tables.iter().map(|table| Path::from(format!("{table}.{column}"))));
            }
        }
    }
}

/// Where a value stands that is written as it is, or cast.
fn written(node: &Node) -> Option<Place> {
    match inner(node)? {
        NodeEnum::TypeCast(cast) => written(cast.arg.as_deref()?),
        value => place(value),
    }
}

fn place(node: &NodeEnum) -> Option<Place> {
    match node {
        NodeEnum::AConst(constant) => Some(Place::Text(usize::try_from(constant.location).ok()?)),
        NodeEnum::ParamRef(parameter) => Some(Place::Parameter(usize::try_from(parameter.number).ok()?)),
        _ => None,
    }
}
