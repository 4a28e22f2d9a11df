//! From a statement's text to a permit.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tidegate_gate::{
    Action, Decision,
    policy::{Lineage, Shape, Value, Verdict},
};
use tokio::time::timeout;

use super::{
    Session,
    names::{Known, Name, Parameters, Preparation, Prepared, Space},
    refuse::{self, Refused},
};
use crate::{
    definitions::{Changing, Unread},
    sql::{self, Effect, Statements},
};

/// How long a change of definitions waits for statements of others that the server has yet to read.
const READING: Duration = Duration::from_secs(10);

impl Session {
    /// What a text does, with the names in it linked to what they stand for. None: that depends on an answer that
    /// the server still owes.
    pub(super) async fn understand(&mut self, text: &[u8]) -> Result<Option<Prepared>, Refused> {
        let text =
            std::str::from_utf8(text).map_err(|_| Refused::new("22021", "a statement is not UTF-8"))?;
        let (statements, generation) = self.statements_of(text).await?;
        for statement in &statements.list {
            if let Some(name) = referred(&statement.effect)
                && let Known::As(prepared) = self.names.known(name.0, &name.1)
            {
                self.fresh(&name, prepared).await?;
            }
        }
        let shape = self.link(&statements);
        let (text, parameters, moment) = (text.into(), Parameters::None, self.changes.moment());
        Ok(shape.map(|shape| Prepared {
            statements,
            shape,
            text,
            generation,
            moment,
            bound: None,
            parameters,
            preparation: None,
            in_doubt: false,
        }))
    }

    /// What a prepared statement does by what the catalog says now: the server, too, plans it anew when definitions
    /// change. A portal stays what it was when it was bound.
    pub(super) async fn fresh(
        &mut self,
        name: &Name,
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Prepared>, Refused> {
        if name.0 == Space::Portals || prepared.generation == self.database.generation() {
            return Ok(prepared);
        }
        let (whole, generation) = self.statements_of(&prepared.text).await?;
        let mut inner = whole.list.iter().rev().filter_map(|statement| given(&statement.effect));
        let statements = inner.find(|(given, _)| given == name).map(|(_, inner)| inner.clone());
        let statements = statements.unwrap_or(whole);
        let Some(shape) = self.link(&statements) else { return Ok(prepared) };
        let fresh = Arc::new(Prepared { statements, shape, generation, ..Prepared::clone(&prepared) });
        self.names.renew(name, &prepared, &fresh);
        Ok(fresh)
    }

    /// What a portal does, now that it runs. None: that depends on an answer that the server still owes.
    ///
    /// What EXECUTE and FETCH name may stand for something else by now. The server reads a utility statement only now, by
    /// names that it has looked up before, or not: where that makes a difference, nobody can say what it does.
    pub(super) async fn as_it_runs(
        &mut self,
        prepared: Arc<Prepared>,
    ) -> Result<Option<Arc<Prepared>>, Refused> {
        let names = prepared.statements.refer_to_names();
        let is_late = prepared.statements.late && prepared.generation != self.database.generation();
        if !names && !is_late {
            return Ok(Some(prepared));
        }
        let Some(now) = self.understand(prepared.text.as_bytes()).await? else { return Ok(None) };
        if names {
            return Ok(Some(Arc::new(Prepared { parameters: prepared.parameters.clone(), ..now })));
        }
        if now.shape == prepared.shape {
            return Ok(Some(prepared));
        }
        let mut either = untraced(&prepared.shape);
        let new = now.shape.items.iter().filter(|item| !prepared.shape.items.contains(item));
        either.items.extend(new.cloned());
        Ok(Some(Arc::new(Prepared { shape: Arc::new(either), ..Prepared::clone(&prepared) })))
    }

    async fn statements_of(&self, text: &str) -> Result<(Arc<Statements>, u64), Refused> {
        let generation = self.database.generation();
        if self.overlay.is_empty()
            && let Some(statements) = self.database.known(text, generation)
        {
            return Ok((statements, generation));
        }
        match self.database.understand(text, &self.overlay, &self.gate).await {
            Ok(statements) => Ok((statements, generation)),
            Err(not) => {
                let refused = Refused::from(not);
                self.gate.refuse("statement", &sql::redact(text), &refused.message);
                Err(refused)
            }
        }
    }

    /// The shape with what EXECUTE and FETCH refer to put in. None: the server has yet to say what a name stands for.
    fn link(&self, statements: &Arc<Statements>) -> Option<Arc<Shape>> {
        let mut shape = statements.shape.clone();
        if statements.list.iter().any(|statement| referred(&statement.effect).is_some()) {
            let unsure = statements
                .list
                .iter()
                .filter_map(|statement| referred(&statement.effect))
                .any(|name| matches!(self.names.known(name.0, &name.1), Known::Unsure));
            if unsure {
                return None;
            }
            let find = |space, name: &str| self.meant(statements, &Name(space, name.as_bytes().into()));
            let linked =
                statements.linked(|name| find(Space::Statements, name), |name| find(Space::Portals, name));
            shape = linked.map_or(shape, Arc::new);
        }
        Some(shape)
    }

    /// The same, where the server may read it by other definitions than the gate did; none if it can't.
    pub(super) fn doubted(&self, prepared: &Prepared) -> Option<Prepared> {
        let names = prepared.statements.list.iter().filter_map(|statement| referred(&statement.effect));
        let is_doubtful = |name: Name| matches!(self.names.known(name.0, &name.1), Known::As(prepared) if prepared.in_doubt);
        let in_doubt = prepared.in_doubt
            || self.is_in_doubt()
            || names.into_iter().any(is_doubtful)
            || prepared.statements.change_definitions_within();
        in_doubt.then(|| Prepared { shape: Arc::new(untraced(&prepared.shape)), ..Prepared::clone(prepared) })
    }

    /// Nobody can say by which definitions the server will read what it is sent now.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.unread.as_ref().is_none_or(|unread| unread.in_doubt)
    }

    /// Notes that the server is about to be sent a statement: to be called before that is understood. What was in doubt
    /// was decided as such, and needs nobody to wait for it.
    pub(super) fn begin_unread(&mut self) {
        if self.unread.as_ref().is_none_or(|unread| unread.in_doubt) {
            self.unread = Some(Unread::begin(&self.database));
        }
    }

    /// Definitions are about to change by what runs next: says so, and waits for the others' statements that were decided
    /// by them as they are.
    pub(super) async fn begin_change(&mut self, shape: &Shape) -> Result<(), Refused> {
        let (changing, older) = Changing::begin(&self.database);
        // Of the new era: a session does not wait for itself. But others that began before may go on now.
        self.unread = Some(Unread::begin(&self.database));
        if !changing.is_only() && (reads(shape) || !shape.results.is_empty()) {
            return Err(refuse::definitions_in_use());
        }
        timeout(READING, older.are_read()).await.map_err(|_| refuse::definitions_in_use())?;
        self.changing = Some(changing);
        Ok(())
    }

    /// What a name in a text means: what the text itself gives it or what the session knows, but not either.
    fn meant(&self, statements: &Statements, name: &Name) -> Option<Arc<Statements>> {
        let mut own = statements.list.iter().filter_map(|statement| given(&statement.effect));
        let own = own.by_ref().filter(|(given, _)| given == name).map(|(_, inner)| inner.clone());
        let known = match self.names.known(name.0, &name.1) {
            Known::As(prepared) => Some(prepared.statements.clone()),
            Known::Unsure | Known::Nothing => None,
        };
        let mut meanings = own.chain(known);
        let first = meanings.next();
        if meanings.next().is_some() { None } else { first }
    }

    /// Notes the names that the statements give, as long as the server has not answered.
    pub(super) fn give(&mut self, prepared: &Prepared) -> Result<Vec<Name>, Refused> {
        let mut names = Vec::new();
        for statement in &prepared.statements.list {
            if let Some((name, inner)) = given(&statement.effect) {
                let bound = (name.0 == Space::Portals).then(|| self.changes.moment());
                let inner = Prepared {
                    statements: inner.clone(),
                    shape: inner.shape.clone(),
                    text: prepared.text.clone(),
                    generation: prepared.generation,
                    moment: prepared.moment,
                    bound,
                    parameters: prepared.parameters.clone(),
                    preparation: None,
                    in_doubt: prepared.in_doubt,
                };
                if !self.names.give(&name, Arc::new(inner)) {
                    self.settle_names(&names, false);
                    return Err(refuse::too_many_names());
                }
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(super) fn settle_names(&mut self, names: &[Name], given: bool) {
        for name in names {
            self.names.settle(name, given);
        }
    }

    /// What a Parse leaves in the record if nothing else comes of it.
    pub(super) fn preparation(&self, prepared: &Prepared, verdict: &Verdict) -> Preparation {
        let text = recorded(prepared);
        let text = match &verdict.content {
            Some(mask) => self.gate.masker().scan(mask, text.as_bytes()).into(),
            None => text.as_bytes().into(),
        };
        Preparation::new(self.gate.clone(), text)
    }

    pub(super) async fn ask(&mut self, prepared: &Prepared) -> Decision {
        let text = &*recorded(prepared);
        self.gate.ask(Action { name: "statement", shape: &prepared.shape, text }).await
    }
}

/// A text as it may be recorded.
pub(super) fn recorded(prepared: &Prepared) -> Cow<'_, str> {
    match prepared.statements.suspect {
        true => sql::redact(&prepared.text),
        false => Cow::Borrowed(&prepared.text),
    }
}

/// The name that a statement refers to.
pub(super) fn referred(effect: &Effect) -> Option<Name> {
    match effect {
        Effect::Execute { name } => Some(Name(Space::Statements, name.as_bytes().into())),
        Effect::Fetch { name } => Some(Name(Space::Portals, name.as_bytes().into())),
        _ => None,
    }
}

/// The name that a statement gives, and to what.
fn given(effect: &Effect) -> Option<(Name, &Arc<Statements>)> {
    match effect {
        Effect::Prepare { name, inner } => Some((Name(Space::Statements, name.as_bytes().into()), inner)),
        Effect::Declare { name, inner } => Some((Name(Space::Portals, name.as_bytes().into()), inner)),
        _ => None,
    }
}

fn reads(shape: &Shape) -> bool {
    shape.items.iter().any(|item| {
        item.fields.iter().any(|field| {
            matches!(
                field,
                ("access", Value::Word("read")) | ("statement", Value::Word("update" | "delete" | "merge"))
            )
        })
    })
}

/// The same, but nobody can say where its results, or what decides rows or is written, come from.
fn untraced(shape: &Shape) -> Shape {
    let reason: Arc<str> = "definitions are being changed, in this or another session".into();
    let untraced = |lineage: &Lineage| Lineage { untraced: Some(reason.clone()), ..lineage.clone() };
    Shape {
        results: shape.results.iter().map(untraced).collect(),
        untraced: shape.untraced.clone().or_else(|| reads(shape).then(|| reason.clone())),
        ..shape.clone()
    }
}
