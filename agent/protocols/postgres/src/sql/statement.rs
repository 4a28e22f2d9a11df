//! What a text does to its session, beyond what the policy decides on.

use std::{collections::HashMap, ops::BitOrAssign, sync::Arc};

use tidegate_policy::{Item, Shape, Value};

use super::flow::{Columns, Flow};

/// An understood text.
#[derive(Debug)]
pub(crate) struct Statements {
    /// What the policy decides on.
    pub(crate) shape: Arc<Shape>,
    /// The text's statements in order.
    pub(crate) list: Vec<Statement>,
    /// About how many bytes it holds, its shape included.
    pub(crate) weight: usize,
    /// Another text that differs only in literals may do something else.
    pub(crate) literals_matter: bool,
    /// A secret may be written in the text: it is recorded redacted. In texts that differ only in literals, so may it
    /// there.
    pub(crate) suspect: bool,
    /// It runs code that may open and close cursors by any name.
    pub(crate) opens_cursors: bool,
    /// It calls `set_config`: what is set may be computed.
    pub(crate) computes_settings: bool,
    /// It changes the row that a cursor stands on (`WHERE CURRENT OF`): which one that is, its text doesn't tell.
    pub(crate) by_cursor: bool,
    /// The server looks up what it names when it runs, even if it was bound before.
    pub(crate) late: bool,
    /// Once it ran, the catalog must be forgotten.
    pub(crate) ddl: bool,
    /// What becomes of relations that it doesn't name.
    pub(crate) unsettles: Unsettled,
    /// It names a column that the catalog doesn't know: worth forgetting the catalog and resolving once more.
    /// The shape is sound as it is; the server will most likely answer with an error. Not to be remembered.
    pub(crate) doubtful: bool,
}

/// What may have become of relations that a text doesn't name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unsettled {
    /// Columns may go: by CASCADE, or with a temporary table whose rows are their type.
    pub(crate) loses: bool,
    /// They may go with one that will be dropped at COMMIT.
    pub(crate) will_lose: bool,
    /// Others may come, with those of a parent or type.
    pub(crate) gains: bool,
    /// A function may have made temporary relations that nobody sees, in front of others of their names.
    pub(crate) hides: bool,
}

impl BitOrAssign for Unsettled {
    fn bitor_assign(&mut self, other: Self) {
        self.loses |= other.loses;
        self.will_lose |= other.will_lose;
        self.gains |= other.gains;
        self.hides |= other.hides;
    }
}

impl Unsettled {
    /// What is left to say of columns that were known.
    pub(super) fn left(self, columns: Columns) -> Columns {
        match self {
            Self { gains: true, .. } => Columns::open(columns.all()),
            Self { loses: true, .. } | Self { will_lose: true, .. } => columns.perhaps(),
            _ => columns,
        }
    }
}

/// One statement of a text.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Which of the shape's results is its own, if it returns rows or COPY data.
    pub(crate) result: Option<usize>,
    /// What it does to the session.
    pub(crate) effect: Effect,
}

impl Statement {
    /// About how many bytes it holds.
    pub(super) fn weight(&self) -> usize {
        let own = match &self.effect {
            Effect::Prepare { name, inner } | Effect::Declare { name, inner } => name.len() + inner.weight,
            Effect::Execute { name } | Effect::Fetch { name } => name.len(),
            Effect::Create(created) | Effect::CreateSchema(created) => {
                created.iter().map(Created::weight).sum()
            }
            Effect::CopyOut(options) => options.types.as_ref().map_or(0, |types| size_of_val(&**types)),
            Effect::None
            | Effect::Set { .. }
            | Effect::DiscardAll
            | Effect::CopyIn
            | Effect::Lock
            | Effect::PrepareTransaction
            | Effect::BeginTransaction
            | Effect::EndTransaction => 0,
        };
        size_of::<Self>() + own
    }
}

/// What a statement does to its session.
#[derive(Debug, Default)]
pub(crate) enum Effect {
    /// Nothing that the gate must follow.
    #[default]
    None,
    /// `PREPARE name AS inner`.
    Prepare {
        /// The name.
        name: Arc<str>,
        /// The statement prepared.
        inner: Arc<Statements>,
    },
    /// `EXECUTE name`: see [`Statements::linked`].
    Execute {
        /// The name.
        name: Arc<str>,
    },
    /// `DECLARE name CURSOR FOR inner`.
    Declare {
        /// The name.
        name: Arc<str>,
        /// The cursor's query.
        inner: Arc<Statements>,
    },
    /// `FETCH` from a cursor: see [`Statements::linked`]. `MOVE` is one too, without rows.
    Fetch {
        /// The cursor.
        name: Arc<str>,
    },
    /// `SET`, `RESET` and the like.
    Set {
        /// How far it reaches.
        setting: Setting,
        /// What is set, in lower case, if it is one setting that this decides by itself.
        name: Option<Arc<str>>,
    },
    /// `DISCARD ALL`: prepared statements, cursors, settings and temporary tables are gone.
    DiscardAll,
    /// `COPY ... TO STDOUT`.
    CopyOut(CopyOptions),
    /// `COPY ... FROM STDIN`.
    CopyIn,
    /// `LOCK` in a mode that keeps others from changing rows, as what changes definitions takes.
    Lock,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `BEGIN` and `SAVEPOINT`.
    BeginTransaction,
    /// `COMMIT`, `ROLLBACK`, `ROLLBACK TO` and `RELEASE`.
    EndTransaction,
    /// Creates relations, or gives them or their columns other names: to be kept in the session's [`Overlay`].
    Create(Vec<Created>),
    /// Creates a schema and these in it: likewise.
    CreateSchema(Vec<Created>),
}

/// How far a setting reaches, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    /// It changes nothing about what statements do: see [`changes_nothing`](super::changes_nothing).
    Harmless,
    /// To the transaction's end.
    Local,
    /// Beyond it.
    Lasting,
}

/// The options that decide how COPY data is laid out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    /// Text if neither this nor `binary`.
    pub(crate) csv: bool,
    /// Binary format.
    pub(crate) binary: bool,
    /// None for the format's default; likewise below.
    pub(crate) delimiter: Option<String>,
    /// What stands for NULL.
    pub(crate) null: Option<String>,
    /// CSV's quoting character.
    pub(crate) quote: Option<String>,
    /// CSV's escape within quotes.
    pub(crate) escape: Option<String>,
    /// The first line holds names.
    pub(crate) header: bool,
    /// Types of the columns by oid, where the catalog tells.
    pub(crate) types: Option<Vec<u32>>,
    /// Encoding of the data, if not the client's.
    pub(crate) encoding: Option<String>,
}

/// A relation that a session created and that the catalog may not show yet.
#[derive(Debug, Clone)]
pub(crate) struct Created {
    /// As written; `pg_temp` for a temporary one.
    pub(super) schema: Option<Arc<str>>,
    pub(super) name: Arc<str>,
    /// What its columns carry; none for a table's own values.
    pub(super) columns: Columns,
    /// Its columns carry other columns' values (a view), rather than its own.
    pub(super) view: bool,
    /// Others have relations of that name, and statements that name them without a schema may mean this one once it is there.
    pub(super) shadows: bool,
    /// What may have become of its columns since.
    pub(super) unsettled: Unsettled,
}

impl Created {
    pub(super) fn new(
        schema: Option<Arc<str>>,
        name: Arc<str>,
        columns: Columns,
        view: bool,
        shadows: bool,
    ) -> Self {
        Self { schema, name, columns, view, shadows, unsettled: Unsettled::default() }
    }

    /// What its columns carry, if it is this relation.
    pub(super) fn columns_at(&self, path: &str) -> Columns {
        let mut columns = self.columns.clone();
        if !self.view {
            for column in &mut columns.list {
                column.flow = Flow::from_columns([format!("{path}.{}", column.name).into()]);
            }
        }
        columns
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.columns.weight()
    }
}

/// Relations that a session created: temporary ones, and those of a transaction that is not committed yet, which
/// the gate's own connection cannot see.
///
/// Entries are only ever added to what the catalog says, so a stale one can cost an allow, never a mask. None is ever
/// taken out: a text that would discard relations may fail, and what is forgotten too early hides behind a relation
/// of the same name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    created: HashMap<Arc<str>, Vec<Created>>,
    /// What may become of any relation, those to come included.
    unsettled: Unsettled,
    /// How often what may have become of relations changed.
    version: u64,
    count: usize,
    weight: usize,
}

/// How many relations one session's overlay holds. Beyond, any name may mean one that isn't followed.
const MOST: usize = 1024;

/// How many bytes these may take, about. Beyond, likewise.
const MOST_BYTES: usize = 4 << 20;

impl Overlay {
    /// Nothing was created: shapes may be shared with other sessions.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && !self.unsettled.hides
    }

    /// What was understood by another version must be understood anew.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Notes what may have become of its relations.
    pub(crate) fn unsettle(&mut self, by: Unsettled) {
        let hides = Unsettled { hides: true, ..Unsettled::default() };
        if by == Unsettled::default() || by == hides && self.unsettled.hides {
            return;
        }
        self.version += 1;
        self.unsettled |= Unsettled { loses: false, gains: false, ..by };
        self.created.values_mut().flatten().for_each(|created| created.unsettled |= by);
    }

    /// Takes in what the statements of a text that may run create.
    pub(crate) fn follow(&mut self, statements: &Statements) {
        self.unsettle(statements.unsettles);
        for statement in &statements.list {
            let created = match &statement.effect {
                Effect::Create(created) | Effect::CreateSchema(created) => created.as_slice(),
                _ => &[],
            };
            for created in created {
                self.count += 1;
                self.weight += created.weight();
                if !self.is_incomplete() {
                    let created = Created { unsettled: statements.unsettles, ..created.clone() };
                    self.created.entry(created.name.clone()).or_default().push(created);
                }
            }
        }
    }

    /// There are relations that aren't in it.
    pub(super) fn is_incomplete(&self) -> bool {
        self.count > MOST || self.weight > MOST_BYTES
    }

    /// What may have become of any relation.
    pub(super) fn unsettled(&self) -> Unsettled {
        self.unsettled
    }

    pub(super) fn find(&self, name: &str) -> &[Created] {
        self.created.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Statements {
    /// It changes what definitions that exist say, or what names stand for. A new table of a new name, or for the session
    /// alone, changes none.
    pub(crate) fn changes_definitions(&self) -> bool {
        let only_a_table = match self.list.as_slice() {
            [Statement { effect: Effect::Create(created), .. }] => {
                created.iter().all(|created| !created.view && !created.shadows)
            }
            _ => false,
        };
        self.ddl && !only_a_table
    }

    /// A statement of the text may be read by definitions that another one of it makes.
    pub(crate) fn change_definitions_within(&self) -> bool {
        self.ddl && self.list.len() > 1
    }

    /// A statement among them keeps others from tables until the transaction ends.
    pub(crate) fn lock_tables(&self) -> bool {
        self.list.iter().any(|statement| matches!(statement.effect, Effect::Lock))
    }

    /// A statement among them leaves the transaction to whoever commits it later.
    pub(crate) fn prepare_transaction(&self) -> bool {
        self.list.iter().any(|statement| matches!(statement.effect, Effect::PrepareTransaction))
    }

    /// How many things they do: what ends a transaction or a part of one is none, nor is what begins one or sets something for
    /// others beside it, nor what goes on with a cursor that is known.
    pub(crate) fn acts(&self, is_known: impl Fn(&str) -> bool) -> u32 {
        let declares = |name: &str, upto: usize| {
            let before = self.list.iter().take(upto);
            before
                .into_iter()
                .any(|one| matches!(&one.effect, Effect::Declare { name: own, .. } if **own == *name))
        };
        let acts = |(index, statement): &(usize, &Statement)| match &statement.effect {
            Effect::EndTransaction => false,
            Effect::Fetch { name } => !is_known(name) && !declares(name, *index),
            _ => true,
        };
        let sets = |(_, statement): &(usize, &Statement)| {
            matches!(statement.effect, Effect::BeginTransaction | Effect::Set { .. })
        };
        let (setting, others): (Vec<_>, Vec<_>) = self.list.iter().enumerate().filter(acts).partition(sets);
        let most = if others.is_empty() { setting.len() } else { others.len() };
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// A statement among them does what a prepared statement or a cursor does that it names.
    pub(crate) fn refer_to_names(&self) -> bool {
        self.list
            .iter()
            .any(|statement| matches!(statement.effect, Effect::Execute { .. } | Effect::Fetch { .. }))
    }

    /// The text's shape with every `EXECUTE` and `FETCH` replaced by what the session knows under that name; none if
    /// there is nothing to replace. An unknown prepared statement stays `execute-text`, an unknown cursor untraced; one that may be
    /// any of several does what all of these do.
    pub(crate) fn linked(
        &self,
        prepared: impl Fn(&str) -> Option<Arc<Self>>,
        cursor: impl Fn(&str) -> Cursor,
    ) -> Option<Shape> {
        let mut shape = Shape {
            open: false,
            items: self.shape.items.clone(),
            results: self.shape.results.clone(),
            influences: self.shape.influences.clone(),
            copied: self.shape.copied.clone(),
            computed: self.shape.computed.clone(),
            untraced: self.shape.untraced.clone(),
            keeps: self.shape.keeps,
            touched: self.shape.touched.clone(),
        };
        let (mut changed, mut unknown, mut forgotten) = (false, false, false);
        let mut linked: Vec<*const Self> = Vec::new();
        for statement in &self.list {
            let named = match &statement.effect {
                Effect::Execute { name } => match prepared(name) {
                    Some(inner) => Cursor { meanings: vec![inner], certain: true, forgotten: false },
                    None => {
                        unknown = true;
                        continue;
                    }
                },
                Effect::Fetch { name } => cursor(name),
                _ => continue,
            };
            forgotten |= named.forgotten;
            for inner in &named.meanings {
                changed = true;
                if !linked.contains(&Arc::as_ptr(inner)) {
                    linked.push(Arc::as_ptr(inner));
                    link(&mut shape, &inner.shape);
                }
            }
            if let (true, [inner]) = (named.certain, named.meanings.as_slice())
                && let Some(own) = statement.result.and_then(|index| shape.results.get_mut(index))
            {
                *own = inner.shape.results.first().cloned().unwrap_or_default();
            }
        }
        if changed && !unknown {
            let hidden = ("statement", Value::Word("execute-text"));
            for field in shape.items.iter_mut().flat_map(|item| &mut item.fields).filter(|f| **f == hidden) {
                field.1 = Value::Word("prepare");
            }
        }
        if forgotten {
            changed = true;
            let fields =
                vec![("action", Value::Word("statement")), ("statement", Value::Word("execute-text"))];
            shape.items.push(Item { fields, must_name: None });
        }
        changed.then_some(shape)
    }
}

/// What a cursor's name may stand for.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// All that is known by that name.
    pub(crate) meanings: Vec<Arc<Statements>>,
    /// It certainly is the one of these.
    pub(crate) certain: bool,
    /// Nothing is known by that name any more, and it may be one that the server still has: what fetches from it runs anything.
    pub(crate) forgotten: bool,
}

fn link(shape: &mut Shape, inner: &Shape) {
    add(&mut shape.items, &inner.items);
    add(&mut shape.influences, &inner.influences);
    add(&mut shape.copied, &inner.copied);
    add(&mut shape.computed, &inner.computed);
    add(&mut shape.touched, &inner.touched);
    shape.keeps |= inner.keeps;
    if shape.untraced.is_none() {
        shape.untraced.clone_from(&inner.untraced);
    }
}

/// Adds what isn't there yet.
pub(super) fn add<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
    if to.is_empty() {
        to.extend_from_slice(from);
        return;
    }
    let new: Vec<T> = from.iter().filter(|value| !to.contains(value)).cloned().collect();
    to.extend(new);
}
