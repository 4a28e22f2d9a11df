//! What a statement does, understood by PostgreSQL's own grammar.
//!
//! A text is [`parse`]d, then [`resolve`]d against the [`Catalog`] of its database and the [`Overlay`] of its session
//! into [`Statements`]: the [`Shape`](tidegate_policy::Shape) that a policy decides on, and what each statement does
//! to the session. [`Shapes`] remembers texts, so that a repeated statement costs no second parse.
//!
//! What a shape promises:
//!
//! - A name without a schema stands for every relation or function of that name in any schema, so `search_path`
//!   decides nothing. A relation that the catalog doesn't know stands under the schema as written, or under `?`, and
//!   its columns are untraced.
//! - Every table, in every statement, sub-query and WITH clause, is an item of its own; so is every function that isn't
//!   known to be harmless (see `functions`), which an allow must name. A harmless function is no item. A statement that
//!   touches nothing else is one item with `access: none`.
//! - An output's sources are all columns whose values it may carry. It is computed unless it is the value itself. What
//!   can't be followed is untraced, with the reason.
//! - A name is followed into one place only where it is known that the server finds it there, and nowhere before: among the
//!   catalog's columns of the one relation that is meant, or by an alias that is written out (see `flow::Naming`). In every
//!   other case it carries what each place has where the server may look, at each level of queries, and a position counts only
//!   where all before it are known (`Columns::rest`). So a relation that the session made, dropped or altered is one more that
//!   a name may mean, and never the only one.
//! - What the gate doesn't know is refused, not guessed.
//! - What was understood holds about as many bytes as it says it weighs, and that is bounded.
//!
//! - Naming a type is calling the functions that its values take, as far as they aren't PostgreSQL's own.
//!
//! Reading a view is one item on the view, and one for each function that isn't harmless and that its query calls: it runs
//! as whoever reads. The view's outputs carry what its query gives: masks hold through views. What a view's owner chose to
//! read or to compare in it isn't the client's doing and is no item and no influence.
//! Masks follow names, so what would rename or move a masked column is refused.

mod altering;
mod catalog;
mod change;
mod copy_options;
mod definition;
mod emptiness;
mod expression;
mod flow;
mod from;
mod functions;
mod json;
mod kept;
mod key;
mod letters;
mod moving;
mod names;
mod objects;
mod operand;
mod overlooked;
mod parse;
mod pattern;
mod predicate;
mod queries;
mod query;
mod redact;
mod relation;
mod scope;
mod sequences;
mod settings;
mod shapes;
mod statement;
mod subject;
mod suppose;
#[cfg(test)]
mod tests;
mod ties;
mod tracer;
mod tree;
mod utility;
mod vocabulary;

use std::sync::Arc;

use tidegate_policy::Shape;

pub(crate) use catalog::{Catalog, CatalogRequest, Rows};
pub(crate) use letters::names_beyond_ascii;
pub(crate) use parse::{Fault, Limits, NotUnderstood, Parsed, parse};
pub(crate) use queries::{FUNCTIONS, MARKS, RELATIONS, SETUP, TYPES, names_parameter};
pub(crate) use redact::redact;
pub(crate) use settings::{changes_nothing, is_role, of_options as settings_of_options, setting_is_safe};
pub(crate) use shapes::Shapes;
pub(crate) use statement::{CopyOptions, Cursor, Effect, Overlay, Setting, Statement, Statements, Unsettled};
pub(crate) use ties::{Kind, Piece, Place, Tie, pieces, ties};
pub(crate) use tracer::WORK;
pub(crate) use tree::{LARGEST as LARGEST_TREE, SHORT, tree};
pub(crate) use vocabulary::VOCABULARY;

/// How many relations, functions and types are looked up for one text.
const NAMES: usize = 2000;

/// A text against what is known of its database.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Understood.
    Known(Arc<Statements>),
    /// These names must be looked up first; then it is to be resolved again.
    Needs(CatalogRequest),
}

/// Follows the statements of a text, in no more steps than the gate spends on any.
pub(crate) fn resolve(
    parsed: &Parsed,
    catalog: &Catalog,
    overlay: &Overlay,
) -> Result<Resolved, NotUnderstood> {
    resolve_within(WORK, parsed, catalog, overlay)
}

/// Follows the statements of a text. One that takes more than these steps is [`Fault::Tangled`].
pub(crate) fn resolve_within(
    steps: usize,
    parsed: &Parsed,
    catalog: &Catalog,
    overlay: &Overlay,
) -> Result<Resolved, NotUnderstood> {
    let mut tracer = tracer::Tracer::new(catalog, overlay);
    tracer.most_work = steps;
    tracer.suspect = parsed.suspect;
    let mut list = Vec::with_capacity(parsed.len());
    for raw in &parsed.statements {
        let node = raw.stmt.as_deref().ok_or_else(|| NotUnderstood::new("a statement without content"))?;
        list.push(tracer.statement(node)?);
    }
    tracer.bounded()?;
    if tracer.wanted.is_empty() {
        return Ok(Resolved::Known(Arc::new(tracer.finish(list)?)));
    }
    if tracer.wanted.len() > NAMES {
        return Err(NotUnderstood::new(format!(
            "the text names more than {NAMES} relations, functions and types"
        )));
    }
    Ok(Resolved::Needs(tracer.wanted))
}

/// What a call by oid does, over the protocol's FunctionCall message: anything at all.
pub(crate) fn function_call() -> Arc<Statements> {
    let catalog = Catalog::default();
    let overlay = Overlay::default();
    let mut tracer = tracer::Tracer::new(&catalog, &overlay);
    let call = tracer.hiding("function-call");
    let result =
        Some(tracer.result(utility::untraced("what a function called by its oid returns can't be traced")));
    Arc::new(tracer.gathered(vec![Statement { result, ..call }]))
}

/// A text's shape as far as the text alone tells: see [`suppose`].
pub(crate) fn shape_of(text: &str, limits: &Limits) -> Result<Shape, NotUnderstood> {
    let parsed = parse(text, limits)?;
    let catalog = Catalog::default();
    loop {
        match resolve(&parsed, &catalog, &Overlay::default())? {
            Resolved::Known(statements) => return Ok(Shape::clone(&statements.shape)),
            Resolved::Needs(request) => catalog.suppose(text, &request),
        }
    }
}
