//! FROM clauses: joins, sub-queries and functions.

use std::rc::Rc;

use pg_query::{
    NodeEnum,
    protobuf::{Alias, FuncCall, JoinExpr, Node, RangeFunction, RangeSubselect, RangeTableFunc},
};

use super::{
    expression::{function_name, inner},
    flow::{Columns, Flow, Found},
    names::expression_name,
    parse::NotUnderstood,
    scope::{Range, Scope},
    tracer::{Called, Result, Tracer, strings},
};

/// What a FROM clause brings into sight.
#[derive(Default)]
pub(super) struct From {
    pub(super) ranges: Vec<Rc<Range>>,
    /// The columns that `*` shows, in order.
    pub(super) star: Columns,
}

impl From {
    pub(super) fn one(range: Range) -> Self {
        Self { star: range.columns.clone(), ranges: vec![Rc::new(range)] }
    }

    /// What stands after it.
    pub(super) fn add(&mut self, other: Self) {
        self.ranges.extend(other.ranges);
        self.star.append(&other.star);
    }
}

impl Tracer<'_> {
    pub(super) fn range_list(&mut self, list: &[Node], outer: &Scope<'_>) -> Result<From> {
        let mut from = From::default();
        for item in list {
            let item = self.range_item(item, outer, &from.ranges)?;
            self.spend(item.star.cost());
            from.add(item);
        }
        Ok(from)
    }

    /// One item; `beside` is what LATERAL sees of its left neighbours.
    pub(super) fn range_item(
        &mut self,
        node: &Node,
        outer: &Scope<'_>,
        beside: &[Rc<Range>],
    ) -> Result<From> {
        self.spend(1 + beside.len());
        self.bounded()?;
        let lateral = || Scope::within(outer, beside.to_vec());
        match inner(node) {
            Some(NodeEnum::RangeVar(table)) => self.relation(table, outer).map(From::one),
            Some(NodeEnum::RangeSubselect(query)) if query.lateral => self.range_query(query, &lateral()),
            Some(NodeEnum::RangeSubselect(query)) => self.range_query(query, outer),
            Some(NodeEnum::RangeFunction(function)) => self.range_function(function, &lateral()),
            Some(NodeEnum::RangeTableFunc(table)) => self.xml_table(table, &lateral()),
            Some(NodeEnum::JsonTable(table)) => self.json_table(table, &lateral()),
            Some(NodeEnum::JoinExpr(join)) => self.join(join, outer, beside),
            Some(NodeEnum::RangeTableSample(sample)) => {
                let relation = sample.relation.as_deref();
                let relation = relation.ok_or_else(|| NotUnderstood::new("TABLESAMPLE of nothing"))?;
                // Whether they see what stands left of them isn't relied upon.
                for node in sample.args.iter().chain(sample.repeatable.as_deref()) {
                    self.deciding(Some(node), &lateral())?;
                    self.deciding(Some(node), outer)?;
                }
                if let [method] = strings(&sample.method).as_slice() {
                    self.call("select", None, method);
                }
                self.range_item(relation, outer, beside)
            }
            _ => {
                Err(NotUnderstood::new("the FROM clause holds an item of a kind that the gate doesn't know"))
            }
        }
    }

    fn range_query(&mut self, query: &RangeSubselect, scope: &Scope<'_>) -> Result<From> {
        let Some(node) = query.subquery.as_deref() else {
            return Err(NotUnderstood::new("a sub-query without a query"));
        };
        let columns = self.query(node, scope)?;
        Ok(From::one(named(query.alias.as_ref(), "", columns)))
    }

    fn join(&mut self, join: &JoinExpr, outer: &Scope<'_>, beside: &[Rc<Range>]) -> Result<From> {
        let (Some(left), Some(right)) = (join.larg.as_deref(), join.rarg.as_deref()) else {
            return Err(NotUnderstood::new("a join without two sides"));
        };
        let left = self.range_item(left, outer, beside)?;
        let seen: Vec<Rc<Range>> = beside.iter().chain(&left.ranges).cloned().collect();
        let right = self.range_item(right, outer, &seen)?;
        let ranges: Vec<Rc<Range>> = left.ranges.iter().chain(&right.ranges).cloned().collect();
        let on = Scope::within(outer, ranges.clone());
        self.deciding(join.quals.as_deref(), &on)?;
        self.spend(ranges.len() + left.star.cost() + right.star.cost());
        self.bounded()?;
        let using = self.merged_names(join, &left, &right)?;
        let is_known = |name: &String| [&left.star, &right.star].iter().all(|side| side.has_one(name));
        let mut are_merged = using.iter().all(is_known);
        if join.is_natural {
            are_merged &= left.star.are_known() && right.star.are_known();
        }
        if !using.is_empty() || join.is_natural {
            self.operator("select", &["="]);
        }
        self.spend((left.star.list.len() + right.star.list.len()).saturating_mul(using.len()));
        self.bounded()?;
        let mut merged = Columns::default();
        for name in &using {
            let flow = self.unqualified(name, &on);
            self.influence(&flow);
            merged.push(name.as_str(), flow);
        }
        let mut star = merge(&left.star, &right.star, &merged);
        if !are_merged {
            star = star.into_open();
        }
        Ok(match &join.alias {
            Some(alias) => {
                for range in &ranges {
                    self.star_of(range);
                }
                From::one(named(Some(alias), "", star))
            }
            None => {
                let of_using =
                    join.join_using_alias.as_ref().map(|alias| Rc::new(named(Some(alias), "", merged)));
                From { ranges: ranges.into_iter().chain(of_using).collect(), star }
            }
        })
    }

    /// The columns of USING, or those that NATURAL finds on both sides.
    fn merged_names(&mut self, join: &JoinExpr, left: &From, right: &From) -> Result<Vec<String>> {
        if !join.is_natural {
            return Ok(strings(&join.using_clause).into_iter().map(str::to_owned).collect());
        }
        self.spend(left.star.list.len().saturating_mul(right.star.list.len()));
        self.bounded()?;
        if !left.star.are_known() || !right.star.are_known() {
            self.influence(&left.star.all());
            self.influence(&right.star.all());
        }
        let both = |name: &&str| matches!(right.star.find(name), Found::Certain(_));
        Ok(left.star.list.iter().map(|column| &*column.name).filter(both).map(str::to_owned).collect())
    }

    fn range_function(&mut self, function: &RangeFunction, scope: &Scope<'_>) -> Result<From> {
        let mut columns = Columns::default();
        let single = function.functions.len() == 1;
        let alias = function.alias.as_ref().map(|alias| alias.aliasname.as_str());
        let mut name = None;
        for node in &function.functions {
            let Some(NodeEnum::List(pair)) = inner(node) else {
                return Err(NotUnderstood::new("a function in FROM of a kind that the gate doesn't know"));
            };
            let mut parts = pair.items.iter();
            let (call, declared) = (parts.next(), parts.next());
            let call = call.ok_or_else(|| NotUnderstood::new("a function in FROM without a call"))?;
            let declared = match declared.and_then(inner) {
                Some(NodeEnum::List(list)) => list.items.as_slice(),
                _ if single => function.coldeflist.as_slice(),
                _ => &[],
            };
            name = name.or_else(|| Some(expression_name(call)));
            columns.append(&self.function_columns(call, declared, alias.filter(|_| single), scope)?);
        }
        if function.ordinality {
            columns.push("ordinality", Flow::default());
        }
        let name = name.flatten();
        if name.is_none() && function.alias.is_none() {
            return Err(NotUnderstood::new(
                "the gate doesn't know what the server calls an expression in FROM: give it an alias",
            ));
        }
        Ok(From::one(named(function.alias.as_ref(), name.unwrap_or_default(), columns)))
    }

    fn function_columns(
        &mut self,
        node: &Node,
        declared: &[Node],
        alias: Option<&str>,
        scope: &Scope<'_>,
    ) -> Result<Columns> {
        let flow = self.expression(node, scope)?.into_computed();
        let mut columns = Columns::default();
        if !declared.is_empty() {
            Self::fits(declared.len())?;
            self.spend(flow.cost().saturating_mul(declared.len()));
            self.bounded()?;
            for column in declared {
                if let Some(NodeEnum::ColumnDef(column)) = inner(column) {
                    self.type_of(column.type_name.as_ref(), scope);
                    columns.push(column.colname.as_str(), flow.clone());
                }
            }
            return Ok(columns);
        }
        let Some(NodeEnum::FuncCall(call)) = inner(node) else {
            // It may be a cast to a composite type.
            return Ok(Columns::open(flow));
        };
        let Some(outputs) = self.declared_outputs(call, scope)? else { return Ok(Columns::open(flow)) };
        let own = alias.unwrap_or(function_name(call)?.1);
        for (index, name) in outputs.iter().enumerate() {
            match name.as_str() {
                "" if outputs.len() == 1 => columns.push(own, flow.clone()),
                "" => columns.push(format!("column{}", index + 1), flow.clone()),
                name => columns.push(name, flow.clone()),
            }
        }
        Ok(columns)
    }

    /// The names of the result columns that all functions of the name agree on, empty where none is declared; none if they
    /// differ, or aren't known.
    fn declared_outputs(&mut self, call: &FuncCall, scope: &Scope<'_>) -> Result<Option<Vec<String>>> {
        let (schema, name) = function_name(call)?;
        let Called { candidates, .. } = self.call(scope.statement, schema, name);
        let mut agreed: Option<Vec<String>> = None;
        for function in candidates.iter().filter(|f| schema.is_none_or(|schema| schema == &*f.schema)) {
            let own: Vec<String> = match &function.outputs {
                Some(outputs) => outputs.iter().map(|name| name.to_string()).collect(),
                None if function.scalar => vec![String::new()],
                None => return Ok(None),
            };
            if agreed.as_ref().is_some_and(|agreed| *agreed != own) {
                return Ok(None);
            }
            agreed = Some(own);
        }
        Ok(agreed)
    }

    fn xml_table(&mut self, table: &RangeTableFunc, scope: &Scope<'_>) -> Result<From> {
        let mut flow =
            self.computed(table.docexpr.as_deref().into_iter().chain(table.rowexpr.as_deref()), scope)?;
        flow.join(&self.computed(&table.namespaces, scope)?);
        self.influence(&flow);
        let mut columns = Columns::default();
        for node in &table.columns {
            let Some(NodeEnum::RangeTableFuncCol(column)) = inner(node) else { continue };
            self.type_of(column.type_name.as_ref(), scope);
            let parts = column.colexpr.as_deref().into_iter().chain(column.coldefexpr.as_deref());
            let mut own = self.computed(parts, scope)?;
            own.join(&flow);
            self.spend(own.cost());
            self.bounded()?;
            columns.push(column.colname.as_str(), own);
        }
        Ok(From::one(named(table.alias.as_ref(), "xmltable", columns)))
    }
}

/// A range under its alias, if it has one, with the alias's column names.
pub(super) fn named(alias: Option<&Alias>, otherwise: &str, columns: Columns) -> Range {
    let (name, names) = match alias {
        Some(alias) => (alias.aliasname.as_str(), strings(&alias.colnames)),
        None => (otherwise, Vec::new()),
    };
    Range { alias: name.into(), columns: columns.renamed(&names), ..Range::default() }
}

/// The columns of a join: merged ones first, then what is left of either side.
fn merge(left: &Columns, right: &Columns, merged: &Columns) -> Columns {
    let without = |side: &Columns| Columns {
        list: side
            .list
            .iter()
            .filter(|column| !merged.list.iter().any(|merged| column.is_named(&merged.name)))
            .cloned()
            .collect(),
        rest: side.rest.clone(),
        all_named: side.all_named,
    };
    let mut all = merged.clone();
    all.append(&without(left));
    all.append(&without(right));
    all
}
