//! Views, and the rows that materialized ones keep.
//!
//! A materialized view is traced by its query of now, and holds the rows of its last REFRESH. Its own query never changes;
//! that of a view in it may. So what a view has shown must not be forgotten by replacing it, and a view that is younger
//! than the rows isn't what they were read through: see [`Relation::age`](super::catalog::Relation::age), which whoever
//! masks apply to must not renew in other ways than by a REFRESH.

use pg_query::{
    NodeEnum,
    protobuf::{GrantTargetType, ObjectType, ViewStmt},
};

use super::{
    flow::{Columns, Flow},
    parse::NotUnderstood,
    relation::Candidate,
    scope::Scope,
    statement::Statement,
    tracer::{Key, Result, Tracer, strings},
};

impl Tracer<'_> {
    /// `CREATE VIEW`.
    pub(super) fn create_view(&mut self, view: &ViewStmt) -> Result<Statement> {
        let (Some(table), Some(query)) = (&view.view, view.query.as_deref()) else {
            return Err(NotUnderstood::new("a view without a name or query"));
        };
        let columns = self.query(query, &Scope { statement: "select", ..Scope::default() })?;
        let columns = columns.renamed(&strings(&view.aliases));
        if view.replace {
            for candidate in self.candidates(table)? {
                self.replaced(&candidate, &columns);
                if &*candidate.schema != "?" {
                    let table = Some(candidate.path);
                    self.item(Key { statement: "create", table, object: Some("view"), ..Key::default() });
                }
            }
        }
        Ok(self.created(table, "view", columns, true))
    }

    /// What a view has shown until now and shows no longer may be kept by who read it: it counts as copied there.
    fn replaced(&mut self, old: &Candidate, new: &Columns) {
        for (index, column) in old.columns.list.iter().enumerate() {
            let own = format!("{}.{}", old.path, column.name);
            // Where it isn't known what stands where, nothing certainly stays.
            let shown = new.list.get(index).filter(|_| new.rest.is_none());
            let stays =
                |source: &str| source == own || shown.is_some_and(|new| new.flow.sources.contains(source));
            let lost = column.flow.sources.iter().filter(|source| !stays(source)).cloned();
            let lost = Flow { computed: column.flow.computed, ..Flow::from_columns(lost) };
            self.copy(&lost, &[]);
        }
    }

    /// A statement other than REFRESH that may write a relation's entry in the catalog anew.
    pub(super) fn rewrites(&mut self, relation: &Candidate) {
        if relation.materialized && !self.refreshes {
            self.lose_track(&relation.columns.all());
        }
    }

    /// The same, of relations that the statement doesn't name.
    pub(super) fn rewrites_unnamed(&mut self, node: &NodeEnum) {
        let rewrites = match node {
            NodeEnum::VacuumStmt(vacuum) => vacuum.options.iter().any(
                |option| matches!(&option.node, Some(NodeEnum::DefElem(option)) if option.defname == "full"),
            ),
            NodeEnum::GrantStmt(grant) => {
                grant.targtype == GrantTargetType::AclTargetAllInSchema as i32
                    && grant.objtype == ObjectType::ObjectTable as i32
            }
            NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::ReassignOwnedStmt(_)
            | NodeEnum::DropOwnedStmt(_) => true,
            _ => false,
        };
        self.unsettles.loses |= matches!(node, NodeEnum::DropOwnedStmt(_));
        if rewrites {
            self.lose_track(&Flow::untraced("it changes relations that it doesn't name"));
        }
    }
}
