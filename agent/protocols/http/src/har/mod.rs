//! Records as HTTP archives: HAR 1.2, which browsers' developer tools and many others read.
//!
//! A request that was refused has status 0 and says so in its comment; what it came from is in fields of the gate's own, which
//! begin with an underscore as the format wants it.

mod archive;
mod body;

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_gate::{Entry, Export, Recorded, policy::Effect};

use self::{
    archive::{Archive, Log, Message, Origin, Request, Response, Timings, Transfer},
    body::Body,
};

/// What the command line calls it.
pub(crate) const EXPORT: Export =
    Export { name: "har", about: "An HTTP archive (HAR 1.2), as developer tools read it", write };

fn write(records: &mut dyn Iterator<Item = io::Result<Recorded>>, out: &mut dyn Write) -> io::Result<()> {
    let mut reading = Reading::default();
    for recorded in records {
        reading.add(recorded?);
    }
    serde_json::to_writer_pretty(&mut *out, &reading.archive())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    transfers: Vec<Transfer>,
    /// Where a session's action is among them.
    places: HashMap<(Arc<str>, u64), Place>,
    /// Where each session's WebSocket is among them: a connection has one at most.
    sockets: HashMap<Arc<str>, usize>,
    origins: HashMap<Arc<str>, Origin>,
    /// How many requests could not be told.
    left_out: usize,
}

/// Where an action is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Transfer(usize),
    /// A message of a WebSocket's.
    Message(usize, usize),
}

impl Reading {
    fn add(&mut self, Recorded { session, time, entry }: Recorded) {
        match entry {
            Entry::Open { principal, destination, resource, .. } => {
                let origin = Origin::new(&session, &principal, destination, &resource);
                self.origins.insert(session, origin);
            }
            Entry::Action { id, action, text, decision, rule, reason, .. } => {
                let Some(place) = self.begin(&session, &action, &text, time) else {
                    self.left_out += 1;
                    return;
                };
                if let Place::Transfer(at) = place
                    && let Some(transfer) = self.transfers.get_mut(at)
                {
                    transfer.decided(id, decision, rule.as_deref(), reason.as_deref());
                }
                if let (Place::Message(at, number), true) = (place, decision == Effect::Deny)
                    && let Some(transfer) = self.transfers.get_mut(at)
                {
                    let reason = reason.as_deref().unwrap_or_default();
                    transfer.comment(&format!("message {} was refused: {reason}", number + 1));
                }
                self.places.insert((session, id), place);
            }
            Entry::Approval { id, question, step, by, .. } => {
                let by = by.map_or_else(String::new, |by| format!(" by {by}"));
                if let Some(transfer) = self.transfer(session, id) {
                    transfer.comment(&format!("approval {question} {step}{by}"));
                }
            }
            Entry::Sent { id, data } => self.data(session, id, &data, |transfer| &mut transfer.request_body),
            Entry::Shown { id, data } => {
                self.data(session, id, &data, |transfer| &mut transfer.response_body)
            }
            Entry::DataEnds { id, reason } => {
                if let Some(transfer) = self.transfer(session, id) {
                    transfer.comment(&format!("bodies are not whole here: {reason}"));
                }
            }
            Entry::Outcome { id, outcome, bytes, sent, answer, waited, microseconds, .. } => {
                let Some(transfer) = self.transfer(session, id) else { return };
                let answer = answer.as_deref().unwrap_or_default();
                transfer.request.body_size = i64::try_from(sent).unwrap_or(i64::MAX);
                transfer.response = Response::read(answer, &transfer.request.http_version);
                transfer.response.body_size = i64::try_from(bytes).unwrap_or(i64::MAX);
                let since =
                    u64::try_from(time.duration_since(transfer.begun).as_micros()).unwrap_or_default();
                let blocked = transfer.was_held().then(|| since.saturating_sub(microseconds));
                transfer.timings = Timings::new(blocked, microseconds, waited);
                if outcome == "aborted" {
                    transfer.comment("it was cut off");
                }
            }
            Entry::Event { .. } | Entry::Close { .. } => {}
        }
    }

    /// Where an action is that begins; none, if it is no request that can be told.
    fn begin(
        &mut self,
        session: &Arc<str>,
        action: &str,
        text: &str,
        time: jiff::Timestamp,
    ) -> Option<Place> {
        if action == "message" {
            let at = *self.sockets.get(session)?;
            let messages = &mut self.transfers.get_mut(at)?.messages;
            messages.push(Message::read(text, time));
            return Some(Place::Message(at, messages.len() - 1));
        }
        let request = Request::read(text)?;
        let origin = self.origins.get(session).cloned().unwrap_or_default();
        let at = self.transfers.len();
        self.transfers.push(Transfer::new(time, request, origin));
        if action == "websocket" {
            self.sockets.insert(session.clone(), at);
        }
        Some(Place::Transfer(at))
    }

    fn transfer(&mut self, session: Arc<str>, id: u64) -> Option<&mut Transfer> {
        match self.places.get(&(session, id))? {
            Place::Transfer(at) => self.transfers.get_mut(*at),
            Place::Message(..) => None,
        }
    }

    fn data(&mut self, session: Arc<str>, id: u64, data: &str, of: fn(&mut Transfer) -> &mut Body) {
        let bytes = match data.strip_prefix("base64:") {
            Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
            None => data.as_bytes().to_vec(),
        };
        match self.places.get(&(session, id)) {
            Some(Place::Transfer(at)) => {
                self.transfers.get_mut(*at).into_iter().for_each(|transfer| of(transfer).add(&bytes));
            }
            Some(Place::Message(at, number)) => {
                let message =
                    self.transfers.get_mut(*at).and_then(|transfer| transfer.messages.get_mut(*number));
                message.into_iter().for_each(|message| message.data.add(&bytes));
            }
            None => {}
        }
    }

    fn archive(mut self) -> Archive {
        self.transfers.sort_by_key(|transfer| transfer.begun);
        let left_out = (self.left_out > 0).then(|| {
            format!("{} requests could not be understood, and are only in the records", self.left_out)
        });
        Archive { log: Log::new(self.transfers, left_out) }
    }
}
