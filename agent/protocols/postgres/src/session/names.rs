//! Prepared statements and portals by name, as sure as the server's answers make them.
//!
//! SQL's PREPARE and DECLARE share these names with Parse and Bind. A name given by a message that the server has
//! not answered yet counts only up to the next point at which the server would go on after an error: beyond it,
//! nobody knows yet what the name stands for, and what uses it has to wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::sql::Statements;

/// How many names one session may hold in each space.
const MOST: usize = 16 * 1024;

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The statement, with what EXECUTE and FETCH in it refer to already linked in.
    pub(super) statements: Arc<Statements>,
    /// Its text as recorded.
    pub(super) text: Arc<str>,
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
#[derive(Debug, Clone)]
pub(super) struct Name(pub(super) Space, pub(super) Box<str>);

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
    statements: HashMap<Box<str>, Entry>,
    portals: HashMap<Box<str>, Entry>,
    stretch: u64,
}

#[derive(Debug, Default)]
struct Entry {
    sure: Option<Arc<Prepared>>,
    under_way: VecDeque<(u64, Arc<Prepared>)>,
}

impl Names {
    /// The server goes on from here whatever happened before: after a Sync or a simple query.
    pub(super) fn next_stretch(&mut self) {
        self.stretch += 1;
    }

    /// A message under way gives this name. False if there are too many.
    #[must_use]
    pub(super) fn give(&mut self, name: &Name, prepared: Arc<Prepared>) -> bool {
        let stretch = self.stretch;
        let space = self.space(name.0);
        if space.len() >= MOST && !space.contains_key(&name.1) {
            return false;
        }
        space.entry(name.1.clone()).or_default().under_way.push_back((stretch, prepared));
        true
    }

    /// The server has answered the oldest message under way that gives this name.
    pub(super) fn settle(&mut self, name: &Name, given: bool) {
        let space = self.space(name.0);
        let Some(entry) = space.get_mut(&name.1) else { return };
        if let Some((_, prepared)) = entry.under_way.pop_front()
            && given
        {
            entry.sure = Some(prepared);
        }
        if entry.sure.is_none() && entry.under_way.is_empty() {
            space.remove(&name.1);
        }
    }

    /// The server has taken this name back.
    pub(super) fn take(&mut self, name: &Name) {
        let space = self.space(name.0);
        if let Some(entry) = space.get_mut(&name.1) {
            entry.sure = None;
            if entry.under_way.is_empty() {
                space.remove(&name.1);
            }
        }
    }

    /// What the name stands for.
    pub(super) fn known(&self, space: Space, name: &str) -> Known {
        let space = match space {
            Space::Statements => &self.statements,
            Space::Portals => &self.portals,
        };
        let Some(entry) = space.get(name) else { return Known::Nothing };
        match (entry.under_way.back(), &entry.sure) {
            (Some((stretch, prepared)), _) if *stretch == self.stretch => Known::As(prepared.clone()),
            (Some(_), _) => Known::Unsure,
            (None, Some(prepared)) => Known::As(prepared.clone()),
            (None, None) => Known::Nothing,
        }
    }

    fn space(&mut self, space: Space) -> &mut HashMap<Box<str>, Entry> {
        match space {
            Space::Statements => &mut self.statements,
            Space::Portals => &mut self.portals,
        }
    }
}
