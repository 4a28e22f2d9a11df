//! Tables and views by name, and what their columns carry.

use std::sync::Arc;

use pg_query::protobuf::RangeVar;
use tidegate_policy::Path;

use super::{
    catalog::Relation,
    definition::schema_named,
    expression::inner,
    flow::{Columns, Flow},
    from::named,
    parse::{Limits, NotUnderstood, parse},
    scope::{Range, Scope},
    sequences::add_implied,
    statement::Created,
    tracer::{Result, Tracer},
    tree::tree,
};

/// How deep views may stand on views.
const VIEWS: usize = 16;

/// How much memory the syntax tree of a view's query may take, in bytes.
const TREE: usize = 64 << 20;

/// A relation that a name may mean.
pub(super) struct Candidate {
    /// `schema.name`.
    pub(super) path: Path,
    pub(super) schema: Arc<str>,
    pub(super) columns: Columns,
    /// Names of the columns that COPY takes where none are given; none if they aren't known.
    pub(super) copied: Option<Vec<Arc<str>>>,
    /// It is a materialized view.
    pub(super) materialized: bool,
    /// It is known for what holds rows of its own: no view.
    is_table: bool,
    /// The session created one of that name in a schema it didn't say: the name may stand for that one instead.
    pub(super) elsewhere: bool,
    /// The tables above and below it, as `schema.name`.
    pub(super) relatives: Vec<String>,
    /// The columns that decide which partition a row is in.
    pub(super) partitioned_by: Vec<Arc<str>>,
}

impl Tracer<'_> {
    /// A relation in a FROM clause: a WITH query, or every relation of that name.
    pub(super) fn relation(&mut self, table: &RangeVar, scope: &Scope<'_>) -> Result<Range> {
        self.spend(scope.levels().map(|level| 1 + level.pending.len()).sum());
        self.bounded()?;
        if let Some(columns) = with_query(table, scope)? {
            self.spend(columns.cost());
            return Ok(named(table.alias.as_ref(), &table.relname, columns));
        }
        let range = self.table_range(table, "select")?;
        for path in &range.tables {
            self.table("select", path, "read");
        }
        Ok(range)
    }

    /// A relation as a range whose columns, once read, are items of this kind of statement.
    pub(super) fn table_range(&mut self, table: &RangeVar, statement: &'static str) -> Result<Range> {
        let mut columns: Option<Columns> = None;
        let candidates = self.candidates(table)?;
        self.spend(candidates.iter().map(|candidate| 1 + candidate.columns.cost()).sum());
        self.bounded()?;
        for candidate in &candidates {
            match &mut columns {
                Some(columns) => columns.unite_by_name(&candidate.columns),
                None => columns = Some(candidate.columns.clone()),
            }
        }
        let schemas = if table.alias.is_none() {
            candidates.iter().map(|candidate| candidate.schema.clone()).collect()
        } else {
            Vec::new()
        };
        let renamed = table.alias.as_ref().is_some_and(|alias| !alias.colnames.is_empty());
        if renamed {
            for candidate in &candidates {
                let names = candidate.columns.list.iter().map(|column| &column.name);
                let paths = names.map(|name| Path::from(format!("{}.{name}", candidate.path)));
                self.columns(statement, &candidate.path, "read", paths);
            }
        }
        let is_table = candidates.iter().all(|candidate| candidate.is_table);
        let tables = candidates.into_iter().map(|candidate| candidate.path).collect();
        let range = named(table.alias.as_ref(), &table.relname, columns.unwrap_or_default());
        Ok(Range { schemas, tables, is_table, renamed, statement, ..range })
    }

    /// Every relation that the name may mean, at least one. If the catalog doesn't know any, it is one whose schema is
    /// as written or `?`, and whose columns can't be traced.
    pub(super) fn candidates(&mut self, table: &RangeVar) -> Result<Vec<Candidate>> {
        let schema = Some(schema_named(&table.schemaname)).filter(|schema| !schema.is_empty());
        let fits = |own: &str| schema.is_none_or(|schema| schema == own);
        let Some(known) = self.catalog.relations(&table.relname) else {
            self.wanted.relations.insert(table.relname.as_str().into());
            return Ok(vec![unknown(schema, &table.relname, Flow::default())]);
        };
        let mut found = Vec::new();
        for relation in known.iter().filter(|relation| fits(&relation.schema)) {
            let columns = self.relation_columns(relation)?;
            let stored = relation.columns.iter().filter(|column| !column.generated);
            found.push(Candidate {
                path: relation.path(),
                schema: relation.schema.clone(),
                columns,
                copied: Some(stored.map(|column| column.name.clone()).collect()),
                materialized: relation.materialized,
                is_table: relation.definition.is_none() || relation.materialized,
                elsewhere: false,
                relatives: relation.relatives.clone(),
                partitioned_by: relation.partitioned_by.clone(),
            });
        }
        self.add_created(table, schema, &mut found);
        if self.unsettled().hides && schema.is_none_or(|schema| schema == "pg_temp") {
            // In front of each there may be one that the gate knows nothing of.
            for known in &mut found {
                known.elsewhere = true;
                known.columns = std::mem::take(&mut known.columns).perhaps();
            }
        }
        add_implied(self.overlay, &table.relname, &mut found);
        if self.overlay.is_incomplete() && !schema.is_some_and(is_system) {
            let reason = "the session created more relations than the gate follows";
            found.push(unknown(schema, &table.relname, Flow::untraced(reason)));
        }
        if found.is_empty() {
            let reason = format!("the relation {} isn't known", table.relname);
            found.push(unknown(schema, &table.relname, Flow::untraced(reason)));
        }
        Ok(found)
    }

    /// What the session itself created under that name, of which nobody knows whether it is there: it may have failed, or
    /// be dropped by now, or altered by what comes after it.
    fn add_created(&self, table: &RangeVar, schema: Option<&str>, found: &mut Vec<Candidate>) {
        for created in self.overlay.find(&table.relname) {
            let own = created.schema.as_deref().unwrap_or("?");
            if schema.is_some_and(|schema| created.schema.is_some() && schema != own) {
                continue;
            }
            // A name that the catalog has by now may be what was committed, or another's in front of which it was put:
            // its columns count as well, and items are on the one that is known.
            match found.iter_mut().find(|known| own == "?" || *known.schema == *own) {
                Some(known) => {
                    known.elsewhere |= own == "?" && schema.is_none();
                    known.is_table &= !created.view;
                    known.columns.unite_by_name(&self.columns_left(created, &known.path));
                }
                None => {
                    let path: Path = format!("{own}.{}", created.name).into();
                    let columns = self.columns_left(created, &path);
                    let copied =
                        columns.rest.is_none().then(|| columns.list.iter().map(|c| c.name.clone()).collect());
                    let (schema, is_table) = (own.into(), !created.view);
                    found.push(Candidate { columns, copied, is_table, ..Candidate::new(path, schema) });
                }
            }
        }
    }

    /// The columns of a relation that the session created, as far as they are known by now.
    fn columns_left(&self, created: &Created, path: &str) -> Columns {
        let mut unsettled = self.unsettled();
        unsettled |= created.unsettled;
        unsettled.left(created.columns_at(path))
    }

    /// What a relation's columns carry: a table's its own values and those of the same column above and below it in
    /// its inheritance tree, a view's what its query gives.
    fn relation_columns(&mut self, relation: &Relation) -> Result<Columns> {
        let path = relation.path();
        self.touch(&path);
        if is_system(&relation.schema) {
            return Ok(system_columns(relation, &path));
        }
        if let Some(definition) = &relation.definition {
            return self.view(relation, definition);
        }
        let mut columns = Columns::default();
        for column in &relation.columns {
            let flow = Flow::from_columns(relation.sources(column));
            let generated = !column.made_from.is_empty();
            columns.push(column.name.clone(), if generated { flow.into_computed() } else { flow });
        }
        // Nobody says when the session ends whose type it is.
        let may_go = relation.columns.iter().any(|column| column.fleeting);
        Ok(if may_go { columns.perhaps() } else { columns })
    }

    fn view(&mut self, view: &Relation, definition: &str) -> Result<Columns> {
        if self.kept_since.is_some_and(|kept_since| !was_the_same(view, kept_since)) {
            let why = "it was replaced, refreshed or altered after the rows of a materialized view were kept, which a REFRESH would renew";
            return Ok(self.untraceable(view, why));
        }
        let key = (view.oid, self.kept_since.filter(|_| !view.materialized));
        if let Some(columns) = self.views.get(&key) {
            return Ok(columns.clone());
        }
        if self.in_view >= VIEWS {
            return Ok(self.unknown_view(view, "views nested deeper than the gate follows"));
        }
        // Reading it takes time before any step of it is followed.
        self.spend(definition.len());
        self.bounded()?;
        let kept_since = self.kept_since;
        if view.materialized && !self.refreshes {
            self.kept_since = Some(view.age);
        }
        self.in_view += 1;
        let wanted = self.wanted.clone();
        let parsed = tree(definition, TREE).and_then(|_| parse(definition, &Limits::default()));
        let traced = parsed.and_then(|parsed| match parsed.statements.as_slice() {
            [one] => {
                let query =
                    one.stmt.as_deref().ok_or_else(|| NotUnderstood::new("a view without a query"))?;
                self.query(query, &Scope { statement: "select", ..Scope::default() })
            }
            _ => Err(NotUnderstood::new("a view of more than one statement")),
        });
        self.in_view -= 1;
        self.kept_since = kept_since;
        let names: Vec<&str> = view.columns.iter().map(|column| &*column.name).collect();
        let columns = match traced {
            Ok(columns) if self.wanted != wanted => return Ok(columns.renamed(&names)),
            Ok(columns) if columns.rest.is_none() && columns.list.len() == names.len() => {
                columns.renamed(&names)
            }
            Ok(columns) => self.unknown_view(view, &format!("its {} columns don't show", columns.list.len())),
            Err(error) if self.view_sets => return Err(error),
            Err(error) => self.unknown_view(view, &error.reason),
        };
        let own = |column: &super::flow::Column| Path::from(format!("{}.{}", view.path(), column.name));
        let mut columns = columns;
        columns.list.iter_mut().for_each(|column| {
            let path = own(column);
            column.flow.sources.insert(path);
        });
        self.views.insert(key, columns.clone());
        Ok(columns)
    }

    /// A view that was not followed to its end may call anything: an allow must name it as if it were a function.
    fn unknown_view(&mut self, view: &Relation, why: &str) -> Columns {
        if !view.materialized || self.refreshes {
            self.function_item("select", &view.schema, &view.name);
        }
        self.untraceable(view, why)
    }

    fn untraceable(&self, view: &Relation, why: &str) -> Columns {
        let reason: Arc<str> = format!("the view {} can't be traced: {why}", view.path()).into();
        let mut columns = Columns::default();
        for column in &view.columns {
            columns.push(column.name.clone(), Flow::untraced(reason.clone()));
        }
        columns
    }
}

/// The WITH query of that name in sight, if any.
fn with_query(table: &RangeVar, scope: &Scope<'_>) -> Result<Option<Columns>> {
    if !table.schemaname.is_empty() {
        return Ok(None);
    }
    for level in scope.levels() {
        if let Some(columns) = level.ctes.get(&*table.relname) {
            return Ok(Some(columns.clone()));
        }
        if level.pending.iter().any(|name| **name == *table.relname) {
            return Err(NotUnderstood::new(format!(
                "the gate doesn't follow how {} names itself",
                table.relname
            )));
        }
    }
    Ok(None)
}

impl Candidate {
    fn new(path: Path, schema: Arc<str>) -> Self {
        Self {
            path,
            schema,
            columns: Columns::default(),
            copied: None,
            materialized: false,
            is_table: false,
            elsewhere: false,
            relatives: Vec::new(),
            partitioned_by: Vec::new(),
        }
    }
}

/// Whether a view gave what it gives now when the rows of a materialized view that reads it were kept, so many transactions
/// ago. An age that PostgreSQL can't count any more is negative, and tells nothing.
fn was_the_same(view: &Relation, kept_since: i32) -> bool {
    (0..=view.age).contains(&kept_since)
}

/// The relation that a name stands for, if it can be no other.
pub(super) fn certain(candidates: &[Candidate]) -> Option<&Path> {
    match candidates {
        [one] if !one.elsewhere => Some(&one.path),
        _ => None,
    }
}

fn unknown(schema: Option<&str>, name: &str, flow: Flow) -> Candidate {
    let schema = schema.unwrap_or("?");
    Candidate {
        columns: Columns::open(flow),
        ..Candidate::new(format!("{schema}.{name}").into(), schema.into())
    }
}

fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

/// PostgreSQL's own relations hold no user's values, except those that do.
fn system_columns(relation: &Relation, path: &Path) -> Columns {
    let mut columns = Columns::default();
    for column in &relation.columns {
        let mut flow = Flow::from_columns([format!("{path}.{}", column.name).into()]);
        if shows_values(&relation.schema, &relation.name, &column.name) {
            flow.join(&Flow::untraced(format!("{path}.{} may show any column's values", column.name)));
        }
        columns.push(column.name.clone(), flow);
    }
    columns
}

/// Statistics hold samples of values, and what is counted and measured of them; TOAST tables the values themselves, and
/// statement texts literals.
fn shows_values(schema: &str, relation: &str, column: &str) -> bool {
    match relation {
        _ if schema == "pg_toast" => true,
        "pg_statistic" => !matches!(column, "starelid" | "staattnum" | "stainherit"),
        "pg_stats" => !matches!(column, "schemaname" | "tablename" | "attname" | "inherited"),
        "pg_stats_ext" | "pg_stats_ext_exprs" => {
            ["n_", "dependencies", "most_", "null_", "avg_", "histogram", "corr", "elem", "range_"]
                .iter()
                .any(|prefix| column.starts_with(prefix))
        }
        "pg_statistic_ext_data" => !matches!(column, "stxoid" | "stxdinherit"),
        "pg_largeobject" => column == "data",
        "pg_stat_activity" => column == "query",
        "pg_cursors" | "pg_prepared_statements" => column == "statement",
        _ => false,
    }
}

/// Whether a node is a plain table, for those that need one.
pub(super) fn range_var(node: &pg_query::protobuf::Node) -> Option<&RangeVar> {
    match inner(node) {
        Some(pg_query::NodeEnum::RangeVar(table)) => Some(table),
        _ => None,
    }
}
