//! Prepared statements and portals by name, as sure as the server's answers make them.
//!
//! SQL's PREPARE and DECLARE share these names with Parse and Bind. A name given by a message that the server has
//! not answered yet counts only up to the next point at which the server would go on after an error: beyond it,
//! nobody knows yet what the name stands for, and what uses it has to wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidegate_gate::{Gate, policy::Shape};

use crate::sql::Statements;

/// How many names one session may hold in each space. Beyond it the oldest are forgotten: clients count names up and
/// drop them by ways that are not followed (DEALLOCATE, the end of a transaction). A forgotten name that the server
/// still has stands for nothing, and what uses it is refused.
const MOST: usize = 4 * 1024;

/// About how many bytes the names of one space may hold.
const MOST_BYTES: usize = 8 << 20;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// The statement.
    pub(super) statements: Arc<Statements>,
    /// What the policy decides on: what EXECUTE and FETCH refer to is linked in.
    pub(super) shape: Arc<Shape>,
    /// The text that it came with, which holds more than the statement if SQL gave the name.
    pub(super) text: Arc<str>,
    /// The catalog's generation that it was understood at.
    pub(super) generation: u64,
    /// The version of the session's overlay, likewise.
    pub(super) overlay: u64,
    /// When it was prepared, or sent without: see `Changes::moment`.
    pub(super) moment: u64,
    /// Of a portal: when it was bound.
    pub(super) bound: Option<u64>,
    /// Of a portal: definitions were being changed when it was bound.
    pub(super) in_doubt: bool,
    /// Of a portal: marks of the definitions that it was bound by, where somebody may have to be asked about it.
    pub(super) bound_by: Option<[u8; 32]>,
    /// Of what a Parse gave: its parameters' types by oid as far as the client fixed them; 0 leaves one to the server.
    pub(super) types: Arc<[u32]>,
    /// The same as the server says, if it was asked.
    pub(super) described: Option<Arc<[u32]>>,
    /// Of a portal: it was let run, and only goes on from now on.
    pub(super) ran: Arc<AtomicBool>,
    /// What it runs with.
    pub(super) parameters: Parameters,
    /// Of what a Parse gave: the record's trace of it.
    pub(super) preparation: Option<Arc<Preparation>>,
}

/// What a statement runs with.
#[derive(Debug, Clone)]
pub(super) enum Parameters {
    /// Nothing: a statement that is not bound.
    None,
    /// They went by unseen.
    Unseen,
    /// These: seen, as somebody may have to be asked about them.
    Seen(Arc<[Parameter]>),
}

/// One parameter of a portal.
#[derive(Debug)]
pub(super) struct Parameter {
    /// As it was sent; none for null.
    pub(super) value: Option<Box<[u8]>>,
    /// It is in the type's binary format.
    pub(super) binary: bool,
    /// Its type by oid; 0 where the client leaves that to the server.
    pub(super) type_oid: u32,
}

impl Prepared {
    /// Statements as they were just understood, neither bound nor given a name.
    pub(super) fn new(statements: Arc<Statements>, text: Arc<str>, generation: u64, moment: u64) -> Self {
        Self {
            shape: statements.shape.clone(),
            statements,
            text,
            generation,
            overlay: 0,
            moment,
            bound: None,
            in_doubt: false,
            bound_by: None,
            types: Arc::default(),
            described: None,
            ran: Arc::default(),
            parameters: Parameters::None,
            preparation: None,
        }
    }

    /// About how many bytes it holds. What several names share counts for each.
    fn weight(&self) -> usize {
        let linked = match Arc::ptr_eq(&self.shape, &self.statements.shape) {
            true => 0,
            false => self.shape.weight(),
        };
        let types = size_of_val(&*self.types) + self.described.as_deref().map_or(0, size_of_val);
        let own = self.text.len() + types + self.parameters.size();
        size_of::<Self>() + own + self.statements.weight + linked
    }
}

impl Parameters {
    fn size(&self) -> usize {
        match self {
            Self::None | Self::Unseen => 0,
            Self::Seen(all) => all
                .iter()
                .map(|one| size_of::<Parameter>() + one.value.as_ref().map_or(0, |value| value.len()))
                .sum(),
        }
    }
}

/// What a Parse prepared. If nobody asks to execute it by the time it is given up, the record says that it was prepared.
#[derive(Debug)]
pub(super) struct Preparation {
    gate: Gate,
    /// As it may be recorded.
    text: Box<[u8]>,
    asked: AtomicBool,
}

impl Preparation {
    pub(super) fn new(gate: Gate, text: Box<[u8]>) -> Self {
        Self { gate, text, asked: AtomicBool::new(false) }
    }

    /// Its execution is asked for, which the record shows by itself.
    pub(super) fn asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        if !*self.asked.get_mut() {
            self.gate.event("prepared-only", &String::from_utf8_lossy(&self.text));
        }
    }
}

/// The space a name lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Prepared statements.
    Statements,
    /// Portals, cursors included.
    Portals,
}

/// A name given by a message under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) Space, pub(super) Box<[u8]>);

/// What is known of a name.
#[derive(Debug)]
pub(super) enum Known {
    /// It stands for this.
    As(Arc<Prepared>),
    /// The server has yet to say.
    Unsure,
    /// Nothing bears it.
    Nothing,
}

/// All names of a session.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: Bearers,
    portals: Bearers,
    stretch: u64,
    /// How often something was sent that may open and close cursors by names that nobody sees.
    openings: u64,
}

/// The names of one space.
#[derive(Debug, Default)]
struct Bearers {
    entries: HashMap<Box<[u8]>, Entry>,
    /// Every name in the order of its first giving; some may be gone.
    order: VecDeque<Box<[u8]>>,
    /// What the entries weigh.
    weight: usize,
    /// Some were forgotten that the server may still have.
    forgot: bool,
}

#[derive(Debug, Default)]
struct Entry {
    sure: Option<Given>,
    /// With the stretch that each was given in.
    under_way: VecDeque<(u64, Given)>,
}

/// What a name was given, after so many openings.
#[derive(Debug)]
struct Given {
    prepared: Arc<Prepared>,
    openings: u64,
}

impl Entry {
    fn weight(&self) -> usize {
        let under_way = self.under_way.iter().map(|(_, given)| given);
        self.sure.iter().chain(under_way).map(|given| given.prepared.weight()).sum()
    }

    /// What the name was given last.
    fn last(&mut self) -> Option<&mut Given> {
        self.under_way.back_mut().map(|(_, given)| given).or(self.sure.as_mut())
    }
}

impl Bearers {
    /// Changes an entry, and drops it if nothing is left in it.
    fn change(&mut self, name: &[u8], change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.weight -= entry.weight();
        change(entry);
        if entry.sure.is_none() && entry.under_way.is_empty() {
            self.entries.remove(name);
        } else {
            self.weight += entry.weight();
        }
    }

    /// Forgets the oldest names that nothing is under way for, until there is room.
    fn make_room(&mut self) {
        for _ in 0..self.order.len() {
            if self.entries.len() < MOST && self.weight < MOST_BYTES && self.order.len() < 2 * MOST {
                return;
            }
            let Some(oldest) = self.order.pop_front() else { return };
            match self.entries.get(&oldest) {
                Some(entry) if !entry.under_way.is_empty() => self.order.push_back(oldest),
                Some(_) => {
                    self.forgot = true;
                    self.change(&oldest, |entry| entry.sure = None);
                }
                None => {}
            }
        }
    }
}

impl Names {
    /// The server goes on from here whatever happened before: after a Sync or a simple query.
    pub(super) fn next_stretch(&mut self) {
        self.stretch += 1;
    }

    /// Whether a message may give this name: there are not too many.
    pub(super) fn has_room(&mut self, name: &Name) -> bool {
        let space = self.space(name.0);
        space.make_room();
        (space.entries.len() < MOST || space.entries.contains_key(&name.1)) && space.weight < MOST_BYTES
    }

    /// A message under way gives this name. False if there are too many.
    #[must_use]
    pub(super) fn give(&mut self, name: &Name, prepared: Arc<Prepared>) -> bool {
        if !self.has_room(name) {
            return false;
        }
        let (stretch, given) = (self.stretch, Given { prepared, openings: self.openings });
        let space = self.space(name.0);
        if !space.entries.contains_key(&name.1) {
            space.entries.insert(name.1.clone(), Entry::default());
            space.order.push_back(name.1.clone());
        }
        space.change(&name.1, |entry| entry.under_way.push_back((stretch, given)));
        true
    }

    /// The server has answered the oldest message under way that gives this name.
    pub(super) fn settle(&mut self, name: &Name, was_given: bool) {
        self.space(name.0).change(&name.1, |entry| {
            if let Some((_, given)) = entry.under_way.pop_front()
                && was_given
            {
                entry.sure = Some(given);
            }
        });
    }

    /// What the newest message under way gives this name was bound while nobody could say by which definitions.
    pub(super) fn doubt(&mut self, name: &Name) {
        self.space(name.0).change(&name.1, |entry| {
            if let Some((_, Given { prepared, .. })) = entry.under_way.back_mut() {
                *prepared = Arc::new(Prepared { in_doubt: true, ..Prepared::clone(prepared) });
            }
        });
    }

    /// The server has said of which types the parameters of a statement are.
    pub(super) fn described(&mut self, name: &Name, types: &Arc<[u32]>) {
        self.space(name.0).change(&name.1, |entry| {
            if let Some(sure) = &mut entry.sure {
                let described = Some(types.clone());
                sure.prepared = Arc::new(Prepared { described, ..Prepared::clone(&sure.prepared) });
            }
        });
    }

    /// The name still stands for the same, understood anew.
    pub(super) fn renew(&mut self, name: &Name, old: &Arc<Prepared>, new: &Arc<Prepared>) {
        self.space(name.0).change(&name.1, |entry| {
            if let Some(sure) = entry.sure.as_mut().filter(|sure| Arc::ptr_eq(&sure.prepared, old)) {
                sure.prepared = new.clone();
            }
        });
    }

    /// Something is sent that may close cursors and open others by their names, unseen.
    pub(super) fn may_reopen(&mut self) {
        self.openings += 1;
    }

    /// A portal that runs is still the same: while it does, nothing can close it.
    pub(super) fn stays(&mut self, portal: &[u8]) {
        let openings = self.openings;
        self.portals.change(portal, |entry| {
            entry.last().into_iter().for_each(|given| given.openings = openings);
        });
    }

    /// Whether portals were forgotten that the server may still have.
    pub(super) fn have_lost_portals(&self) -> bool {
        self.portals.forgot
    }

    /// Whether a portal may be another than was known by its name.
    pub(super) fn may_be_another(&self, portal: &[u8]) -> bool {
        let entry = self.portals.entries.get(portal);
        let given =
            entry.and_then(|entry| entry.under_way.back().map(|(_, given)| given).or(entry.sure.as_ref()));
        given.is_some_and(|given| given.openings != self.openings)
    }

    /// The server has taken this name back.
    pub(super) fn take(&mut self, name: &Name) {
        self.space(name.0).change(&name.1, |entry| entry.sure = None);
    }

    /// What the name stands for.
    pub(super) fn known(&self, space: Space, name: &[u8]) -> Known {
        let space = match space {
            Space::Statements => &self.statements,
            Space::Portals => &self.portals,
        };
        let Some(entry) = space.entries.get(name) else { return Known::Nothing };
        match (entry.under_way.back(), &entry.sure) {
            (Some((stretch, given)), _) if *stretch == self.stretch => Known::As(given.prepared.clone()),
            (Some(_), _) => Known::Unsure,
            (None, Some(given)) => Known::As(given.prepared.clone()),
            (None, None) => Known::Nothing,
        }
    }

    fn space(&mut self, space: Space) -> &mut Bearers {
        match space {
            Space::Statements => &mut self.statements,
            Space::Portals => &mut self.portals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name(Space::Portals, text.as_bytes().into())
    }

    fn prepared(text: &str) -> Arc<Prepared> {
        Arc::new(Prepared::new(crate::sql::function_call(), text.into(), 0, 0))
    }

    fn stands_for(names: &Names, wanted: &str) -> Option<String> {
        match names.known(Space::Portals, wanted.as_bytes()) {
            Known::As(prepared) => Some(prepared.text.to_string()),
            Known::Unsure => Some("?".into()),
            Known::Nothing => None,
        }
    }

    #[test]
    fn a_name_under_way_counts_up_to_the_next_stretch() {
        let mut names = Names::default();
        assert!(names.give(&name("c"), prepared("first")));
        assert_eq!(stands_for(&names, "c").as_deref(), Some("first"));
        names.next_stretch();
        assert_eq!(stands_for(&names, "c").as_deref(), Some("?"));
        names.settle(&name("c"), true);
        assert_eq!(stands_for(&names, "c").as_deref(), Some("first"));
    }

    #[test]
    fn a_name_that_the_server_refused_to_give_keeps_its_old_meaning() {
        let mut names = Names::default();
        assert!(names.give(&name("c"), prepared("masked")));
        names.settle(&name("c"), true);
        assert!(names.give(&name("c"), prepared("harmless")));
        names.next_stretch();
        assert_eq!(stands_for(&names, "c").as_deref(), Some("?"));
        names.settle(&name("c"), false);
        assert_eq!(stands_for(&names, "c").as_deref(), Some("masked"));
    }

    #[test]
    fn a_name_taken_back_stands_for_nothing() {
        let mut names = Names::default();
        assert!(names.give(&name("c"), prepared("first")));
        names.settle(&name("c"), true);
        names.take(&name("c"));
        assert_eq!(stands_for(&names, "c"), None);
        assert_eq!(stands_for(&names, "d"), None);
    }

    #[test]
    fn a_portal_may_be_another_once_something_ran_that_opens_cursors() {
        let mut names = Names::default();
        for portal in ["kept", "runs"] {
            assert!(names.give(&name(portal), prepared("first")));
            names.settle(&name(portal), true);
        }
        assert!(!names.may_be_another(b"kept"));
        names.may_reopen();
        names.stays(b"runs");
        assert!(names.may_be_another(b"kept") && !names.may_be_another(b"runs"));
        // What the server didn't give is what it was, or not.
        assert!(names.give(&name("kept"), prepared("second")));
        assert!(!names.may_be_another(b"kept"));
        names.settle(&name("kept"), false);
        assert!(names.may_be_another(b"kept"));
        assert!(names.give(&name("kept"), prepared("second")));
        names.settle(&name("kept"), true);
        assert!(!names.may_be_another(b"kept"));
    }

    #[test]
    fn the_oldest_names_are_forgotten_for_new_ones() {
        let mut names = Names::default();
        for index in 0..=MOST {
            let counted = name(&index.to_string());
            assert!(names.give(&counted, prepared("one")));
            names.settle(&counted, true);
        }
        assert_eq!(stands_for(&names, "0"), None);
        assert!(names.have_lost_portals());
        assert_eq!(stands_for(&names, &MOST.to_string()).as_deref(), Some("one"));
    }

    #[test]
    fn the_texts_of_a_session_s_names_are_bounded() {
        let mut names = Names::default();
        let long = prepared(&"x".repeat(MOST_BYTES / 4));
        for index in 0..8 {
            let counted = name(&index.to_string());
            assert!(names.give(&counted, long.clone()));
            names.settle(&counted, true);
        }
        assert_eq!(stands_for(&names, "3"), None);
        assert!(names.portals.weight <= MOST_BYTES + MOST_BYTES / 4);
    }

    #[test]
    fn a_session_holds_only_so_many_names_that_are_under_way() {
        let mut names = Names::default();
        let each = prepared("one");
        assert!((0..MOST).all(|index| names.give(&name(&index.to_string()), each.clone())));
        assert!(!names.give(&name("one more"), each.clone()));
        assert!(names.give(&name("0"), each));
    }
}
