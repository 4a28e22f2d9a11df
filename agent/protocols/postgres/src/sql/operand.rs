//! What of a comparison is certainly decided by a column.
//!
//! A column counts by itself, cast, and within what keeps its values apart: a sum or difference, a field of JSON, an
//! element of an array, and a few functions that people index by. Anything else (`id * 0`, `left(body, 0)`,
//! `num_nonnulls(id)`, `id = 1`) may have one value for every row.

use pg_query::{
    NodeEnum,
    protobuf::{AExpr, AExprKind, FuncCall, Node, TypeName},
};

use super::{
    expression::inner,
    pattern::Syntax,
    subject::{Column, Subject},
    tracer::strings,
};

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// What is equal.
    Equality,
    /// What isn't.
    Difference,
    /// What comes before or after.
    Order,
    /// What lies between two bounds, which stand on the right.
    Between,
    /// What a literal on the right asks for.
    Pattern(Syntax),
    /// With a null, which anything computed may be.
    Null,
}

impl Comparison {
    /// What an operator compares by; none if it isn't known. `holds` is false under NOT.
    pub(super) fn of(kind: AExprKind, operator: &str, holds: bool) -> Option<Self> {
        let equal = |is_equal: bool| if is_equal == holds { Self::Equality } else { Self::Difference };
        match kind {
            AExprKind::AexprNotDistinct if holds => return Some(Self::Equality),
            AExprKind::AexprDistinct if !holds => return Some(Self::Equality),
            AExprKind::AexprDistinct | AExprKind::AexprNotDistinct => return Some(Self::Null),
            AExprKind::AexprBetween | AExprKind::AexprBetweenSym if holds => return Some(Self::Between),
            AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym if !holds => {
                return Some(Self::Between);
            }
            AExprKind::AexprBetween
            | AExprKind::AexprBetweenSym
            | AExprKind::AexprNotBetween
            | AExprKind::AexprNotBetweenSym => return Some(Self::Order),
            AExprKind::AexprSimilar => return Some(Self::Pattern(Syntax::Similar)),
            AExprKind::AexprNullif => return None,
            _ => {}
        }
        Some(match operator {
            "=" => equal(true),
            "<>" | "!=" => equal(false),
            "<" | "<=" | ">" | ">=" => Self::Order,
            "~~" | "~~*" | "!~~" | "!~~*" => Self::Pattern(Syntax::Like),
            "~" | "~*" | "!~" | "!~*" => Self::Pattern(Syntax::Regex),
            "@>" => Self::Pattern(Syntax::Contained),
            _ => return None,
        })
    }
}

/// The subject's columns that certainly decide one side of a comparison.
pub(super) fn decides(
    node: &Node,
    is_right: bool,
    comparison: Comparison,
    subject: &Subject<'_>,
) -> Vec<Column> {
    let each = |node: &Node| one(node, comparison, subject);
    match (inner(node), comparison) {
        (_, Comparison::Pattern(_)) if is_right => Vec::new(),
        (Some(NodeEnum::List(list)), Comparison::Between) if is_right => {
            list.items.iter().flat_map(each).collect()
        }
        (Some(NodeEnum::RowExpr(row)), Comparison::Equality) => row.args.iter().flat_map(each).collect(),
        // One element that differs is enough: it must not be one of those that always do.
        (Some(NodeEnum::RowExpr(row)), Comparison::Difference) => {
            let columns: Vec<Vec<Column>> = row.args.iter().map(each).collect();
            if columns.iter().any(Vec::is_empty) { Vec::new() } else { columns.concat() }
        }
        // The first element that differs decides.
        (Some(NodeEnum::RowExpr(row)), Comparison::Order | Comparison::Between) => {
            row.args.first().map_or(Vec::new(), each)
        }
        _ => each(node),
    }
}

fn one(node: &Node, comparison: Comparison, subject: &Subject<'_>) -> Vec<Column> {
    let within = |node: &Node| one(node, comparison, subject);
    let is_computed = comparison != Comparison::Null;
    match inner(node) {
        Some(NodeEnum::ColumnRef(column)) => subject.column(&strings(&column.fields)).into_iter().collect(),
        Some(NodeEnum::TypeCast(cast)) if !cast.type_name.as_ref().is_none_or(is_boolean) => {
            cast.arg.as_deref().map_or(Vec::new(), within)
        }
        Some(NodeEnum::CollateClause(collate)) => collate.arg.as_deref().map_or(Vec::new(), within),
        Some(NodeEnum::AIndirection(step)) if is_computed && step.indirection.iter().all(is_element) => {
            step.arg.as_deref().map_or(Vec::new(), within)
        }
        Some(NodeEnum::AExpr(expr)) if is_computed => keeping(expr).into_iter().flat_map(within).collect(),
        Some(NodeEnum::FuncCall(call)) if is_computed && keeps_apart(call, comparison) => {
            call.args.iter().flat_map(within).collect()
        }
        _ => Vec::new(),
    }
}

/// The sides of an operator that its result tells apart.
fn keeping(expr: &AExpr) -> Vec<&Node> {
    if expr.kind != AExprKind::AexprOp as i32 {
        return Vec::new();
    }
    let both = || expr.lexpr.iter().chain(&expr.rexpr).map(|side| &**side).collect();
    match strings(&expr.name).last() {
        Some(&("+" | "-" | "||")) => both(),
        Some(&("->" | "->>" | "#>" | "#>>")) => expr.lexpr.as_deref().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a function's results differ as its argument does, well enough for this comparison.
fn keeps_apart(call: &FuncCall, comparison: Comparison) -> bool {
    let name = match *strings(&call.funcname).as_slice() {
        [name] | ["pg_catalog", name] => name,
        _ => return false,
    };
    match name {
        "date" | "date_trunc" | "date_part" | "extract" | "timezone" => true,
        "lower" | "upper" | "initcap" | "btrim" | "ltrim" | "rtrim" | "reverse" | "md5" | "sha256"
        | "length" | "char_length" | "character_length" | "octet_length" | "abs" | "floor" | "ceil"
        | "ceiling" | "round" | "trunc" => {
            call.args.len() == 1 && !matches!(comparison, Comparison::Order | Comparison::Between)
        }
        _ => false,
    }
}

fn is_element(step: &Node) -> bool {
    matches!(inner(step), Some(NodeEnum::AIndices(index)) if !index.is_slice)
}

fn is_boolean(name: &TypeName) -> bool {
    matches!(strings(&name.names).last(), None | Some(&("bool" | "boolean")))
}
