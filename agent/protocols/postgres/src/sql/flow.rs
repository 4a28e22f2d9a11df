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

/// A named column of a relation or of a query's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(super) name: Arc<str>,
    pub(super) flow: Flow,
}

/// The columns of a relation or of a query's result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// In order, if `rest` is none.
    pub(super) list: Vec<Column>,
    /// There may be others, or they may stand in another order: what any of those carries.
    pub(super) rest: Option<Flow>,
}

/// How many outputs a query may have (`MaxTupleAttributeNumber` of PostgreSQL's htup_details.h).
pub(super) const MOST_OUTPUTS: usize = 1664;

/// What is known of a column name.
pub(super) enum Found {
    Certain(Flow),
    Perhaps(Flow),
    No,
}

impl Columns {
    pub(super) fn open(rest: Flow) -> Self {
        Self { list: Vec::new(), rest: Some(rest) }
    }

    pub(super) fn push(&mut self, name: impl Into<Arc<str>>, flow: Flow) {
        self.list.push(Column { name: name.into(), flow });
    }

    pub(super) fn find(&self, name: &str) -> Found {
        let mut same = self.list.iter().filter(|column| &*column.name == name).peekable();
        if same.peek().is_some() {
            let mut flow = Flow::default();
            same.for_each(|column| flow.join(&column.flow));
            return Found::Certain(flow);
        }
        self.rest.clone().map_or(Found::No, |rest| Found::Perhaps(rest.into_computed()))
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
            self.rest = Some(rest.clone());
            self.list.iter_mut().for_each(|column| column.flow = rest.clone());
            return;
        }
        for (column, more) in self.list.iter_mut().zip(&other.list) {
            column.flow.join(&more.flow);
        }
    }

    /// A relation that is one of two by the same name: values by name.
    pub(super) fn unite_by_name(&mut self, other: &Self) {
        let names =
            |columns: &Self| columns.list.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        if self.rest.is_none() && other.rest.is_none() && names(self) == names(other) {
            return self.unite(other);
        }
        let mut rest = self.all();
        rest.join(&other.all());
        for more in &other.list {
            match self.list.iter_mut().find(|column| column.name == more.name) {
                Some(column) => column.flow.join(&more.flow),
                None => self.list.push(more.clone()),
            }
        }
        self.rest = Some(rest);
    }

    /// The first columns bear these names. The server refuses more of them than there can be columns.
    pub(super) fn renamed(mut self, names: &[&str]) -> Self {
        if self.rest.is_some() && !names.is_empty() {
            let all = self.all();
            self.list = names
                .iter()
                .take(MOST_OUTPUTS)
                .map(|&name| Column { name: name.into(), flow: all.clone() })
                .collect();
            self.rest = Some(all);
            return self;
        }
        for (column, &name) in self.list.iter_mut().zip(names) {
            column.name = name.into();
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
        Lineage { outputs: self.list.iter().map(output).collect(), untraced }
    }
}
