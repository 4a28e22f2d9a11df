//! Where values come from.

use std::{collections::BTreeSet, sync::Arc};

use tidegate_policy::{Lineage, Output, Path};

/// Where the values of one expression come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The columns whose values it may carry.
    pub(super) sources: BTreeSet<Path>,
    /// It isn't such a value itself but made from it.
    pub(super) computed: bool,
    /// It may carry anything, for this reason.
    pub(super) untraced: Option<Arc<str>>,
}

impl Flow {
    pub(super) fn from_columns(sources: impl IntoIterator<Item = Path>) -> Self {
        Self { sources: sources.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn untraced(reason: impl Into<Arc<str>>) -> Self {
        Self { untraced: Some(reason.into()), computed: true, ..Self::default() }
    }

    /// What copying it costs, in steps.
    pub(super) fn cost(&self) -> usize {
        MADE * (1 + self.sources.len())
    }

    /// Also carries what `other` does.
    pub(super) fn join(&mut self, other: &Self) {
        self.sources.extend(other.sources.iter().cloned());
        self.computed |= other.computed;
        if self.untraced.is_none() {
            self.untraced.clone_from(&other.untraced);
        }
    }

    /// The same sources, by way of a computation.
    pub(super) fn into_computed(mut self) -> Self {
        self.computed = true;
        self
    }
}

/// What a column or source that is made costs, in steps: unlike what is only looked at, it takes memory.
const MADE: usize = 4;

/// What is known of what the server calls a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By this name: the catalog has it, or it is written out.
    Known,
    /// By this name if it is there: not every relation that may be meant has it. Only beside a `rest`.
    Perhaps,
    /// By a name of the server's making. It may be any.
    Unknown,
}

/// A column of a relation or of a query's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(super) name: Arc<str>,
    pub(super) naming: Naming,
    pub(super) flow: Flow,
}

impl Column {
    /// Whether the server certainly finds it by this name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.naming == Naming::Known && *self.name == *name
    }

    /// Whether the server may find it by this name.
    fn may_be_named(&self, name: &str) -> bool {
        self.naming == Naming::Unknown || *self.name == *name
    }
}

/// The columns of a relation or of a query's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// In order, if `rest` is none.
    pub(super) list: Vec<Column>,
    /// There may be others, or they may stand in another order: what any of those carries. Then no position counts.
    pub(super) rest: Option<Flow>,
    /// Beside a `rest`: no column goes by a name that isn't in the list.
    pub(super) all_named: bool,
}

/// How many outputs a query may have (`MaxTupleAttributeNumber` of PostgreSQL's htup_details.h).
pub(super) const MOST_OUTPUTS: usize = 1664;

/// What is known of a column name.
pub(super) enum Found {
    /// The server has a column of that name here, and looks no further.
    Certain(Flow),
    /// It may have one, and looks elsewhere if not.
    Perhaps(Flow),
    /// It has none.
    No,
}

impl Naming {
    /// Of what not every relation has that may be meant.
    fn unless_known(self) -> Self {
        if self == Self::Known { Self::Perhaps } else { self }
    }
}

/// What carries whatever any of these does; none if there are none.
fn joined<'f>(flows: impl Iterator<Item = &'f Flow>) -> Option<Flow> {
    flows.fold(None, |all, flow| {
        let mut all = all.unwrap_or_default();
        all.join(flow);
        Some(all)
    })
}

impl Columns {
    pub(super) fn open(rest: Flow) -> Self {
        Self { rest: Some(rest), ..Self::default() }
    }

    /// A column whose name is known.
    pub(super) fn push(&mut self, name: impl Into<Arc<str>>, flow: Flow) {
        self.push_named(name, Naming::Known, flow);
    }

    pub(super) fn push_named(&mut self, name: impl Into<Arc<str>>, naming: Naming, flow: Flow) {
        self.list.push(Column { name: name.into(), naming, flow });
    }

    pub(super) fn find(&self, name: &str) -> Found {
        // Of several that are certain, the server takes none.
        let known = self.list.iter().filter(|column| column.is_named(name));
        if let Some(flow) = joined(known.map(|column| &column.flow)) {
            return Found::Certain(flow);
        }
        let rest = self.rest.clone().filter(|_| !self.all_named).map(Flow::into_computed);
        let perhaps = self.list.iter().filter(|column| column.may_be_named(name));
        joined(perhaps.map(|column| &column.flow).chain(&rest)).map_or(Found::No, Found::Perhaps)
    }

    /// The server certainly finds one column of that name here, and which one it is is known.
    pub(super) fn has_one(&self, name: &str) -> bool {
        let mut perhaps = self.list.iter().filter(|column| column.may_be_named(name));
        perhaps.next().is_some_and(|column| column.is_named(name)) && perhaps.next().is_none()
    }

    /// Every column is known by name and position.
    pub(super) fn are_known(&self) -> bool {
        self.rest.is_none() && self.list.iter().all(|column| column.naming == Naming::Known)
    }

    /// The same columns, of which nobody can say where they stand.
    pub(super) fn into_open(mut self) -> Self {
        (self.all_named, self.rest) = (self.has_all_names(), Some(self.all()));
        self
    }

    /// The same columns, any of which may be gone.
    pub(super) fn perhaps(self) -> Self {
        let mut columns = self.into_open();
        columns.list.iter_mut().for_each(|column| column.naming = column.naming.unless_known());
        columns
    }

    fn has_all_names(&self) -> bool {
        self.rest.is_none() || self.all_named
    }

    /// The same, and whether there is one of this name isn't known either; if it is new, it carries this.
    pub(super) fn with_or_without(self, name: &str, new: Flow) -> Self {
        let mut columns = self.into_open();
        columns.list.iter_mut().filter(|column| column.is_named(name)).for_each(|column| {
            column.naming = Naming::Perhaps;
        });
        columns.push_named(name, Naming::Perhaps, new);
        columns
    }

    /// What the row as a whole carries.
    pub(super) fn all(&self) -> Flow {
        let mut flow = self.rest.clone().unwrap_or_default();
        self.list.iter().for_each(|column| flow.join(&column.flow));
        flow.into_computed()
    }

    /// What copying them costs, in steps.
    pub(super) fn cost(&self) -> usize {
        self.list.iter().map(|column| &column.flow).chain(&self.rest).map(Flow::cost).sum()
    }

    /// About how many bytes they hold.
    pub(super) fn weight(&self) -> usize {
        let names = self.list.iter().map(|column| size_of::<Column>() + column.name.len());
        let flows = self.list.iter().map(|column| &column.flow).chain(&self.rest);
        let sources = flows.flat_map(|flow| &flow.sources).map(|source| 2 * size_of::<Path>() + source.len());
        names.sum::<usize>() + sources.sum::<usize>()
    }

    /// Columns that stand after these.
    pub(super) fn append(&mut self, other: &Self) {
        self.all_named = self.has_all_names() && other.has_all_names();
        self.list.extend(other.list.iter().cloned());
        if let Some(rest) = &other.rest {
            self.rest.get_or_insert_default().join(rest);
        }
    }

    /// Rows of either: values by position.
    pub(super) fn unite(&mut self, other: &Self) {
        if self.rest.is_some() || other.rest.is_some() || self.list.len() != other.list.len() {
            let mut rest = self.all();
            rest.join(&other.all());
            (self.all_named, self.rest) = (self.has_all_names(), Some(rest.clone()));
            self.list.iter_mut().for_each(|column| column.flow = rest.clone());
            return;
        }
        for (column, more) in self.list.iter_mut().zip(&other.list) {
            column.flow.join(&more.flow);
        }
    }

    /// A relation that is one of two by the same name: values by name. Where the columns differ, what stands where isn't
    /// known, and what only one of them has may not be there.
    pub(super) fn unite_by_name(&mut self, other: &Self) {
        let names = |columns: &Self| {
            columns.list.iter().map(|column| (column.name.clone(), column.naming)).collect::<Vec<_>>()
        };
        if self.rest.is_none() && other.rest.is_none() && names(self) == names(other) {
            return self.unite(other);
        }
        let mut rest = self.all();
        rest.join(&other.all());
        let has = |columns: &Self, name: &str| columns.list.iter().any(|column| column.is_named(name));
        for column in self.list.iter_mut().filter(|column| !has(other, &column.name)) {
            column.naming = column.naming.unless_known();
        }
        for more in &other.list {
            let same = |column: &&mut Column| column.name == more.name && column.naming != Naming::Unknown;
            match self.list.iter_mut().find(same).filter(|_| more.naming != Naming::Unknown) {
                Some(column) => column.flow.join(&more.flow),
                None => self.list.push(Column { naming: more.naming.unless_known(), ..more.clone() }),
            }
        }
        (self.all_named, self.rest) = (self.has_all_names() && other.has_all_names(), Some(rest));
    }

    /// The first columns bear these names. The server refuses more of them than there can be columns.
    pub(super) fn renamed(mut self, names: &[&str]) -> Self {
        if self.rest.is_some() && !names.is_empty() {
            let all = self.all();
            self.list = names
                .iter()
                .take(MOST_OUTPUTS)
                .map(|&name| Column { name: name.into(), naming: Naming::Known, flow: all.clone() })
                .collect();
            (self.all_named, self.rest) = (false, Some(all));
            return self;
        }
        for (column, &name) in self.list.iter_mut().zip(names) {
            (column.name, column.naming) = (name.into(), Naming::Known);
        }
        self
    }

    /// As the policy reads it.
    pub(super) fn lineage(&self) -> Lineage {
        let untraced = self.list.iter().find_map(|column| column.flow.untraced.clone()).or_else(|| {
            let rest = self.rest.as_ref()?;
            Some(rest.untraced.clone().unwrap_or_else(|| "which columns * stands for isn't certain".into()))
        });
        let output = |column: &Column| Output {
            sources: column.flow.sources.iter().cloned().collect(),
            computed: column.flow.computed,
        };
        let among = self.rest.is_some().then(|| self.among()).flatten();
        Lineage { outputs: self.list.iter().map(output).collect(), untraced, among }
    }

    /// Whatever its values may come from; none if they may come from elsewhere, too.
    fn among(&self) -> Option<Vec<Path>> {
        let all = self.all();
        (self.all_named && all.untraced.is_none()).then(|| all.sources.into_iter().collect())
    }
}
