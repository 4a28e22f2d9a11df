//! Whether a WHERE clause restricts which rows of its table are changed.
//!
//! A condition is `real` if some part of it that must hold compares a column of the changed table with something
//! else: the column stands on one side only, and only once. It is `constant` whenever that isn't certain:
//!
//! - no column of the table in it (`1 = 1`, `true`, an uncorrelated `EXISTS`);
//! - a sub-select in it that has no real condition of its own (`id IN (SELECT id FROM t)`);
//! - what holds of all or any elements of an array that may be empty or have several (`id <> ALL ('{}')`);
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
    scope::{Range, Scope},
    subject::{Column, Subject},
    tracer::strings,
};

/// The kind of a condition, and whether another literal could change it.
pub(super) fn kind(condition: Option<&Node>, target: &Range, scope: &Scope<'_>) -> (&'static str, bool) {
    let Some(condition) = condition else { return ("none", false) };
    let mut reader =
        Reader { subject: Subject::target(target, scope), literals_matter: false, compared: 0, depth: 0 };
    let real = !reader.arms(condition, true).is_empty();
    (if real { "real" } else { "constant" }, reader.literals_matter)
}

struct Reader<'a> {
    subject: Subject<'a>,
    literals_matter: bool,
    /// Pairs of restrictions that were compared.
    compared: usize,
    /// Sub-selects around this.
    depth: usize,
}

/// How many pairs of restrictions are compared: beyond, nothing is certain.
const PAIRS: usize = 1_000_000;

/// How many columns are looked for in one comparison: with more, one surely occurs twice.
const COLUMNS: usize = 1600;

/// How deep sub-selects are followed: beyond, nothing is certain.
const DEPTH: usize = 8;

/// A restriction: the columns it compares, and whether as an equality.
#[derive(Clone)]
struct Restriction {
    columns: Vec<Column>,
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
                let found = test.arg.as_deref().and_then(|arg| self.restriction(&[arg], true));
                found.filter(|_| is_null).into_iter().collect()
            }
            Some(NodeEnum::BooleanTest(test)) => {
                let positive = matches!(
                    BoolTestType::try_from(test.booltesttype),
                    Ok(BoolTestType::IsTrue | BoolTestType::IsFalse | BoolTestType::IsUnknown)
                );
                let found = test.arg.as_deref().and_then(|arg| self.restriction(&[arg], true));
                found.filter(|_| positive == holds).into_iter().collect()
            }
            Some(NodeEnum::ColumnRef(_) | NodeEnum::FuncCall(_)) => {
                self.restriction(&[node], false).into_iter().collect()
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
                    && one.columns.iter().any(|column| other.columns.iter().any(|other| column.may_be(other)))
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
        let names = strings(&expr.name);
        let differs = is_negated(&names) == holds;
        if !elements_restrict(kind, right, differs, holds) {
            return None;
        }
        let equality = matches!(
            kind,
            AExprKind::AexprOp
                | AExprKind::AexprIn
                | AExprKind::AexprOpAny
                | AExprKind::AexprLike
                | AExprKind::AexprIlike
                | AExprKind::AexprNotDistinct
        ) && !differs
            && !names.iter().any(|name| name.starts_with(['<', '>']) && *name != "<>");
        self.restriction(&[left, right], equality)
    }

    /// A restriction if columns certainly decide these expressions, and none of them occurs twice: of what is compared
    /// with itself nothing is certain.
    fn restriction(&mut self, nodes: &[&Node], equality: bool) -> Option<Restriction> {
        let mut mentioned = Vec::new();
        for node in nodes {
            self.mentions(node, &mut mentioned)?;
        }
        if mentioned.len() > COLUMNS {
            return None;
        }
        let occurs = |column: &Column| mentioned.iter().filter(|other| other.may_be(column)).count();
        if mentioned.iter().any(|column| occurs(column) > 1) {
            return None;
        }
        let columns: Vec<Column> = nodes.iter().flat_map(|node| self.deciding(node)).collect();
        (!columns.is_empty()).then_some(Restriction { columns, equality })
    }

    fn sub_query(&mut self, link: &SubLink, holds: bool) -> Option<Restriction> {
        let select = link.subselect.as_deref()?;
        match SubLinkType::try_from(link.sub_link_type).ok()? {
            kind @ (SubLinkType::AnySublink | SubLinkType::AllSublink) => {
                let names = strings(&link.oper_name);
                let any = (kind == SubLinkType::AnySublink) == holds;
                if any && !names.is_empty() && is_negated(&names) == holds {
                    return None;
                }
                let found = self.restriction(&[link.testexpr.as_deref()?], holds && names.is_empty())?;
                self.is_restricted(select, false).then_some(found)
            }
            SubLinkType::ExistsSublink => {
                let columns = Vec::new();
                self.is_restricted(select, true).then_some(Restriction { columns, equality: holds })
            }
            _ => None,
        }
    }

    /// Whether a sub-select gives less than whole tables: it has a real condition of its own, or no table. With
    /// `correlated`, its condition must be one on the rows of the statement around it.
    fn is_restricted(&mut self, select: &Node, correlated: bool) -> bool {
        let Some(NodeEnum::SelectStmt(select)) = inner(select) else { return false };
        if self.depth >= DEPTH || select.with_clause.is_some() {
            return false;
        }
        let mut within = Reader {
            subject: self.subject.sub_select(&select.from_clause),
            literals_matter: false,
            compared: self.compared,
            depth: self.depth + 1,
        };
        let is_restricted = match (&select.larg, &select.rarg, select.where_clause.as_deref()) {
            (Some(_), _, _) | (_, Some(_), _) => false,
            (None, None, Some(condition)) => {
                let arms = within.arms(condition, true);
                arms.iter().any(|arm| !correlated || arm.columns.iter().any(|column| column.is_outer))
            }
            (None, None, None) => {
                let mut mentioned = Vec::new();
                let mut given =
                    select.target_list.iter().chain(&select.values_lists).chain(&select.from_clause);
                let is_known = given.all(|node| within.mentions(node, &mut mentioned).is_some());
                !correlated && is_known && mentioned.is_empty()
            }
        };
        (self.compared, self.literals_matter) =
            (within.compared, self.literals_matter | within.literals_matter);
        is_restricted
    }

    /// The columns that certainly decide an expression, as often as they occur. Where they may not, as in `coalesce`,
    /// they are left out.
    fn deciding(&self, node: &Node) -> Vec<Column> {
        let all =
            |nodes: &mut dyn Iterator<Item = &Node>| nodes.flat_map(|node| self.deciding(node)).collect();
        match inner(node) {
            Some(NodeEnum::ColumnRef(column)) => {
                self.subject.column(&strings(&column.fields)).into_iter().collect()
            }
            Some(NodeEnum::AExpr(expr)) => all(&mut expr.lexpr.iter().chain(&expr.rexpr).map(|side| &**side)),
            Some(NodeEnum::TypeCast(cast)) => all(&mut cast.arg.iter().map(|arg| &**arg)),
            Some(NodeEnum::CollateClause(collate)) => all(&mut collate.arg.iter().map(|arg| &**arg)),
            Some(NodeEnum::FuncCall(call)) => all(&mut call.args.iter()),
            Some(NodeEnum::RowExpr(row)) => all(&mut row.args.iter()),
            Some(NodeEnum::List(list)) => all(&mut list.items.iter()),
            Some(NodeEnum::AArrayExpr(list)) => all(&mut list.elements.iter()),
            Some(NodeEnum::AIndirection(field)) => all(&mut field.arg.iter().map(|arg| &**arg)),
            _ => Vec::new(),
        }
    }

    /// Every column in an expression, wherever in it. None if it holds something that nothing is certain of: a row as a
    /// whole, a sub-select without a real condition, an expression of another kind.
    fn mentions(&mut self, node: &Node, found: &mut Vec<Column>) -> Option<()> {
        match inner(node)? {
            NodeEnum::AConst(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::CurrentOfExpr(_) => Some(()),
            NodeEnum::ColumnRef(column) => {
                found.extend(self.subject.mentioned(&strings(&column.fields), column.fields.len())?);
                Some(())
            }
            NodeEnum::SubLink(link) => {
                let select = link.subselect.as_deref()?;
                link.testexpr.as_deref().map_or(Some(()), |test| self.mentions(test, found))?;
                self.is_restricted(select, false).then_some(())
            }
            other => parts(other)?.into_iter().try_for_each(|part| self.mentions(part, found)),
        }
    }
}

/// What an expression consists of; none if that isn't known.
fn parts(node: &NodeEnum) -> Option<Vec<&Node>> {
    Some(match node {
        NodeEnum::AExpr(expr) => expr.lexpr.iter().chain(&expr.rexpr).map(|side| &**side).collect(),
        NodeEnum::TypeCast(cast) => cast.arg.iter().map(|arg| &**arg).collect(),
        NodeEnum::CollateClause(collate) => collate.arg.iter().map(|arg| &**arg).collect(),
        NodeEnum::NamedArgExpr(named) => named.arg.iter().map(|arg| &**arg).collect(),
        NodeEnum::ResTarget(target) => target.val.iter().map(|value| &**value).collect(),
        NodeEnum::FuncCall(call) if call.agg_filter.is_none() && call.over.is_none() => {
            call.args.iter().chain(&call.agg_order).collect()
        }
        NodeEnum::RowExpr(row) => row.args.iter().collect(),
        NodeEnum::List(list) => list.items.iter().collect(),
        NodeEnum::AArrayExpr(list) => list.elements.iter().collect(),
        NodeEnum::BoolExpr(expr) => expr.args.iter().collect(),
        NodeEnum::NullTest(test) => test.arg.iter().map(|arg| &**arg).collect(),
        NodeEnum::BooleanTest(test) => test.arg.iter().map(|arg| &**arg).collect(),
        NodeEnum::CoalesceExpr(expr) => expr.args.iter().collect(),
        NodeEnum::MinMaxExpr(expr) => expr.args.iter().collect(),
        NodeEnum::CaseExpr(expr) => {
            let (first, last) = (expr.arg.iter(), expr.defresult.iter());
            first.chain(last).map(|arg| &**arg).chain(&expr.args).collect()
        }
        NodeEnum::CaseWhen(when) => when.expr.iter().chain(&when.result).map(|arg| &**arg).collect(),
        // A field of a row may be any of its columns; an array's element is the array's.
        NodeEnum::AIndirection(step) if step.indirection.iter().all(is_index) => {
            step.arg.iter().map(|arg| &**arg).collect()
        }
        NodeEnum::RangeFunction(range) => range.functions.iter().collect(),
        _ => return None,
    })
}

fn is_index(step: &Node) -> bool {
    matches!(inner(step), Some(NodeEnum::AIndices(_)))
}

/// Whether an operator is one of inequality.
fn is_negated(names: &[&str]) -> bool {
    names.last().is_some_and(|name| matches!(*name, "<>" | "!=") || name.starts_with('!'))
}

/// Whether a comparison with the elements of an array restricts anything: one with all of none, and an inequality
/// with any of several, always hold.
fn elements_restrict(kind: AExprKind, right: &Node, differs: bool, holds: bool) -> bool {
    let has_elements = matches!(inner(right), Some(NodeEnum::AArrayExpr(list)) if !list.elements.is_empty());
    match kind {
        AExprKind::AexprOpAny if holds => !differs,
        AExprKind::AexprOpAll if !holds => !differs,
        AExprKind::AexprOpAny | AExprKind::AexprOpAll => has_elements,
        _ => true,
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
