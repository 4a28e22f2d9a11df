//! Sequences: relations that statements make without naming them in front, and that a query can read like any other.

use std::sync::Arc;

use pg_query::{
    NodeEnum,
    protobuf::{Constraint, CreateSeqStmt, Node, RangeVar},
};

use super::{
    definition::{schema_named, schema_of},
    expression::inner,
    flow::{Columns, Flow},
    parse::NotUnderstood,
    relation::Candidate,
    statement::{Created, Effect, Overlay, Statement},
    tracer::{Result, Tracer, strings},
};

/// What every sequence has.
const COLUMNS: [&str; 3] = ["last_value", "log_cnt", "is_called"];

impl Tracer<'_> {
    /// `CREATE SEQUENCE`.
    pub(super) fn create_sequence(&mut self, create: &CreateSeqStmt, node: &NodeEnum) -> Result<Statement> {
        let defined = self.classified(node)?;
        let table =
            create.sequence.as_ref().ok_or_else(|| NotUnderstood::new("a sequence without a name"))?;
        let mut created = vec![self.sequence(schema_of(table), &table.relname)];
        created.retain(|_| !(create.if_not_exists && self.is_there(table)));
        Ok(Statement { effect: Effect::Create(created), ..defined })
    }

    /// The sequences that an identity column gives names to, in the schema of its table where it writes none.
    pub(super) fn sequences_named(&mut self, node: &Node, table: &RangeVar) -> Vec<Created> {
        let constraints: Vec<&Constraint> = match inner(node) {
            Some(NodeEnum::ColumnDef(column)) => column.constraints.iter().filter_map(constraint).collect(),
            _ => constraint(node).into_iter().collect(),
        };
        let mut created = Vec::new();
        for option in constraints.into_iter().flat_map(|constraint| &constraint.options) {
            let Some(NodeEnum::DefElem(option)) = inner(option) else { continue };
            let Some(NodeEnum::List(names)) = option.arg.as_deref().and_then(inner) else { continue };
            match *strings(&names.items).as_slice() {
                [.., schema, name] => created.push(self.sequence(Some(schema_named(schema).into()), name)),
                [name] => created.push(self.sequence(schema_of(table), name)),
                [] => {}
            }
        }
        created
    }

    fn sequence(&mut self, schema: Option<Arc<str>>, name: &str) -> Created {
        let name: Arc<str> = name.into();
        let shadows = self.shadows(schema.as_deref(), &name);
        Created::new(schema, name, columns(), false, shadows)
    }
}

/// What a name may mean besides, if a table that the session made may have brought a sequence of that name: the server makes
/// it from the names of table and column, and a number (`ChooseRelationName` of its `indexcmds.c`).
pub(super) fn add_implied(overlay: &Overlay, name: &str, found: &mut [Candidate]) {
    let is_one = name.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with("_seq");
    if is_one && !overlay.is_empty() {
        found.iter_mut().for_each(|known| known.columns.unite_by_name(&columns()));
    }
}

fn columns() -> Columns {
    let mut columns = Columns::default();
    COLUMNS.into_iter().for_each(|name| columns.push(name, Flow::default()));
    columns
}

fn constraint(node: &Node) -> Option<&Constraint> {
    match inner(node) {
        Some(NodeEnum::Constraint(constraint)) => Some(constraint),
        _ => None,
    }
}
