//! INSERT, UPDATE, DELETE and MERGE.

use std::{rc::Rc, sync::Arc};

use pg_query::{
    NodeEnum,
    protobuf::{
        CmdType, DeleteStmt, InsertStmt, MergeMatchKind, MergeStmt, MergeWhenClause, Node, OnConflictClause,
        RangeVar, ResTarget, ReturningClause, UpdateStmt,
    },
};
use tidegate_policy::Path;

use super::{
    expression::inner,
    flow::{Columns, Flow},
    from::From,
    parse::NotUnderstood,
    predicate,
    relation::certain,
    scope::{Range, Scope},
    tracer::{Result, Tracer},
};

/// The table that a statement changes.
struct Target {
    range: Rc<Range>,
    /// Columns in the order in which INSERT fills them; none if not known.
    order: Option<Vec<Arc<str>>>,
    /// The table, if its name can mean no other.
    certain: Option<Path>,
    statement: &'static str,
}

impl Target {
    /// Where a column's value is masked as before; nowhere, if the name may mean several tables.
    fn paths(&self, column: &str) -> Vec<Path> {
        self.certain.iter().map(|table| format!("{table}.{column}").into()).collect()
    }
}

impl Tracer<'_> {
    pub(super) fn insert(&mut self, insert: &InsertStmt, outer: &Scope<'_>) -> Result<Columns> {
        let with = self.with(insert.with_clause.as_ref(), outer)?;
        let target = self.target(insert.relation.as_ref(), "insert")?;
        let named: Vec<Arc<str>> = targets(&insert.cols).map(|column| column.name.as_str().into()).collect();
        let order = if named.is_empty() { target.order.clone() } else { Some(named) };
        let source = insert.select_stmt.as_deref().map(|query| self.query(query, &with)).transpose()?;
        let source = source.unwrap_or_default();
        let written = order.as_deref().unwrap_or_default();
        self.tie_rows(insert.select_stmt.as_deref(), order.as_deref(), &target.range.tables);
        let count = if source.rest.is_some() { written.len() } else { source.list.len() };
        self.write(&target, written.iter().take(count));
        let excluded = self.fill(&target, order.as_deref(), &source);
        self.parts(
            &insert.cols,
            &source,
            &Scope { statement: "insert", ..Scope::within(&with, Vec::new()) },
        )?;
        if let Some(conflict) = &insert.on_conflict_clause {
            self.on_conflict(conflict, &target, excluded, &with)?;
        }
        self.returning(insert.returning_clause.as_ref(), &target, From::default(), &with)
    }

    /// Notes what is copied into the target's columns by position; what each then holds.
    fn fill(&mut self, target: &Target, order: Option<&[Arc<str>]>, source: &Columns) -> Columns {
        let mut filled = target.range.columns.clone();
        filled.list.iter_mut().for_each(|column| column.flow = Flow::default());
        match (order, &source.rest) {
            (Some(order), None) => {
                for (name, column) in order.iter().zip(&source.list) {
                    self.copy(&column.flow, &target.paths(name));
                    if let Some(filled) = filled.list.iter_mut().find(|filled| filled.name == *name) {
                        filled.flow = column.flow.clone();
                    }
                }
                // A table with fewer columns doesn't take them, another of its name may.
                for column in source.list.iter().skip(order.len()) {
                    self.copy(&column.flow, &[]);
                }
                filled.rest = filled.rest.map(|_| source.all());
            }
            _ => {
                let all = source.all();
                self.copy(&all, &[]);
                self.spend(all.cost().saturating_mul(filled.list.len()));
                filled.list.iter_mut().for_each(|column| column.flow = all.clone());
                filled.rest = filled.rest.map(|_| all);
            }
        }
        filled
    }

    /// What is written to parts of columns, and which parts these are, counts as copied: no mask of the column's is of its parts.
    fn parts(&mut self, list: &[Node], source: &Columns, scope: &Scope<'_>) -> Result<()> {
        for (index, column) in targets(list).enumerate().filter(|(_, column)| !column.indirection.is_empty())
        {
            self.subscripts(column, scope)?;
            if let Some(value) = source.list.get(index) {
                self.copy(&value.flow, &[]);
            }
        }
        Ok(())
    }

    /// What a value's place in its column is computed from is kept there.
    fn subscripts(&mut self, column: &ResTarget, scope: &Scope<'_>) -> Result<()> {
        for step in &column.indirection {
            if let Some(NodeEnum::AIndices(index)) = inner(step) {
                let bounds = index.lidx.as_deref().into_iter().chain(index.uidx.as_deref());
                let flow = self.computed(bounds, scope)?;
                self.copy(&flow, &[]);
            }
        }
        Ok(())
    }

    fn on_conflict(
        &mut self,
        conflict: &OnConflictClause,
        target: &Target,
        excluded: Columns,
        with: &Scope<'_>,
    ) -> Result<()> {
        let excluded = Range { alias: "excluded".into(), columns: excluded, ..Range::default() };
        let own = Scope { statement: target.statement, ..Scope::within(with, vec![target.range.clone()]) };
        self.arbiter(conflict, target);
        if let Some(infer) = &conflict.infer {
            for element in &infer.index_elems {
                // It names an index and is not run.
                if let Some(NodeEnum::IndexElem(element)) = inner(element) {
                    self.uncomputed(|tracer| tracer.optional(element.expr.as_deref(), &own))?;
                }
            }
            self.uncomputed(|tracer| tracer.optional(infer.where_clause.as_deref(), &own))?;
        }
        let ranges = vec![target.range.clone(), Rc::new(excluded)];
        let scope = Scope { statement: target.statement, ..Scope::within(with, ranges) };
        self.assignments(&conflict.target_list, target, &scope)?;
        self.deciding(conflict.where_clause.as_deref(), &scope)
    }

    /// Whether a row conflicts tells whether the values given are in the arbiter's columns: those that it names, or
    /// any of the table's where it names a constraint, an expression or nothing.
    fn arbiter(&mut self, conflict: &OnConflictClause, target: &Target) {
        let elements = conflict.infer.as_ref().map_or(&[][..], |infer| infer.index_elems.as_slice());
        let named: Option<Vec<&str>> = elements
            .iter()
            .map(|element| match inner(element) {
                Some(NodeEnum::IndexElem(element)) if !element.name.is_empty() => Some(&*element.name),
                _ => None,
            })
            .collect();
        let named = named.filter(|named| !named.is_empty());
        let counts = |name: &str| named.as_ref().is_none_or(|named| named.contains(&name));
        let columns = target.range.columns.clone();
        for column in columns.list.iter().filter(|column| counts(&column.name)) {
            self.influence(&column.flow);
        }
        if let Some(rest) = columns.rest.as_ref().filter(|_| !columns.all_named) {
            self.influence(rest);
        }
    }

    pub(super) fn update(&mut self, update: &UpdateStmt, outer: &Scope<'_>) -> Result<Columns> {
        let with = self.with(update.with_clause.as_ref(), outer)?;
        let target = self.target(update.relation.as_ref(), "update")?;
        let from = self.range_list(&update.from_clause, &with)?;
        let ranges = std::iter::once(target.range.clone()).chain(from.ranges.iter().cloned()).collect();
        let scope = Scope { statement: "update", ..Scope::within(&with, ranges) };
        self.write(&target, []);
        self.assignments(&update.target_list, &target, &scope)?;
        self.deciding(update.where_clause.as_deref(), &scope)?;
        let returned = self.returning(update.returning_clause.as_ref(), &target, from, &with)?;
        self.note_condition(update.where_clause.as_deref(), &target, &scope);
        Ok(returned)
    }

    pub(super) fn delete(&mut self, delete: &DeleteStmt, outer: &Scope<'_>) -> Result<Columns> {
        let with = self.with(delete.with_clause.as_ref(), outer)?;
        let target = self.target(delete.relation.as_ref(), "delete")?;
        let from = self.range_list(&delete.using_clause, &with)?;
        let ranges = std::iter::once(target.range.clone()).chain(from.ranges.iter().cloned()).collect();
        let scope = Scope { statement: "delete", ..Scope::within(&with, ranges) };
        for table in &target.range.tables {
            self.table("delete", table, "write");
        }
        self.deciding(delete.where_clause.as_deref(), &scope)?;
        let returned = self.returning(delete.returning_clause.as_ref(), &target, from, &with)?;
        self.note_condition(delete.where_clause.as_deref(), &target, &scope);
        Ok(returned)
    }

    pub(super) fn merge(&mut self, merge: &MergeStmt, outer: &Scope<'_>) -> Result<Columns> {
        let with = self.with(merge.with_clause.as_ref(), outer)?;
        let target = self.target(merge.relation.as_ref(), "merge")?;
        let Some(source) = merge.source_relation.as_deref() else {
            return Err(NotUnderstood::new("MERGE without a source"));
        };
        let source = self.range_item(source, &with, &[])?;
        let ranges = std::iter::once(target.range.clone()).chain(source.ranges.iter().cloned()).collect();
        let scope = Scope { statement: "merge", ..Scope::within(&with, ranges) };
        self.write(&target, []);
        self.deciding(merge.join_condition.as_deref(), &scope)?;
        for node in &merge.merge_when_clauses {
            if let Some(NodeEnum::MergeWhenClause(when)) = inner(node) {
                self.merge_when(when, &target, &scope)?;
                self.note_merged(when, merge.join_condition.as_deref(), &target, &scope);
            }
        }
        self.returning(merge.returning_clause.as_ref(), &target, source, &with)
    }

    fn merge_when(&mut self, when: &MergeWhenClause, target: &Target, scope: &Scope<'_>) -> Result<()> {
        self.deciding(when.condition.as_deref(), scope)?;
        if when.command_type != CmdType::CmdInsert as i32 {
            return self.assignments(&when.target_list, target, scope);
        }
        let named: Vec<Arc<str>> =
            targets(&when.target_list).map(|column| column.name.as_str().into()).collect();
        let order = if named.is_empty() { target.order.clone() } else { Some(named) };
        let mut source = Columns::default();
        self.row(&when.values, scope)?.into_iter().for_each(|flow| source.push("", flow));
        self.write(target, order.iter().flatten());
        self.fill(target, order.as_deref(), &source);
        self.parts(&when.target_list, &source, scope)
    }

    /// What a WHEN clause does is an item of its own, as if it stood in a statement of its kind: a rule on that must not be
    /// gone around by MERGE. Rows that ON matched are restricted by it and by the clause's own condition, those that no
    /// row of the source matched by the latter alone.
    fn note_merged(&mut self, when: &MergeWhenClause, on: Option<&Node>, target: &Target, scope: &Scope<'_>) {
        let statement = match CmdType::try_from(when.command_type) {
            Ok(CmdType::CmdInsert) => "insert",
            Ok(CmdType::CmdUpdate) => "update",
            Ok(CmdType::CmdDelete) => "delete",
            _ => return,
        };
        let (order, certain) = (target.order.clone(), target.certain.clone());
        let own = Target { range: target.range.clone(), order, certain, statement };
        let named: Vec<Arc<str>> =
            targets(&when.target_list).map(|column| column.name.as_str().into()).collect();
        if statement == "insert" {
            let all = own.order.as_deref().unwrap_or_default();
            return self.write(&own, if named.is_empty() { all } else { &named });
        }
        self.write(&own, &named);
        let is_matched = when.match_kind == MergeMatchKind::MergeWhenMatched as i32;
        let mut kinds = Vec::new();
        for condition in when.condition.as_deref().into_iter().chain(on.filter(|_| is_matched)) {
            let (kind, literals_matter) = predicate::kind(Some(condition), &target.range, scope);
            self.literals_matter |= literals_matter;
            kinds.push(kind);
        }
        let strictest = ["real", "constant"].into_iter().find(|kind| kinds.contains(kind));
        self.condition(statement, &target.range.tables, strictest.unwrap_or("none"));
    }

    fn target(&mut self, table: Option<&RangeVar>, statement: &'static str) -> Result<Target> {
        let table = table.ok_or_else(|| NotUnderstood::new("a change without a table"))?;
        let range = Rc::new(self.table_range(table, statement)?);
        self.keep();
        let is_of_settings = |path: &Path| path.starts_with("pg_catalog.pg_settings");
        // A view carries what its query reads.
        if range.tables.iter().any(is_of_settings) || range.columns.all().sources.iter().any(is_of_settings) {
            return Err(NotUnderstood::new("settings are changed by SET, not by writing to pg_settings"));
        }
        let candidates = self.candidates(table)?;
        let names = || range.columns.list.iter().map(|column| column.name.clone()).collect();
        let order = range.columns.are_known().then(names);
        Ok(Target { range, order, certain: certain(&candidates).cloned(), statement })
    }

    /// SET clauses: what is written, and what is copied.
    fn assignments(&mut self, list: &[Node], target: &Target, scope: &Scope<'_>) -> Result<()> {
        for column in targets(list) {
            let before = self.tied();
            let flow = self.optional(column.val.as_deref(), scope)?;
            self.tie_to(
                before,
                target.range.tables.iter().map(|table| format!("{table}.{}", column.name).into()),
            );
            self.subscripts(column, scope)?;
            let whole = column.indirection.is_empty();
            let own = if whole { target.paths(&column.name) } else { Vec::new() };
            self.copy(&flow, &own);
            let name: Arc<str> = column.name.as_str().into();
            self.write(target, [&name]);
        }
        Ok(())
    }

    fn write<'n>(&mut self, target: &Target, names: impl IntoIterator<Item = &'n Arc<str>>) {
        let names: Vec<&Arc<str>> = names.into_iter().collect();
        for table in &target.range.tables {
            let columns = names.iter().map(|name| Path::from(format!("{table}.{name}")));
            self.columns(target.statement, table, "write", columns);
        }
    }

    /// Says in every item on the target whether it is restricted.
    fn note_condition(&mut self, condition: Option<&Node>, target: &Target, scope: &Scope<'_>) {
        let (kind, literals_matter) = predicate::kind(condition, &target.range, scope);
        self.literals_matter |= literals_matter;
        self.condition(target.statement, &target.range.tables, kind);
    }

    fn returning(
        &mut self,
        clause: Option<&ReturningClause>,
        target: &Target,
        others: From,
        with: &Scope<'_>,
    ) -> Result<Columns> {
        let Some(clause) = clause.filter(|clause| !clause.exprs.is_empty()) else {
            return Ok(Columns::default());
        };
        let own = From { star: target.range.columns.clone(), ranges: vec![target.range.clone()] };
        // In a MERGE's `*` the source comes first.
        let (mut shown, last) = if target.statement == "merge" { (others, own) } else { (own, others) };
        shown.add(last);
        let From { mut ranges, star } = shown;
        let mut versions = vec!["old".to_owned(), "new".to_owned()];
        versions.extend(clause.options.iter().filter_map(|node| match inner(node) {
            Some(NodeEnum::ReturningOption(option)) => Some(option.value.clone()),
            _ => None,
        }));
        let shadowed = Scope::within(with, ranges.clone());
        versions.retain(|name| shadowed.ranges_named(None, name).is_empty());
        let of_target = |alias: String| {
            Rc::new(Range {
                alias: alias.into(),
                columns: target.range.columns.clone(),
                tables: target.range.tables.clone(),
                is_table: target.range.is_table,
                statement: target.statement,
                ..Range::default()
            })
        };
        let visible = ranges.clone();
        ranges.extend(versions.into_iter().map(of_target));
        let scope = Scope { statement: target.statement, ..Scope::within(with, ranges) };
        for range in &visible {
            if has_bare_star(&clause.exprs) {
                self.star_of(range);
            }
        }
        self.targets(&clause.exprs, &scope, &star)
    }
}

fn has_bare_star(list: &[Node]) -> bool {
    targets(list).any(|target| match target.val.as_deref().and_then(inner) {
        Some(NodeEnum::ColumnRef(column)) => {
            matches!(column.fields.as_slice(), [only] if matches!(inner(only), Some(NodeEnum::AStar(_))))
        }
        _ => false,
    })
}

fn targets(list: &[Node]) -> impl Iterator<Item = &ResTarget> {
    list.iter().filter_map(|node| match inner(node) {
        Some(NodeEnum::ResTarget(target)) => Some(&**target),
        _ => None,
    })
}
