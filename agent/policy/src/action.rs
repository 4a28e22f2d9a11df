//! What a principal wants to do, as a protocol reports it.

use std::sync::Arc;

/// Everything about an action that a decision depends on. Protocols share one `Shape` between the actions that
/// differ only in what no rule can see, so that a decision is made once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// What must be allowed, one by one: the action is allowed if every item is, denied if any item is.
    /// An action without items is refused.
    pub items: Vec<Item>,
    /// The result sets that the action produces, in order, and where their values come from.
    pub results: Vec<Lineage>,
    /// Fields that decide which rows are seen, changed or copied, in any statement of the action.
    pub influences: Vec<Path>,
    /// Fields whose values are copied to where no mask of theirs covers them: a masked one is always refused,
    /// since no mask on a result can make up for it.
    pub copied: Vec<Path>,
    /// Fields that something is computed from, shown or not: an expression that is run tells of its operands by its
    /// errors, its time and how many rows it makes.
    pub computed: Vec<Path>,
    /// Why what decides rows, or what is copied, could not be traced; refused where a mask could apply.
    pub untraced: Option<Arc<str>>,
    /// It leaves something behind beside its answer: rows that it writes, or what a function that it calls may keep. What
    /// decides which is as good as written, and no mask on a result can make up for it.
    pub keeps: bool,
    /// Fields of the answer are known only when it comes: masks on fields are then looked up one by one, in
    /// [`Verdict::fields`](crate::Verdict::fields).
    pub open: bool,
    /// Tables (or what the protocol has instead) that the action touches at all: its errors may show their values.
    pub touched: Vec<Path>,
}

impl Shape {
    /// About how many bytes it holds. What it shares with others counts in each.
    pub fn weight(&self) -> usize {
        let fields = self.items.iter().flat_map(|item| &item.fields);
        let paths = [&self.influences, &self.copied, &self.computed, &self.touched];
        size_of::<Self>()
            + self.items.len() * size_of::<Item>()
            + fields.map(|(_, value)| size_of::<(&str, Value)>() + value.weight()).sum::<usize>()
            + self.results.iter().map(Lineage::weight).sum::<usize>()
            + paths.into_iter().map(|paths| texts(paths)).sum::<usize>()
    }
}

impl Value {
    fn weight(&self) -> usize {
        match self {
            Self::Text(value) => text(value),
            Self::Set(values) => texts(values),
            Self::Named(values) => values.iter().map(|(name, value)| text(name) + text(value)).sum(),
            Self::Word(_) | Self::Flag(_) | Self::Number(_) | Self::Unknown => 0,
        }
    }
}

impl Lineage {
    fn weight(&self) -> usize {
        let outputs = self.outputs.iter().map(|output| size_of::<Output>() + texts(&output.sources));
        size_of::<Self>() + outputs.sum::<usize>() + self.among.as_deref().map_or(0, texts)
    }
}

fn texts(all: &[Arc<str>]) -> usize {
    all.iter().map(text).sum()
}

/// A text with what points to it and its two counts.
fn text(text: &Arc<str>) -> usize {
    size_of::<Arc<str>>() + 2 * size_of::<usize>() + text.len()
}

/// One thing that an action does: a field is absent if it doesn't apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// Field name (one of the vocabulary's) to value.
    pub fields: Vec<(&'static str, Value)>,
    /// An allow counts for this item only if its match block names this field.
    pub must_name: Option<&'static str>,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word of a closed list.
    Word(&'static str),
    /// Text.
    Text(Arc<str>),
    /// Alternatives or parts: an allow must match every one, a deny or a hold any one.
    Set(Vec<Arc<str>>),
    /// Texts by name, in order; a name may be there more than once. Without the field they are not known: no allow that
    /// asks for them counts then, while a deny or a hold that does applies.
    Named(Vec<(Arc<str>, Arc<str>)>),
    /// A flag.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// The field applies, and its value isn't known: no allow that asks for it counts, while a deny or a hold that does
    /// applies.
    Unknown,
}

/// A maskable field's address in the protocol's own terms: `schema.table.column`, each part unquoted.
pub type Path = Arc<str>;

/// Where the values of one result set come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Its columns in order.
    pub outputs: Vec<Output>,
    /// Why this result could not be traced; refused or masked whole where a mask could apply.
    pub untraced: Option<Arc<str>>,
    /// Of what could not be traced: all fields that its values may come from, where that much is known. Only a mask of one of
    /// these could apply then; how many columns there are isn't known.
    pub among: Option<Vec<Path>>,
}

/// One column of a result set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The fields whose values it may carry.
    pub sources: Vec<Path>,
    /// It is not the source's value itself but made from it.
    pub computed: bool,
}
