//! Whether a WHERE clause restricts which rows of its table are changed.
//!
//! A condition is `real` if some part of it that must hold compares a column of the changed table with something
//! else: the column stands on one side only, and only once. It is `constant` whenever that isn't certain:
//!
//! - no column of the table in it (`1 = 1`, `true`, an uncorrelated `EXISTS`);
//! - the same column on both sides (`id = id`), or several times on one (`id - id = 0`);
//! - `IS NOT NULL` and the like, and LIKE patterns of nothing but `%`, which may well hold for every row;
//! - an OR with an arm that is constant, or with two arms on one column that aren't both equalities
//!   (`a = 1 OR a <> 1`, `a < 5 OR a > 3`).
//!
//! A condition can be real and still hold for every row (`id > -1`): this catches the forgotten WHERE, not intent.

use pg_query::{
    NodeEnum,
    protobuf::{AExpr, AExprKind, BoolExprType, BoolTestType, Node, NullTestType, SubLink, SubLinkType},
};

use super::{
    expression::{inner, literal_text},
    flow::Found,
    scope::{Range, Scope},
    tracer::strings,
};

/// The kind of a condition, and whether another literal could change it.
pub(super) fn kind(condition: Option<&Node>, target: &Range, scope: &Scope<'_>) -> (&'static str, bool) {
    let Some(condition) = condition else { return ("none", false) };
    let mut reader = Reader { target, scope, literals_matter: false, compared: 0 };
    let real = !reader.arms(condition, true).is_empty();
    (if real { "real" } else { "constant" }, reader.literals_matter)
}

struct Reader<'a> {
    target: &'a Range,
    scope: &'a Scope<'a>,
    literals_matter: bool,
    /// Pairs of restrictions that were compared.
    compared: usize,
}

/// How many pairs of restrictions are compared: beyond, nothing is certain.
const PAIRS: usize = 1_000_000;

/// How many columns are looked for in one comparison: with more, one surely occurs twice.
const COLUMNS: usize = 1600;

/// A restriction: the columns it compares, and whether as an equality.
#[derive(Clone, PartialEq)]
struct Restriction {
    columns: Vec<String>,
    equality: bool,
}

impl Reader<'_> {
    /// The restrictions that must hold; none if it isn't certain that there are any. `holds` is false under NOT.
    fn arms(&mut self, node: &Node, holds: bool) -> Vec<Restriction> {
        match inner(node) {
            Some(NodeEnum::BoolExpr(expr)) => match BoolExprType::try_from(expr.boolop) {
                Ok(BoolExprType::NotExpr) => {
                    expr.args.first().map_or(Vec::new(), |arg| self.arms(arg, !holds))
                }
                Ok(BoolExprType::AndExpr) if holds => self.all_of(&expr.args, holds),
                Ok(BoolExprType::OrExpr) if !holds => self.all_of(&expr.args, holds),
                Ok(BoolExprType::AndExpr | BoolExprType::OrExpr) => self.any_of(&expr.args, holds),
                _ => Vec::new(),
            },
            Some(NodeEnum::AExpr(expr)) => self.comparison(expr, holds).into_iter().collect(),
            Some(NodeEnum::NullTest(test)) => {
                let is_null = (test.nulltesttype == NullTestType::IsNull as i32) == holds;
                self.once(test.arg.as_deref().into_iter(), true).filter(|_| is_null).into_iter().collect()
            }
            Some(NodeEnum::BooleanTest(test)) => {
                let positive = matches!(
                    BoolTestType::try_from(test.booltesttype),
                    Ok(BoolTestType::IsTrue | BoolTestType::IsFalse | BoolTestType::IsUnknown)
                );
                self.once(test.arg.as_deref().into_iter(), true)
                    .filter(|_| positive == holds)
                    .into_iter()
                    .collect()
            }
            Some(NodeEnum::ColumnRef(_) | NodeEnum::FuncCall(_)) => {
                self.once(std::iter::once(node), false).into_iter().collect()
            }
            Some(NodeEnum::SubLink(link)) => self.sub_query(link, holds).into_iter().collect(),
            Some(NodeEnum::CurrentOfExpr(_)) => vec![Restriction { columns: Vec::new(), equality: true }],
            _ => Vec::new(),
        }
    }

    fn all_of(&mut self, args: &[Node], holds: bool) -> Vec<Restriction> {
        args.iter().flat_map(|arg| self.arms(arg, holds)).collect()
    }

    fn any_of(&mut self, args: &[Node], holds: bool) -> Vec<Restriction> {
        let mut all: Vec<Restriction> = Vec::new();
        for arg in args {
            let own = self.arms(arg, holds);
            self.compared = self.compared.saturating_add(own.len().saturating_mul(all.len()));
            if self.compared > PAIRS {
                return Vec::new();
            }
            let covers = |one: &Restriction, other: &Restriction| {
                !(one.equality && other.equality)
                    && one.columns.iter().any(|column| other.columns.contains(column))
            };
            if own.is_empty() || own.iter().any(|one| all.iter().any(|other| covers(one, other))) {
                return Vec::new();
            }
            all.extend(own);
        }
        all
    }

    fn comparison(&mut self, expr: &AExpr, holds: bool) -> Option<Restriction> {
        let (left, right) = (expr.lexpr.as_deref()?, expr.rexpr.as_deref()?);
        let kind = AExprKind::try_from(expr.kind).ok()?;
        if matches!(kind, AExprKind::AexprLike | AExprKind::AexprIlike | AExprKind::AexprSimilar) {
            self.literals_matter = true;
            if cut_short(right) || literal_text(right).is_some_and(|text| text.chars().all(|c| c == '%')) {
                return None;
            }
        }
        if is_null(left) || is_null(right) || matches!(kind, AExprKind::AexprNullif) {
            return None;
        }
        let negated = strings(&expr.name)
            .last()
            .is_some_and(|name| matches!(*name, "<>" | "!=") || name.starts_with('!'));
        let equality = matches!(
            kind,
            AExprKind::AexprOp
                | AExprKind::AexprIn
                | AExprKind::AexprOpAny
                | AExprKind::AexprLike
                | AExprKind::AexprIlike
                | AExprKind::AexprNotDistinct
        ) && negated != holds
            && !strings(&expr.name).iter().any(|name| name.starts_with(['<', '>']) && *name != "<>");
        let (on_left, on_right) = (self.columns(left), self.columns(right));
        if on_left.len() + on_right.len() > COLUMNS {
            return None;
        }
        let lonely: Vec<String> = on_left
            .iter()
            .chain(&on_right)
            .filter(|column| on_left.iter().chain(&on_right).filter(|other| other == column).count() == 1)
            .cloned()
            .collect();
        let all_lonely = lonely.len() == on_left.len() + on_right.len();
        (all_lonely && !lonely.is_empty()).then_some(Restriction { columns: lonely, equality })
    }

    fn sub_query(&mut self, link: &SubLink, holds: bool) -> Option<Restriction> {
        match SubLinkType::try_from(link.sub_link_type).ok()? {
            SubLinkType::AnySublink | SubLinkType::AllSublink => {
                let mut found = self.once(link.testexpr.as_deref().into_iter(), holds)?;
                let NodeEnum::SelectStmt(select) = inner(link.subselect.as_deref()?)? else { return None };
                let own_table = select.from_clause.iter().any(|item| match inner(item) {
                    Some(NodeEnum::RangeVar(table)) => {
                        self.target.tables.iter().any(|path| path.ends_with(&format!(".{}", table.relname)))
                    }
                    _ => true,
                });
                found.equality &= link.oper_name.is_empty();
                (!own_table || select.where_clause.is_some()).then_some(found)
            }
            SubLinkType::ExistsSublink => {
                let NodeEnum::SelectStmt(select) = inner(link.subselect.as_deref()?)? else { return None };
                let mut columns = Vec::new();
                self.qualified_columns(select.where_clause.as_deref()?, &mut columns);
                (!columns.is_empty()).then_some(Restriction { columns, equality: holds })
            }
            _ => None,
        }
    }

    /// Columns of the target that are named with its alias: what an EXISTS is correlated by.
    fn qualified_columns(&self, node: &Node, found: &mut Vec<String>) {
        match inner(node) {
            Some(NodeEnum::BoolExpr(expr)) if expr.boolop == BoolExprType::AndExpr as i32 => {
                expr.args.iter().for_each(|arg| self.qualified_columns(arg, found));
            }
            Some(NodeEnum::AExpr(expr)) => {
                for side in expr.lexpr.iter().chain(&expr.rexpr) {
                    if let Some(NodeEnum::ColumnRef(column)) = inner(side)
                        && let [.., range, name] = strings(&column.fields).as_slice()
                        && **range == *self.target.alias
                    {
                        found.push((*name).to_owned());
                    }
                }
            }
            _ => {}
        }
    }

    /// A restriction if the target's columns occur in these, each once.
    fn once<'n>(&self, nodes: impl Iterator<Item = &'n Node>, equality: bool) -> Option<Restriction> {
        let columns: Vec<String> = nodes.flat_map(|node| self.columns(node)).take(COLUMNS + 1).collect();
        if columns.len() > COLUMNS {
            return None;
        }
        let repeated =
            columns.iter().any(|column| columns.iter().filter(|other| other == &column).count() > 1);
        (!columns.is_empty() && !repeated).then_some(Restriction { columns, equality })
    }

    /// The target's columns in an expression, as often as they occur. What may always be true is left out.
    fn columns(&self, node: &Node) -> Vec<String> {
        match inner(node) {
            Some(NodeEnum::ColumnRef(column)) => {
                self.own_column(&strings(&column.fields)).into_iter().collect()
            }
            Some(NodeEnum::AExpr(expr)) => {
                expr.lexpr.iter().chain(&expr.rexpr).flat_map(|side| self.columns(side)).collect()
            }
            Some(NodeEnum::TypeCast(cast)) => cast.arg.iter().flat_map(|arg| self.columns(arg)).collect(),
            Some(NodeEnum::CollateClause(collate)) => {
                collate.arg.iter().flat_map(|arg| self.columns(arg)).collect()
            }
            Some(NodeEnum::FuncCall(call)) => call.args.iter().flat_map(|arg| self.columns(arg)).collect(),
            Some(NodeEnum::RowExpr(row)) => row.args.iter().flat_map(|arg| self.columns(arg)).collect(),
            Some(NodeEnum::List(list)) => list.items.iter().flat_map(|arg| self.columns(arg)).collect(),
            Some(NodeEnum::AArrayExpr(list)) => {
                list.elements.iter().flat_map(|arg| self.columns(arg)).collect()
            }
            Some(NodeEnum::AIndirection(field)) => {
                field.arg.iter().flat_map(|arg| self.columns(arg)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn own_column(&self, names: &[&str]) -> Option<String> {
        let has = |name: &str| !matches!(self.target.columns.find(name), Found::No);
        match names {
            [name] => {
                let elsewhere = self.scope.ranges.iter().any(|range| {
                    range.alias != self.target.alias && matches!(range.columns.find(name), Found::Certain(_))
                });
                ((has(name) || *name == "ctid") && !elsewhere).then(|| (*name).to_owned())
            }
            [.., range, name] => {
                (**range == *self.target.alias && (has(name) || *name == "ctid")).then(|| (*name).to_owned())
            }
            [] => None,
        }
    }
}

/// Whether a literal is cast to something other than text: what is left of it may match everything.
fn cut_short(pattern: &Node) -> bool {
    let Some(NodeEnum::TypeCast(cast)) = inner(pattern) else { return false };
    let Some(arg) = cast.arg.as_deref() else { return true };
    let to_text = cast.type_name.as_ref().is_some_and(|to| {
        to.typmods.is_empty() && matches!(strings(&to.names).as_slice(), ["text"] | ["pg_catalog", "text"])
    });
    match literal_text(arg) {
        Some(text) => !to_text || text.chars().all(|c| c == '%'),
        None => cut_short(arg),
    }
}

fn is_null(node: &Node) -> bool {
    match inner(node) {
        Some(NodeEnum::AConst(constant)) => constant.isnull,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_null),
        _ => false,
    }
}
