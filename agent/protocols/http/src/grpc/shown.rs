//! What a server answers, message by message: decided where a rule is about messages, and masked.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tidegate_gate::{Outcome, Permit};

use super::{
    fields,
    frames::{Frames, framed},
};
use crate::{
    answer::cannot_be_masked,
    exchange::Session,
    messages::{self, To, know},
    problem::Problem,
    request::Understood,
    shown::Masks,
    target, transcript,
};

/// Most bytes of a message: what gRPC's clients take where nobody tells them otherwise.
const LARGEST: usize = 4 * 1024 * 1024;

/// The messages of one call's answer, on their way to the client.
pub(crate) struct Messages<'a> {
    session: &'a Session,
    understood: &'a Understood,
    /// Of the call.
    permit: &'a Permit,
    /// Those of the call.
    masks: Option<Masks<'a>>,
    /// A rule is about them.
    decides: bool,
    frames: Frames,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(
        session: &'a Session,
        understood: &'a Understood,
        permit: &'a Permit,
        masks: Option<Masks<'a>>,
        decides: bool,
    ) -> Self {
        Self { session, understood, permit, masks, decides, frames: Frames::new(LARGEST) }
    }

    /// Takes what came.
    pub(crate) fn put(&mut self, data: &[u8]) {
        self.frames.put(data);
    }

    /// Bytes that are held until there is a message.
    pub(crate) fn held(&self) -> usize {
        self.frames.len()
    }

    /// The next message as it is shown, in its frame, if it is all there; an error is what the client is told instead.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match self.frames.next() {
            Ok(Some(message)) => self.one(message).await.map(|shown| Some(framed(&shown))),
            Ok(None) => Ok(None),
            Err(why) => Err(self.unreadable(&why)),
        }
    }

    /// What follows the last message: where masks are on them, the status alone.
    ///
    /// # Errors
    /// The last message is not whole.
    pub(crate) fn trailers(&self, trailers: HeaderMap) -> Result<HeaderMap, String> {
        if !self.frames.is_empty() {
            return Err("its last message is not whole".into());
        }
        Ok(match &self.masks {
            Some(masks) => status(&trailers, masks),
            None => trailers,
        })
    }

    async fn one(&self, message: Bytes) -> Result<Bytes, Problem> {
        let call = self.understood.call.as_ref().ok_or_else(|| self.unreadable("nobody says what it is"))?;
        let permit = match self.decides {
            true => Some(self.permit(&message).await?),
            false => None,
        };
        let own = permit.as_ref().and_then(|permit| Masks::of(permit.verdict(), permit.masker()));
        let own = own.map(|own| match &self.masks {
            Some(of_call) => own.beside(of_call),
            None => own,
        });
        let mut shown = message;
        for masks in self.masks.iter().chain(&own) {
            shown = call.masked(&shown, masks).map_err(|why| self.cannot_be_masked(&why))?.into();
        }
        if let Some(permit) = permit {
            if permit.keeps_data()
                && let Ok(text) = fields::shown(&call.output, &shown)
            {
                transcript::keep_shown_message(&permit, "text", &text);
            }
            permit.done(&Outcome { bytes: shown.len() as u64, ..Outcome::default() });
        }
        Ok(shown)
    }

    async fn permit(&self, message: &Bytes) -> Result<Permit, Problem> {
        let (understood, session) = (self.understood, self.session);
        let mut shape = understood.message(To::Client, message.len());
        let call = understood.call.as_ref().ok_or_else(|| self.unreadable("nobody says what it is"))?;
        if session.gate.depends_on("body", &shape) {
            let fields = fields::of(&call.output, message).map_err(|why| self.unreadable(&why))?;
            know(&mut shape, &fields);
        }
        let shown = fields::shown(&call.output, message).unwrap_or_default();
        let text = understood.message_text(To::Client, message.len());
        let asked = messages::Message { shape, text: &text, exact: message, shown: &shown };
        session.message(asked, understood).await.map_err(Problem::from)
    }

    /// A rule looks at it, and cannot.
    fn unreadable(&self, why: &str) -> Problem {
        match self.masks {
            Some(_) => self.cannot_be_masked(why),
            None => {
                let why = format!("a rule looks at this message, which cannot be looked into: {why}");
                let text = self.understood.message_text(To::Client, 0);
                Problem::refused(&self.session.gate.refuse("message", &text, &why))
            }
        }
    }

    fn cannot_be_masked(&self, why: &str) -> Problem {
        let why = cannot_be_masked(why);
        self.permit.so_far(|outcome| outcome.error = Some(why.clone()));
        let text = self.understood.message_text(To::Client, 0);
        Problem::refused(&self.session.gate.refuse("message", &text, &why))
    }
}

/// The status alone, its text looked through as it reads.
fn status(trailers: &HeaderMap, masks: &Masks<'_>) -> HeaderMap {
    let mut kept = HeaderMap::new();
    if let Some(code) = trailers.get("grpc-status") {
        kept.insert("grpc-status", code.clone());
    }
    if let Some(message) = trailers.get("grpc-message") {
        let shown = target::encoded(&masks.scan(&decoded(message.as_bytes())));
        if let Ok(shown) = HeaderValue::from_str(&shown) {
            kept.insert("grpc-message", shown);
        }
    }
    kept
}

/// A status' text out of its encoding; what is not encoded as it should be stays.
fn decoded(mut written: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(written.len());
    while let Some((first, rest)) = written.split_first() {
        let digits =
            rest.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(byte.unwrap_or(*first));
        written = if byte.is_some() { rest.get(2..).unwrap_or_default() } else { rest };
    }
    plain
}
