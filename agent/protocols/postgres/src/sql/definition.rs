//! Statements that create, alter, drop or administrate.

use std::{rc::Rc, sync::Arc};

use pg_query::{
    NodeEnum,
    protobuf::{
        ClusterStmt, ConstrType, Constraint, CreateSchemaStmt, CreateStatsStmt, CreateStmt,
        CreateTableAsStmt, DropBehavior, DropStmt, IndexStmt, IntoClause, Node, ObjectType, OnCommitAction,
        RangeVar, SelectStmt,
    },
};

use super::{
    expression::inner,
    flow::{Columns, Flow, Found},
    objects::{Definition, classify, object_word},
    parse::NotUnderstood,
    relation::range_var,
    scope::{Range, Scope},
    statement::{Created, Effect, Statement},
    tracer::{Key, Result, Tracer, strings},
    utility::{into_clause, safe_setting},
};

impl Tracer<'_> {
    /// Follows a statement that defines something. One of a kind that the gate doesn't know is refused.
    pub(super) fn definition(&mut self, node: &NodeEnum) -> Result<Statement> {
        match node {
            NodeEnum::CreateStmt(create) => {
                self.ddl = true;
                self.create_table(create)
            }
            NodeEnum::CreateTableAsStmt(create) => self.create_as(create),
            NodeEnum::CreateSeqStmt(create) => self.create_sequence(create, node),
            NodeEnum::ViewStmt(view) => self.create_view(view),
            NodeEnum::IndexStmt(index) => self.create_index(index),
            NodeEnum::AlterTableStmt(alter) => self.alter_table(alter),
            NodeEnum::DropStmt(drop) => self.drop_objects(drop),
            NodeEnum::RenameStmt(rename) => self.rename(rename),
            NodeEnum::AlterObjectSchemaStmt(alter) => self.set_schema(alter),
            NodeEnum::ClusterStmt(cluster) => self.cluster(cluster),
            NodeEnum::CreateStatsStmt(create) => self.create_statistics(create, node),
            NodeEnum::AlterDomainStmt(alter) => {
                // SET NOT NULL and VALIDATE CONSTRAINT have no definition.
                if alter.def.is_some() || matches!(&*alter.subtype, "O" | "V") {
                    self.lose_track(&Flow::untraced("a domain's check is run on every column of it"));
                }
                self.classified(node)
            }
            NodeEnum::CreateSchemaStmt(create) => {
                self.object("create", "schema");
                self.schema_elements(create)
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                let conditions = policy.qual.iter().chain(&policy.with_check);
                self.on_policy("create", policy.table.as_ref(), conditions.map(|node| &**node))
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                let conditions = policy.qual.iter().chain(&policy.with_check);
                self.on_policy("alter", policy.table.as_ref(), conditions.map(|node| &**node))
            }
            NodeEnum::AlterRoleSetStmt(alter) => {
                if let Some(set) = &alter.setstmt {
                    safe_setting(set)?;
                }
                self.object("role", "role");
                Ok(self.defined())
            }
            NodeEnum::AlterDatabaseSetStmt(alter) => {
                if let Some(set) = &alter.setstmt {
                    safe_setting(set)?;
                }
                self.object("alter", "database");
                Ok(self.defined())
            }
            NodeEnum::VacuumStmt(vacuum) => {
                for node in &vacuum.rels {
                    if let Some(NodeEnum::VacuumRelation(relation)) = inner(node)
                        && let Some(table) = &relation.relation
                    {
                        self.whole_table("vacuum", table)?;
                    }
                }
                if vacuum.rels.is_empty() {
                    self.bare("vacuum");
                    self.rewrites_unnamed(node);
                }
                Ok(Statement { result: None, effect: Effect::None })
            }
            other => self.classified(other),
        }
    }

    /// What a table says of its kind: see [`classify`].
    pub(super) fn classified(&mut self, node: &NodeEnum) -> Result<Statement> {
        let Some(Definition { kind, object, tables, expressions }) = classify(node) else {
            return Err(NotUnderstood::new("the gate doesn't know this kind of statement"));
        };
        self.refreshes = matches!(node, NodeEnum::RefreshMatViewStmt(_));
        if self.refreshes {
            // What was only read so far ran nothing.
            self.views.clear();
        }
        let scope = Scope { statement: kind, ..Scope::default() };
        for expression in expressions {
            self.deciding(Some(expression), &scope)?;
        }
        self.rewrites_unnamed(node);
        for table in &tables {
            for candidate in self.candidates(table)? {
                self.rewrites(&candidate);
                self.touch(&candidate.path);
                self.item(Key { statement: kind, table: Some(candidate.path), object, ..Key::default() });
            }
        }
        if tables.is_empty() {
            self.item(Key { statement: kind, access: Some("none"), object, ..Key::default() });
        }
        if std::mem::take(&mut self.refreshes) {
            self.views.clear();
        }
        self.ddl |= !matches!(kind, "comment" | "vacuum" | "other");
        Ok(Statement { result: None, effect: Effect::None })
    }

    pub(super) fn defined(&mut self) -> Statement {
        self.ddl = true;
        Statement { result: None, effect: Effect::None }
    }

    fn object(&mut self, statement: &'static str, object: &'static str) {
        self.item(Key { statement, access: Some("none"), object: Some(object), ..Key::default() });
    }

    /// The item on something that is being created, whose name may not be known yet.
    fn creation(&mut self, table: &RangeVar, object: &'static str) {
        let path = format!("{}.{}", schema_of(table).as_deref().unwrap_or("?"), table.relname).into();
        self.item(Key { statement: "create", table: Some(path), object: Some(object), ..Key::default() });
    }

    /// Whether names that are used may stand for what is created there: the catalog knows relations of that name in other
    /// schemas, or, where none is written, in any. Where the schema has one itself, nothing is created.
    pub(super) fn shadows(&mut self, schema: Option<&str>, name: &Arc<str>) -> bool {
        if schema == Some("pg_temp") {
            return false;
        }
        let Some(known) = self.catalog.relations(name) else {
            self.wanted.relations.insert(name.clone());
            return false;
        };
        known.iter().any(|relation| schema != Some(&*relation.schema))
    }

    /// What `CREATE SCHEMA` makes in the schema.
    fn schema_elements(&mut self, create: &CreateSchemaStmt) -> Result<Statement> {
        let mut all = Vec::new();
        for element in &create.schema_elts {
            if let Effect::Create(list) = self.statement(element)?.effect {
                // A schema that isn't named is called as the role is whose it becomes.
                let named = Some(create.schemaname.as_str()).filter(|name| !name.is_empty());
                all.extend(list.into_iter().map(|created| {
                    let schema = created.schema.clone().or_else(|| named.map(Into::into));
                    Created { schema, ..created }
                }));
            }
        }
        Ok(Statement { effect: Effect::CreateSchema(all), ..self.defined() })
    }

    /// Nothing is created where `IF NOT EXISTS` finds a relation of that name in the schema that is written. If it finds none
    /// any more, the session itself is in doubt until others see what it made.
    pub(super) fn is_there(&self, table: &RangeVar) -> bool {
        let schema = schema_of(table).filter(|schema| &**schema != "pg_temp");
        let known = schema.and_then(|schema| Some((schema, self.catalog.relations(&table.relname)?)));
        known.is_some_and(|(schema, known)| known.iter().any(|relation| relation.schema == schema))
    }

    pub(super) fn created(
        &mut self,
        table: &RangeVar,
        object: &'static str,
        columns: Columns,
        view: bool,
    ) -> Statement {
        self.creation(table, object);
        self.ddl = true;
        let (schema, name) = (schema_of(table), table.relname.as_str().into());
        let shadows = self.shadows(schema.as_deref(), &name);
        let effect = Effect::Create(vec![Created::new(schema, name, columns, view, shadows)]);
        Statement { result: None, effect }
    }

    fn create_table(&mut self, create: &CreateStmt) -> Result<Statement> {
        let table = create.relation.as_ref().ok_or_else(|| NotUnderstood::new("a table without a name"))?;
        let mut columns = Columns::default();
        self.unsettles.will_lose |= create.oncommit == OnCommitAction::OncommitDrop as i32;
        let mut known = create.inh_relations.is_empty() && create.of_typename.is_none();
        for element in &create.table_elts {
            match inner(element) {
                Some(NodeEnum::ColumnDef(column)) => columns.push(column.colname.as_str(), Flow::default()),
                Some(NodeEnum::Constraint(_)) => {}
                _ => known = false,
            }
        }
        if !known {
            columns.rest = Some(Flow::default());
        }
        let own = super::from::named(None, &table.relname, columns.clone());
        let scope = Scope { statement: "create", ranges: vec![Rc::new(own)], ..Scope::default() };
        for element in create.table_elts.iter().chain(&create.constraints) {
            self.table_element(element, &scope)?;
        }
        for parent in create.inh_relations.iter().filter_map(range_var) {
            self.whole_table("alter", parent)?;
            if let Some(bound) = &create.partbound {
                self.partitioned(parent, bound, "create")?;
            }
        }
        for part in create.partspec.iter().flat_map(|by| &by.part_params) {
            if let Some(NodeEnum::PartitionElem(part)) = inner(part) {
                self.deciding(part.expr.as_deref(), &scope)?;
            }
        }
        let sequences: Vec<Created> =
            create.table_elts.iter().flat_map(|element| self.sequences_named(element, table)).collect();
        let mut statement = self.created(table, "table", columns, false);
        if create.if_not_exists && self.is_there(table) {
            return Ok(Statement { effect: Effect::Create(Vec::new()), ..statement });
        }
        if let Effect::Create(created) = &mut statement.effect {
            created.extend(sequences);
        }
        Ok(statement)
    }

    /// The expressions in a column or constraint, and the tables it refers to.
    pub(super) fn table_element(&mut self, node: &Node, scope: &Scope<'_>) -> Result<()> {
        match inner(node) {
            Some(NodeEnum::ColumnDef(column)) => {
                self.deciding(column.raw_default.as_deref(), scope)?;
                column.constraints.iter().try_for_each(|node| self.table_element(node, scope))
            }
            Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint, scope),
            Some(NodeEnum::TableLikeClause(like)) => like.relation.as_ref().map_or(Ok(()), |table| {
                self.table_range(table, "select").map(|range| {
                    range.tables.iter().for_each(|path| self.table("select", path, "read"));
                })
            }),
            _ => Ok(()),
        }
    }

    /// Whether it holds tells of the values that it is about: here and where it refers to.
    fn constraint(&mut self, constraint: &Constraint, scope: &Scope<'_>) -> Result<()> {
        self.deciding(constraint.raw_expr.as_deref(), scope)?;
        if constraint.contype == ConstrType::ConstrGenerated as i32 {
            // Until it is committed, the catalog doesn't say what the column is made from.
            let flow = self.optional(constraint.raw_expr.as_deref(), scope)?;
            self.copy(&flow, &[]);
        }
        self.deciding(constraint.where_clause.as_deref(), scope)?;
        if let Some(own) = scope.ranges.first() {
            let keys = strings(&constraint.keys).into_iter().chain(strings(&constraint.fk_attrs));
            keys.for_each(|name| self.told_by(own, name));
        }
        for exclusion in &constraint.exclusions {
            let Some(NodeEnum::List(pair)) = inner(exclusion) else { continue };
            pair.items.iter().try_for_each(|element| self.index_element(element, scope))?;
        }
        if let Some(table) = &constraint.pktable {
            let range = self.table_range(table, "select")?;
            range.tables.iter().for_each(|path| self.table("select", path, "read"));
            for name in strings(&constraint.pk_attrs) {
                if let Found::Certain(flow) | Found::Perhaps(flow) = self.column_of(&range, name) {
                    self.influence(&flow);
                }
            }
            if constraint.pk_attrs.is_empty() {
                self.influence(&range.columns.all());
            }
        }
        Ok(())
    }

    /// Whether the statement fails tells of the values of this column.
    pub(super) fn told_by(&mut self, range: &Range, name: &str) {
        if let Found::Certain(flow) | Found::Perhaps(flow) = range.columns.find(name) {
            self.influence(&flow);
        }
    }

    /// What is indexed: an error, or the order of rows that are read by it, tells of it.
    fn index_element(&mut self, node: &Node, scope: &Scope<'_>) -> Result<()> {
        let Some(NodeEnum::IndexElem(element)) = inner(node) else { return Ok(()) };
        if let Some(range) = scope.ranges.first() {
            self.told_by(range, &element.name);
        }
        self.deciding(element.expr.as_deref(), scope)
    }

    /// They are made from values, by expressions that may fail.
    fn create_statistics(&mut self, create: &CreateStatsStmt, node: &NodeEnum) -> Result<Statement> {
        for table in create.relations.iter().filter_map(range_var) {
            let range = Rc::new(self.table_range(table, "create")?);
            self.influence(&range.columns.all());
            let scope = Scope { statement: "create", ranges: vec![range], ..Scope::default() };
            for element in &create.exprs {
                if let Some(NodeEnum::StatsElem(element)) = inner(element) {
                    self.deciding(element.expr.as_deref(), &scope)?;
                }
            }
        }
        self.classified(node)
    }

    /// `CLUSTER`: what the rows are ordered by, only the server knows.
    fn cluster(&mut self, cluster: &ClusterStmt) -> Result<Statement> {
        match &cluster.relation {
            Some(table) => {
                self.whole_table_of("vacuum", table, Some("table"))?;
                let range = self.table_range(table, "vacuum")?;
                self.influence(&range.columns.all());
            }
            None => {
                self.bare("vacuum");
                self.lose_track(&Flow::untraced("it orders rows by indexes that it doesn't name"));
            }
        }
        Ok(Statement { result: None, effect: Effect::None })
    }

    fn create_as(&mut self, create: &CreateTableAsStmt) -> Result<Statement> {
        let object = object_word(create.objtype).unwrap_or("table");
        match (create.query.as_deref(), &create.into) {
            (Some(query), Some(into)) => {
                let stored = self.stored(query, into, object)?;
                let is_there =
                    create.if_not_exists && into.rel.as_ref().is_some_and(|table| self.is_there(table));
                Ok(if is_there { Statement { effect: Effect::Create(Vec::new()), ..stored } } else { stored })
            }
            _ => Err(NotUnderstood::new("CREATE TABLE AS without a query")),
        }
    }

    /// `SELECT ... INTO`: the INTO clause stands in the leftmost arm.
    pub(super) fn select_into(&mut self, select: &SelectStmt) -> Result<Statement> {
        let into = into_clause(select).ok_or_else(|| NotUnderstood::new("SELECT INTO nothing"))?;
        let columns = self.select(select, &Scope { statement: "select", ..Scope::default() })?;
        self.store(columns, into, "table")
    }

    fn stored(&mut self, query: &Node, into: &IntoClause, object: &'static str) -> Result<Statement> {
        if matches!(inner(query), Some(NodeEnum::ExecuteStmt(_))) {
            return Err(NotUnderstood::new("CREATE TABLE AS EXECUTE isn't followed: give the query itself"));
        }
        let columns = self.query(query, &Scope { statement: "select", ..Scope::default() })?;
        self.store(columns, into, object)
    }

    /// A query's rows kept under a name: its columns are copied.
    fn store(&mut self, columns: Columns, into: &IntoClause, object: &'static str) -> Result<Statement> {
        let table = into.rel.as_ref().ok_or_else(|| NotUnderstood::new("a table without a name"))?;
        self.copy(&columns.all(), &[]);
        self.unsettles.will_lose |= into.on_commit == OnCommitAction::OncommitDrop as i32;
        let mut columns = columns.renamed(&strings(&into.col_names));
        columns.list.iter_mut().for_each(|column| column.flow = Flow::default());
        columns.rest = columns.rest.map(|_| Flow::default());
        Ok(self.created(table, object, columns, false))
    }

    fn create_index(&mut self, index: &IndexStmt) -> Result<Statement> {
        let table = index.relation.as_ref().ok_or_else(|| NotUnderstood::new("an index without a table"))?;
        let range = self.table_range(table, "create")?;
        for path in range.tables.clone() {
            self.item(Key {
                statement: "create",
                table: Some(path),
                object: Some("index"),
                ..Key::default()
            });
        }
        let scope = Scope { statement: "create", ranges: vec![Rc::new(range)], ..Scope::default() };
        for element in &index.index_params {
            self.index_element(element, &scope)?;
        }
        self.deciding(index.where_clause.as_deref(), &scope)?;
        // It changes nothing of what reading its table gives.
        Ok(Statement { result: None, effect: Effect::None })
    }

    fn drop_objects(&mut self, drop: &DropStmt) -> Result<Statement> {
        let object = object_word(drop.remove_type);
        let relations = matches!(
            ObjectType::try_from(drop.remove_type),
            Ok(ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectSequence
                | ObjectType::ObjectForeignTable)
        );
        for node in &drop.objects {
            let names = match inner(node) {
                Some(NodeEnum::List(list)) => strings(&list.items),
                _ => Vec::new(),
            };
            match *names.as_slice() {
                [.., schema, name] if relations => self.dropped(Some(schema), name, object)?,
                [name] if relations => self.dropped(None, name, object)?,
                _ => self.item(Key { statement: "drop", access: Some("none"), object, ..Key::default() }),
            }
        }
        if drop.behavior == DropBehavior::DropCascade as i32 {
            self.cascade("drop", None);
        }
        Ok(self.defined())
    }

    /// The item on whatever hangs on what a statement names: which tables, only the server knows.
    pub(super) fn cascade(&mut self, statement: &'static str, access: Option<&'static str>) {
        self.unsettles.loses |= statement != "truncate";
        self.item(Key { statement, table: Some("?.?".into()), access, ..Key::default() });
    }

    fn dropped(&mut self, schema: Option<&str>, name: &str, object: Option<&'static str>) -> Result<()> {
        let table = RangeVar {
            schemaname: schema.unwrap_or_default().to_owned(),
            relname: name.to_owned(),
            ..RangeVar::default()
        };
        for candidate in self.candidates(&table)? {
            self.item(Key { statement: "drop", table: Some(candidate.path), object, ..Key::default() });
        }
        Ok(())
    }

    fn on_policy<'n>(
        &mut self,
        kind: &'static str,
        table: Option<&RangeVar>,
        conditions: impl Iterator<Item = &'n Node>,
    ) -> Result<Statement> {
        let table = table.ok_or_else(|| NotUnderstood::new("a policy without a table"))?;
        let range = self.table_range(table, kind)?;
        for path in range.tables.clone() {
            self.item(Key { statement: kind, table: Some(path), object: Some("policy"), ..Key::default() });
        }
        let scope = Scope { statement: kind, ranges: vec![Rc::new(range)], ..Scope::default() };
        for condition in conditions {
            self.deciding(Some(condition), &scope)?;
        }
        Ok(self.defined())
    }
}

/// The schema that something is created in, as far as it is written.
pub(super) fn schema_of(table: &RangeVar) -> Option<Arc<str>> {
    match (table.schemaname.as_str(), table.relpersistence.as_str()) {
        ("", "t") => Some("pg_temp".into()),
        ("", _) => None,
        (schema, _) => Some(schema_named(schema).into()),
    }
}

/// The schema that goes by this name: that of the session's temporary relations has two.
pub(super) fn schema_named(name: &str) -> &str {
    match name.strip_prefix("pg_temp_") {
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => "pg_temp",
        _ => name,
    }
}
