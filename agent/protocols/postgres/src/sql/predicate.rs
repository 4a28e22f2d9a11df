//! Whether a WHERE clause restricts which rows of its table are changed.
//!
//! A condition is `real` if some part of it that must hold compares a column of the changed table with something
//! else: the column stands on one side only, and only once, by itself or within what keeps its values apart (see
//! [`operand`](super::operand)). It is `constant` whenever that isn't certain:
//!
//! - no column of the table in it (`1 = 1`, `true`, an uncorrelated `EXISTS`);
//! - a column within something that may be the same for every row (`(id = 1) IN (true, false)`, `id * 0 = 0`,
//!   `num_nonnulls(id) = 1`), or in a function that answers by itself (`starts_with(body, '')`);
//! - a sub-select in it without a real condition on the range that its output is of (`id IN (SELECT id FROM t)`), or whose
//!   output is of none and isn't given (`id IN (SELECT generate_series(1, 9) FROM t WHERE t.id = 1)`);
//! - an EXISTS over a sub-select that gives a row for no rows, as an aggregate does (`EXISTS (SELECT count(*) ...)`), and
//!   a NOT EXISTS, NOT IN or `<> ALL` over one that may be cut to nothing (`id NOT IN (SELECT 0 WHERE false)`, `LIMIT 0`);
//! - what holds of all or any elements of an array that may be empty or have several (`id <> ALL ('{}')`);
//! - the same column on both sides (`id = id`), or several times on one (`id - id = 0`);
//! - `IS NOT NULL` and the like, which may well hold for every row, what differs from a parameter, which may be null
//!   (`id IS DISTINCT FROM $1`), and patterns that aren't literals which certainly ask
//!   for some character (see [`pattern`](super::pattern));
//! - operators that aren't among the known comparisons (`tags @> '{}'`);
//! - an OR with an arm that is constant, or with two arms on one column that aren't both equalities
//!   (`a = 1 OR a <> 1`, `a < 5 OR a > 3`).
//!
//! A condition can be real and still hold for every row (`id > -1`): this catches the forgotten WHERE, not intent.

use std::collections::BTreeSet;

use pg_query::{
    NodeEnum,
    protobuf::{
        AExpr, AExprKind, BoolExprType, BoolTestType, JoinType, Node, NullTestType, SelectStmt, SubLink,
        SubLinkType,
    },
};

use super::{
    emptiness::{Cut, cut, gives_a_row_for_none, is_given, is_literal},
    expression::inner,
    operand::{Comparison, decides},
    pattern::{self, Syntax},
    scope::{Range, Scope},
    subject::{Column, Subject, Wanted},
    tracer::strings,
};

/// The kind of a condition, and whether another literal could change it.
pub(super) fn kind(condition: Option<&Node>, target: &Range, scope: &Scope<'_>) -> (&'static str, bool) {
    let Some(condition) = condition else { return ("none", false) };
    let mut reader =
        Reader { subject: Subject::target(target, scope), literals_matter: false, steps: 0, depth: 0 };
    let real = !reader.arms(condition, true).is_empty();
    (if real { "real" } else { "constant" }, reader.literals_matter)
}

struct Reader<'a> {
    subject: Subject<'a>,
    literals_matter: bool,
    /// Steps taken: expressions read, ranges looked at, pairs of restrictions compared.
    steps: usize,
    /// Sub-selects around this.
    depth: usize,
}

/// How many steps are taken: beyond, nothing is certain.
const STEPS: usize = 1_000_000;

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
        self.steps += 1;
        if self.steps > STEPS {
            return Vec::new();
        }
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
                let found = test.arg.as_deref().and_then(|arg| self.alone(arg, true));
                found.filter(|_| is_null).into_iter().collect()
            }
            Some(NodeEnum::BooleanTest(test)) => {
                let positive = matches!(
                    BoolTestType::try_from(test.booltesttype),
                    Ok(BoolTestType::IsTrue | BoolTestType::IsFalse | BoolTestType::IsUnknown)
                );
                let found = test.arg.as_deref().and_then(|arg| self.alone(arg, true));
                found.filter(|_| positive == holds).into_iter().collect()
            }
            Some(NodeEnum::ColumnRef(_)) => self.alone(node, false).into_iter().collect(),
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
            self.steps = self.steps.saturating_add(own.len().saturating_mul(all.len()));
            if self.steps > STEPS {
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

    /// A restriction by a column that stands by itself: `active`, `deleted IS NULL`.
    fn alone(&mut self, node: &Node, equality: bool) -> Option<Restriction> {
        self.restriction(&[node], Comparison::Null, equality)
    }

    fn comparison(&mut self, expr: &AExpr, holds: bool) -> Option<Restriction> {
        let (left, right) = (expr.lexpr.as_deref()?, expr.rexpr.as_deref()?);
        let kind = AExprKind::try_from(expr.kind).ok()?;
        if is_null(left) || is_null(right) {
            return None;
        }
        let names = strings(&expr.name);
        let comparison = Comparison::of(kind, names.last()?, holds)?;
        if !elements_restrict(kind, right, is_negated(&names) == holds, holds) {
            return None;
        }
        if let Comparison::Pattern(syntax) = comparison {
            self.literals_matter = true;
            if !pattern::asks(syntax, right) {
                return None;
            }
            let equality = syntax != Syntax::Contained && holds && !is_negated(&names);
            return self.restriction(&[left, right], comparison, equality);
        }
        if comparison == Comparison::Null && !is_literal(left) && !is_literal(right) {
            return None;
        }
        self.restriction(&[left, right], comparison, comparison == Comparison::Equality)
    }

    /// A restriction if columns certainly decide these expressions, and none of them occurs twice: of what is compared
    /// with itself nothing is certain.
    fn restriction(
        &mut self,
        nodes: &[&Node],
        comparison: Comparison,
        equality: bool,
    ) -> Option<Restriction> {
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
        let columns: Vec<Column> = nodes
            .iter()
            .enumerate()
            .flat_map(|(side, node)| decides(node, side == 1, comparison, &self.subject))
            .collect();
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
                let comparison = match names.last() {
                    None => Comparison::of(AExprKind::AexprOp, "=", holds)?,
                    Some(name) => Comparison::of(AExprKind::AexprOp, name, holds)?,
                };
                if matches!(comparison, Comparison::Pattern(_)) {
                    return None;
                }
                let equality = holds && names.is_empty();
                let found = self.restriction(&[link.testexpr.as_deref()?], comparison, equality)?;
                (self.is_restricted(select, false) && (any || self.is_of_rows(select))).then_some(found)
            }
            SubLinkType::ExistsSublink => {
                let columns = Vec::new();
                let counts = !gives_a_row_for_none(select) && (holds || !self.may_be_cut(select));
                (counts && self.is_restricted(select, true))
                    .then_some(Restriction { columns, equality: holds })
            }
            _ => None,
        }
    }

    /// Whether a sub-select gives less than whole tables: it has a real condition on every range that its output is
    /// of, or no table. With `correlated`, its condition must be one on the rows of the statement around it.
    fn is_restricted(&mut self, select: &Node, correlated: bool) -> bool {
        let Some(NodeEnum::SelectStmt(select)) = inner(select) else { return false };
        if self.depth >= DEPTH
            || self.steps > STEPS
            || select.with_clause.is_some()
            || select.larg.is_some()
            || select.rarg.is_some()
        {
            return false;
        }
        let Some(condition) = select.where_clause.as_deref() else {
            return !correlated && self.has_no_column(select);
        };
        if correlated {
            return self.restricts(select, condition, Wanted::Outer);
        }
        let mut within = self.within(select, Wanted::Any);
        let ranges = within.outputs(&select.target_list);
        self.absorb(&within);
        ranges.is_some_and(|ranges| {
            let are_given = || select.target_list.iter().all(is_given);
            (!ranges.is_empty() || are_given())
                && ranges.into_iter().all(|range| self.restricts(select, condition, Wanted::Range(range)))
        })
    }

    /// Whether what holds of all that a sub-select gives is about rows of a table, or values that it certainly gives:
    /// of nothing, it would hold always.
    fn is_of_rows(&mut self, select: &Node) -> bool {
        let Some(NodeEnum::SelectStmt(of)) = inner(select) else { return false };
        if self.may_be_cut(select) || of.having_clause.is_some() {
            return false;
        }
        match of.from_clause.is_empty() {
            true => of.where_clause.is_none() && of.target_list.iter().all(is_given),
            false => of.where_clause.is_some() && !of.target_list.iter().all(is_given),
        }
    }

    /// Whether LIMIT or OFFSET may leave nothing of what a sub-select gives.
    fn may_be_cut(&mut self, select: &Node) -> bool {
        let cut = cut(select);
        self.literals_matter |= cut != Cut::Never;
        cut == Cut::Perhaps
    }

    /// Whether a sub-select's condition is a real one on the range that is wanted. What its inner joins say counts with
    /// its WHERE, not instead of it.
    fn restricts(&mut self, select: &SelectStmt, condition: &Node, wanted: Wanted) -> bool {
        let mut within = self.within(select, wanted);
        let mut is_restricted = !within.arms(condition, true).is_empty();
        if !is_restricted && matches!(within.subject, Subject::SubSelect { wanted: Wanted::Range(_), .. }) {
            let mut any = self.within(select, Wanted::Any);
            is_restricted = !any.arms(condition, true).is_empty()
                && joined(&select.from_clause).iter().any(|on| !within.arms(on, true).is_empty());
            within.absorb(&any);
        }
        self.absorb(&within);
        is_restricted
    }

    fn has_no_column(&mut self, select: &SelectStmt) -> bool {
        let mut within = self.within(select, Wanted::Any);
        let mut mentioned = Vec::new();
        let mut given = select.target_list.iter().chain(&select.values_lists).chain(&select.from_clause);
        let is_known = given.all(|node| within.mentions(node, &mut mentioned).is_some());
        self.absorb(&within);
        is_known && mentioned.is_empty()
    }

    fn within(&self, select: &SelectStmt, wanted: Wanted) -> Self {
        let subject = self.subject.sub_select(&select.from_clause, wanted);
        let steps = self.steps.saturating_add(subject.ranges());
        Reader { subject, literals_matter: false, steps, depth: self.depth + 1 }
    }

    fn absorb(&mut self, other: &Self) {
        self.steps = self.steps.max(other.steps);
        self.literals_matter |= other.literals_matter;
    }

    /// The ranges that a sub-select's output is of; none if they aren't all known.
    fn outputs(&mut self, targets: &[Node]) -> Option<BTreeSet<String>> {
        let mut columns = Vec::new();
        for target in targets {
            match self.subject.starred(target) {
                Some(range) => columns.push(Some(range)),
                None => {
                    let mut found = Vec::new();
                    self.mentions(target, &mut found)?;
                    columns.extend(found.into_iter().map(|column| column.range));
                }
            }
        }
        columns.into_iter().collect()
    }

    /// Every column in an expression, wherever in it. None if it holds something that nothing is certain of: a row as a
    /// whole, a sub-select without a real condition, an expression of another kind.
    fn mentions(&mut self, node: &Node, found: &mut Vec<Column>) -> Option<()> {
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
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

/// The conditions of a FROM clause's inner joins.
fn joined(from: &[Node]) -> Vec<&Node> {
    let mut waiting: Vec<&Node> = from.iter().collect();
    let mut conditions = Vec::new();
    while let Some(node) = waiting.pop() {
        if let Some(NodeEnum::JoinExpr(join)) = inner(node)
            && join.jointype == JoinType::JoinInner as i32
        {
            conditions.extend(join.quals.as_deref());
            waiting.extend(join.larg.iter().chain(&join.rarg).map(|side| &**side));
        }
    }
    conditions
}

fn is_null(node: &Node) -> bool {
    match inner(node) {
        Some(NodeEnum::AConst(constant)) => constant.isnull,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_null),
        _ => false,
    }
}
