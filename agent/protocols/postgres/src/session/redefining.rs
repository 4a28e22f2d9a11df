//! Statements that change definitions, and what others' statements have to do with it.
//!
//! A statement that changes definitions stays in the client's input until the server has read what others were allowed by
//! the definitions as they are; then it is taken anew. A session whose statements others wait for fetches the server's
//! answers, and sends nothing more before it has them. What would be refused only because definitions are being changed
//! waits for a while, too.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tidegate_gate::policy::{Item, Shape, Value};
use tokio::time::{Sleep, sleep, timeout};

use super::{
    Session, Turn,
    asking::{names_definitions, recorded},
    holding::{Holding, Stop},
    intake::Body,
    names::Prepared,
    refuse::{self, Refused},
};
use crate::{
    definitions::Changing,
    wire::{ErrorFields, fields::code, write},
};

/// How long a change waits, and how long a statement for the end of somebody's change.
const CHANGE: Limits = Limits { alone: Duration::from_secs(300), in_transaction: Duration::from_secs(10) };
const DOUBT: Limits = Limits { alone: Duration::from_secs(10), in_transaction: Duration::from_secs(2) };

/// How long until the client is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many sessions the record names at a time.
const NAMED: usize = 8;

/// How long something waits.
struct Limits {
    /// Nobody waits for it, and its client can cancel it.
    alone: Duration,
    /// Others may wait for the locks of the open transaction, and it for them.
    in_transaction: Duration,
}

/// What a message waits for because definitions change.
pub(super) enum Redefining {
    /// It is not there yet.
    Waits(Waiting),
    /// Others go on changing them: it is decided as one that is read by nobody knows which.
    Doubts,
    /// Others' statements were not read in time, or the client has cancelled.
    Failed(Refused),
}

/// Resolves when the wait is over.
type Ending = Pin<Box<dyn Future<Output = Result<End, Refused>> + Send>>;

/// A wait for others.
pub(super) struct Waiting {
    /// Never locked, like what follows: that makes the session one that threads may share.
    end: Mutex<Ending>,
    /// Until the client is told.
    patience: Mutex<Option<Pin<Box<Sleep>>>>,
    /// For the client, as soon as it fits between the server's messages.
    notice: Vec<u8>,
    /// It waits to change definitions, rather than for the end of somebody's change.
    changes: bool,
}

/// How a wait ends.
enum End {
    /// Definitions may be changed.
    Begun(Changing),
    /// Nobody changes them any more.
    Settled,
    /// It is no use to wait any longer.
    Unsettled,
}

impl Session {
    /// Says that definitions change, before a statement is sent that changes them, or that may keep others waiting until one
    /// does. What is to be refused changes nothing. What a person is to be asked about may be known to have a yes: it says so,
    /// too, and takes it back while it waits for one.
    pub(super) fn redefine(&mut self, prepared: &Prepared) -> Result<(), Stop> {
        let statements = &prepared.statements;
        let has_changed = self.changing.is_some() || self.transaction.redefined || statements.ddl;
        if statements.prepare_transaction() && has_changed {
            return Err(self.refusal(prepared, refuse::prepared_definitions()));
        }
        let changes = statements.changes_definitions();
        if self.changing.is_some()
            || !(changes || statements.lock_tables() && self.may_alter(&prepared.shape))
        {
            return Ok(());
        }
        if self.gate.foresee(&prepared.shape).is_err() {
            return Ok(());
        }
        // What was sent before is covered until the server has read it.
        if !self.owed.is_empty() {
            return Err(Stop::Waits);
        }
        if let Some(Redefining::Failed(why)) = self.waits.redefining.take().map(|redefining| *redefining) {
            // Without a word of a change to come, a lock is a lock like any other.
            let goes_on = !changes && why.code != refuse::QUERY_CANCELED;
            if goes_on {
                return Ok(());
            }
            let had_a_yes = matches!(self.waits.holding.as_deref(), Some(Holding::Answered(Ok(_))));
            let why = if had_a_yes { refuse::after_a_yes(why) } else { why };
            return Err(self.refusal(prepared, why));
        }
        self.changing = Changing::at_once(&self.reader);
        if self.changing.is_some() {
            return Ok(());
        }
        self.reader.read();
        let begun = timeout(CHANGE.of(self), Changing::in_turn(self.database.definitions().clone()));
        let end = async { begun.await.map(End::Begun).map_err(|_| refuse::definitions_in_use()) };
        Err(self.wait_for_others(end, true))
    }

    /// What is in doubt only because of somebody else's change waits for its end, if it matters, for as long as that is
    /// likely to be of use.
    pub(super) fn clear_up(&mut self, prepared: &Prepared, doubted: &Prepared) -> Result<(), Stop> {
        if let Some(Redefining::Doubts) = self.waits.redefining.as_deref() {
            return Ok(());
        }
        if self.changing.is_some()
            || self.is_in_doubt_for_good(prepared)
            || doubted.shape == prepared.shape
            || self.gate.foresee(&prepared.shape).is_err()
        {
            return Ok(());
        }
        if let Some(Redefining::Failed(why)) = self.waits.redefining.take().map(|redefining| *redefining) {
            return Err(self.refusal(prepared, why));
        }
        let (limit, definitions) = (DOUBT.of(self), self.database.definitions().clone());
        let settled = async move { timeout(limit, definitions.are_settled()).await };
        let end = async { Ok(settled.await.map_or(End::Unsettled, |()| End::Settled)) };
        Err(self.wait_for_others(end, false))
    }

    /// What stands on somebody's yes is sent by definitions that nobody is changing: it waits for the end of a change that others
    /// have begun, and is refused if that goes on. A session's own change is bound to the answer by itself.
    pub(super) fn settle_definitions(&mut self, prepared: &Prepared) -> Result<(), Stop> {
        let was_read = prepared.bound.is_some() && !prepared.statements.late;
        if !self.reader.is_in_doubt()
            || was_read
            || self.changing.is_some()
            || !names_definitions(prepared)
            || !self.is_held(prepared)
        {
            return Ok(());
        }
        match self.waits.redefining.take().map(|redefining| *redefining) {
            Some(Redefining::Failed(why)) => return Err(self.refusal(prepared, why)),
            Some(Redefining::Doubts) => {
                let why = "others are changing definitions, and this needs an approval by those that hold when it runs; ask \
                           again when they are done";
                return Err(self.refusal(prepared, Refused::new("42501", why)));
            }
            Some(Redefining::Waits(_)) | None => {}
        }
        let (limit, definitions) = (DOUBT.of(self), self.database.definitions().clone());
        let settled = async move { timeout(limit, definitions.are_settled()).await };
        let end = async { Ok(settled.await.map_or(End::Unsettled, |()| End::Settled)) };
        Err(self.wait_for_others(end, false))
    }

    fn wait_for_others(
        &mut self,
        end: impl Future<Output = Result<End, Refused>> + Send + 'static,
        changes: bool,
    ) -> Stop {
        let cancelled = self.interrupt.arm();
        let end: Ending = Box::pin(async move {
            tokio::select! {
                end = end => end,
                Ok(()) = cancelled => Err(refuse::cancelled()),
            }
        });
        let patience = Mutex::new(Some(Box::pin(sleep(PATIENCE))));
        let waiting = Waiting { end: Mutex::new(end), patience, notice: Vec::new(), changes };
        self.waits.redefining = Some(Box::new(Redefining::Waits(waiting)));
        Stop::Waits
    }

    /// Ready when the message goes on, or the client is to be told that it waits.
    pub(super) fn poll_redefining(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        let Some(Redefining::Waits(waiting)) = self.waits.redefining.as_deref_mut() else {
            return Poll::Pending;
        };
        let end = waiting.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Poll::Ready(end) = end.as_mut().poll(context) {
            let next = match end {
                Ok(End::Begun(changing)) => {
                    self.changing = Some(changing);
                    None
                }
                Ok(End::Settled) => None,
                Ok(End::Unsettled) => Some(Redefining::Doubts),
                Err(why) => Some(Redefining::Failed(why)),
            };
            self.waits.redefining = next.map(Box::new);
            return Poll::Ready(Turn::Answered);
        }
        let patience = waiting.patience.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !patience.as_mut().is_some_and(|patience| patience.as_mut().poll(context).is_ready()) {
            return Poll::Pending;
        }
        *patience = None;
        if !waiting.changes {
            write::notice_response(&mut waiting.notice, &waits_for_a_change());
            return Poll::Ready(Turn::Told);
        }
        let holders = self.database.definitions().holders();
        write::notice_response(&mut waiting.notice, &waits_for(holders.len()));
        let shown = holders.iter().take(NAMED).map(|session| &**session).collect::<Vec<_>>().join(", ");
        let more = if holders.len() > NAMED { ", ..." } else { "" };
        self.gate.event("definitions-in-use", &format!("waits for statements of {shown}{more}"));
        Poll::Ready(Turn::Told)
    }

    /// The client's message waits for others.
    pub(super) fn is_redefining(&self) -> bool {
        matches!(self.waits.redefining.as_deref(), Some(Redefining::Waits(_)))
    }

    /// Tells the client that it waits, once no message of the server's is half told.
    pub(super) fn tell_redefining(&mut self) {
        if self.output.passing == 0
            && let Some(Redefining::Waits(waiting)) = self.waits.redefining.as_deref_mut()
        {
            self.client.outbound.append(&mut waiting.notice);
        }
    }

    /// Somebody waits for what this session has sent, and the server may keep its answers to itself.
    pub(super) fn must_hurry(&self, context: &Context<'_>) -> bool {
        self.reader.poll_wanted(context)
            && match self.passing_body() {
                None => !self.input.copying_in && self.owed.is_unflushed(),
                Some(_) => self.owed.ends_with_unread_bind(),
            }
    }

    /// Fetches the server's answers. A Bind whose values the client is still sending is for nobody to wait for: its portal is
    /// in doubt.
    pub(super) fn hurry(&mut self) {
        match self.passing_body() {
            None => self.flush(),
            Some(_) => {
                if let Some(name) = self.owed.let_go_of_bind() {
                    self.names.doubt(name);
                }
            }
        }
    }

    /// What the server is in the middle of: nothing else can be sent to it.
    fn passing_body(&self) -> Option<Body> {
        self.input.body.filter(|body| body.passes)
    }

    /// Whether the locks that a statement takes may be for a change of definitions: only who may change those tables puts
    /// others in doubt.
    fn may_alter(&self, shape: &Shape) -> bool {
        const CHANGES: [&str; 3] = ["alter", "create", "drop"];
        let locks = shape.items.iter().filter(|item| item.fields.contains(&LOCK));
        let mut changes = locks.flat_map(|item| CHANGES.map(|kind| as_if(item, kind)));
        changes.any(|item| {
            let shape = Arc::new(Shape { items: vec![item], ..Shape::default() });
            self.gate.foresee(&shape).is_ok()
        })
    }

    fn refusal(&self, prepared: &Prepared, refused: Refused) -> Stop {
        self.gate.refuse("statement", &recorded(prepared), &refused.message);
        Stop::Refused(refused)
    }
}

const LOCK: (&str, Value) = ("statement", Value::Word("lock"));

/// The item that another statement on the same table would be.
fn as_if(item: &Item, kind: &'static str) -> Item {
    let mut item = item.clone();
    for field in item.fields.iter_mut().filter(|field| **field == LOCK) {
        field.1 = Value::Word(kind);
    }
    item.fields.push(("object", Value::Text("table".into())));
    item
}

impl Limits {
    fn of(&self, session: &Session) -> Duration {
        if session.transaction.is_under_way() { self.in_transaction } else { self.alone }
    }
}

fn waits_for(sessions: usize) -> ErrorFields<'static> {
    let message = format!(
        "waits for {sessions} other sessions, whose statements were allowed by the definitions as they are and have yet \
         to be read by the server"
    );
    let Limits { alone, in_transaction } = CHANGE;
    let hint =
        format!("It goes on by itself, or is refused after {alone:?} ({in_transaction:?} in a transaction).");
    ErrorFields::new("NOTICE", "00000", &message).into_owned().with(code::HINT, hint)
}

fn waits_for_a_change() -> ErrorFields<'static> {
    let message =
        "waits for another session's change of definitions: nobody can see yet where values will come from";
    ErrorFields::new("NOTICE", "00000", message)
}
