//! What the server says that rows are, before it sends them.
//!
//! Where a column's values come from was decided by the gate's own reading. The server, which has read the statement itself, names
//! the table and column of every output that is one as it stands: where that is a masked column and the plan would show it,
//! the reading was wrong, and nothing of the result is shown.

use tidegate_gate::{ServeError, policy::Path};

use super::{
    Session,
    expect::Expect,
    from_server::{unexpected, upstream},
    refuse,
    results::Results,
};
use crate::{
    shown::ColumnType,
    wire::backend::{self, FieldDescription, tag},
};

impl Session {
    /// What the gate asked for itself is told to nobody else.
    pub(super) fn parameter_description(&mut self, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        match self.owed.front() {
            Some(Expect::Describe) => self.client.outbound.extend_from_slice(message),
            Some(Expect::OwnParameters(name)) => {
                let types = backend::parameter_description(body).map_err(upstream)?.iter().collect();
                self.names.described(name, &types);
            }
            _ => return Err(unexpected(tag::PARAMETER_DESCRIPTION)),
        }
        Ok(())
    }

    pub(super) fn row_description(&mut self, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        if let Some(Expect::OwnParameters(_)) = self.owed.front() {
            self.owed.pop();
            return Ok(());
        }
        let own = matches!(self.owed.front(), Some(Expect::OwnDescribe(_)));
        let results = match self.owed.front() {
            Some(Expect::OwnDescribe(results)) => Some(results.clone()),
            Some(Expect::Query(run)) => {
                run.described();
                Some(run.results.clone())
            }
            Some(Expect::Describe) => None,
            _ => return Err(unexpected(tag::ROW_DESCRIPTION)),
        };
        let mut other_columns = None;
        if let Some(results) = results.filter(|results| !results.pass_unseen()) {
            let fields = backend::row_description(body).map_err(upstream)?;
            other_columns = self.plan_rows(&results, &fields);
        }
        if matches!(self.owed.front(), Some(Expect::Describe | Expect::OwnDescribe(_))) {
            self.owed.pop();
        }
        if !own {
            self.client.outbound.extend_from_slice(message);
        }
        if let Some(why) = other_columns {
            self.cut_run(refuse::other_columns(&why));
        }
        Ok(())
    }

    /// How the rows are to be shown. Why the statement is to end instead, if they have more or fewer columns than were foreseen:
    /// masked whole, they would look like rows of a table that holds nothing else.
    fn plan_rows(&mut self, results: &Results, fields: &[FieldDescription<'_>]) -> Option<String> {
        let columns: Vec<_> =
            fields.iter().map(|field| ColumnType { oid: field.type_oid, format: field.format }).collect();
        if let Some(cannot) = results.describe(&columns) {
            self.gate.event("masked-whole", &cannot.to_string());
        }
        if !results.are_compared() {
            return None;
        }
        let sources = |field: &FieldDescription<'_>| self.database.sources(field.table_oid, field.column);
        let origins: Vec<Vec<Path>> = fields.iter().map(sources).collect();
        let contradiction = results.contradiction(&columns, &origins)?;
        self.gate.event("origin-differs", &contradiction.why);
        // Whatever it was read by counts no more.
        self.database.definitions().changed();
        contradiction.is_of_number.then_some(contradiction.why)
    }

    pub(super) fn no_data(&mut self, message: &[u8]) -> Result<(), ServeError> {
        match self.owed.pop() {
            Some(Expect::Describe) => self.client.outbound.extend_from_slice(message),
            Some(Expect::OwnDescribe(_) | Expect::OwnParameters(_)) => {}
            _ => return Err(unexpected(tag::NO_DATA)),
        }
        Ok(())
    }
}
