//! Which names a query can see.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use tidegate_policy::Path;

use super::{
    flow::{Columns, Flow, Found},
    tracer::Tracer,
};

/// A named set of rows in a FROM clause, or the target of a change.
#[derive(Debug, Default)]
pub(super) struct Range {
    pub(super) alias: Arc<str>,
    /// Its schemas, if it goes by its table's own name: `public.t.column` finds it.
    pub(super) schemas: Vec<Arc<str>>,
    pub(super) columns: Columns,
    /// The tables and views behind it, if it is no sub-query.
    pub(super) tables: Vec<Path>,
    /// It is a table whichever relation is meant, and no view: it has [`SYSTEM_COLUMNS`].
    pub(super) is_table: bool,
    /// Its columns bear other names here; all of them were noted as read.
    pub(super) renamed: bool,
    /// The kind of statement that reads it, for items.
    pub(super) statement: &'static str,
}

/// The names of one query level.
#[derive(Default)]
pub(super) struct Scope<'s> {
    pub(super) ranges: Vec<Rc<Range>>,
    pub(super) ctes: HashMap<Arc<str>, Columns>,
    /// Names of this WITH RECURSIVE that aren't known yet.
    pub(super) pending: Vec<Arc<str>>,
    pub(super) parent: Option<&'s Scope<'s>>,
    /// The kind of statement that functions are called in.
    pub(super) statement: &'static str,
}

/// Columns that every table has (`SysAtt` of PostgreSQL's `heap.c`, from version 12 on), and no view, sub-query, function or
/// join: those may have one of their own by that name, or leave it to an outer query.
const SYSTEM_COLUMNS: &[&str] = &["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

impl Range {
    /// Whether the server may find a column of that name in it.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.has_system_column(name) || !matches!(self.columns.find(name), Found::No)
    }

    fn has_system_column(&self, name: &str) -> bool {
        self.is_table && SYSTEM_COLUMNS.contains(&name)
    }
}

impl<'s> Scope<'s> {
    pub(super) fn within(parent: &'s Scope<'s>, ranges: Vec<Rc<Range>>) -> Self {
        Self { ranges, parent: Some(parent), statement: parent.statement, ..Self::default() }
    }

    /// This level and those around it, innermost first.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Scope<'s>> {
        std::iter::successors(Some(self), |scope| scope.parent)
    }

    /// The ranges that a qualifier means: all of the innermost level that has any.
    pub(super) fn ranges_named(&self, schema: Option<&str>, name: &str) -> Vec<Rc<Range>> {
        let fits = |range: &&Rc<Range>| {
            &*range.alias == name
                && schema.is_none_or(|schema| range.schemas.iter().any(|own| &**own == schema))
        };
        self.levels()
            .map(|scope| scope.ranges.iter().filter(fits).cloned().collect::<Vec<_>>())
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }
}

impl Tracer<'_> {
    /// An unqualified column, or a whole row by its range's name.
    ///
    /// The server takes the column of the innermost level that has one (`colNameToVar` of its `parse_relation.c`), and a row
    /// only if none has. So the search ends where a column is certain, and everything that the server may have found
    /// before counts as well.
    pub(super) fn unqualified(&mut self, name: &str, scope: &Scope<'_>) -> Flow {
        self.spend(scope.levels().map(|level| 1 + level.ranges.len()).sum());
        let mut perhaps: Option<Flow> = None;
        for level in scope.levels() {
            let mut certain: Option<Flow> = None;
            for range in &level.ranges {
                match self.column_of(range, name) {
                    Found::Certain(flow) => certain.get_or_insert_default().join(&flow),
                    Found::Perhaps(flow) => perhaps.get_or_insert_default().join(&flow),
                    Found::No => {}
                }
            }
            if let Some(mut flow) = certain {
                // What carries nothing makes nothing of it.
                let carries = |other: &&Flow| !other.sources.is_empty() || other.untraced.is_some();
                perhaps.iter().filter(carries).for_each(|other| flow.join(other));
                return flow;
            }
        }
        let rows = scope.ranges_named(None, name);
        if rows.is_empty() && perhaps.is_none() {
            return self.unknown(name, scope);
        }
        let unsure = perhaps.is_some() && !SYSTEM_COLUMNS.contains(&name);
        let mut flow = perhaps.unwrap_or_default();
        for range in scope.levels().flat_map(|level| &level.ranges).filter(|_| unsure) {
            flow.join(&gained(range, name));
        }
        rows.iter().for_each(|range| flow.join(&self.whole_row(range)));
        flow
    }

    /// Whether a name certainly means a range's row, rather than a column.
    pub(super) fn is_row(&mut self, name: &str, scope: &Scope<'_>) -> bool {
        self.spend(
            scope.levels().flat_map(|level| &level.ranges).map(|range| range.columns.list.len()).sum(),
        );
        let mut ranges = scope.levels().flat_map(|level| &level.ranges);
        !ranges.any(|range| range.may_have(name)) && scope.ranges_named(None, name).len() == 1
    }

    /// A column with its range's name, or a function called in the notation of a column.
    pub(super) fn qualified(
        &mut self,
        schema: Option<&str>,
        range: &str,
        name: &str,
        scope: &Scope<'_>,
    ) -> Flow {
        let ranges = scope.ranges_named(schema, range);
        if ranges.is_empty() {
            return self.unknown(name, scope);
        }
        let mut flow = Flow::default();
        for range in &ranges {
            match self.column_of(range, name) {
                Found::Certain(found) => flow.join(&found),
                Found::Perhaps(found) => {
                    flow.join(&found);
                    flow.join(&self.field(name, scope));
                }
                Found::No => {
                    flow.join(&self.whole_row(range));
                    flow.join(&self.field(name, scope));
                    flow.join(&self.missing(range, name));
                }
            }
        }
        flow
    }

    /// What a range knows of a column, noting it as read.
    pub(super) fn column_of(&mut self, range: &Range, name: &str) -> Found {
        self.spend(range.columns.list.len());
        let found = range.columns.find(name);
        match found {
            // In a join, a name alone doesn't find it.
            Found::No if range.has_system_column(name) => Found::Perhaps(Flow::default()),
            Found::No => Found::No,
            found => {
                self.read(range, [name]);
                found
            }
        }
    }

    /// A row as one value.
    pub(super) fn whole_row(&mut self, range: &Range) -> Flow {
        self.spend(range.columns.cost());
        self.read(range, range.columns.list.iter().map(|column| &*column.name));
        range.columns.all()
    }

    /// The columns in which `*` shows a range.
    pub(super) fn star_of(&mut self, range: &Range) -> Columns {
        self.spend(range.columns.cost());
        self.read(range, range.columns.list.iter().map(|column| &*column.name));
        range.columns.clone()
    }

    /// Something named like a field of a composite value: a function of that name, if there is one, is called, or the value is cast
    /// to a type of that name.
    pub(super) fn field(&mut self, name: &str, scope: &Scope<'_>) -> Flow {
        self.type_called(scope.statement, name);
        match self.catalog.functions(name) {
            Some(functions) if functions.is_empty() => Flow::default(),
            _ => Flow { untraced: self.call(scope.statement, None, name).untraced, ..Flow::default() }
                .into_computed(),
        }
    }

    fn read<'n>(&mut self, range: &Range, names: impl IntoIterator<Item = &'n str>) {
        if range.renamed {
            return;
        }
        let names: Vec<&str> = names.into_iter().collect();
        for table in &range.tables {
            let columns = names.iter().map(|name| format!("{table}.{name}").into());
            self.columns(range.statement, table, "read", columns);
        }
    }

    /// A column that the catalog doesn't know: it may carry whatever is in sight.
    pub(super) fn unknown(&mut self, name: &str, scope: &Scope<'_>) -> Flow {
        self.doubtful = true;
        let mut flow = Flow::default().into_computed();
        if self.in_view > 0 {
            flow.join(&Flow::untraced(format!("the column {name} of a view isn't known")));
        }
        for range in scope.levels().flat_map(|level| &level.ranges) {
            self.spend(range.columns.cost());
            flow.join(&range.columns.all());
            flow.join(&self.missing(range, name));
        }
        flow
    }

    /// The paths that a column would have if the table had gained it since the catalog was read, which is worth finding out.
    fn missing(&mut self, range: &Range, name: &str) -> Flow {
        self.doubtful = true;
        gained(range, name)
    }
}

/// The paths that a column would have if the table had gained it since the catalog was read.
pub(super) fn gained(range: &Range, name: &str) -> Flow {
    Flow::from_columns(range.tables.iter().map(|table| format!("{table}.{name}").into()))
}
