//! Statements by kind: what each is called, what it touches and what it does to the session.

use std::sync::Arc;

use pg_query::{
    NodeEnum,
    protobuf::{
        CallStmt, CopyStmt, DeclareCursorStmt, DiscardMode, DropBehavior, ExecuteStmt, ExplainStmt,
        FetchStmt, Node, PrepareStmt, RangeVar, SelectStmt, TransactionStmtKind, VariableSetKind,
        VariableSetStmt, VariableShowStmt,
    },
};
use tidegate_policy::{Lineage, Output};

use super::{
    expression::{inner, literal_text},
    flow::Columns,
    parse::NotUnderstood,
    relation::range_var,
    scope::Scope,
    settings,
    statement::{CopyOptions, Effect, Setting, Statement, Statements},
    tracer::{Key, Result, Tracer, strings},
};

/// `ShareLock` of `storage/lockdefs.h`: from this mode on, others can't change a table's rows.
const SHARE_LOCK: i32 = 5;

impl Tracer<'_> {
    /// Follows one statement of a text.
    pub(super) fn statement(&mut self, node: &Node) -> Result<Statement> {
        let kind = inner(node).ok_or_else(|| NotUnderstood::new("a statement without content"))?;
        let statement = self.followed(node, kind)?;
        if runs_expressions(kind) {
            self.overlooks_nothing(node)?;
        }
        Ok(statement)
    }

    fn followed(&mut self, node: &Node, kind: &NodeEnum) -> Result<Statement> {
        if let Some(followed) = self.on_rows(node, kind) {
            return followed;
        }
        self.literals_matter = true;
        self.late = true;
        match kind {
            NodeEnum::CopyStmt(copy) => self.copy_statement(copy),
            NodeEnum::ExplainStmt(explain) => self.explain(explain),
            NodeEnum::PrepareStmt(prepare) => self.prepare(prepare),
            NodeEnum::ExecuteStmt(execute) => self.execute(execute),
            NodeEnum::DeclareCursorStmt(declare) => self.declare(declare),
            NodeEnum::FetchStmt(fetch) => Ok(self.fetch(fetch)),
            NodeEnum::VariableSetStmt(set) => self.set(set),
            NodeEnum::CallStmt(call) => self.call_procedure(call),
            NodeEnum::LockStmt(lock) => {
                let locked = self.on_tables("lock", &lock.relations)?;
                let effect = if lock.mode >= SHARE_LOCK { Effect::Lock } else { Effect::None };
                Ok(Statement { effect, ..locked })
            }
            NodeEnum::TruncateStmt(truncate) => {
                if truncate.behavior == DropBehavior::DropCascade as i32 {
                    self.cascade("truncate", Some("write"));
                }
                self.on_tables("truncate", &truncate.relations)
            }
            other => match self.told_by_kind(other) {
                Some(statement) => Ok(statement),
                None => self.definition(other),
            },
        }
    }

    /// A statement that reads or changes rows; none if it is another.
    fn on_rows(&mut self, node: &Node, kind: &NodeEnum) -> Option<Result<Statement>> {
        Some(match kind {
            NodeEnum::SelectStmt(select) if into_clause(select).is_some() => {
                self.late = true;
                self.select_into(select)
            }
            NodeEnum::SelectStmt(_) => self.change(node, "select", true),
            NodeEnum::InsertStmt(insert) => self.change(node, "insert", insert.returning_clause.is_some()),
            NodeEnum::UpdateStmt(update) => self.change(node, "update", update.returning_clause.is_some()),
            NodeEnum::DeleteStmt(delete) => self.change(node, "delete", delete.returning_clause.is_some()),
            NodeEnum::MergeStmt(merge) => self.change(node, "merge", merge.returning_clause.is_some()),
            _ => return None,
        })
    }

    /// A statement that its kind says almost all of; none if it is another.
    fn told_by_kind(&mut self, kind: &NodeEnum) -> Option<Statement> {
        Some(match kind {
            NodeEnum::DeallocateStmt(_) => self.simple("prepare", Effect::None),
            NodeEnum::ClosePortalStmt(_) => self.simple("cursor", Effect::None),
            NodeEnum::TransactionStmt(transaction) => {
                self.simple("transaction", transaction_effect(transaction.kind))
            }
            NodeEnum::VariableShowStmt(show) => self.show(show),
            NodeEnum::ConstraintsSetStmt(_) => {
                self.simple("set", Effect::Set { setting: Setting::Local, name: None })
            }
            NodeEnum::DiscardStmt(discard) => {
                let all = discard.target == DiscardMode::DiscardAll as i32;
                // Temporary relations go, and columns that are made of them with those.
                self.unsettles.loses |= all || discard.target == DiscardMode::DiscardTemp as i32;
                let some = Effect::Set { setting: Setting::Lasting, name: None };
                self.simple("set", if all { Effect::DiscardAll } else { some })
            }
            NodeEnum::ListenStmt(_) | NodeEnum::UnlistenStmt(_) => self.simple("listen", Effect::None),
            NodeEnum::NotifyStmt(_) => self.simple("notify", Effect::None),
            NodeEnum::LoadStmt(_) => self.simple("load", Effect::None),
            NodeEnum::CheckPointStmt(_) => self.simple("other", Effect::None),
            NodeEnum::DoStmt(_) => self.hiding("do"),
            _ => return None,
        })
    }

    fn execute(&mut self, execute: &ExecuteStmt) -> Result<Statement> {
        self.computed(&execute.params, &Scope { statement: "other", ..Scope::default() })?;
        self.bare("execute-text");
        let lineage =
            untraced("what a prepared statement that the gate doesn't know returns can't be traced");
        let effect = Effect::Execute { name: execute.name.as_str().into() };
        Ok(Statement { result: Some(self.result(lineage)), effect })
    }

    fn fetch(&mut self, fetch: &FetchStmt) -> Statement {
        self.bare("cursor");
        let lineage = untraced("what a cursor that the gate doesn't know returns can't be traced");
        let result = (!fetch.ismove).then(|| self.result(lineage));
        Statement { result, effect: Effect::Fetch { name: fetch.portalname.as_str().into() } }
    }

    fn call_procedure(&mut self, call: &CallStmt) -> Result<Statement> {
        if let Some(call) = &call.funccall {
            self.function(call, &Scope { statement: "call", ..Scope::default() })?;
        }
        let result = Some(self.result(untraced("what a procedure returns can't be traced")));
        Ok(Statement { result, ..self.hiding("call") })
    }

    /// A statement of which there is nothing to say but its kind.
    pub(super) fn simple(&mut self, kind: &'static str, effect: Effect) -> Statement {
        self.bare(kind);
        Statement { result: None, effect }
    }

    /// A statement that may do anything, changing tables included.
    pub(super) fn hiding(&mut self, kind: &'static str) -> Statement {
        self.ddl = true;
        self.unsettles.hides = true;
        self.opens_cursors = true;
        self.simple(kind, Effect::None)
    }

    /// A statement on whole tables.
    pub(super) fn on_tables(&mut self, kind: &'static str, tables: &[Node]) -> Result<Statement> {
        for table in tables.iter().filter_map(range_var) {
            self.whole_table(kind, table)?;
        }
        if tables.is_empty() {
            self.bare(kind);
        }
        Ok(Statement { result: None, effect: Effect::None })
    }

    pub(super) fn whole_table(&mut self, kind: &'static str, table: &RangeVar) -> Result<()> {
        self.whole_table_of(kind, table, None)
    }

    /// The same, where it is a kind of object that the item tells.
    pub(super) fn whole_table_of(
        &mut self,
        kind: &'static str,
        table: &RangeVar,
        object: Option<&'static str>,
    ) -> Result<()> {
        let access = if kind == "truncate" { Some("write") } else { None };
        for candidate in self.candidates(table)? {
            self.rewrites(&candidate);
            self.touch(&candidate.path);
            self.item(Key { statement: kind, table: Some(candidate.path), access, object, ..Key::default() });
        }
        Ok(())
    }

    fn change(&mut self, node: &Node, kind: &'static str, returns: bool) -> Result<Statement> {
        let before = self.item_count();
        let columns = self.query(node, &Scope { statement: kind, ..Scope::default() })?;
        if self.item_count() == before {
            self.bare(kind);
        }
        let result = returns.then(|| self.result(columns.lineage()));
        Ok(Statement { result, effect: Effect::None })
    }

    fn copy_statement(&mut self, copy: &CopyStmt) -> Result<Statement> {
        let kind = match (copy.is_program, copy.filename.is_empty(), copy.is_from) {
            (true, ..) => "copy-program",
            (_, false, _) => "copy-file",
            (_, _, true) => "copy-from",
            (_, _, false) => "copy-to",
        };
        if matches!(kind, "copy-program" | "copy-file") {
            self.bare(kind);
        }
        let columns = match (&copy.query, &copy.relation) {
            (Some(query), _) => {
                self.bare(if copy.is_from { "copy-from" } else { "copy-to" });
                self.query(query, &Scope { statement: "copy-to", ..Scope::default() })?
            }
            (None, Some(table)) => self.copy_table(copy, table)?,
            (None, None) => return Err(NotUnderstood::new("COPY of nothing")),
        };
        let options = CopyOptions { types: self.copied_types(copy), ..CopyOptions::read(&copy.options)? };
        let client_side = !copy.is_program && copy.filename.is_empty();
        if !copy.is_from && !client_side {
            self.copy(&columns.all(), &[]);
        }
        let result = (!copy.is_from && client_side).then(|| self.result(columns.lineage()));
        let effect = match (client_side, copy.is_from) {
            (false, _) => Effect::None,
            (true, true) => Effect::CopyIn,
            (true, false) => Effect::CopyOut(options),
        };
        Ok(Statement { result, effect })
    }

    fn copy_table(&mut self, copy: &CopyStmt, table: &RangeVar) -> Result<Columns> {
        let (kind, access) = if copy.is_from { ("copy-from", "write") } else { ("copy-to", "read") };
        let given: Vec<Arc<str>> = strings(&copy.attlist).into_iter().map(Into::into).collect();
        let mut all: Option<Columns> = None;
        for candidate in self.candidates(table)? {
            let names = match given.is_empty() {
                true => candidate.copied.clone().filter(|_| candidate.columns.are_known()),
                false => Some(given.clone()),
            };
            let mut columns = Columns::default();
            match &names {
                Some(names) => {
                    for name in names {
                        let flow = match candidate.columns.find(name) {
                            super::flow::Found::Certain(flow) | super::flow::Found::Perhaps(flow) => flow,
                            super::flow::Found::No => {
                                self.doubtful = true;
                                candidate.columns.all()
                            }
                        };
                        columns.push(name.clone(), flow);
                    }
                }
                None => columns = candidate.columns.clone(),
            }
            let paths =
                columns.list.iter().map(|column| format!("{}.{}", candidate.path, column.name).into());
            self.columns(kind, &candidate.path, access, paths);
            match &mut all {
                Some(all) => all.unite(&columns),
                None => all = Some(columns),
            }
        }
        if let Some(condition) = copy.where_clause.as_deref() {
            let range = self.table_range(table, kind)?;
            let scope = Scope { statement: kind, ranges: vec![std::rc::Rc::new(range)], ..Scope::default() };
            self.optional(Some(condition), &scope)?;
        }
        Ok(all.unwrap_or_default())
    }

    /// The types of the columns that a COPY of a table gives, if only one table can be meant.
    fn copied_types(&self, copy: &CopyStmt) -> Option<Vec<u32>> {
        let table = copy.relation.as_ref()?;
        let known = self.catalog.relations(&table.relname)?;
        let fits = |schema: &str| table.schemaname.is_empty() || table.schemaname == schema;
        let mut meant = known.iter().filter(|relation| fits(&relation.schema));
        let (Some(relation), None, []) = (meant.next(), meant.next(), self.overlay.find(&table.relname))
        else {
            return None;
        };
        let stored = || relation.columns.iter().filter(|column| !column.generated);
        if copy.attlist.is_empty() {
            return Some(stored().map(|column| column.type_oid).collect());
        }
        let type_of =
            |name: &str| stored().find(|column| &*column.name == name).map(|column| column.type_oid);
        strings(&copy.attlist).into_iter().map(type_of).collect()
    }

    fn explain(&mut self, explain: &ExplainStmt) -> Result<Statement> {
        let query = explain.query.as_deref().ok_or_else(|| NotUnderstood::new("EXPLAIN of nothing"))?;
        self.bare("explain");
        let inner = self.later(Some(query))?;
        if inner.list.iter().any(|statement| matches!(statement.effect, Effect::Execute { .. })) {
            return Err(NotUnderstood::new(
                "EXPLAIN of EXECUTE isn't followed: explain the statement itself",
            ));
        }
        self.absorb_shape(&inner.shape);
        let lineage = Lineage { outputs: vec![Output::default()], ..Lineage::default() };
        // With ANALYZE, it creates what the statement does.
        let created = inner.list.iter().find_map(|statement| match &statement.effect {
            Effect::Create(created) => Some(created.clone()),
            _ => None,
        });
        let effect = created.map_or(Effect::None, Effect::Create);
        Ok(Statement { result: Some(self.result(lineage)), effect })
    }

    fn prepare(&mut self, prepare: &PrepareStmt) -> Result<Statement> {
        let inner = self.later(prepare.query.as_deref())?;
        self.bare("prepare");
        self.types("prepare", &prepare.argtypes);
        self.absorb_shape(&inner.shape);
        let effect = Effect::Prepare { name: prepare.name.as_str().into(), inner };
        Ok(Statement { result: None, effect })
    }

    fn declare(&mut self, declare: &DeclareCursorStmt) -> Result<Statement> {
        let inner = self.later(declare.query.as_deref())?;
        self.bare("cursor");
        self.absorb_shape(&inner.shape);
        let effect = Effect::Declare { name: declare.portalname.as_str().into(), inner };
        Ok(Statement { result: None, effect })
    }

    /// A statement that runs by name later on, by itself.
    fn later(&mut self, query: Option<&Node>) -> Result<Arc<Statements>> {
        let query = query.ok_or_else(|| NotUnderstood::new("a statement without content"))?;
        let mut apart = self.apart();
        let statement = apart.statement(query)?;
        self.work = apart.work;
        self.wanted.append(std::mem::take(&mut apart.wanted));
        self.doubtful |= apart.doubtful;
        self.ddl |= apart.ddl;
        self.unsettles |= apart.unsettles;
        self.computes_settings |= apart.computes_settings;
        // What is declared immutable runs as soon as there is a plan.
        self.opens_cursors |= apart.opens_cursors;
        self.by_cursor |= apart.by_cursor;
        Ok(Arc::new(apart.finish(vec![statement])?))
    }

    fn set(&mut self, set: &VariableSetStmt) -> Result<Statement> {
        let kind = match VariableSetKind::try_from(set.kind) {
            Ok(VariableSetKind::VarSetMulti) => {
                return Ok(self.simple("transaction", Effect::None));
            }
            _ if settings::is_role(&set.name) => "set-role",
            _ => "set",
        };
        safe_setting(set)?;
        let setting = match set {
            _ if settings::changes_nothing(&set.name) => Setting::Harmless,
            VariableSetStmt { is_local: true, .. } => Setting::Local,
            _ => Setting::Lasting,
        };
        let one =
            !set.name.is_empty() && VariableSetKind::try_from(set.kind) != Ok(VariableSetKind::VarResetAll);
        let name = one.then(|| set.name.to_ascii_lowercase().into());
        Ok(self.simple(kind, Effect::Set { setting, name }))
    }

    fn show(&mut self, show: &VariableShowStmt) -> Statement {
        self.bare("show");
        let columns = if show.name.eq_ignore_ascii_case("all") { 3 } else { 1 };
        let lineage = Lineage { outputs: vec![Output::default(); columns], ..Lineage::default() };
        Statement { result: Some(self.result(lineage)), effect: Effect::None }
    }
}

/// Whether the server computes whatever expression stands in it. A definition may only keep one, and what stands within
/// `EXPLAIN`, `PREPARE` and `DECLARE` is a statement of its own.
fn runs_expressions(kind: &NodeEnum) -> bool {
    matches!(
        kind,
        NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_)
            | NodeEnum::CopyStmt(_)
            | NodeEnum::ExecuteStmt(_)
            | NodeEnum::CallStmt(_)
            | NodeEnum::CreateStmt(_)
            | NodeEnum::CreateTableAsStmt(_)
            | NodeEnum::ViewStmt(_)
            | NodeEnum::AlterTableStmt(_)
            | NodeEnum::AlterDomainStmt(_)
            | NodeEnum::IndexStmt(_)
            | NodeEnum::CreateStatsStmt(_)
    )
}

fn transaction_effect(kind: i32) -> Effect {
    match TransactionStmtKind::try_from(kind) {
        Ok(TransactionStmtKind::TransStmtPrepare) => Effect::PrepareTransaction,
        Ok(
            TransactionStmtKind::TransStmtCommit
            | TransactionStmtKind::TransStmtRollback
            | TransactionStmtKind::TransStmtRollbackTo
            | TransactionStmtKind::TransStmtRelease,
        ) => Effect::EndTransaction,
        Ok(
            TransactionStmtKind::TransStmtBegin
            | TransactionStmtKind::TransStmtStart
            | TransactionStmtKind::TransStmtSavepoint,
        ) => Effect::BeginTransaction,
        _ => Effect::None,
    }
}

/// Refuses a SET that would change how statements are read.
pub(super) fn safe_setting(set: &VariableSetStmt) -> Result<()> {
    if set.kind != VariableSetKind::VarSetValue as i32 {
        return Ok(());
    }
    let parts: Option<Vec<String>> = set.args.iter().map(literal_text).collect();
    match parts {
        Some(parts) => settings::setting_is_safe(&set.name, &parts.join(", ")).map_err(NotUnderstood::new),
        None if settings::value_matters(&set.name) => {
            Err(NotUnderstood::new(format!("SET {} is refused unless its value is a constant", set.name)))
        }
        None => Ok(()),
    }
}

/// The INTO clause of a SELECT: that of its leftmost arm.
pub(super) fn into_clause(select: &SelectStmt) -> Option<&pg_query::protobuf::IntoClause> {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    leftmost.into_clause.as_deref()
}

pub(super) fn untraced(reason: &str) -> Lineage {
    Lineage { untraced: Some(reason.into()), ..Lineage::default() }
}
