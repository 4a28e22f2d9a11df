//! What takes columns out from under the masks that name them: other names, other schemas, other parents. To an account
//! that such a mask applies to, it is what a copy would be.

use pg_query::protobuf::{AlterObjectSchemaStmt, ObjectType, RangeVar, RenameStmt};

use super::{
    definition::schema_of,
    flow::{Columns, Flow, Found},
    objects::object_word,
    scope::Range,
    statement::{Created, Effect, Statement},
    tracer::{Key, Result, Tracer},
};

impl Tracer<'_> {
    /// `ALTER ... RENAME`.
    pub(super) fn rename(&mut self, rename: &RenameStmt) -> Result<Statement> {
        let kind = ObjectType::try_from(rename.rename_type);
        let column = matches!(kind, Ok(ObjectType::ObjectColumn)).then_some(rename.subname.as_str());
        let moves = column.is_some() || is_relation(rename.rename_type);
        if matches!(kind, Ok(ObjectType::ObjectSchema | ObjectType::ObjectAttribute)) {
            self.lose_track(&Flow::untraced("other relations get other names by it"));
        }
        let of = if column.is_some() { rename.relation_type } else { rename.rename_type };
        let moves = moves.then_some(Moves { column, of_a_view: is_view(of) });
        self.moved(rename.relation.as_ref(), rename.rename_type, moves, Some(&rename.newname))
    }

    /// `ALTER ... SET SCHEMA`.
    pub(super) fn set_schema(&mut self, alter: &AlterObjectSchemaStmt) -> Result<Statement> {
        let moves = Moves { column: None, of_a_view: is_view(alter.object_type) };
        let moves = is_relation(alter.object_type).then_some(moves);
        self.moved(alter.relation.as_ref(), alter.object_type, moves, None)
    }

    fn moved(
        &mut self,
        table: Option<&RangeVar>,
        object: i32,
        moves: Option<Moves<'_>>,
        new: Option<&str>,
    ) -> Result<Statement> {
        let object = object_word(object);
        self.ddl = true;
        let Some(table) = table else {
            self.item(Key {
                statement: if object == Some("role") { "role" } else { "alter" },
                access: Some("none"),
                object,
                ..Key::default()
            });
            return Ok(Statement { result: None, effect: Effect::None });
        };
        self.whole_table_of("alter", table, object)?;
        let mut effect = Effect::None;
        if let Some(moves) = moves {
            let range = self.table_range(table, "alter")?;
            self.leave(&range, moves);
            effect = match new {
                Some(new) => Effect::Create(self.renamed(table, range.columns, moves, new)?),
                None => effect,
            };
        }
        Ok(Statement { result: None, effect })
    }

    /// What the session calls it now, which the catalog doesn't show before it is committed, and of a temporary table never:
    /// a relation with another name, or one whose names of columns may stand for any of them, as several may be swapped.
    fn renamed(
        &mut self,
        table: &RangeVar,
        columns: Columns,
        moves: Moves<'_>,
        new: &str,
    ) -> Result<Vec<Created>> {
        if moves.column.is_some() {
            return self.with_other_columns(table, |own| Columns::open(own.columns.all()));
        }
        let (schema, name) = (schema_of(table), new.into());
        Ok(vec![Created::new(schema, name, columns, true, true)])
    }

    /// What a table's columns are masked by they may lose, its relatives' names among it.
    pub(super) fn leaves(&mut self, range: &Range) {
        self.leave(range, Moves { column: None, of_a_view: false });
    }

    fn leave(&mut self, range: &Range, moves: Moves<'_>) {
        let mut flow = match moves.column.map(|name| range.columns.find(name)) {
            None => range.columns.all(),
            Some(Found::Certain(flow) | Found::Perhaps(flow)) => flow,
            Some(Found::No) => return,
        };
        // A view's columns are followed to where they come from, whatever they are called.
        let is_own = |source: &str| {
            range
                .tables
                .iter()
                .any(|table| source.strip_prefix(&**table).is_some_and(|rest| rest.starts_with('.')))
        };
        if moves.of_a_view {
            flow.sources.retain(|source| is_own(source));
        }
        self.copy(&flow, &[]);
    }
}

/// What gets another path.
#[derive(Clone, Copy)]
struct Moves<'a> {
    /// One column; all of them, if none.
    column: Option<&'a str>,
    of_a_view: bool,
}

fn is_view(object: i32) -> bool {
    ObjectType::try_from(object) == Ok(ObjectType::ObjectView)
}

fn is_relation(object: i32) -> bool {
    matches!(
        ObjectType::try_from(object),
        Ok(ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectForeignTable
            // `ALTER INDEX` and `ALTER SEQUENCE` rename tables, too.
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSequence)
    )
}
