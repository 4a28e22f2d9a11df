//! Whose columns a condition is about.

use pg_query::{NodeEnum, protobuf::Node};

use super::{
    expression::inner,
    flow::Found,
    scope::{Range, Scope},
};

/// The rows that a condition chooses from.
#[derive(Clone)]
pub(super) enum Subject<'a> {
    /// Those of the table that a statement changes.
    Target(&'a Range, &'a Scope<'a>),
    /// Those of a sub-select: its tables by alias, and what is around it.
    SubSelect(Vec<(String, String)>, Box<Subject<'a>>),
}

/// A column that a condition names.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// The name of its table without its schema; none if that isn't certain.
    table: Option<String>,
    name: String,
    /// It belongs to the row of the statement around a sub-select.
    pub(super) is_outer: bool,
}

impl Column {
    /// Both may hold the same value in every row.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        let tables = self.table.as_ref().zip(other.table.as_ref());
        self.name == other.name && tables.is_none_or(|(one, other)| one == other)
    }
}

impl<'a> Subject<'a> {
    pub(super) fn target(target: &'a Range, scope: &'a Scope<'a>) -> Self {
        Self::Target(target, scope)
    }

    /// The subject of a sub-select from these.
    pub(super) fn sub_select(&self, from: &[Node]) -> Self {
        let mut tables = Vec::new();
        from.iter().for_each(|item| add_tables(item, &mut tables));
        Self::SubSelect(tables, Box::new(self.clone()))
    }

    /// The subject's own column of this name: none if it is another's, or isn't certain.
    pub(super) fn column(&self, names: &[&str]) -> Option<Column> {
        let (target, scope) = match self {
            Self::Target(target, scope) => (target, scope),
            Self::SubSelect(..) => return self.named(names),
        };
        let has = |name: &str| name == "ctid" || !matches!(target.columns.find(name), Found::No);
        let is_own = match names {
            [name] => {
                let elsewhere = scope.ranges.iter().any(|range| {
                    range.alias != target.alias && matches!(range.columns.find(name), Found::Certain(_))
                });
                has(name) && !elsewhere
            }
            [.., range, name] => **range == *target.alias && has(name),
            [] => false,
        };
        is_own.then(|| self.named(names)).flatten()
    }

    /// The column that a reference of so many fields names, if it may matter which; none if it may be a row as a whole.
    pub(super) fn mentioned(&self, names: &[&str], fields: usize) -> Option<Option<Column>> {
        if names.len() < fields {
            return None;
        }
        match (self, names) {
            (Self::Target(target, scope), [name]) => {
                let is_row = scope.ranges.iter().any(|range| *range.alias == **name);
                let is_column = !matches!(target.columns.find(name), Found::No);
                (is_column || !is_row).then(|| self.column(names))
            }
            (Self::Target(target, scope), [.., range, name]) => {
                let others = scope.ranges.iter().filter(|other| *other.alias == **range);
                let same = others.flat_map(|other| &other.tables).any(|table| target.tables.contains(table));
                Some((same || **range == *target.alias).then(|| self.named(&[name])).flatten())
            }
            (Self::SubSelect(tables, _), [name]) if tables.iter().any(|(alias, _)| alias == name) => None,
            _ => Some(self.named(names)),
        }
    }

    /// A column by its table's name, as far as that is certain.
    fn named(&self, names: &[&str]) -> Option<Column> {
        let [.., name] = names else { return None };
        let qualifier = names.len().checked_sub(2).and_then(|at| names.get(at));
        let (table, is_outer) = match (self, qualifier) {
            (Self::SubSelect(..), Some(qualifier)) => self.table(qualifier, false),
            (Self::Target(..), _) | (Self::SubSelect(..), None) => (None, false),
        };
        Some(Column { table, name: (*name).to_owned(), is_outer })
    }

    /// The table of that alias, and whether it is the changed one, seen from a sub-select.
    fn table(&self, alias: &str, is_outside: bool) -> (Option<String>, bool) {
        match self {
            Self::SubSelect(tables, around) => match tables.iter().find(|(own, _)| own == alias) {
                Some((_, table)) => (Some(table.clone()), false),
                None => around.table(alias, true),
            },
            Self::Target(target, _) if *target.alias == *alias => {
                let name = target.tables.first().and_then(|path| path.rsplit('.').next());
                (name.map(str::to_owned), is_outside)
            }
            Self::Target(..) => (None, false),
        }
    }
}

fn add_tables(item: &Node, tables: &mut Vec<(String, String)>) {
    match inner(item) {
        Some(NodeEnum::RangeVar(table)) => {
            let alias = table.alias.as_ref().map_or(&table.relname, |alias| &alias.aliasname);
            tables.push((alias.clone(), table.relname.clone()));
        }
        Some(NodeEnum::JoinExpr(join)) => {
            join.larg.iter().chain(&join.rarg).for_each(|side| add_tables(side, tables));
        }
        _ => {}
    }
}
