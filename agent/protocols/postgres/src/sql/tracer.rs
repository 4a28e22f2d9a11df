//! What is gathered while a text's statements are followed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pg_query::{
    NodeEnum,
    protobuf::{Node, TypeName},
};
use tidegate_policy::{Item, Lineage, Path, Shape, Value};

use super::{
    catalog::{Catalog, CatalogRequest, Function},
    flow::{Columns, Flow, MOST_OUTPUTS},
    functions,
    overlooked::Followed,
    parse::NotUnderstood,
    scope::Scope,
    statement::{Overlay, Statement, Statements, Unsettled, add},
    ties::Tie,
};

pub(super) type Result<T> = std::result::Result<T, NotUnderstood>;

/// Follows statements against a catalog.
pub(super) struct Tracer<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) overlay: &'a Overlay,
    /// Names that weren't looked up yet: nothing else that was gathered counts if there are any.
    pub(super) wanted: CatalogRequest,
    /// A secret may be written in the text.
    pub(super) suspect: bool,
    pub(super) literals_matter: bool,
    pub(super) ddl: bool,
    pub(super) unsettles: Unsettled,
    pub(super) opens_cursors: bool,
    pub(super) computes_settings: bool,
    pub(super) by_cursor: bool,
    pub(super) late: bool,
    pub(super) doubtful: bool,
    /// Inside a view's definition, whose conditions and items, but for the functions it calls, are its owner's.
    pub(super) in_view: usize,
    /// Inside the definition of a materialized view, which nobody runs now: its [`age`](super::catalog::Relation::age).
    pub(super) kept_since: Option<i32>,
    /// The statement that is followed runs the definitions of materialized views.
    pub(super) refreshes: bool,
    /// Whether a view was met that changes settings: what reads it is refused, not merely untraced.
    pub(super) view_sets: bool,
    /// Columns of the views met so far, by oid and, of those that aren't materialized, by what kept their rows.
    pub(super) views: HashMap<(u32, Option<i32>), Columns>,
    /// What of the text's own was followed.
    pub(super) followed: Followed,
    items: BTreeMap<Key, Part>,
    absorbed: Vec<Item>,
    results: Vec<Lineage>,
    influences: BTreeSet<Path>,
    copied: BTreeSet<Path>,
    computed: BTreeSet<Path>,
    untraced: Option<Arc<str>>,
    /// Something is kept of what the statement does, beside its results.
    keeps: bool,
    touched: BTreeSet<Path>,
    /// Where constants and parameters stand, if that is asked for: see [`ties`](super::ties).
    pub(super) ties: Option<Vec<Tie>>,
    /// Steps taken so far: see [`WORK`].
    pub(super) work: usize,
    /// How many it may take.
    pub(super) most_work: usize,
}

/// How much work one text may cost, in steps: one for each name or column that is looked at and for each byte of a view's
/// query, and several for each expression, column or source that is made. Queries that name each other can ask for
/// exponentially much.
pub(crate) const WORK: usize = 4_000_000;

/// How much memory what was understood of one text may take, in bytes.
const HEAVIEST: usize = 8 << 20;

/// What makes an item one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) statement: &'static str,
    pub(super) table: Option<Path>,
    pub(super) access: Option<&'static str>,
    pub(super) function: Option<Path>,
    pub(super) object: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Part {
    columns: Option<BTreeSet<Path>>,
    condition: Option<&'static str>,
}

/// What a function call turned out to be.
pub(super) struct Called {
    pub(super) candidates: Arc<[Function]>,
    pub(super) untraced: Option<Arc<str>>,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(catalog: &'a Catalog, overlay: &'a Overlay) -> Self {
        Self {
            catalog,
            overlay,
            wanted: CatalogRequest::default(),
            suspect: false,
            literals_matter: false,
            ddl: false,
            unsettles: Unsettled::default(),
            opens_cursors: false,
            computes_settings: false,
            by_cursor: false,
            late: false,
            doubtful: false,
            in_view: 0,
            kept_since: None,
            refreshes: false,
            view_sets: false,
            views: HashMap::new(),
            followed: Followed::default(),
            items: BTreeMap::new(),
            absorbed: Vec::new(),
            results: Vec::new(),
            influences: BTreeSet::new(),
            copied: BTreeSet::new(),
            computed: BTreeSet::new(),
            untraced: None,
            keeps: false,
            touched: BTreeSet::new(),
            ties: None,
            work: 0,
            most_work: WORK,
        }
    }

    /// Counts steps. To be followed by [`bounded`](Self::bounded) before anything repeats them.
    pub(super) fn spend(&mut self, steps: usize) {
        self.work = self.work.saturating_add(steps);
    }

    /// Refuses a text that costs too much.
    pub(super) fn bounded(&self) -> Result<()> {
        if self.work > self.most_work {
            return Err(NotUnderstood::too_tangled());
        }
        Ok(())
    }

    /// Notes that a node is followed: see [`overlooked`](super::overlooked).
    pub(super) fn follows<T>(&mut self, node: &T) {
        if self.in_view == 0 {
            self.followed.note(node);
        }
    }

    /// Refuses a statement of which something that it runs was not followed.
    pub(super) fn overlooks_nothing(&mut self, node: &Node) -> Result<()> {
        let followed = std::mem::take(&mut self.followed);
        match self.wanted.is_empty() && followed.lacks_some_of(node) {
            true => Err(NotUnderstood::new("it holds an expression where the gate doesn't look for one")),
            false => Ok(()),
        }
    }

    /// Refuses a list of more outputs than the server would take, before it is made.
    pub(super) fn fits(outputs: usize) -> Result<()> {
        match outputs > MOST_OUTPUTS {
            true => Err(NotUnderstood::too_many_outputs()),
            false => Ok(()),
        }
    }

    /// A tracer for a statement that runs only later, by name.
    pub(super) fn apart(&self) -> Self {
        let Self { work, most_work, suspect, unsettles, .. } = *self;
        Self { work, most_work, suspect, unsettles, ..Self::new(self.catalog, self.overlay) }
    }

    /// What was gathered, for these statements, if it isn't too much to keep.
    pub(super) fn finish(self, list: Vec<Statement>) -> Result<Statements> {
        let statements = self.gathered(list);
        match statements.weight > HEAVIEST {
            true => Err(NotUnderstood::new("what the statements do takes more memory than the gate gives")),
            false => Ok(statements),
        }
    }

    /// What was gathered, for these statements.
    pub(super) fn gathered(self, list: Vec<Statement>) -> Statements {
        let mut items: Vec<Item> = self.items.into_iter().map(|(key, part)| item(key, part)).collect();
        add(&mut items, &self.absorbed);
        let shape = Shape {
            open: false,
            items,
            results: self.results,
            influences: self.influences.into_iter().collect(),
            copied: self.copied.into_iter().collect(),
            computed: self.computed.into_iter().collect(),
            untraced: self.untraced,
            keeps: self.keeps || self.ddl,
            touched: self.touched.into_iter().collect(),
        };
        let weight = shape.weight() + list.iter().map(Statement::weight).sum::<usize>();
        Statements {
            shape: Arc::new(shape),
            list,
            weight,
            literals_matter: self.literals_matter,
            suspect: self.suspect,
            ddl: self.ddl,
            unsettles: self.unsettles,
            opens_cursors: self.opens_cursors,
            computes_settings: self.computes_settings,
            by_cursor: self.by_cursor,
            late: self.late,
            doubtful: self.doubtful,
        }
    }

    /// Adds what another statement needs, but not its results.
    pub(super) fn absorb_shape(&mut self, shape: &Shape) {
        add(&mut self.absorbed, &shape.items);
        self.influences.extend(shape.influences.iter().cloned());
        self.copied.extend(shape.copied.iter().cloned());
        self.computed.extend(shape.computed.iter().cloned());
        self.touched.extend(shape.touched.iter().cloned());
        self.keeps |= shape.keeps;
        if self.untraced.is_none() {
            self.untraced.clone_from(&shape.untraced);
        }
    }

    /// What may have become of relations by now, by what ran before and by this text so far.
    pub(super) fn unsettled(&self) -> Unsettled {
        let mut unsettled = self.overlay.unsettled();
        unsettled |= self.unsettles;
        unsettled
    }

    /// How many items there are: tells whether a statement added any.
    pub(super) fn item_count(&self) -> usize {
        self.items.len()
    }

    pub(super) fn item(&mut self, key: Key) {
        if self.in_view == 0 {
            self.items.entry(key).or_default();
        }
    }

    /// An item that touches no table.
    pub(super) fn bare(&mut self, statement: &'static str) {
        self.item(Key { statement, access: Some("none"), ..Key::default() });
    }

    /// An item on a table, with columns so far none.
    pub(super) fn table(&mut self, statement: &'static str, table: &Path, access: &'static str) {
        self.columns(statement, table, access, []);
    }

    pub(super) fn columns(
        &mut self,
        statement: &'static str,
        table: &Path,
        access: &'static str,
        columns: impl IntoIterator<Item = Path>,
    ) {
        self.touch(table);
        if self.in_view == 0 {
            let key = Key { statement, table: Some(table.clone()), access: Some(access), ..Key::default() };
            self.items.entry(key).or_default().columns.get_or_insert_default().extend(columns);
        }
    }

    pub(super) fn touch(&mut self, table: &Path) {
        self.touched.insert(table.clone());
    }

    /// How an UPDATE or DELETE of these tables is restricted: the loosest of several counts.
    pub(super) fn condition(&mut self, statement: &'static str, tables: &[Path], condition: &'static str) {
        let looseness = |condition| match condition {
            "none" => 2,
            "constant" => 1,
            _ => 0,
        };
        for (key, part) in &mut self.items {
            if key.statement == statement && key.table.as_ref().is_some_and(|table| tables.contains(table)) {
                let looser = part.condition.is_none_or(|known| looseness(condition) > looseness(known));
                part.condition = if looser { Some(condition) } else { part.condition };
            }
        }
    }

    /// What decides which rows are seen or changed, or in which order.
    pub(super) fn influence(&mut self, flow: &Flow) {
        if self.in_view == 0 {
            self.influences.extend(flow.sources.iter().cloned());
            self.lose_track(flow);
        }
    }

    /// What an expression is computed from, wherever it stands and whether or not anything shows it.
    pub(super) fn compute(&mut self, flow: &Flow) {
        if self.in_view == 0 && flow.computed {
            self.computed.extend(flow.sources.iter().cloned());
        }
    }

    /// Values that go into these columns. A column may take its own values, but nothing made from them: a mask that
    /// shows a part would show another part each time.
    pub(super) fn copy(&mut self, flow: &Flow, into: &[Path]) {
        self.keep();
        if self.in_view > 0 {
            return;
        }
        let leaving = flow.sources.iter().filter(|source| flow.computed || !into.contains(source));
        for source in leaving {
            self.copied.insert(source.clone());
            self.influences.insert(source.clone());
        }
        self.lose_track(flow);
    }

    /// Notes that something is written, locked, or may be kept by a function, a view's included.
    pub(super) fn keep(&mut self) {
        self.keeps = true;
    }

    /// Forgets what was computed by a step that no statement runs.
    pub(super) fn uncomputed<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.computed.clone();
        let result = step(self);
        self.computed = before;
        result
    }

    /// What the statement reads or keeps can't be followed, as far as this can't.
    pub(super) fn lose_track(&mut self, flow: &Flow) {
        if self.untraced.is_none() {
            self.untraced.clone_from(&flow.untraced);
        }
    }

    /// A result that the client will see; its index.
    pub(super) fn result(&mut self, lineage: Lineage) -> usize {
        self.results.push(lineage);
        self.results.len() - 1
    }

    /// A function's name in a statement of this kind.
    pub(super) fn call(&mut self, statement: &'static str, schema: Option<&str>, name: &str) -> Called {
        let Some(all) = self.catalog.functions(name) else {
            self.wanted.functions.insert(name.into());
            return Called { candidates: Arc::new([]), untraced: None };
        };
        let fits = |function: &&Function| schema.is_none_or(|schema| schema == &*function.schema);
        let mut untraced = None;
        for function in all.iter().filter(fits) {
            // A definition that takes from a sequence, as serial columns do, calls nothing yet.
            let defines = matches!(statement, "create" | "alter") && name == "nextval";
            if !functions::is_harmless(function) && !defines {
                self.function_item(statement, &function.schema, name);
            }
            self.runs(function);
            if !functions::is_traced(function) {
                untraced = Some(format!("what {}.{name}() returns can't be traced", function.schema).into());
            }
        }
        if !all.iter().any(|function| fits(&function)) {
            self.function_item(statement, schema.unwrap_or("?"), name);
            self.opens_cursors = true;
            untraced = Some(format!("the function {name}() isn't known").into());
        }
        Called { candidates: all, untraced }
    }

    /// What a function may do that nobody sees.
    fn runs(&mut self, function: &Function) {
        if self.kept_since.is_none() {
            self.unsettles.hides |= functions::may_make_relations(function);
            self.opens_cursors |= functions::may_open_cursors(function);
        }
    }

    /// A function that an allow must name. A view's runs as whoever reads the view.
    pub(super) fn function_item(&mut self, statement: &'static str, schema: &str, name: &str) {
        self.must_name(statement, format!("{schema}.{name}").into());
    }

    fn must_name(&mut self, statement: &'static str, function: Path) {
        if self.kept_since.is_none() {
            self.items.entry(Key { statement, function: Some(function), ..Key::default() }).or_default();
        }
    }

    /// A type to read, write, check or cast values of: a call of the functions that takes. A name stands for every type
    /// of that name, whatever schema is written.
    pub(super) fn type_named(&mut self, statement: &'static str, name: &TypeName) {
        if let Some(name) = name.names.last().and_then(string) {
            self.type_called(statement, name);
        }
    }

    /// Whether there is a type of that name, in whichever schema, whose values take functions; as long as nobody knows, too.
    pub(super) fn takes_functions(&self, name: &TypeName) -> bool {
        let name = name.names.last().and_then(string);
        name.and_then(|name| self.catalog.types(name)).is_none_or(|types| !types.is_empty())
    }

    /// The same of a type whose schema isn't written, or of what may be one.
    pub(super) fn type_called(&mut self, statement: &'static str, name: &str) {
        let Some(types) = self.catalog.types(name) else {
            self.wanted.types.insert(name.into());
            return;
        };
        for function in types.iter().flat_map(|one| &one.functions) {
            self.must_name(statement, function.clone());
            self.opens_cursors = true;
        }
    }

    /// The type that an expression makes values of, if one is written.
    pub(super) fn type_of(&mut self, name: Option<&TypeName>, scope: &Scope<'_>) {
        name.into_iter().for_each(|name| self.type_named(scope.statement, name));
    }

    pub(super) fn types(&mut self, statement: &'static str, nodes: &[Node]) {
        for node in nodes {
            if let Some(NodeEnum::TypeName(name)) = &node.node {
                self.type_named(statement, name);
            }
        }
    }

    /// An operator: PostgreSQL's own are harmless; any other is a function by its name. One without a schema stands
    /// for every operator of that name.
    pub(super) fn operator(&mut self, statement: &'static str, name: &[&str]) {
        let (schema, name) = match name {
            [name] => (None, *name),
            [schema, name] => (Some(*schema), *name),
            _ => return,
        };
        if schema.is_some_and(|schema| schema != "pg_catalog") || !BUILT_IN_OPERATORS.contains(&name) {
            self.function_item(statement, schema.unwrap_or("?"), name);
        } else if schema.is_none() {
            let Some(all) = self.catalog.functions(name) else {
                self.wanted.functions.insert(name.into());
                return;
            };
            for operator in all.iter().filter(|function| function.kind == 'o') {
                self.runs(operator);
                self.function_item(statement, &operator.schema, name);
            }
        }
    }
}

fn item(key: Key, part: Part) -> Item {
    let mut fields = vec![("action", Value::Word("statement")), ("statement", Value::Word(key.statement))];
    let must_name = key.function.is_some().then_some("function");
    fields.extend(key.table.map(|table| ("table", Value::Text(table))));
    fields.extend(part.columns.map(|columns| ("columns", Value::Set(columns.into_iter().collect()))));
    fields.extend(key.access.map(|access| ("access", Value::Word(access))));
    fields.extend(key.function.map(|function| ("function", Value::Text(function))));
    fields.extend(part.condition.map(|condition| ("where", Value::Word(condition))));
    fields.extend(key.object.map(|object| ("object", Value::Text(object.into()))));
    Item { fields, must_name }
}

/// The text of a list of String nodes; others are left out.
pub(super) fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string).collect()
}

pub(super) fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// Operators of `pg_catalog` in PostgreSQL 12 to 18.
const BUILT_IN_OPERATORS: &[&str] = &[
    "!!", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#=", "#>", "#>>", "%", "&", "&&", "&<", "&<|", "&>",
    "*", "*<", "*<=", "*<>", "*=", "*>", "*>=", "+", "-", "->", "->>", "-|-", "/", "<", "<#>", "<->", "<<",
    "<<=", "<<|", "<=", "<>", "<@", "<^", "=", ">", ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|",
    "?|", "?||", "@", "@-@", "@>", "@?", "@@", "@@@", "^", "^@", "|", "|&>", "|/", "|>>", "||", "||/", "~",
    "~*", "~<=~", "~<~", "~=", "~>=~", "~>~", "~~", "~~*", "!=",
];
