//! Messages on their way, in both directions at once, each decided by itself.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidegate_gate::{Cause, Outcome, Permit, Refusal, ServeError, policy::Value};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::room::{Measured, Meter, NoRoom};
use crate::{
    answer::cannot_be_masked,
    exchange::Session,
    fields,
    messages::{self, Stopped, TOO_LONG, To, know},
    request::Understood,
    shown::Masks,
    traces::Traces,
    transcript,
    upstream::Driver,
};

/// Most bytes of a message.
const LARGEST: usize = 4 * 1024 * 1024;
/// How long the two may take to take leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Most bytes of a close frame's reason (RFC 6455, 5.5).
const LONGEST_REASON: usize = 123;

/// A connection that the upstream has switched to WebSocket.
pub(crate) struct Switched {
    /// What the client is told of it.
    pub(crate) headers: HeaderMap,
    pub(crate) upstream: Upgraded,
    /// What must not come back over it.
    pub(crate) traces: Box<Traces>,
    /// Of the upgrade.
    pub(crate) permit: Permit,
    /// What it was asked for with.
    pub(crate) asked: Box<Understood>,
    /// Its place among the account's requests.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// The upstream's connection, with its place among the account's.
    pub(crate) driver: Arc<Driver>,
}

/// Why it is over, and what each side is told.
#[derive(Debug)]
struct Closing {
    client: (CloseCode, String),
    server: CloseCode,
    /// For the record.
    error: Option<ServeError>,
}

impl Session {
    /// Relays messages between the client, which was told that its connection is switched, and the upstream, to the end.
    pub(crate) async fn relay<S>(&self, client: S, switched: Switched) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Switched { upstream, traces, permit, asked, room: _room, driver: _driver, .. } = switched;
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let (sent, shown) = (Meter::new(&self.share), Meter::new(&self.share));
        let client = Measured { stream: client, meter: sent.clone() };
        let client = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
        let upstream = Measured { stream: TokioIo::new(upstream), meter: shown.clone() };
        let upstream = WebSocketStream::from_raw_socket(upstream, Role::Client, Some(config)).await;
        let (mut to_client, mut from_client) = client.split();
        let (mut to_server, mut from_server) = upstream.split();
        let place = Place { session: self, asked, traces };
        let count = |note: fn(&mut Outcome) -> &mut u64| {
            let permit = &permit;
            move |bytes| permit.so_far(|outcome| *note(outcome) += bytes)
        };
        let closing = tokio::select! {
            closing = place.pump(To::Server, (&mut from_client, &sent), &mut to_server, count(|outcome| &mut outcome.sent)) => closing,
            closing = place.pump(To::Client, (&mut from_server, &shown), &mut to_client, count(|outcome| &mut outcome.bytes)) => closing,
            refusal = permit.revoked() => Closing::refused(&refusal),
            refusal = self.gate.over() => Closing::refused(&refusal),
        };
        let (code, reason) = closing.client;
        let farewell = async {
            say(&mut to_client, code, &reason).await;
            say(&mut to_server, closing.server, "").await;
            while let Some(Ok(_)) = from_client.next().await {}
            while let Some(Ok(_)) = from_server.next().await {}
        };
        // Whoever does not answer has had the time.
        let _ = timeout(FAREWELL, farewell).await;
        let error = closing.error.as_ref().map(ToString::to_string);
        permit.so_far(|outcome| outcome.error = error);
        permit.ended();
        closing.error.map_or(Ok(()), Err)
    }
}

/// Takes leave. Who has gone already is not told.
async fn say(sink: &mut (impl Sink<Message> + Unpin), code: CloseCode, reason: &str) {
    let code = if code.is_allowed() { code } else { CloseCode::Normal };
    let _ = sink.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    // A close that was answered meanwhile is answered with this.
    let _ = sink.flush().await;
}

/// Where messages are exchanged.
struct Place<'a> {
    session: &'a Session,
    asked: Box<Understood>,
    traces: Box<Traces>,
}

impl Place<'_> {
    /// Hands on messages in one direction until something ends it. `count` is told of each one's bytes.
    async fn pump(
        &self,
        to: To,
        (from, meter): (&mut (impl Stream<Item = Result<Message, Error>> + Unpin), &Meter),
        sink: &mut (impl Sink<Message> + Unpin),
        count: impl Fn(u64),
    ) -> Closing {
        loop {
            let message = match from.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Closing::broken(to, &error),
                None => return Closing::gone(to),
            };
            let (word, payload) = match message {
                Message::Text(text) => ("text", Bytes::from(text)),
                Message::Binary(payload) => ("binary", payload),
                Message::Close(frame) => return self.closed(to, frame),
                // Answered where they arrive: what they carry is no message.
                Message::Ping(payload) | Message::Pong(payload) => {
                    meter.went_on_between(frame_of(to, payload.len()));
                    continue;
                }
                Message::Frame(_) => continue,
            };
            match self.one(to, word, payload, sink).await {
                Ok(bytes) => {
                    meter.went_on();
                    count(bytes);
                }
                Err(closing) => return closing,
            }
        }
    }

    /// Hands on one message, if it may go on; how many bytes it has then.
    async fn one(
        &self,
        to: To,
        word: &'static str,
        payload: Bytes,
        sink: &mut (impl Sink<Message> + Unpin),
    ) -> Result<u64, Closing> {
        let payload = if to == To::Client { self.traces.message(payload) } else { payload };
        let permit = self.permit(to, word, &payload).await?;
        let payload = match (to, Masks::of(permit.verdict(), permit.masker())) {
            (To::Client, Some(masks)) => {
                let masked = match word {
                    "text" => masks.message(&payload),
                    _ => Err("it is binary".into()),
                };
                masked.map(Bytes::from).map_err(|why| Closing::policy(&cannot_be_masked(&why)))?
            }
            _ => payload,
        };
        let bytes = payload.len() as u64;
        match to {
            To::Client => transcript::keep_shown_message(&permit, word, &payload),
            To::Server => transcript::keep_sent_message(&permit, word, &payload),
        }
        let message = match word {
            // It was text, and masks make text of text.
            "text" => Message::text(String::from_utf8_lossy(&payload).into_owned()),
            _ => Message::binary(payload),
        };
        sink.send(message)
            .await
            .map_err(|_| Closing::gone(if to == To::Client { To::Server } else { To::Client }))?;
        let sent_or_shown = match to {
            To::Client => Outcome { bytes, ..Outcome::default() },
            To::Server => Outcome { sent: bytes, ..Outcome::default() },
        };
        permit.done(&sent_or_shown);
        Ok(bytes)
    }

    async fn permit(&self, to: To, word: &'static str, payload: &Bytes) -> Result<Permit, Closing> {
        let gate = &self.session.gate;
        let mut shape = self.asked.message(to, payload.len());
        shape.items.iter_mut().for_each(|item| item.fields.push(("message", Value::Word(word))));
        let (host, path) = (&self.asked.authority.host, &self.asked.path);
        let text = format!("message {word} to {}, {host} {path}, {} bytes", to.word(), payload.len());
        if gate.depends_on("body", &shape) {
            let read = match word {
                "text" => fields::json(payload),
                _ => Err("it is binary".into()),
            };
            let read = read.map_err(|why| {
                let why = format!("a rule looks at this message, which cannot be looked into: {why}");
                Closing::policy(&gate.refuse("message", &text, &why).message)
            })?;
            know(&mut shape, &read);
        }
        let message = messages::Message { shape, text: &text, exact: payload, shown: payload };
        self.session.message(message, &self.asked).await.map_err(|stopped| match stopped {
            Stopped::Refused(refusal) | Stopped::Waits(refusal, _) => Closing::refused(&refusal),
            Stopped::TooLong => Closing::policy(TOO_LONG),
        })
    }

    /// One side took leave, the other is told. A server's reason is shown as its messages are, a client's goes nowhere.
    fn closed(&self, to: To, frame: Option<CloseFrame>) -> Closing {
        let code = frame.as_ref().map_or(CloseCode::Normal, |frame| frame.code);
        let gate = &self.session.gate;
        let said = frame.filter(|_| to == To::Client).map(|frame| Bytes::from(frame.reason.to_string()));
        let said = said.map(|said| self.traces.message(said)).unwrap_or_default();
        let shown = match gate.standing_masks().content {
            None => Cow::Borrowed(&*said),
            Some(mask) => gate.masker().scan(&mask, &said),
        };
        let reason = String::from_utf8_lossy(&shown).into_owned();
        Closing { client: (code, short(&reason)), server: code, error: None }
    }
}

/// Bytes of a short frame with so many: those of clients have a mask (RFC 6455, 5.2).
fn frame_of(from: To, payload: usize) -> usize {
    payload + if from == To::Server { 6 } else { 2 }
}

impl Closing {
    /// What was asked for, or the socket itself, is not allowed.
    fn refused(refusal: &Refusal) -> Self {
        let hint = refusal.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
        let code = match refusal.cause {
            Cause::Policy => CloseCode::Policy,
            Cause::Rate(_) | Cause::TooMany => CloseCode::Again,
            Cause::Shutdown => CloseCode::Away,
            _ => CloseCode::Error,
        };
        let client = (code, short(&format!("{}{hint}", refusal.message)));
        let error = Some(ServeError::Policy(refusal.message.to_string()));
        Self { client, server: CloseCode::Away, error }
    }

    fn policy(why: &str) -> Self {
        let error = Some(ServeError::Policy(why.to_owned()));
        Self { client: (CloseCode::Policy, short(why)), server: CloseCode::Away, error }
    }

    /// The side that a message would have come from went away without a word.
    fn gone(to: To) -> Self {
        let (client, error) = match to {
            To::Server => ("", ServeError::Client("it went away without closing its WebSocket".into())),
            To::Client => {
                let why = "the upstream went away";
                (why, ServeError::Upstream("it went away without closing its WebSocket".into()))
            }
        };
        Self { client: (CloseCode::Error, client.into()), server: CloseCode::Away, error: Some(error) }
    }

    /// There is no room for what comes.
    fn full() -> Self {
        let why = NoRoom.to_string();
        Self {
            client: (CloseCode::Again, short(&why)),
            server: CloseCode::Away,
            error: Some(ServeError::Policy(why)),
        }
    }

    /// The side that a message would have come from sent what is none.
    fn broken(to: To, error: &Error) -> Self {
        let code = match error {
            Error::Capacity(_) => CloseCode::Size,
            Error::Utf8(_) => CloseCode::Invalid,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Self::gone(to),
            Error::Protocol(_) => CloseCode::Protocol,
            Error::Io(error) if error.get_ref().is_some_and(|error| error.is::<NoRoom>()) => {
                return Self::full();
            }
            _ => return Self::gone(to),
        };
        let why = error.to_string();
        match to {
            To::Server => Self {
                client: (code, short(&why)),
                server: CloseCode::Away,
                error: Some(ServeError::Client(why)),
            },
            To::Client => Self {
                client: (CloseCode::Error, "the upstream broke the protocol".into()),
                server: code,
                error: Some(ServeError::Upstream(why)),
            },
        }
    }
}

/// As much of a text as a close frame takes.
fn short(text: &str) -> String {
    let mut end = text.len().min(LONGEST_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
