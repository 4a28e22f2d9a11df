//! `ALTER TABLE`: what of it tells of values, or takes them out from under their masks.

use std::rc::Rc;

use pg_query::{
    NodeEnum,
    protobuf::{
        AlterTableCmd, AlterTableStmt, AlterTableType, DropBehavior, Node, PartitionBoundSpec, RangeVar,
        TypeName,
    },
};

use super::{
    definition::schema_of,
    expression::inner,
    flow::{Columns, Found},
    objects::object_word,
    parse::NotUnderstood,
    relation::certain,
    scope::{Range, Scope, gained},
    statement::{Created, Effect, Statement},
    tracer::{Key, Result, Tracer, string},
};

impl Tracer<'_> {
    /// `ALTER TABLE` and its kin, command by command.
    pub(super) fn alter_table(&mut self, alter: &AlterTableStmt) -> Result<Statement> {
        let table = alter.relation.as_ref().ok_or_else(|| NotUnderstood::new("ALTER of nothing"))?;
        let range = self.table_range(table, "alter")?;
        let object = object_word(alter.objtype);
        for candidate in self.candidates(table)? {
            self.rewrites(&candidate);
            self.item(Key { statement: "alter", table: Some(candidate.path), object, ..Key::default() });
        }
        let own = Rc::new(range);
        let scope = Scope { statement: "alter", ranges: vec![own.clone()], ..Scope::default() };
        let (mut created, mut changed) = (Vec::new(), Vec::new());
        for command in &alter.cmds {
            let Some(NodeEnum::AlterTableCmd(command)) = inner(command) else { continue };
            if command.behavior == DropBehavior::DropCascade as i32 {
                self.cascade("drop", None);
                // An attribute's: tables of the type get the column.
                self.unsettles.gains |= command.subtype == AlterTableType::AtAddColumn as i32;
            }
            self.told_by_command(command, &own);
            self.rewritten(command, table, &scope)?;
            changed.extend(column_changed(command));
            if let Some(definition) = command.def.as_deref() {
                self.command_definition(definition, table, &own, &scope)?;
                let sequences = self.sequences_named(definition, table);
                created.extend(sequences.into_iter().map(|created| Created { shadows: true, ..created }));
            }
        }
        if !changed.is_empty() {
            let change = |own: Range| {
                let with = |columns: Columns, name: &&str| columns.with_or_without(name, gained(&own, name));
                changed.iter().fold(own.columns.clone(), with)
            };
            created.extend(self.with_other_columns(table, change)?);
        }
        let effect = if created.is_empty() { Effect::None } else { Effect::Create(created) };
        Ok(Statement { effect, ..self.defined() })
    }

    /// What the session finds by a table's name, and those of its relatives, once its columns are others: the catalog
    /// doesn't show it before that is committed, and of a temporary table never.
    pub(super) fn with_other_columns(
        &mut self,
        table: &RangeVar,
        change: impl Fn(Range) -> Columns,
    ) -> Result<Vec<Created>> {
        let candidates = self.candidates(table)?;
        let relatives = candidates.iter().flat_map(|candidate| &candidate.relatives).filter_map(|relative| {
            let (schema, name) = relative.split_once('.')?;
            Some(RangeVar { schemaname: schema.into(), relname: name.into(), ..RangeVar::default() })
        });
        let mut created = Vec::new();
        for table in std::iter::once(table.clone()).chain(relatives) {
            let columns = change(self.table_range(&table, "alter")?);
            let (schema, name) = (schema_of(&table), table.relname.as_str().into());
            created.push(Created::new(schema, name, columns, true, true));
        }
        Ok(created)
    }

    /// What a command tells by whether it fails, or takes away by what it leaves.
    fn told_by_command(&mut self, command: &AlterTableCmd, own: &Range) {
        match AlterTableType::try_from(command.subtype) {
            Ok(AlterTableType::AtAlterColumnType | AlterTableType::AtSetNotNull) => {
                self.told_by(own, &command.name);
            }
            // Rows that are there already are held against it now; what it asks of them, only the server knows.
            Ok(AlterTableType::AtValidateConstraint) => self.influence(&own.columns.all()),
            // Its values stay, and nothing says any more what they were made from.
            Ok(AlterTableType::AtDropExpression) => {
                if let Found::Certain(flow) | Found::Perhaps(flow) = own.columns.find(&command.name) {
                    self.copy(&flow, &[]);
                }
            }
            _ => {}
        }
    }

    /// A column takes values that are made from others of its row, or from its own by a cast, as by an `UPDATE`.
    fn rewritten(&mut self, command: &AlterTableCmd, table: &RangeVar, scope: &Scope<'_>) -> Result<()> {
        let definition = command.def.as_deref();
        let (made_from, is_cast) =
            match (AlterTableType::try_from(command.subtype), definition.and_then(inner)) {
                (Ok(AlterTableType::AtAlterColumnType), Some(NodeEnum::ColumnDef(column))) => {
                    let keeps = |name| takes_any_text(name) && !self.takes_functions(name);
                    (column.raw_default.as_deref(), !column.type_name.as_ref().is_some_and(keeps))
                }
                (Ok(AlterTableType::AtSetExpression), Some(_)) => (definition, false),
                _ => return Ok(()),
            };
        let own = scope.ranges.first().map(|own| own.columns.find(&command.name));
        let mut flow = match (made_from, own) {
            (None, Some(Found::Certain(own) | Found::Perhaps(own))) => own,
            _ => self.optional(made_from, scope)?,
        };
        if is_cast {
            flow = flow.into_computed();
        }
        let candidates = self.candidates(table)?;
        let own = certain(&candidates).map(|table| format!("{table}.{}", command.name).into());
        self.copy(&flow, own.as_slice());
        Ok(())
    }

    fn command_definition(
        &mut self,
        definition: &Node,
        table: &RangeVar,
        own: &Range,
        scope: &Scope<'_>,
    ) -> Result<()> {
        match inner(definition) {
            Some(NodeEnum::ColumnDef(column)) => {
                // The rows that there are may be cast to it.
                column.type_name.iter().for_each(|name| self.type_named("alter", name));
                self.table_element(definition, scope)?;
            }
            Some(NodeEnum::Constraint(_)) => self.table_element(definition, scope)?,
            Some(NodeEnum::RangeVar(other)) => {
                self.unsettles.gains = true;
                self.whole_table("alter", other)?;
                self.leaves(own);
            }
            Some(NodeEnum::PartitionCmd(command)) => {
                self.unsettles.gains = true;
                if let Some(other) = &command.name {
                    self.whole_table("alter", other)?;
                    let part = self.table_range(other, "alter")?;
                    self.leaves(&part);
                }
                if let Some(bound) = &command.bound {
                    self.partitioned(table, bound, "alter")?;
                }
            }
            Some(NodeEnum::AtalterConstraint(constraint)) if constraint.alter_enforceability => {
                self.influence(&own.columns.all());
            }
            Some(
                NodeEnum::List(_)
                | NodeEnum::String(_)
                | NodeEnum::Integer(_)
                | NodeEnum::DefElem(_)
                | NodeEnum::TypeName(_)
                | NodeEnum::ReplicaIdentityStmt(_)
                | NodeEnum::AtalterConstraint(_),
            )
            | None => {}
            Some(_) => self.deciding(Some(definition), scope)?,
        }
        Ok(())
    }

    /// A partition's bounds are given: whether the default partition holds such rows already, the server tells.
    /// They are computed at once, and kept for everybody to see.
    pub(super) fn partitioned(
        &mut self,
        parent: &RangeVar,
        bound: &PartitionBoundSpec,
        statement: &'static str,
    ) -> Result<()> {
        let all = bound.listdatums.iter().chain(&bound.lowerdatums).chain(&bound.upperdatums);
        // MINVALUE and MAXVALUE look like columns, and no column may stand there.
        let computed = all.filter(|node| !matches!(inner(node), Some(NodeEnum::ColumnRef(_))));
        let flow = self.computed(computed, &Scope { statement, ..Scope::default() })?;
        self.copy(&flow, &[]);
        for candidate in self.candidates(parent)? {
            for name in &candidate.partitioned_by {
                if let Found::Certain(flow) | Found::Perhaps(flow) = candidate.columns.find(name) {
                    self.influence(&flow);
                }
            }
        }
        Ok(())
    }
}

/// Whether a text stays as it is when it becomes one of this type, if it is PostgreSQL's own.
fn takes_any_text(name: &TypeName) -> bool {
    let is_text = matches!(name.names.last().and_then(string), Some("text" | "varchar"));
    is_text && name.typmods.is_empty() && name.array_bounds.is_empty()
}

/// The column that a command adds or drops.
fn column_changed(command: &AlterTableCmd) -> Option<&str> {
    match (AlterTableType::try_from(command.subtype), command.def.as_deref().and_then(inner)) {
        (Ok(AlterTableType::AtAddColumn), Some(NodeEnum::ColumnDef(column))) => Some(&column.colname),
        (Ok(AlterTableType::AtDropColumn), _) => Some(&command.name),
        _ => None,
    }
}
