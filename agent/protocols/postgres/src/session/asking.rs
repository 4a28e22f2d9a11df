//! From a statement's text to a permit.

use std::{
    borrow::Cow,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidegate_gate::{
    Action, Decision,
    policy::{self, Lineage, Shape, Value, Verdict},
};

use super::{
    Session,
    expect::Run,
    holding::Stop,
    names::{Known, Name, Preparation, Prepared, Space},
    refuse::{self, Refused},
    results::Results,
};
use crate::{
    database::{Understood, Word},
    definitions::Changing,
    sql::{self, Cursor, Effect, Statements, Unsettled},
};

impl Session {
    /// What a text does, with the names in it linked to what they stand for. It waits where that depends on an answer
    /// that the server still owes, or can't be known at once.
    pub(super) async fn understand(&mut self, text: &[u8]) -> Result<Prepared, Stop> {
        let text =
            std::str::from_utf8(text).map_err(|_| Refused::new("22021", "a statement is not UTF-8"))?;
        let Understood { statements, generation } = self.understood(text).await?;
        for statement in &statements.list {
            if let Some(name) = referred(&statement.effect)
                && let Known::As(prepared) = self.names.known(name.0, &name.1)
            {
                self.fresh(&name, prepared).await?;
            }
        }
        let shape = self.link(&statements).ok_or(Stop::Waits)?;
        let understood = Prepared::new(statements, text.into(), generation, self.changes.moment());
        Ok(Prepared { shape, overlay: self.overlay.version(), ..understood })
    }

    /// What a prepared statement does by what the catalog says now: the server, too, plans it anew when definitions
    /// change. A portal stays what it was when it was bound.
    pub(super) async fn fresh(
        &mut self,
        name: &Name,
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Prepared>, Stop> {
        if name.0 == Space::Portals || self.is_current(&prepared) {
            return Ok(prepared);
        }
        let Understood { statements: whole, generation } = self.understood(&prepared.text).await?;
        let mut inner = whole.list.iter().rev().filter_map(|statement| given(&statement.effect));
        let statements = inner.find(|(given, _)| given == name).map(|(_, inner)| inner.clone());
        let statements = statements.unwrap_or(whole);
        let Some(shape) = self.link(&statements) else { return Ok(prepared) };
        let overlay = self.overlay.version();
        let fresh = Prepared { statements, shape, generation, overlay, ..Prepared::clone(&prepared) };
        let fresh = Arc::new(fresh);
        self.names.renew(name, &prepared, &fresh);
        Ok(fresh)
    }

    /// The catalog says what it said when this was understood, as far as that counts, and the session's overlay, too.
    fn is_current(&self, prepared: &Prepared) -> bool {
        self.word() == Word::Remembered
            && prepared.generation == self.database.generation()
            && prepared.overlay == self.overlay.version()
    }

    /// What a portal does, now that it runs.
    ///
    /// What EXECUTE and FETCH name may stand for something else by now. The server reads a utility statement only now, by
    /// names that it has looked up before, or not: where that makes a difference, nobody can say what it does.
    pub(super) async fn as_it_runs(&mut self, prepared: Arc<Prepared>) -> Result<Arc<Prepared>, Stop> {
        let names = prepared.statements.refer_to_names();
        let is_late = prepared.statements.late && !self.is_current(&prepared);
        if !names && !is_late {
            return Ok(prepared);
        }
        let now = self.understand(prepared.text.as_bytes()).await?;
        if names {
            let (parameters, ran) = (prepared.parameters.clone(), prepared.ran.clone());
            return Ok(Arc::new(Prepared { parameters, ran, ..now }));
        }
        if now.shape == prepared.shape {
            let statements = now.statements;
            return Ok(Arc::new(Prepared { statements, ..Prepared::clone(&prepared) }));
        }
        let mut either = untraced(&prepared.shape, CHANGING);
        let new = now.shape.items.iter().filter(|item| !prepared.shape.items.contains(item));
        either.items.extend(new.cloned());
        let (shape, statements) = (Arc::new(either), now.statements);
        Ok(Arc::new(Prepared { shape, statements, ..Prepared::clone(&prepared) }))
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
                statements.linked(|name| find(Space::Statements, name), |name| self.cursor(statements, name));
            shape = linked.map_or(shape, Arc::new);
        }
        Some(shape)
    }

    /// The same, where the server may read it by other definitions than the gate did, and that may matter; none if it can't.
    pub(super) fn doubted(&self, prepared: &Prepared) -> Option<Prepared> {
        // What is bound has been read, unless the server reads it only when it runs.
        let was_read = prepared.bound.is_some() && !prepared.statements.late;
        let in_doubt = self.reader.is_in_doubt() && !was_read || self.is_in_doubt_for_good(prepared);
        let matters = in_doubt && names_definitions(prepared) && self.may_mask_columns(prepared);
        matters.then(|| Prepared {
            shape: Arc::new(untraced(&prepared.shape, CHANGING)),
            ..Prepared::clone(prepared)
        })
    }

    /// Whether it is in doubt by which definitions the server reads it, or has read it, whatever others do from now on.
    pub(super) fn is_in_doubt_for_good(&self, prepared: &Prepared) -> bool {
        let mut names = prepared.statements.list.iter().filter_map(|statement| referred(&statement.effect));
        prepared.in_doubt
            || prepared.statements.change_definitions_within()
            || names.any(
                |name| matches!(self.names.known(name.0, &name.1), Known::As(prepared) if prepared.in_doubt),
            )
    }

    /// Asks for what was understood. The empty statement does nothing: nothing is asked.
    pub(super) async fn permit(&mut self, prepared: &Prepared) -> Result<Run, Stop> {
        let statements = &prepared.statements;
        if statements.list.is_empty() {
            let results = Results::new(statements.clone(), None, self.masker());
            return Ok(Run::new(None, Arc::new(results), false, Vec::new()));
        }
        let permitted = self.permitted_run(prepared).await;
        if permitted.is_err() && self.changing.as_ref().is_some_and(Changing::is_only_announced) {
            self.changing = None;
        }
        permitted
    }

    async fn permitted_run(&mut self, prepared: &Prepared) -> Result<Run, Stop> {
        let statements = &prepared.statements;
        let doubted = self.doubted(prepared);
        // First: beside a change of its own it would wait for nobody's.
        if let Some(doubted) = &doubted {
            self.clear_up(prepared, doubted)?;
        }
        self.redefine(prepared)?;
        self.settle_definitions(prepared)?;
        let prepared = doubted.as_ref().unwrap_or(prepared);
        let names = self.give(prepared)?;
        let permit = match self.permitted(prepared).await {
            Ok(permit) => permit,
            Err(stop) => {
                self.settle_names(&names, false);
                return Err(stop);
            }
        };
        prepared.ran.store(true, Ordering::Relaxed);
        self.begin_referred(statements);
        let verdict = permit.verdict().clone();
        let was_read = prepared.bound.is_some() && !statements.late;
        // What a person let through is for the definitions of then, as what columns are masked in is.
        let counts = verdict.masks_columns && doubted.is_none() || verdict.effect == policy::Effect::Hold;
        let unread = counts && !was_read && names_definitions(prepared);
        let results = Results::new(statements.clone(), Some(verdict.clone()), self.masker());
        let cannot = match verdict.masks_columns.then(|| self.misread(prepared)).flatten() {
            // feature_not_supported
            Some(why) => Some(("0A000", why)),
            None => results.cannot_copy().map(|cannot| ("42501", cannot.to_string())),
        };
        // What was foreseen to be refused has said nothing, and the policy may have changed since.
        let is_silent = self.changing.is_none() && statements.changes_definitions();
        let mut run = Run::new(Some(permit), Arc::new(results), statements.ddl, names);
        run.unread = unread;
        if let Some((code, why)) = cannot {
            run.failed(code);
            self.settle(run, false);
            return Err(Refused::new(code, why).into());
        }
        if is_silent {
            let refused = refuse::unannounced();
            run.failed(refused.code);
            self.settle(run, false);
            return Err(refused.into());
        }
        match &mut self.changing {
            Some(changing) if statements.changes_definitions() => changing.sent(),
            Some(changing) => changing.locks(),
            None => {}
        }
        if statements.ddl && statements.unsettles.loses {
            self.database.definitions().lose();
        }
        Arc::make_mut(&mut self.overlay).follow(statements);
        self.changes.follow(prepared);
        self.follow_cursors(statements);
        Ok(run)
    }

    /// Why the server may read it otherwise than the gate did, if so: columns can't be masked then.
    fn misread(&self, prepared: &Prepared) -> Option<String> {
        if self.dialect.is_usual() {
            return None;
        }
        let mut names = prepared.statements.list.iter().filter_map(|statement| referred(&statement.effect));
        let of_name = |name: Name| match self.names.known(name.0, &name.1) {
            Known::As(named) => self.dialect.objection_to(&named.text),
            Known::Unsure | Known::Nothing => None,
        };
        self.dialect
            .objection()
            .or_else(|| self.dialect.objection_to(&prepared.text))
            .or_else(|| names.find_map(of_name))
    }

    /// What a text runs by name does what it does, and a cursor that it fetches from has begun.
    fn begin_referred(&mut self, statements: &Statements) {
        for name in statements.list.iter().filter_map(|statement| referred(&statement.effect)) {
            let Known::As(named) = self.names.known(name.0, &name.1) else { continue };
            if name.0 == Space::Portals {
                named.ran.store(true, Ordering::Relaxed);
            }
            let by = named.statements.unsettles;
            Arc::make_mut(&mut self.overlay).unsettle(by);
        }
    }

    /// Code that a text runs may open cursors by names that the session uses, the ones that stood behind these closed.
    fn follow_cursors(&mut self, statements: &Statements) {
        let referred: Vec<_> =
            statements.list.iter().filter_map(|statement| referred(&statement.effect)).collect();
        let opens = |name: &Name| matches!(self.names.known(name.0, &name.1), Known::As(named) if named.statements.opens_cursors);
        if !statements.opens_cursors && !referred.iter().any(opens) {
            return;
        }
        // What a text alone fetches from, or declares, is what it was while it runs.
        let stays = match statements.list.as_slice() {
            [alone] => given(&alone.effect)
                .map(|(name, _)| name)
                .or_else(|| referred.into_iter().find(|name| !self.names.may_be_another(&name.1))),
            _ => None,
        };
        self.names.may_reopen();
        if let Some(Name(Space::Portals, portal)) = stays {
            self.names.stays(&portal);
        }
    }

    /// The same, where the portal may be another by now, which nobody can say anything of, and that may matter.
    pub(super) fn as_it_may_be(&self, portal: &[u8], prepared: Arc<Prepared>) -> Arc<Prepared> {
        if !self.names.may_be_another(portal) || !self.may_mask_columns(&prepared) {
            return prepared;
        }
        let shape = Arc::new(untraced(&prepared.shape, REOPENED));
        Arc::new(Prepared { shape, ..Prepared::clone(&prepared) })
    }

    /// Whether columns are masked for who asks this, as far as can be known: where values come from matters then.
    pub(super) fn may_mask_columns(&self, prepared: &Prepared) -> bool {
        self.gate.foresee(&prepared.shape).map_or(true, |verdict| verdict.masks_columns)
    }

    /// Notes that the server is about to be sent a statement: to be called before that is understood.
    pub(super) fn begin_unread(&mut self) {
        if self.owed.are_read() {
            self.reader.read();
        }
        self.reader.begin(self.changing.as_ref());
        let losses = self.database.definitions().losses();
        if mem::replace(&mut self.losses, losses) != losses {
            Arc::make_mut(&mut self.overlay).unsettle(Unsettled { loses: true, ..Unsettled::default() });
        }
    }

    /// What a name in a text means: what the text itself gives it or what the session knows, but not either.
    fn meant(&self, statements: &Statements, name: &Name) -> Option<Arc<Statements>> {
        match self.meanings(statements, name).as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        }
    }

    /// What a cursor's name in a text may stand for: whatever it is, the server runs it to fetch from it.
    fn cursor(&self, statements: &Statements, name: &str) -> Cursor {
        let name = Name(Space::Portals, name.as_bytes().into());
        let meanings = self.meanings(statements, &name);
        let certain = meanings.len() == 1 && !statements.opens_cursors && !self.names.may_be_another(&name.1);
        let forgotten = meanings.is_empty() && self.names.have_lost_portals();
        Cursor { meanings, certain, forgotten }
    }

    fn meanings(&self, statements: &Statements, name: &Name) -> Vec<Arc<Statements>> {
        let own = statements.list.iter().filter_map(|statement| given(&statement.effect));
        let own = own.filter(|(given, _)| given == name).map(|(_, inner)| inner.clone());
        let known = match self.names.known(name.0, &name.1) {
            Known::As(prepared) => Some(prepared.statements.clone()),
            Known::Unsure | Known::Nothing => None,
        };
        own.chain(known).collect()
    }

    /// Notes the name that a message gives, as long as the server has not answered. Where there is no room, there may be
    /// when it has answered what it owes.
    pub(super) fn give_name(&mut self, name: &Name, prepared: Prepared) -> Result<(), Stop> {
        if !self.dialect.keeps(&name.1) {
            return Err(refuse::letters_beyond_ascii().into());
        }
        match self.names.give(name, Arc::new(prepared)) {
            true => Ok(()),
            false if !self.owed.is_empty() => Err(Stop::Waits),
            false => Err(refuse::too_many_names().into()),
        }
    }

    /// Notes the names that the statements give, as long as the server has not answered.
    pub(super) fn give(&mut self, prepared: &Prepared) -> Result<Vec<Name>, Stop> {
        let mut names = Vec::new();
        for statement in &prepared.statements.list {
            if let Some((name, inner)) = given(&statement.effect) {
                let bound = (name.0 == Space::Portals).then(|| self.changes.moment());
                let (statements, shape) = (inner.clone(), inner.shape.clone());
                // The types of its own parameters are in the text.
                let types = Arc::default();
                // A cursor was counted as it was declared.
                let (ran, preparation) = (Arc::new(AtomicBool::new(name.0 == Space::Portals)), None);
                let own = Prepared::clone(prepared);
                let inner = Prepared { statements, shape, bound, types, ran, preparation, ..own };
                if let Err(stop) = self.give_name(&name, inner) {
                    self.settle_names(&names, false);
                    return Err(stop);
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
        let is_known = |cursor: &str| match self.names.known(Space::Portals, cursor.as_bytes()) {
            Known::As(portal) => portal.ran.load(Ordering::Relaxed),
            Known::Unsure | Known::Nothing => false,
        };
        let ran = prepared.ran.load(Ordering::Relaxed);
        let count = if ran { 0 } else { prepared.statements.acts(is_known) };
        self.gate.ask(Action { name: "statement", shape: &prepared.shape, text, count }).await
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

/// Whether what it does depends on definitions that somebody may change: it names relations, or functions that aren't
/// PostgreSQL's own.
pub(super) fn names_definitions(prepared: &Prepared) -> bool {
    let is_named = |(field, value): &(&str, Value)| match (*field, value) {
        ("table", _) => true,
        ("function", Value::Text(name)) => !name.starts_with("pg_catalog."),
        _ => false,
    };
    !prepared.shape.touched.is_empty()
        || prepared.statements.refer_to_names()
        || prepared.shape.items.iter().any(|item| item.fields.iter().any(is_named))
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

/// Why what depends on definitions can't be traced.
const CHANGING: &str = "definitions are being changed, in this or another session";

/// Why what is fetched from a portal can't be.
const REOPENED: &str = "a function may have opened another cursor by this name";

/// The same, but nobody can say where its results, or what decides rows or is written, come from.
fn untraced(shape: &Shape, reason: &str) -> Shape {
    let reason: Arc<str> = reason.into();
    let untraced = |lineage: &Lineage| {
        let outputs = lineage.outputs.clone();
        Lineage { outputs, untraced: Some(reason.clone()), among: None }
    };
    Shape {
        results: shape.results.iter().map(untraced).collect(),
        untraced: shape.untraced.clone().or_else(|| reads(shape).then(|| reason.clone())),
        ..shape.clone()
    }
}
