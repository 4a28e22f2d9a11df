//! The names that PostgreSQL gives to output columns (`FigureColnameInternal` of its `parse_target.c`).

use std::sync::Arc;

use pg_query::{
    NodeEnum,
    protobuf::{
        AExprKind, MinMaxExpr, Node, ResTarget, SelectStmt, SqlValueFunction, SqlValueFunctionOp, SubLink,
        SubLinkType,
    },
};

use super::{
    expression::inner,
    flow::Naming,
    tracer::{string, strings},
};

/// What PostgreSQL calls what has no name.
const UNNAMED: &str = "?column?";

/// A name that is made from an expression.
enum Figured<'n> {
    /// This one, wherever the expression stands.
    Named(&'n str),
    /// None of its own: a cast or a CASE around it gives it one, by rules that nothing here relies on.
    Unnamed,
    /// One that isn't followed.
    Unknown,
}

/// The name of an output column: as given, or as figured from its expression.
pub(super) fn output_name(target: &ResTarget) -> (Arc<str>, Naming) {
    if !target.name.is_empty() {
        return (target.name.as_str().into(), Naming::Known);
    }
    match target.val.as_deref().map(figured) {
        Some(Figured::Named(name)) => (name.into(), Naming::Known),
        Some(Figured::Unnamed) => (UNNAMED.into(), Naming::Known),
        Some(Figured::Unknown) | None => (UNNAMED.into(), Naming::Unknown),
    }
}

/// What a function in a FROM clause is called without an alias, if that is known.
pub(super) fn expression_name(node: &Node) -> Option<&str> {
    match figured(node) {
        Figured::Named(name) => Some(name),
        Figured::Unnamed | Figured::Unknown => None,
    }
}

fn figured(node: &Node) -> Figured<'_> {
    let Some(node) = inner(node) else { return Figured::Unknown };
    match node {
        NodeEnum::ColumnRef(column) => last(&column.fields),
        NodeEnum::FuncCall(call) => last(&call.funcname),
        NodeEnum::AIndirection(row) => match row.indirection.iter().rev().find_map(string) {
            Some(field) => Figured::Named(field),
            None => row.arg.as_deref().map_or(Figured::Unknown, figured),
        },
        NodeEnum::CollateClause(collate) => collate.arg.as_deref().map_or(Figured::Unknown, figured),
        NodeEnum::TypeCast(cast) => unless_unnamed(cast.arg.as_deref()),
        NodeEnum::CaseExpr(case) => unless_unnamed(case.defresult.as_deref()),
        NodeEnum::SubLink(link) => sub_query(link),
        NodeEnum::AArrayExpr(_) => Figured::Named("array"),
        NodeEnum::RowExpr(_) => Figured::Named("row"),
        NodeEnum::CoalesceExpr(_) => Figured::Named("coalesce"),
        NodeEnum::MinMaxExpr(expr) => Figured::Named(minmax(expr)),
        NodeEnum::SqlvalueFunction(value) => value_function(value).map_or(Figured::Unknown, Figured::Named),
        NodeEnum::GroupingFunc(_) => Figured::Named("grouping"),
        NodeEnum::AExpr(expr) if expr.kind == AExprKind::AexprNullif as i32 => Figured::Named("nullif"),
        NodeEnum::AExpr(_)
        | NodeEnum::BoolExpr(_)
        | NodeEnum::NullTest(_)
        | NodeEnum::BooleanTest(_)
        | NodeEnum::AConst(_)
        | NodeEnum::ParamRef(_) => Figured::Unnamed,
        _ => Figured::Unknown,
    }
}

fn last(fields: &[Node]) -> Figured<'_> {
    strings(fields).last().map_or(Figured::Unknown, |name| Figured::Named(name))
}

/// What a cast and a CASE are called by, if that has a name.
fn unless_unnamed(node: Option<&Node>) -> Figured<'_> {
    match node.map(figured) {
        Some(Figured::Named(name)) => Figured::Named(name),
        Some(Figured::Unnamed | Figured::Unknown) | None => Figured::Unknown,
    }
}

fn minmax(expr: &MinMaxExpr) -> &'static str {
    if expr.op == pg_query::protobuf::MinMaxOp::IsLeast as i32 { "least" } else { "greatest" }
}

fn value_function(value: &SqlValueFunction) -> Option<&'static str> {
    use SqlValueFunctionOp as Op;
    Some(match Op::try_from(value.op).ok()? {
        Op::SvfopCurrentDate => "current_date",
        Op::SvfopCurrentTime | Op::SvfopCurrentTimeN => "current_time",
        Op::SvfopCurrentTimestamp | Op::SvfopCurrentTimestampN => "current_timestamp",
        Op::SvfopLocaltime | Op::SvfopLocaltimeN => "localtime",
        Op::SvfopLocaltimestamp | Op::SvfopLocaltimestampN => "localtimestamp",
        Op::SvfopCurrentRole => "current_role",
        Op::SvfopCurrentUser => "current_user",
        Op::SvfopUser => "user",
        Op::SvfopSessionUser => "session_user",
        Op::SvfopCurrentCatalog => "current_catalog",
        Op::SvfopCurrentSchema => "current_schema",
        Op::SqlvalueFunctionOpUndefined => return None,
    })
}

fn sub_query(link: &SubLink) -> Figured<'_> {
    match SubLinkType::try_from(link.sub_link_type) {
        Ok(SubLinkType::ExistsSublink) => Figured::Named("exists"),
        Ok(SubLinkType::ArraySublink) => Figured::Named("array"),
        Ok(SubLinkType::ExprSublink) => match link.subselect.as_deref().and_then(inner) {
            Some(NodeEnum::SelectStmt(select)) => first_target(select),
            _ => Figured::Unknown,
        },
        Ok(SubLinkType::AnySublink | SubLinkType::AllSublink) => Figured::Unnamed,
        _ => Figured::Unknown,
    }
}

/// The name of a query's first output, which is all that a scalar one has.
fn first_target(select: &SelectStmt) -> Figured<'_> {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    match leftmost.target_list.first().and_then(inner) {
        Some(NodeEnum::ResTarget(target)) if !target.name.is_empty() => Figured::Named(&target.name),
        Some(NodeEnum::ResTarget(target)) if target.val.as_deref().is_some_and(is_star) => Figured::Unknown,
        Some(NodeEnum::ResTarget(target)) => match target.val.as_deref().map(figured) {
            Some(Figured::Unnamed) => Figured::Named(UNNAMED),
            Some(own) => own,
            None => Figured::Unknown,
        },
        _ => Figured::Unknown,
    }
}

/// Whether it stands for any number of columns where columns are listed: `*`, `t.*`, `(row).*`. Elsewhere it is a row.
pub(super) fn is_star(node: &Node) -> bool {
    let fields = match inner(node) {
        Some(NodeEnum::ColumnRef(column)) => &column.fields,
        Some(NodeEnum::AIndirection(row)) => &row.indirection,
        _ => return false,
    };
    matches!(fields.last().and_then(inner), Some(NodeEnum::AStar(_)))
}
