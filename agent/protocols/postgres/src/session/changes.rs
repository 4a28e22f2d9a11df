//! What a session has changed of itself, and with it what the same bytes stand for: `search_path`, the role, temporary
//! tables.
//!
//! An approval is bound to it. What is told alike is the same state; where that can't be known (what was
//! set may have been rolled back, or a function computed it), a session is like no other, and not like itself before.

use std::{collections::VecDeque, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_gate::{
    Matter,
    policy::{Item, Value},
};

use super::{asking::recorded, names::Prepared};
use crate::sql::{Effect, Setting, changes_nothing};

/// So many changes are shown to approvers, the latest; the earlier ones are counted.
const SHOWN: usize = 32;

/// Of each, so many bytes.
const SHOWN_OF_EACH: usize = 512;

/// The session's own changes, in the order they were sent.
#[derive(Debug)]
pub(super) struct Changes {
    /// The session's id: what nobody can know is known by it alone.
    session: Arc<str>,
    /// Settings that the client asked for when it connected.
    startup: Vec<(String, String)>,
    latest: VecDeque<Change>,
    earlier: Earlier,
    /// When it was last unknown what a change came to.
    doubt: Option<u64>,
    moment: u64,
}

/// Changes that are no longer kept each.
#[derive(Debug, Default)]
struct Earlier {
    count: u64,
    digest: [u8; 32],
}

/// One text that changes the session.
#[derive(Debug)]
struct Change {
    exact: [u8; 32],
    shown: String,
    /// All of it is gone when its transaction ends.
    local: bool,
    /// Its transaction has ended.
    ended: bool,
}

/// What a text does to the session.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    /// Until the transaction's end.
    Local,
    Lasting,
    /// Something that its text doesn't tell.
    Unforeseen,
}

impl Changes {
    /// Those of a session that begins with these settings.
    pub(super) fn new(session: Arc<str>, mut startup: Vec<(String, String)>) -> Self {
        startup.retain(|(name, _)| !changes_nothing(name));
        let (latest, earlier) = (VecDeque::new(), Earlier::default());
        Self { session, startup, latest, earlier, doubt: None, moment: 0 }
    }

    /// Another number whenever anything changes.
    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    /// This is sent to the server.
    pub(super) fn follow(&mut self, prepared: &Prepared) {
        let kind = kind(prepared);
        let exact = sha256(prepared.text.as_bytes());
        if kind == Kind::Nothing || self.repeats(prepared, &exact) {
            return;
        }
        self.moment += 1;
        if kind == Kind::Unforeseen {
            self.doubt = Some(self.moment);
            if !prepared.statements.ddl && !is_set(prepared) {
                return;
            }
        }
        let mut shown = recorded(prepared).into_owned();
        if shown.len() > SHOWN_OF_EACH {
            shown.truncate(shown.floor_char_boundary(SHOWN_OF_EACH));
            shown.push_str(" ...");
        }
        self.latest.push_back(Change { exact, shown, local: kind == Kind::Local, ended: false });
        if self.latest.len() > SHOWN
            && let Some(oldest) = self.latest.pop_front()
        {
            // It is in there for good, even if it should be undone.
            self.earlier.count += 1;
            self.earlier.digest = sha256(&[self.earlier.digest, oldest.exact].concat());
            self.undone_if(!oldest.ended);
        }
    }

    /// It sets again what was set last, as connection pools do.
    fn repeats(&self, prepared: &Prepared, exact: &[u8; 32]) -> bool {
        let only_sets =
            prepared.statements.list.iter().all(|statement| matches!(statement.effect, Effect::Set(_)));
        let last = self.latest.back().is_some_and(|last| last.ended && last.exact == *exact);
        only_sets && last && self.doubt.is_none()
    }

    /// The server has undone something: an error, or a rollback, perhaps to a savepoint only.
    pub(super) fn undone(&mut self) {
        self.undone_if(self.latest.iter().any(|change| !change.ended && !change.local));
    }

    fn undone_if(&mut self, undone: bool) {
        if undone {
            self.moment += 1;
            self.doubt = Some(self.moment);
        }
    }

    /// No transaction is open, and nothing is under way.
    pub(super) fn transaction_ended(&mut self) {
        if self.latest.back().is_none_or(|last| last.ended) {
            return;
        }
        self.moment += 1;
        self.latest.retain(|change| !change.local);
        for change in &mut self.latest {
            change.ended = true;
        }
    }

    /// Adds them to what an answer is bound to, and to what approvers see.
    pub(super) fn told(&self, mut matter: Matter) -> Matter {
        for (name, value) in &self.startup {
            matter = matter.with("session", format!("{name} = {value}").as_bytes());
        }
        if self.earlier.count > 0 {
            let shown = format!("{} changes before those that follow", self.earlier.count);
            let exact = [&self.earlier.count.to_le_bytes()[..], &self.earlier.digest].concat();
            matter = matter.shown_as("session", &exact, shown.as_bytes());
        }
        for change in &self.latest {
            let exact = [&change.exact[..], &[u8::from(change.ended)]].concat();
            matter = matter.shown_as("session", &exact, change.shown.as_bytes());
        }
        if let Some(doubt) = self.doubt {
            let exact = format!("{} {doubt}", self.session);
            let shown = "a function may have changed its settings, or an error or rollback undone a change";
            matter = matter.shown_as("session", exact.as_bytes(), shown.as_bytes());
        }
        matter
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // Both are of the same length.
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn kind(prepared: &Prepared) -> Kind {
    let statements = &prepared.statements;
    let settings = || {
        statements.list.iter().filter_map(|statement| match statement.effect {
            Effect::Set(setting) => Some(setting),
            Effect::DiscardAll => Some(Setting::Lasting),
            _ => None,
        })
    };
    let computed = statements.computes_settings
        || is_set(prepared) && (settings().next().is_none() || statements.refer_to_names());
    if computed || prepared.shape.items.iter().any(is_unforeseen) {
        return Kind::Unforeseen;
    }
    match settings().max() {
        _ if statements.ddl => Kind::Lasting,
        Some(Setting::Lasting) => Kind::Lasting,
        Some(Setting::Local) => Kind::Local,
        Some(Setting::Harmless) | None => Kind::Nothing,
    }
}

/// Something in it, or in what it names, makes a setting.
fn is_set(prepared: &Prepared) -> bool {
    prepared.shape.items.iter().any(|item| word(item).is_some_and(|word| matches!(word, "set" | "set-role")))
}

fn word(item: &Item) -> Option<&'static str> {
    item.fields.iter().find_map(|field| match field {
        ("statement", Value::Word(word)) => Some(*word),
        _ => None,
    })
}

/// Whether it may do anything to the session, whatever its text says.
fn is_unforeseen(item: &Item) -> bool {
    let hidden = matches!(word(item), Some("do" | "call" | "load" | "execute-text" | "function-call"));
    hidden
        || item.fields.iter().any(|field| match field {
            ("function", Value::Text(name)) => !touches_no_setting(name),
            _ => false,
        })
}

/// Functions that a rule must name and that leave the session's settings as they are.
fn touches_no_setting(function: &str) -> bool {
    let Some(name) = function.strip_prefix("pg_catalog.") else { return false };
    matches!(name, "nextval" | "setval")
        || name.starts_with("pg_advisory_")
        || name.starts_with("pg_try_advisory_")
}
