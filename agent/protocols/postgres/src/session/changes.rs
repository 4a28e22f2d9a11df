//! What a session has changed of itself, and with it what the same bytes stand for: `search_path`, the role, temporary
//! tables.
//!
//! An approval is bound to it, and approvers are shown all of it. What is told alike is the same state; where that can't be known (what was
//! set may have been rolled back, or a function computed it), a session is like no other, and not like itself before.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_gate::{
    Matter,
    policy::{Item, Shape, Value},
};

use super::{
    asking::recorded,
    names::Prepared,
    refuse::Refused,
    veil::{Veil, Veiled},
};
use crate::sql::{Effect, Setting, Statement, changes_nothing};

/// More changes than this, or more bytes of them, are more than a person can be shown.
const SHOWN: usize = 64;
const SHOWN_BYTES: usize = 8 * 1024;

/// So many changes are kept, as they may yet be overtaken by others.
const KEPT: usize = 256;

/// The session's own changes, in the order they were sent.
#[derive(Debug)]
pub(super) struct Changes {
    /// The session's id: what nobody can know is known by it alone.
    session: Arc<str>,
    /// Settings that the client asked for when it connected.
    startup: Vec<(String, String)>,
    latest: VecDeque<Change>,
    /// When there was last one that nobody can be shown any more.
    lost: Option<u64>,
    /// When it was last unknown what a change came to.
    doubt: Option<u64>,
    moment: u64,
}

/// One text that changes the session.
#[derive(Debug)]
struct Change {
    exact: [u8; 32],
    shown: String,
    /// What rules saw of it.
    shape: Arc<Shape>,
    /// When it was sent.
    moment: u64,
    /// What it decides, and all that it does.
    decides: Option<Decides>,
    /// All of it is gone when its transaction ends.
    local: bool,
    /// Its transaction has ended.
    ended: bool,
}

/// What a change decides whatever was before it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decides {
    /// This setting.
    One(Arc<str>),
    /// All of them, and that there are no temporary tables.
    All,
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
        Self { session, startup, latest: VecDeque::new(), lost: None, doubt: None, moment: 0 }
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
        let shown = match recorded(prepared) {
            // Nobody could be shown what it sets.
            Cow::Owned(_) if is_set(prepared) => {
                self.lost = Some(self.moment);
                return;
            }
            shown => shown.chars().take(SHOWN_BYTES + 1).collect(),
        };
        let (local, decides) = (kind == Kind::Local, decides(prepared).filter(|_| kind == Kind::Lasting));
        let (shape, moment) = (prepared.shape.clone(), self.moment);
        self.latest.push_back(Change { exact, shown, shape, moment, decides, local, ended: false });
        if self.latest.len() > KEPT {
            self.latest.pop_front();
            self.lost = Some(self.moment);
        }
    }

    /// It sets again what was set last, as connection pools do.
    fn repeats(&self, prepared: &Prepared, exact: &[u8; 32]) -> bool {
        let only_sets =
            prepared.statements.list.iter().all(|statement| matches!(statement.effect, Effect::Set { .. }));
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
        self.forget_overtaken();
    }

    /// Leaves out what a later change has decided anew. One that may have been undone decides nothing.
    fn forget_overtaken(&mut self) {
        let mut overtaken: Vec<Decides> = Vec::new();
        let mut left = VecDeque::with_capacity(self.latest.len());
        for change in std::mem::take(&mut self.latest).into_iter().rev() {
            if overtaken.contains(&Decides::All) {
                break;
            }
            let holds = self.doubt.is_none_or(|doubt| doubt < change.moment);
            match &change.decides {
                Some(decided) if overtaken.contains(decided) => continue,
                Some(Decides::All) if holds => {
                    self.lost = self.lost.filter(|lost| *lost > change.moment);
                    overtaken.push(Decides::All);
                    continue;
                }
                Some(decided) if holds => overtaken.push(decided.clone()),
                _ => {}
            }
            left.push_front(change);
        }
        self.latest = left;
    }

    /// Adds them to what an answer is bound to, and to what approvers see: all of them, or it is refused.
    pub(super) fn told(&self, mut matter: Matter, veil: Option<&Veil>) -> Result<Matter, Refused> {
        let startup: Vec<String> =
            self.startup.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let shown = startup.iter().chain(self.latest.iter().map(|change| &change.shown));
        let (count, bytes) = shown.fold((0, 0), |(count, bytes), shown| (count + 1, bytes + shown.len()));
        if self.lost.is_some() || count > SHOWN || bytes > SHOWN_BYTES {
            return Err(Refused::new(
                "54000",
                format!(
                    "this needs an approval, and what the session has changed of itself cannot be shown to anybody: \
                     more than {SHOWN} changes, more than {SHOWN_BYTES} bytes of them, or one that looks like a secret; \
                     begin a new session, or run DISCARD ALL"
                ),
            ));
        }
        for setting in &startup {
            matter = matter.with("session", setting.as_bytes());
        }
        for change in &self.latest {
            let exact = [&change.exact[..], &[u8::from(change.ended)]].concat();
            let shown = Veiled::over(veil, &change.shape).text(&change.shown);
            matter = matter.shown_as("session", &exact, shown.as_bytes());
        }
        if let Some(doubt) = self.doubt {
            let exact = format!("{} {doubt}", self.session);
            let shown = "a function may have changed its settings, or an error or rollback undone a change";
            matter = matter.shown_as("session", exact.as_bytes(), shown.as_bytes());
        }
        Ok(matter)
    }
}

/// What a text that is one statement decides by itself.
fn decides(prepared: &Prepared) -> Option<Decides> {
    match &*prepared.statements.list {
        [Statement { effect: Effect::Set { setting: Setting::Lasting, name: Some(name) }, .. }] => {
            Some(Decides::One(name.clone()))
        }
        [Statement { effect: Effect::DiscardAll, .. }] => Some(Decides::All),
        _ => None,
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
            Effect::Set { setting, .. } => Some(setting),
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
