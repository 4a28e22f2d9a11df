//! The names that PostgreSQL gives to output columns (`FigureColname` of its parser).

use std::sync::Arc;

use pg_query::{
    NodeEnum,
    protobuf::{AExprKind, MinMaxExpr, Node, ResTarget, SelectStmt, SubLink, SubLinkType},
};

use super::{
    expression::inner,
    tracer::{string, strings},
};

/// The name of an output column: as given, or as figured from its expression. A name figured wrongly makes the column
/// unknown to outer queries, which then count every column in sight.
pub(super) fn output_name(target: &ResTarget) -> Arc<str> {
    if !target.name.is_empty() {
        return target.name.as_str().into();
    }
    target.val.as_deref().and_then(figured).unwrap_or("?column?").into()
}

fn figured(node: &Node) -> Option<&str> {
    match inner(node)? {
        NodeEnum::ColumnRef(column) => strings(&column.fields).last().copied(),
        NodeEnum::AIndirection(row) => {
            row.indirection.iter().rev().find_map(string).or_else(|| figured(row.arg.as_deref()?))
        }
        NodeEnum::FuncCall(call) => strings(&call.funcname).last().copied(),
        NodeEnum::TypeCast(cast) => cast
            .arg
            .as_deref()
            .and_then(figured)
            .or_else(|| strings(&cast.type_name.as_ref()?.names).last().copied()),
        NodeEnum::CollateClause(collate) => figured(collate.arg.as_deref()?),
        NodeEnum::CaseExpr(case) => case.defresult.as_deref().and_then(figured).or(Some("case")),
        NodeEnum::SubLink(link) => sub_query(link),
        NodeEnum::AArrayExpr(_) => Some("array"),
        NodeEnum::RowExpr(_) => Some("row"),
        NodeEnum::CoalesceExpr(_) => Some("coalesce"),
        NodeEnum::MinMaxExpr(expr) => Some(minmax(expr)),
        NodeEnum::GroupingFunc(_) => Some("grouping"),
        NodeEnum::AExpr(expr) if expr.kind == AExprKind::AexprNullif as i32 => Some("nullif"),
        _ => None,
    }
}

fn minmax(expr: &MinMaxExpr) -> &'static str {
    if expr.op == pg_query::protobuf::MinMaxOp::IsLeast as i32 { "least" } else { "greatest" }
}

fn sub_query(link: &SubLink) -> Option<&str> {
    match SubLinkType::try_from(link.sub_link_type).ok()? {
        SubLinkType::ExistsSublink => Some("exists"),
        SubLinkType::ArraySublink => Some("array"),
        SubLinkType::ExprSublink => match inner(link.subselect.as_deref()?)? {
            NodeEnum::SelectStmt(select) => first_target(select),
            _ => None,
        },
        _ => None,
    }
}

fn first_target(select: &SelectStmt) -> Option<&str> {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    match inner(leftmost.target_list.first()?)? {
        NodeEnum::ResTarget(target) if !target.name.is_empty() => Some(&target.name),
        NodeEnum::ResTarget(target) => figured(target.val.as_deref()?),
        _ => None,
    }
}
