//! SELECT, VALUES, TABLE, set operations and WITH.

use std::{rc::Rc, sync::Arc};

use pg_query::{
    NodeEnum,
    protobuf::{CommonTableExpr, Node, ResTarget, SelectStmt, SetOperation, WithClause},
};

use super::{
    expression::{inner, literal_text, sort_operator},
    flow::{Columns, Flow, Found},
    names::output_name,
    parse::NotUnderstood,
    scope::{Range, Scope},
    tracer::{Result, Tracer, strings},
};

/// How often a recursive query is followed until its flows no longer grow.
const ROUNDS: usize = 32;

impl Tracer<'_> {
    /// The columns of anything that can stand in parentheses or in a WITH clause.
    pub(super) fn query(&mut self, node: &Node, outer: &Scope<'_>) -> Result<Columns> {
        match inner(node) {
            Some(NodeEnum::SelectStmt(select)) => self.select(select, outer),
            Some(NodeEnum::InsertStmt(insert)) => self.insert(insert, outer),
            Some(NodeEnum::UpdateStmt(update)) => self.update(update, outer),
            Some(NodeEnum::DeleteStmt(delete)) => self.delete(delete, outer),
            Some(NodeEnum::MergeStmt(merge)) => self.merge(merge, outer),
            _ => Err(NotUnderstood::new("the statement holds a query of a kind that the gate doesn't know")),
        }
    }

    /// The columns of a SELECT in any of its forms.
    pub(super) fn select(&mut self, select: &SelectStmt, outer: &Scope<'_>) -> Result<Columns> {
        let with = self.with(select.with_clause.as_ref(), outer)?;
        let with = Scope { statement: "select", ..with };
        let columns = if is_set_operation(select) {
            self.set_operation(select, &with)?
        } else if select.values_lists.is_empty() {
            self.plain_select(select, &with)?
        } else {
            self.values(select, &with)?
        };
        self.deciding(select.limit_count.as_deref(), &with)?;
        self.deciding(select.limit_offset.as_deref(), &with)?;
        if !select.locking_clause.is_empty() {
            self.keep();
        }
        Ok(columns)
    }

    fn plain_select(&mut self, select: &SelectStmt, with: &Scope<'_>) -> Result<Columns> {
        let from = self.range_list(&select.from_clause, with)?;
        let scope = Scope::within(with, from.ranges);
        self.deciding(select.where_clause.as_deref(), &scope)?;
        let columns = self.targets(&select.target_list, &scope, &from.star)?;
        for node in &select.group_clause {
            self.grouping(node, &columns, &scope)?;
        }
        self.deciding(select.having_clause.as_deref(), &scope)?;
        for node in &select.window_clause {
            if let Some(NodeEnum::WindowDef(window)) = inner(node) {
                self.window(window, &scope)?;
            }
        }
        match select.distinct_clause.as_slice() {
            [] => {}
            [empty] if empty.node.is_none() => self.influence(&columns.all()),
            expressions => {
                for node in expressions {
                    self.ordering(node, &columns, &scope)?;
                }
            }
        }
        self.sorting(&select.sort_clause, &columns, &scope)?;
        Ok(columns)
    }

    fn values(&mut self, select: &SelectStmt, with: &Scope<'_>) -> Result<Columns> {
        let mut all: Option<Columns> = None;
        for row in &select.values_lists {
            let Some(NodeEnum::List(row)) = inner(row) else { continue };
            let mut columns = Columns::default();
            for (index, flow) in self.row(&row.items, with)?.into_iter().enumerate() {
                columns.push(format!("column{}", index + 1), flow);
            }
            match &mut all {
                Some(all) => all.unite(&columns),
                None => all = Some(columns),
            }
        }
        let columns = all.unwrap_or_default();
        let own = Range { alias: "*VALUES*".into(), columns: columns.clone(), ..Range::default() };
        self.sorting(&select.sort_clause, &columns, &Scope::within(with, vec![Rc::new(own)]))?;
        Ok(columns)
    }

    fn set_operation(&mut self, select: &SelectStmt, with: &Scope<'_>) -> Result<Columns> {
        let (Some(left), Some(right)) = (select.larg.as_deref(), select.rarg.as_deref()) else {
            return Err(NotUnderstood::new("a set operation without two sides"));
        };
        let mut columns = self.select(left, with)?;
        columns.unite(&self.select(right, with)?);
        self.spend(columns.cost());
        self.bounded()?;
        if !(select.op == SetOperation::SetopUnion as i32 && select.all) {
            self.influence(&columns.all());
        }
        let outputs = Range { columns: columns.clone(), ..Range::default() };
        let scope = Scope { statement: with.statement, ranges: vec![Rc::new(outputs)], ..Scope::default() };
        self.sorting(&select.sort_clause, &columns, &scope)?;
        Ok(columns)
    }

    /// The output columns of a target or RETURNING list; `star` is what a bare `*` stands for.
    pub(super) fn targets(&mut self, list: &[Node], scope: &Scope<'_>, star: &Columns) -> Result<Columns> {
        let mut columns = Columns::default();
        for node in list {
            let Some(NodeEnum::ResTarget(target)) = inner(node) else {
                return Err(NotUnderstood::new("an output column of a kind that the gate doesn't know"));
            };
            match self.star(target, scope, star)? {
                Some(all) => {
                    Self::fits(columns.list.len() + all.list.len())?;
                    self.spend(all.cost());
                    columns.append(&all);
                }
                None => {
                    Self::fits(columns.list.len() + 1)?;
                    let flow = self.optional(target.val.as_deref(), scope)?;
                    let (name, naming) = output_name(target);
                    columns.push_named(name, naming, flow);
                }
            }
            self.bounded()?;
        }
        Ok(columns)
    }

    /// The columns of `*`, `t.*` and `(expression).*`; none if it is neither.
    fn star(&mut self, target: &ResTarget, scope: &Scope<'_>, star: &Columns) -> Result<Option<Columns>> {
        let is_star = |node: Option<&Node>| matches!(node.and_then(inner), Some(NodeEnum::AStar(_)));
        let (schema, range) = match target.val.as_deref().and_then(inner) {
            Some(NodeEnum::ColumnRef(column)) if is_star(column.fields.last()) => {
                match *strings(&column.fields).as_slice() {
                    [] => {
                        for range in &scope.ranges {
                            self.star_of(range);
                        }
                        return Ok(Some(star.clone()));
                    }
                    [range] => (None, range.to_owned()),
                    [.., schema, range] => (Some(schema.to_owned()), range.to_owned()),
                }
            }
            Some(NodeEnum::AIndirection(row)) if is_star(row.indirection.last()) => {
                let whole = match row.arg.as_deref().and_then(inner) {
                    Some(NodeEnum::ColumnRef(column)) if row.indirection.len() == 1 => {
                        strings(&column.fields)
                    }
                    _ => Vec::new(),
                };
                match *whole.as_slice() {
                    [range] if self.is_row(range, scope) => (None, range.to_owned()),
                    _ => {
                        return Ok(Some(Columns::open(
                            self.optional(row.arg.as_deref(), scope)?.into_computed(),
                        )));
                    }
                }
            }
            _ => return Ok(None),
        };
        let mut columns = Columns::default();
        match scope.ranges_named(schema.as_deref(), &range).as_slice() {
            [one] => columns = self.star_of(one),
            [] => {
                self.doubtful = true;
                columns = Columns::open(Flow::untraced(format!("{range}.* isn't known")));
            }
            several => several.iter().for_each(|range| columns.append(&self.star_of(range))),
        }
        Ok(Some(columns))
    }

    fn sorting(&mut self, list: &[Node], columns: &Columns, scope: &Scope<'_>) -> Result<()> {
        for node in list {
            if let Some(NodeEnum::SortBy(sort)) = inner(node) {
                self.operator(scope.statement, &sort_operator(sort));
                if let Some(node) = sort.node.as_deref() {
                    self.ordering(node, columns, scope)?;
                }
            }
        }
        Ok(())
    }

    /// What rows are ordered, grouped or made distinct by: an output's number or name, or an expression. Where a name
    /// means both an output and a column, both count.
    fn ordering(&mut self, node: &Node, columns: &Columns, scope: &Scope<'_>) -> Result<()> {
        self.spend(columns.list.len());
        self.bounded()?;
        match inner(node) {
            Some(NodeEnum::AConst(_)) => {
                self.literals_matter = true;
                let number = literal_text(node).and_then(|text| text.parse::<usize>().ok());
                let output = number.and_then(|number| columns.list.get(number.checked_sub(1)?));
                let flow = match (output, &columns.rest) {
                    (Some(column), None) => column.flow.clone(),
                    _ => columns.all(),
                };
                self.influence(&flow);
                Ok(())
            }
            Some(NodeEnum::ColumnRef(column)) if column.fields.len() == 1 => {
                let name = strings(&column.fields).first().copied().unwrap_or_default();
                let found = columns.find(name);
                let is_output = matches!(found, Found::Certain(_));
                if let Found::Certain(flow) | Found::Perhaps(flow) = found {
                    self.influence(&flow);
                }
                match is_output && !scope.ranges.iter().any(|range| range.may_have(name)) {
                    true => Ok(()),
                    false => self.deciding(Some(node), scope),
                }
            }
            _ => self.deciding(Some(node), scope),
        }
    }

    fn grouping(&mut self, node: &Node, columns: &Columns, scope: &Scope<'_>) -> Result<()> {
        match inner(node) {
            Some(NodeEnum::GroupingSet(set)) => {
                set.content.iter().try_for_each(|node| self.grouping(node, columns, scope))
            }
            Some(NodeEnum::RowExpr(row)) => {
                row.args.iter().try_for_each(|node| self.grouping(node, columns, scope))
            }
            Some(NodeEnum::List(list)) => {
                list.items.iter().try_for_each(|node| self.grouping(node, columns, scope))
            }
            _ => self.ordering(node, columns, scope),
        }
    }

    /// The names that a WITH clause adds.
    pub(super) fn with<'s>(
        &mut self,
        clause: Option<&WithClause>,
        outer: &'s Scope<'s>,
    ) -> Result<Scope<'s>> {
        let mut scope = Scope::within(outer, Vec::new());
        let Some(clause) = clause else { return Ok(scope) };
        let ctes: Vec<&CommonTableExpr> = clause
            .ctes
            .iter()
            .filter_map(|node| match inner(node) {
                Some(NodeEnum::CommonTableExpr(cte)) => Some(&**cte),
                _ => None,
            })
            .collect();
        if clause.recursive {
            scope.pending = ctes.iter().map(|cte| cte.ctename.as_str().into()).collect();
        }
        for cte in ctes {
            let columns =
                if clause.recursive { self.recursive(cte, &mut scope)? } else { self.cte(cte, &scope)? };
            self.spend(columns.cost() + scope.pending.len());
            self.bounded()?;
            let name: Arc<str> = cte.ctename.as_str().into();
            scope.pending.retain(|pending| *pending != name);
            scope.ctes.insert(name, columns);
        }
        Ok(scope)
    }

    fn cte(&mut self, cte: &CommonTableExpr, scope: &Scope<'_>) -> Result<Columns> {
        let Some(query) = cte.ctequery.as_deref() else {
            return Err(NotUnderstood::new("a WITH clause without a query"));
        };
        let mut columns = self.query(query, scope)?.renamed(&strings(&cte.aliascolnames));
        if let Some(search) = &cte.search_clause {
            columns.push(search.search_seq_column.as_str(), columns.all());
        }
        if let Some(cycle) = &cte.cycle_clause {
            for mark in cycle.cycle_mark_value.iter().chain(&cycle.cycle_mark_default) {
                self.deciding(Some(mark), scope)?;
            }
            // Where its columns repeat, a row has no successors.
            for name in strings(&cycle.cycle_col_list) {
                match columns.find(name) {
                    Found::Certain(flow) | Found::Perhaps(flow) => self.influence(&flow),
                    Found::No => self.influence(&columns.all()),
                }
            }
            columns.push(cycle.cycle_mark_column.as_str(), columns.all());
            columns.push(cycle.cycle_path_column.as_str(), columns.all());
        }
        Ok(columns)
    }

    /// A query that may name itself: seeded with its first arm, then followed until nothing is added.
    fn recursive(&mut self, cte: &CommonTableExpr, scope: &mut Scope<'_>) -> Result<Columns> {
        let name: Arc<str> = cte.ctename.as_str().into();
        let seed = match cte.ctequery.as_deref().and_then(inner) {
            Some(NodeEnum::SelectStmt(select)) if is_set_operation(select) => select.larg.as_deref(),
            _ => None,
        };
        let Some(seed) = seed else { return self.cte(cte, scope) };
        let within = self.with(
            match cte.ctequery.as_deref().and_then(inner) {
                Some(NodeEnum::SelectStmt(select)) => select.with_clause.as_ref(),
                _ => None,
            },
            scope,
        )?;
        let mut columns = self.select(seed, &within)?.renamed(&strings(&cte.aliascolnames));
        drop(within);
        for _ in 0..ROUNDS {
            scope.pending.retain(|pending| *pending != name);
            scope.ctes.insert(name.clone(), columns.clone());
            let next = self.cte(cte, scope)?;
            if next == columns {
                return Ok(columns);
            }
            columns = next;
        }
        Err(NotUnderstood::new("a recursive query is more tangled than the gate follows"))
    }
}

fn is_set_operation(select: &SelectStmt) -> bool {
    !matches!(SetOperation::try_from(select.op), Ok(SetOperation::SetopNone | SetOperation::Undefined))
}
