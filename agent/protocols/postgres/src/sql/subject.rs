//! Whose columns a condition is about.

use pg_query::{
    NodeEnum,
    protobuf::{Alias, Node, RangeVar},
};

use super::{
    expression::inner,
    flow::Found,
    scope::{Range, Scope},
    tracer::strings,
};

/// The rows that a condition chooses from.
#[derive(Clone)]
pub(super) enum Subject<'a> {
    /// Those of the table that a statement changes.
    Target(&'a Range, &'a Scope<'a>),
    /// Those of a sub-select.
    SubSelect {
        /// By alias.
        ranges: Vec<(String, Origin)>,
        around: Box<Subject<'a>>,
        wanted: Wanted,
    },
}

/// Whose columns a sub-select's condition must restrict.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// The row of the statement around it.
    Outer,
    /// The range of this alias.
    Range(String),
    /// Any of its ranges.
    Any,
}

/// Where a column belongs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Origin {
    /// To a table of this name, whichever schema it is in.
    Table(String),
    /// To whichever range in sight has a column of its name.
    Unqualified,
    /// To what may hold any table's columns, by other names: a WITH query, a sub-query, columns renamed.
    Anywhere,
}

/// A column that a condition names.
#[derive(Debug, Clone)]
pub(super) struct Column {
    origin: Origin,
    name: String,
    /// It belongs to the row of the statement around a sub-select.
    is_outer: bool,
    /// The alias of the sub-select's range that it is of, if that is certain.
    pub(super) range: Option<String>,
}

impl Column {
    fn unqualified(name: &str) -> Self {
        Self { origin: Origin::Unqualified, name: name.to_owned(), is_outer: false, range: None }
    }

    /// Both may hold the same value in every row.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        match (&self.origin, &other.origin) {
            (Origin::Anywhere, _) | (_, Origin::Anywhere) => true,
            (Origin::Table(one), Origin::Table(other_table)) => one == other_table && self.name == other.name,
            _ => self.name == other.name,
        }
    }
}

impl<'a> Subject<'a> {
    pub(super) fn target(target: &'a Range, scope: &'a Scope<'a>) -> Self {
        Self::Target(target, scope)
    }

    /// The subject of a sub-select from these.
    pub(super) fn sub_select(&self, from: &[Node], wanted: Wanted) -> Self {
        let mut ranges = Vec::new();
        from.iter().for_each(|item| self.add_ranges(item, &mut ranges));
        Self::SubSelect { ranges, around: Box::new(self.clone()), wanted }
    }

    /// How many ranges are in sight of a sub-select.
    pub(super) fn ranges(&self) -> usize {
        match self {
            Self::SubSelect { ranges, around, .. } => ranges.len() + 1 + around.ranges(),
            Self::Target(..) => 1,
        }
    }

    /// The range whose rows an output gives as a whole: `x.*`, or `*` of a single one.
    pub(super) fn starred(&self, target: &Node) -> Option<String> {
        let Some(NodeEnum::ResTarget(target)) = inner(target) else { return None };
        let Some(NodeEnum::ColumnRef(column)) = target.val.as_deref().and_then(inner) else { return None };
        let (star, qualifier) = column.fields.split_last()?;
        if !matches!(inner(star), Some(NodeEnum::AStar(_))) {
            return None;
        }
        match strings(qualifier).last() {
            Some(alias) => self.range(Some(alias)),
            None => self.range(None),
        }
    }

    /// The sub-select's own range of this alias, or its single one.
    fn range(&self, alias: Option<&str>) -> Option<String> {
        let Self::SubSelect { ranges, .. } = self else { return None };
        match (alias, ranges.as_slice()) {
            (Some(alias), _) => ranges.iter().find(|(own, _)| own == alias).map(|(own, _)| own.clone()),
            (None, [(own, _)]) => Some(own.clone()),
            (None, _) => None,
        }
    }

    /// Whether a column is of what a condition must restrict: a table's own, which no query made up.
    fn is_wanted(&self, column: &Column) -> bool {
        let Self::SubSelect { wanted, .. } = self else { return true };
        match wanted {
            Wanted::Outer => column.is_outer,
            _ if column.is_outer || column.origin == Origin::Anywhere => false,
            Wanted::Range(alias) => column.range.as_ref() == Some(alias),
            Wanted::Any => true,
        }
    }

    /// The subject's own column of this name: none if it is another's, or isn't certain.
    pub(super) fn column(&self, names: &[&str]) -> Option<Column> {
        let (target, scope) = match self {
            Self::Target(target, scope) => (target, scope),
            Self::SubSelect { .. } => return self.named(names).filter(|column| self.is_wanted(column)),
        };
        let has = |name: &str| name == "ctid" || !matches!(target.columns.find(name), Found::No);
        match names {
            [name] => {
                let mut others = scope.ranges.iter().filter(|range| range.alias != target.alias);
                let elsewhere = others.any(|range| range.may_have(name));
                (has(name) && !elsewhere).then(|| Column::unqualified(name))
            }
            [.., range, name] if **range == *target.alias && has(name) => Some(Column::unqualified(name)),
            _ => None,
        }
    }

    /// The columns that a reference of so many fields may mean, as far as it matters which; none if it may be a row as a
    /// whole, or anything.
    pub(super) fn mentioned(&self, names: &[&str], fields: usize) -> Option<Vec<Column>> {
        if names.len() < fields {
            return None;
        }
        match (self, names) {
            (Self::SubSelect { ranges, .. }, [name]) if ranges.iter().any(|(alias, _)| alias == name) => None,
            (Self::SubSelect { .. }, _) => Some(self.named(names).into_iter().collect()),
            (Self::Target(target, scope), _) => match self.column(names) {
                Some(own) => Some(vec![own]),
                None => of_target(target, scope, names),
            },
        }
    }

    /// A column of a sub-select's or of what is around it.
    fn named(&self, names: &[&str]) -> Option<Column> {
        let (qualifier, name) = match names {
            [name] => (None, name),
            [.., qualifier, name] => (Some(qualifier), name),
            [] => return None,
        };
        let (origin, is_outer) = match (self, qualifier) {
            (_, Some(qualifier)) => self.origin(qualifier, false),
            (Self::SubSelect { ranges, .. }, None)
                if ranges.iter().any(|(_, origin)| *origin == Origin::Anywhere) =>
            {
                (Origin::Anywhere, false)
            }
            (_, None) => (Origin::Unqualified, false),
        };
        let range = self.range(qualifier.copied());
        Some(Column { origin, name: (*name).to_owned(), is_outer, range })
    }

    /// What an alias stands for, and whether it is the changed table, seen from a sub-select.
    fn origin(&self, alias: &str, is_outside: bool) -> (Origin, bool) {
        match self {
            Self::SubSelect { ranges, around, .. } => match ranges.iter().find(|(own, _)| own == alias) {
                Some((_, origin)) => (origin.clone(), false),
                None => around.origin(alias, true),
            },
            Self::Target(target, _) if *target.alias == *alias => {
                let name = target.tables.first().and_then(|path| path.rsplit('.').next());
                (name.map_or(Origin::Anywhere, |name| Origin::Table(name.to_owned())), is_outside)
            }
            Self::Target(..) => (Origin::Anywhere, false),
        }
    }

    fn add_ranges(&self, item: &Node, ranges: &mut Vec<(String, Origin)>) {
        let anywhere = |alias: Option<&Alias>| {
            (alias.map_or_else(String::new, |alias| alias.aliasname.clone()), Origin::Anywhere)
        };
        let range = match inner(item) {
            Some(NodeEnum::RangeVar(table)) => self.table(table),
            Some(NodeEnum::JoinExpr(join)) => {
                join.larg.iter().chain(&join.rarg).for_each(|side| self.add_ranges(side, ranges));
                match &join.alias {
                    Some(alias) => anywhere(Some(alias)),
                    None => return,
                }
            }
            Some(NodeEnum::RangeSubselect(query)) => anywhere(query.alias.as_ref()),
            Some(NodeEnum::RangeFunction(function)) => anywhere(function.alias.as_ref()),
            _ => anywhere(None),
        };
        ranges.push(range);
    }

    fn table(&self, table: &RangeVar) -> (String, Origin) {
        let alias = table.alias.as_ref().map_or(&table.relname, |alias| &alias.aliasname);
        let is_renamed = table.alias.as_ref().is_some_and(|alias| !alias.colnames.is_empty());
        let is_with_query = table.schemaname.is_empty() && self.is_with_query(&table.relname);
        let origin = match is_renamed || is_with_query {
            true => Origin::Anywhere,
            false => Origin::Table(table.relname.clone()),
        };
        (alias.clone(), origin)
    }

    fn is_with_query(&self, name: &str) -> bool {
        match self {
            Self::SubSelect { around, .. } => around.is_with_query(name),
            Self::Target(_, scope) => scope.levels().any(|level| level.ctes.contains_key(name)),
        }
    }
}

/// The target's columns that a column of another range may carry; none if it may be a row as a whole, or anything.
fn of_target(target: &Range, scope: &Scope<'_>, names: &[&str]) -> Option<Vec<Column>> {
    let (qualifier, name) = match names {
        [name] => (None, name),
        [.., qualifier, name] => (Some(qualifier), name),
        [] => return None,
    };
    let named = scope.ranges.iter().filter(|range| qualifier.is_none_or(|alias| **alias == *range.alias));
    let (mut found, mut is_column) = (Vec::new(), qualifier.is_some());
    for range in named {
        let (Found::Certain(flow) | Found::Perhaps(flow)) = range.columns.find(name) else { continue };
        is_column = true;
        if flow.untraced.is_some() {
            return None;
        }
        for (source, table) in
            flow.sources.iter().flat_map(|source| target.tables.iter().map(move |t| (source, t)))
        {
            let column = source.strip_prefix(&**table).and_then(|rest| rest.strip_prefix('.'));
            found.extend(column.map(Column::unqualified));
        }
    }
    let is_row = !is_column && scope.ranges.iter().any(|range| *range.alias == **name);
    (!is_row).then_some(found)
}
