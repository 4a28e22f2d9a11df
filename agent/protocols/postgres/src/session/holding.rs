//! A message of the client's that waits for a person.
//!
//! It stays in the client's input, and nothing behind it is looked at; what the server owes goes on. When the answer is
//! there, the message is taken anew: understood by what the catalog says then, and decided by the policy in force then.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tidegate_gate::{
    Approved, Decision, Hold, Matter, Permit, Put, Refusal, Waiting,
    policy::{self, Item, Shape, Value},
};
use tokio::sync::oneshot;

use super::{
    Session,
    asking::referred,
    expect::Expect,
    names::{Known, Name, Parameter, Parameters, Prepared},
    refuse::{self, Refused},
    typed,
    veil::Veiled,
};
use crate::{
    database::RunsBy,
    sql::{Effect, Statement},
    wire::{
        ErrorFields, Format, Formats, HEADER_BYTES, Header,
        fields::code,
        frontend::{Bind, Kind, Values},
        write,
    },
};

/// Parameters of more bytes than this are more than a person can be shown.
const SHOWN: usize = 64 * 1024;

/// In place of a type's oid: the server infers the type.
const OPEN: u32 = 0;

type Answer = Pin<Box<dyn Future<Output = Result<Approved, Refused>> + Send>>;

/// The answer to a message that waits.
pub(super) enum Holding {
    /// It is not there yet.
    Waits {
        /// Never locked: it makes the session one that threads may share.
        answer: Mutex<Answer>,
        /// For the client, as soon as it fits between the server's messages.
        notice: Vec<u8>,
    },
    /// It is.
    Answered(Result<Approved, Refused>),
}

/// Why a message does not go its way now.
pub(super) enum Stop {
    /// It is refused.
    Refused(Refused),
    /// It waits, for the server or for a person.
    Waits,
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Session {
    /// The permit for what was understood, or what stands in its way.
    pub(super) async fn permitted(&mut self, prepared: &Prepared) -> Result<Permit, Stop> {
        match self.waits.holding.take().map(|holding| *holding) {
            Some(Holding::Answered(answer)) => {
                let approved = answer?;
                let alone = only_prepares(prepared);
                let prepared = alone.as_ref().unwrap_or(prepared);
                let marks = self.marks(prepared).await?;
                return Ok(approved.permit(&prepared.shape, marks).await.map_err(Refused::from)?);
            }
            waits => self.waits.holding = waits.map(Box::new),
        }
        // Nobody is asked about what the server may skip after an error that it still owes.
        let held = self.is_held(prepared);
        if held && !self.owed.is_empty() {
            return Err(Stop::Waits);
        }
        let alone = held.then(|| only_prepares(prepared)).flatten();
        let prepared = alone.as_ref().unwrap_or(prepared);
        match self.ask(prepared).await {
            Decision::Permit(permit) => Ok(permit),
            Decision::Refuse(refusal) => Err(Refused::from(refusal).into()),
            Decision::Hold(hold) => self.hold(hold, prepared).await,
        }
    }

    /// Whether somebody may have to be asked about it.
    pub(super) fn is_held(&self, prepared: &Prepared) -> bool {
        self.gate.foresee(&prepared.shape).is_ok_and(|verdict| verdict.effect == policy::Effect::Hold)
    }

    async fn hold(&mut self, hold: Hold, prepared: &Prepared) -> Result<Permit, Stop> {
        let matter = self.matter(prepared)?;
        let marks = self.marks(prepared).await?;
        bound_by(prepared, marks)?;
        match hold.put(matter.by(marks)).await.map_err(Refused::from)? {
            Put::Permit(permit) => Ok(permit),
            Put::Waits(waiting) => {
                let notice = notice(&waiting.told());
                let answer: Answer = Box::pin(answer(waiting, self.interrupt.arm()));
                let answer = Mutex::new(answer);
                self.waits.holding = Some(Box::new(Holding::Waits { answer, notice }));
                Err(Stop::Waits)
            }
        }
    }

    /// What others have defined of what it runs by, as it is now. Nothing else of the session goes on meanwhile: the server owes
    /// nothing to what is held.
    pub(super) async fn marks(&self, prepared: &Prepared) -> Result<Option<[u8; 32]>, Refused> {
        let by = RunsBy::of(&prepared.shape, prepared.statements.ddl);
        let marks = self.database.marks(&by, &self.gate).await.map_err(Refused::from)?;
        // What the session changes itself is bound to an answer by its own text.
        let is_own = self.changing.is_some() || self.transaction.redefined;
        if marks.is_some_and(|marks| marks.are_changing) && !is_own {
            let why = "this needs an approval, and somebody's open transaction changes what it runs by; ask again when that is \
                       over";
            return Err(Refused::new("42501", why));
        }
        Ok(marks.map(|marks| marks.digest))
    }

    /// What exactly would run: the text, what its names stand for, its parameters, and where: in which database, as
    /// whom, and by what the session has changed of itself.
    fn matter(&self, prepared: &Prepared) -> Result<Matter, Refused> {
        names_its_rows(prepared)?;
        let veil = self.veil();
        let veil = veil.as_ref();
        let matter = Matter::new(prepared.text.as_bytes())
            .reading(self.readable(veil, prepared)?)
            .with("database", self.database.name().as_bytes())
            .with("signed in as", self.user.as_bytes());
        let mut matter = self.since_prepared(self.changes.told(matter, veil)?, prepared)?;
        let names = prepared.statements.list.iter().filter_map(|statement| referred(&statement.effect));
        for name in names {
            if let Known::As(meant) = self.names.known(name.0, &name.1) {
                names_its_rows(&meant)?;
                let label = format!("{} stands for", String::from_utf8_lossy(&name.1));
                let shown = self.readable(veil, &meant)?;
                matter = matter.shown_as(label, meant.text.as_bytes(), shown.as_bytes());
                matter = self.since_prepared(matter, &meant)?;
                if !meant.types.is_empty() {
                    let label = format!("{} takes", String::from_utf8_lossy(&name.1));
                    matter = matter.with(label, types_of(&meant).as_bytes());
                }
                matter = meant.parameters.told(matter, &self.veiled(veil, &meant))?;
            }
        }
        let mut matter = prepared.parameters.told(matter, &self.veiled(veil, prepared))?;
        if prepared.statements.list.iter().any(|statement| matches!(statement.effect, Effect::CopyIn)) {
            let unseen =
                "comes after the answer: it counts for whatever is copied then, and nobody sees that before";
            matter = matter.with("data", unseen.as_bytes());
        }
        Ok(matter.with("does", deeds(&prepared.shape).as_bytes()))
    }

    /// What was bound, or declared a cursor, does what it did then, but approvers are shown the session as it is now.
    /// What was only prepared is planned anew, but for its literals, which were read when it was prepared: it counts as
    /// the like of nothing else.
    fn since_prepared(&self, matter: Matter, prepared: &Prepared) -> Result<Matter, Refused> {
        let now = self.changes.moment();
        if prepared.bound.is_some_and(|bound| bound != now) {
            let why = "this needs an approval, and the session's settings may have changed since it was bound; bind \
                       (or declare) it again";
            return Err(Refused::new("42501", why));
        }
        if prepared.moment == now {
            return Ok(matter);
        }
        let exact = format!("{} {} {now}", self.gate.session(), prepared.moment);
        let shown = "before the session's settings last changed, or may have";
        Ok(matter.shown_as("prepared", exact.as_bytes(), shown.as_bytes()))
    }

    /// What a Bind gives a statement, as far as somebody may have to be asked about it. None: it isn't all there yet. It waits
    /// where only the server knows the types of what nobody can read without.
    pub(super) fn parameters(
        &mut self,
        statement: Name,
        prepared: &Prepared,
        header: Header,
        rest: &[u8],
    ) -> Result<Option<Parameters>, Stop> {
        let held =
            self.gate.foresee(&prepared.shape).is_ok_and(|verdict| verdict.effect == policy::Effect::Hold);
        if !held {
            return Ok(Some(Parameters::Unseen));
        }
        if header.length > SHOWN {
            return Err(Refused::new(
                "54000",
                format!(
                    "this needs an approval, and {} bytes of parameters are more than anybody can be shown \
                     ({SHOWN})",
                    header.length
                ),
            )
            .into());
        }
        let Some(body) = rest.get(HEADER_BYTES..header.size()) else { return Ok(None) };
        let bind = Bind::parse(body).map_err(|error| Refused::new("08P01", error.to_string()))?;
        let seen = Parameters::seen(bind.parameter_formats, bind.parameters, prepared);
        if prepared.described.is_none() && seen.has_open() {
            write::describe(&mut self.server.outbound, Kind::Statement, &statement.1);
            self.owed.push(Expect::OwnParameters(statement));
            return Err(Stop::Waits);
        }
        Ok(Some(seen))
    }

    /// Somebody has answered for the message that is taken now.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.waits.holding.as_deref(), Some(Holding::Answered(_)))
    }

    pub(super) fn is_holding(&self) -> bool {
        matches!(self.waits.holding.as_deref(), Some(Holding::Waits { .. }))
    }

    /// Tells the client that it waits, once no message of the server's is half told.
    pub(super) fn tell_held(&mut self) {
        if self.output.passing == 0
            && let Some(Holding::Waits { notice, .. }) = self.waits.holding.as_deref_mut()
        {
            self.client.outbound.append(notice);
        }
    }

    /// Ready when a person has answered.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(holding) = self.waits.holding.as_deref_mut() else { return Poll::Pending };
        let Holding::Waits { answer, .. } = holding else { return Poll::Pending };
        let answer = answer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let answer = ready!(answer.as_mut().poll(context));
        *holding = Holding::Answered(answer);
        Poll::Ready(())
    }
}

/// A text that is one PREPARE, as what it does by itself: what it prepares is asked for when it is executed.
fn only_prepares(prepared: &Prepared) -> Option<Prepared> {
    let [Statement { effect: Effect::Prepare { .. }, .. }] = &*prepared.statements.list else { return None };
    let own = |item: &&Item| item.fields.contains(&("statement", Value::Word("prepare")));
    let items = prepared.shape.items.iter().filter(own).cloned().collect();
    let shape = Arc::new(Shape { items, ..Shape::clone(&prepared.shape) });
    Some(Prepared { shape, ..Prepared::clone(prepared) })
}

/// Refuses what changes the row that a cursor stands on: the same bytes change another row after the next FETCH, and
/// nobody can be shown which.
fn names_its_rows(prepared: &Prepared) -> Result<(), Refused> {
    match prepared.statements.by_cursor {
        false => Ok(()),
        true => Err(Refused::new(
            "42501",
            "this needs an approval, and nobody can be shown which row a cursor stands on (WHERE CURRENT OF): name \
             the row by its key",
        )),
    }
}

/// Refuses what was bound by other definitions than approvers would be asked about.
fn bound_by(prepared: &Prepared, marks: Option<[u8; 32]>) -> Result<(), Refused> {
    let was_seen = prepared.bound.is_some() && matches!(prepared.parameters, Parameters::Seen(_));
    match was_seen && prepared.bound_by != marks {
        false => Ok(()),
        true => Err(Refused::new(
            "42501",
            "this needs an approval, and others have changed definitions that it runs by since it was bound; bind it \
             again",
        )),
    }
}

/// The types that a Parse fixed, in order.
fn types_of(prepared: &Prepared) -> String {
    let name = |&oid: &u32| if oid == OPEN { "any".to_owned() } else { typed::name(oid) };
    prepared.types.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What rules see of it, each once: `delete store.wishes`.
fn deeds(shape: &Shape) -> String {
    let mut deeds: Vec<String> = Vec::new();
    for item in &shape.items {
        let parts = item.fields.iter().filter_map(|(field, value)| match (*field, value) {
            ("statement", Value::Word(word)) => Some((*word).to_owned()),
            ("table" | "function", Value::Text(name)) => Some(name.to_string()),
            _ => None,
        });
        let deed = parts.collect::<Vec<_>>().join(" ");
        if !deeds.contains(&deed) {
            deeds.push(deed);
        }
    }
    deeds.join(", ")
}

/// Waits for the answer, or for the client to cancel what it asked for.
async fn answer(mut waiting: Waiting, cancelled: oneshot::Receiver<()>) -> Result<Approved, Refused> {
    tokio::select! {
        answer = waiting.settled() => return answer.map_err(Refused::from),
        Ok(()) = cancelled => {}
    }
    waiting.cancel();
    Err(refuse::cancelled())
}

fn notice(told: &Refusal) -> Vec<u8> {
    let mut fields = ErrorFields::new("NOTICE", "00000", &told.message);
    if let Some(hint) = &told.hint {
        fields = fields.with(code::HINT, &**hint);
    }
    let mut message = Vec::with_capacity(256);
    write::notice_response(&mut message, &fields);
    message
}

impl Parameters {
    /// All of them, with the formats that they are written in, the types that a Parse fixed for the first of them, and of the
    /// binary ones those that the server chose, as far as it was asked.
    pub(super) fn seen(formats: Formats<'_>, values: Values<'_>, of: &Prepared) -> Self {
        let each = values.iter().enumerate().map(|(index, value)| {
            let binary = formats.of(index) == Some(Format::Binary);
            let fixed = of.types.get(index).filter(|oid| **oid != OPEN);
            let chosen = || of.described.as_ref().filter(|_| binary)?.get(index);
            let type_oid = fixed.or_else(chosen).copied().unwrap_or(OPEN);
            Parameter { value: value.map(Into::into), binary, type_oid }
        });
        Self::Seen(each.collect())
    }

    /// Whether nobody can tell what one of them stands for without its type, which isn't known.
    fn has_open(&self) -> bool {
        let Self::Seen(all) = self else { return false };
        all.iter().any(|one| one.binary && one.type_oid == OPEN && one.value.is_some())
    }

    /// Adds them to what approvers see.
    fn told(&self, mut matter: Matter, veiled: &Veiled<'_>) -> Result<Matter, Refused> {
        let all = match self {
            Self::None => return Ok(matter),
            Self::Unseen => {
                let why = "this needs an approval now, and nobody has seen its parameters; bind them again";
                return Err(Refused::new("42501", why));
            }
            Self::Seen(all) => all,
        };
        for (index, parameter) in all.iter().enumerate() {
            let label = format!("${}{}", index + 1, parameter.kind());
            let shown = match &parameter.value {
                None => parameter.shown(),
                Some(_) => veiled.parameter(index + 1, parameter.shown()),
            };
            matter = matter.shown_as(label, &parameter.exact(), &shown);
        }
        Ok(matter)
    }
}

impl Parameter {
    /// Its type, as far as that decides what its bytes stand for. Text whose type is open is read as a literal is.
    fn kind(&self) -> String {
        match (self.type_oid, self.binary) {
            (OPEN, false) => String::new(),
            (OPEN, true) => " (binary, as the server takes it)".to_owned(),
            (oid, _) => format!(" ({})", typed::name(oid)),
        }
    }

    /// What an answer counts for: the same bytes of another type are another value.
    fn exact(&self) -> Vec<u8> {
        let format = match (&self.value, self.binary) {
            (None, _) => "null",
            (Some(_), true) => "binary",
            (Some(_), false) => "text",
        };
        let head = format!("{format} {} ", self.type_oid);
        [head.as_bytes(), self.value.as_deref().unwrap_or_default()].concat()
    }

    /// A binary value that can't be read is shown in hexadecimal.
    fn shown(&self) -> Vec<u8> {
        match (self.value.as_deref(), self.binary) {
            (None, _) => b"NULL".to_vec(),
            (Some(value), false) => value.to_vec(),
            (Some(value), true) => typed::value(self.type_oid, value)
                .unwrap_or_else(|| format!("\\x{}", hex::encode(value)))
                .into_bytes(),
        }
    }
}
