//! From a request to its permit: what must be read first, and who must be asked.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tidegate_gate::{
    Action, Decision, Hold, Matter, Permit, Put, Undecided,
    policy::{Effect, Shape, Value},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};

use crate::{
    body::{BodyError, Source},
    exchange::{Ended, NotSent, Responder, Session},
    grpc,
    messages::{Message, To},
    problem::Problem,
    request::{Understood, Way},
    secrets,
    sign_in::KEPT,
};

/// Most bytes of a body that somebody can be asked about.
const SHOWN: usize = 64 * 1024;
/// What is answered within this time has not kept anybody waiting.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Most bytes of a body whose fields rules ask for.
pub(crate) const LOOKED_INTO: usize = 256 * 1024;

impl Session {
    /// The permit for a request, and its body as far as that had to be read for it.
    pub(crate) async fn permit(
        &self,
        understood: &mut Understood,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<(Permit, Option<Bytes>), NotSent> {
        let whole = self.read_first(understood, source, responder).await?;
        self.keep_own(understood)?;
        let (name, shape, text) = (understood.action(), &understood.shape, &*understood.text);
        let action = Action { name, shape, text, count: 1 };
        let permit = match (self.gate.ask(action).await, &whole) {
            (Decision::Permit(permit), _) => permit,
            (Decision::Refuse(refusal), _) => return Err(refusal.into()),
            (Decision::Hold(hold), Some(body)) => {
                let matter = matter(understood, body, &self.way);
                Box::pin(self.held(hold, (matter, shape), source, responder)).await?
            }
            (Decision::Hold(_), None) => {
                let detail = "this needs an approval since a moment ago; ask again";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into());
            }
        };
        if understood.is_stream {
            // The rest follows message by message.
            understood.first = whole;
            return Ok((permit, None));
        }
        Ok((permit, whole))
    }

    /// Reads the body where something depends on it: a rule asks for its fields, or somebody may be asked, whose answer is
    /// for these very bytes.
    async fn read_first(
        &self,
        understood: &mut Understood,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Bytes>, NotSent> {
        let mut whole = None;
        understood.is_answered_in_messages = self.is_about_messages(understood, To::Client);
        self.messages_are_known(understood)?;
        let refused = |text: &str, status, why: String| {
            self.gate.refuse("request", text, &why);
            NotSent::from(Problem::new(status, why))
        };
        let is_measured = understood.length.is_none() && self.gate.depends_on("size", &understood.shape);
        if is_measured || self.looks_into(understood) {
            self.take_room(understood, LOOKED_INTO)?;
            responder.proceed().await?;
            let read = match understood.is_stream {
                true => self.first(source).await?,
                false => self.collect(source, LOOKED_INTO).await?,
            };
            let Some(body) = read else {
                let (status, why) = match self.looks_into(understood) {
                    true => (
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!(
                            "a rule looks at this request's body, which is longer than {LOOKED_INTO} bytes"
                        ),
                    ),
                    false => (
                        StatusCode::LENGTH_REQUIRED,
                        "a rule goes by this request's size: send it with a Content-Length".to_owned(),
                    ),
                };
                return Err(refused(&understood.text, status, why));
            };
            understood.measures(body.len());
            if self.looks_into(understood) {
                let fields = understood.fields(&body).map_err(|why| {
                    let why =
                        format!("a rule looks at this request's body, which cannot be looked into: {why}");
                    refused(&understood.text, StatusCode::UNPROCESSABLE_ENTITY, why)
                })?;
                understood.knows(&fields, &body, self.is_about_messages(understood, To::Server));
            }
            whole = Some(body);
        }
        self.read_for_people(understood, whole, source, responder).await
    }

    /// The same where somebody may be asked.
    async fn read_for_people(
        &self,
        understood: &mut Understood,
        whole: Option<Bytes>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Bytes>, NotSent> {
        let verdict = self.gate.foresee(&understood.shape);
        if !verdict.is_ok_and(|verdict| verdict.effect == Effect::Hold) {
            return Ok(whole);
        }
        let refused = |text: &str, status, why: String| {
            self.gate.refuse("request", text, &why);
            NotSent::from(Problem::new(status, why))
        };
        if understood.length != Some(0) && understood.is_compressed() {
            let why =
                "this needs an approval, and nobody can read a body that is compressed: send it as it is";
            return Err(refused(&understood.text, StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
        }
        if whole.is_none() {
            self.take_room(understood, SHOWN)?;
        }
        responder.proceed().await?;
        let shown = match whole {
            Some(body) => Some(body).filter(|body| body.len() <= SHOWN),
            None => self.collect(source, SHOWN).await?,
        };
        Ok(Some(shown.ok_or_else(|| {
            let why = format!(
                "this needs an approval, and its body is longer than anybody can be shown ({SHOWN} bytes)"
            );
            refused(&understood.text, StatusCode::PAYLOAD_TOO_LARGE, why)
        })?))
    }

    /// The body, whole, where its request cannot be signed without; and the room that it takes of the account's.
    pub(crate) async fn kept(
        &self,
        understood: &Understood,
        whole: Option<Bytes>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<(Option<Bytes>, Option<OwnedSemaphorePermit>), NotSent> {
        let sign_in = &self.server.options.sign_in;
        if understood.is_stream && sign_in.needs_whole(&understood.payload, None, self.way.tls) {
            let why =
                "a rule looks at the messages of this call, which the gate would have to sign as a whole";
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, why).into());
        }
        if whole.is_some() || !sign_in.needs_whole(&understood.payload, understood.length, self.way.tls) {
            return Ok((whole, None));
        }
        let too_long = || {
            let why = format!("the gate signs this request with its body's digest, up to {KEPT} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
        };
        let bytes = understood.length.map_or(Ok(KEPT), usize::try_from);
        let bytes = bytes.ok().filter(|bytes| *bytes <= KEPT).ok_or_else(too_long)?;
        let room = self.share.body(bytes)?;
        responder.proceed().await?;
        let body = self.collect(source, KEPT).await?.ok_or_else(too_long)?;
        Ok((Some(body), Some(room)))
    }

    /// Takes room for the body, for as long as the request is under way.
    pub(crate) fn take_room(&self, understood: &mut Understood, most: usize) -> Result<(), Problem> {
        let told = understood.length.map_or(most, |length| usize::try_from(length).unwrap_or(most).min(most));
        let room = self.share.body(told).inspect_err(|busy| {
            self.gate.refuse(understood.action(), &understood.text, busy.detail());
        })?;
        understood.room = Some(room);
        Ok(())
    }

    /// A body, whole; none if it is longer than so many bytes.
    pub(crate) async fn collect(
        &self,
        source: &mut impl Source,
        most: usize,
    ) -> Result<Option<Bytes>, NotSent> {
        let time = self.server.patience.whole;
        let late =
            || BodyError::Slow(format!("the gate reads it first, and has it not whole after {time:?}"));
        timeout(time, collected(source, most)).await.unwrap_or_else(|_| Err(late().into()))
    }

    /// The first message of a client's stream, in its frame; empty, if there is none.
    async fn first(&self, source: &mut impl Source) -> Result<Option<Bytes>, NotSent> {
        let time = self.server.patience.whole;
        let late =
            || BodyError::Slow(format!("the gate reads a message of it first, and has none after {time:?}"));
        let first = timeout(time, source.next()).await.map_err(|_| late())?;
        Ok(Some(first.transpose()?.and_then(|frame| frame.into_data().ok()).unwrap_or_default()))
    }

    /// The permit for a message to the server, in its frame, that is not the first of its stream.
    pub(crate) async fn sent(&self, understood: &Understood, frame: &Bytes) -> Result<Permit, Problem> {
        let text = understood.message_text(To::Server, grpc::length(frame));
        let fields = understood.fields(frame).map_err(|why| {
            let why = format!("a rule looks at this message, which cannot be looked into: {why}");
            Problem::refused(&self.gate.refuse("message", &text, &why))
        })?;
        let shape = understood.with(&fields, frame, self.is_about_messages(understood, To::Server));
        let shown = understood.call.as_ref().and_then(|call| call.shown(frame).ok()).unwrap_or_default();
        let message = Message { shape, text: &text, exact: frame, shown: &shown };
        Ok(self.message(message, understood).await?)
    }

    /// Whether a rule looks at the fields of its body.
    pub(crate) fn looks_into(&self, understood: &Understood) -> bool {
        let is_looked_at = || {
            self.gate.depends_on("body", &understood.shape) || self.is_about_messages(understood, To::Server)
        };
        understood.length != Some(0) && is_looked_at()
    }

    /// Whether a rule is about the messages of a call of gRPC one by one: it says so, by `action` or `to`. Only where there are
    /// descriptors.
    fn is_about_messages(&self, understood: &Understood, to: To) -> bool {
        if self.server.options.descriptors.is_none() || understood.rpc().is_none() {
            return false;
        }
        let mut shape = understood.message(to, 0);
        let unknown = |(name, value): &mut (&str, Value)| {
            if *name == "size" {
                *value = Value::Unknown;
            }
        };
        shape.items.iter_mut().flat_map(|item| &mut item.fields).for_each(unknown);
        ["action", "to"].iter().any(|field| self.gate.depends_on(field, &shape))
    }

    /// Where a rule is about the messages of a call, they must be known: servers take calls in other forms, too, in which nobody
    /// would look for them.
    fn messages_are_known(&self, understood: &Understood) -> Result<(), Problem> {
        let is_about_any =
            understood.is_answered_in_messages || self.is_about_messages(understood, To::Server);
        if understood.call.is_some() || !is_about_any {
            return Ok(());
        }
        let why = "a rule is about this call's messages, which the gate knows as gRPC in Protocol Buffers alone, and of calls that \
                   the descriptors have";
        self.gate.refuse(understood.action(), &understood.text, why);
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why))
    }

    /// Waits for a person: as long as the resource says, and the client is there.
    async fn held(
        &self,
        hold: Hold,
        (matter, shape): (Matter, &Arc<Shape>),
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Permit, NotSent> {
        let waiting = match hold.put(matter).await? {
            Put::Permit(permit) => return Ok(permit),
            Put::Waits(waiting) => waiting,
        };
        let (id, patience) = (waiting.id().clone(), self.server.options.wait);
        let mut answered = pin!(waiting.answered(patience));
        let mut is_told = !self.server.options.interim;
        loop {
            tokio::select! {
                answered = &mut answered => return Ok(answered?.permit(shape, None).await?),
                () = source.gone() => break,
                () = responder.gone() => break,
                () = sleep(AT_ONCE), if !is_told => {
                    responder.waits(&id).await?;
                    is_told = true;
                }
            }
        }
        let why = "the client went away while its request waited for an approval";
        Err(NotSent::Ended(Ended::Client(why.into())))
    }
}

impl From<Undecided> for NotSent {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Refused(refusal) => refusal.into(),
            Undecided::Stands { told, id } => Problem::waits(&told, &id).into(),
        }
    }
}

async fn collected(source: &mut impl Source, most: usize) -> Result<Option<Bytes>, NotSent> {
    let mut whole = BytesMut::new();
    while let Some(frame) = source.next().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(whole.freeze()))
}

/// What exactly would be sent. The header fields are bound to the answer, and shown where they say something.
fn matter(understood: &Understood, body: &Bytes, way: &Way) -> Matter {
    let query = understood.query.as_deref().unwrap_or_default();
    let line = format!("{} {} {} {query}", understood.method, understood.authority, understood.path);
    let matter = with_headers(Matter::new(line.as_bytes()), understood).at(way.server(&understood.authority));
    // Nobody reads the bytes of a message of gRPC's.
    let read = understood.call.as_ref().and_then(|call| call.shown(body).ok());
    match body.is_empty() {
        true => matter,
        false => matter.shown_as("body", body, read.as_deref().unwrap_or(body)),
    }
}

/// What exactly a message would be, and over which WebSocket or in which call: what that was asked for with may say what the
/// message is done to.
pub(crate) fn message_matter(
    text: &str,
    (exact, read): (&[u8], &[u8]),
    over: &Understood,
    way: &Way,
) -> Matter {
    let query = over.query.as_deref().unwrap_or_default();
    let line = format!("{} {} {query}", over.authority, over.path);
    let shown = over.text.lines().next().unwrap_or_default();
    let matter = Matter::new(text.as_bytes()).shown_as("message", exact, read);
    let name = if over.offer.is_some() { "websocket" } else { "call" };
    with_headers(matter.shown_as(name, line.as_bytes(), shown.as_bytes()), over)
        .at(way.server(&over.authority))
}

fn with_headers(matter: Matter, understood: &Understood) -> Matter {
    understood.headers.iter().chain(&understood.own).fold(matter, |matter, (name, value)| {
        matter.shown_as(name.as_str(), value.as_bytes(), secrets::shown(name, value).as_bytes())
    })
}
