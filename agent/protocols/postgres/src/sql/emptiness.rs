//! Which sub-selects give a row for no rows, or may give none of many.

use pg_query::{
    NodeEnum,
    protobuf::{Node, SelectStmt, SortBy},
};

use super::{
    expression::{inner, literal_text},
    tracer::strings,
};

/// Whether LIMIT and OFFSET may leave nothing of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// There are none.
    Never,
    /// The literal that is written leaves some.
    Leaves,
    /// They may.
    Perhaps,
}

/// What LIMIT and OFFSET do to a sub-select.
pub(super) fn cut(select: &Node) -> Cut {
    let Some(NodeEnum::SelectStmt(select)) = inner(select) else { return Cut::Perhaps };
    match (select.limit_count.as_deref(), &select.limit_offset) {
        (None, None) => Cut::Never,
        (Some(count), None) if leaves_some(count) => Cut::Leaves,
        _ => Cut::Perhaps,
    }
}

fn leaves_some(count: &Node) -> bool {
    literal_text(count).and_then(|text| text.parse::<u64>().ok()).is_some_and(|count| count > 0)
}

/// Whether a sub-select may be an aggregate over all rows, which gives one row even for none: by an aggregate in what it
/// gives, sorts or tells apart by, a HAVING without GROUP BY, or a grouping set that may be the empty one. What isn't
/// certainly free of aggregates may hold one.
pub(super) fn gives_a_row_for_none(select: &Node) -> bool {
    let Some(NodeEnum::SelectStmt(select)) = inner(select) else { return true };
    match select.group_clause.is_empty() {
        true => select.having_clause.is_some() || !is_free_of_aggregates(select),
        false => select.group_clause.iter().any(|by| matches!(inner(by), Some(NodeEnum::GroupingSet(_)))),
    }
}

fn is_free_of_aggregates(select: &SelectStmt) -> bool {
    let sorted = |node: &Node| match inner(node) {
        Some(NodeEnum::SortBy(sort)) => is_by_column(sort),
        _ => false,
    };
    select.target_list.iter().all(is_plain)
        && select.sort_clause.iter().all(sorted)
        && select.window_clause.is_empty()
        && select.distinct_clause.iter().all(|node| node.node.is_none() || is_plain(node))
}

fn is_by_column(sort: &SortBy) -> bool {
    sort.node.as_deref().is_some_and(is_plain)
}

/// A literal, a parameter, a column, or these cast.
fn is_plain(node: &Node) -> bool {
    match inner(node) {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::ColumnRef(column)) => !names_an_aggregate(&column.fields),
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_plain),
        Some(NodeEnum::ResTarget(target)) => target.val.as_deref().is_some_and(is_plain),
        _ => false,
    }
}

/// `t.count` is `count(t)` where `t` has no such column.
fn names_an_aggregate(fields: &[Node]) -> bool {
    const OF_ANY_ROW: &[&str] = &[
        "any_value",
        "array_agg",
        "count",
        "json_agg",
        "json_agg_strict",
        "jsonb_agg",
        "jsonb_agg_strict",
        "max",
        "min",
    ];
    fields.len() > 1 && strings(fields).last().is_some_and(|name| OF_ANY_ROW.contains(name))
}

/// Whether a value is written there, which isn't null.
pub(super) fn is_literal(node: &Node) -> bool {
    match inner(node) {
        Some(NodeEnum::AConst(constant)) => !constant.isnull,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_literal),
        _ => false,
    }
}

/// Whether a value is written there or given as a parameter.
pub(super) fn is_given(node: &Node) -> bool {
    match inner(node) {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_given),
        Some(NodeEnum::ResTarget(target)) => target.val.as_deref().is_some_and(is_given),
        _ => false,
    }
}
