//! Messages as actions of their own, over a WebSocket or within a call of gRPC.

use std::sync::Arc;

use http::StatusCode;
use tidegate_gate::{
    Action, Decision, Permit, Refusal, Undecided,
    policy::{Item, Shape, Value},
};

use crate::{
    deciding::message_matter, exchange::Session, fields::Fields, problem::Problem, request::Understood,
    target,
};

/// Most bytes of a message that somebody can be asked about.
const SHOWN: usize = 64 * 1024;

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Server,
    Client,
}

/// A message that is to be decided.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) shape: Shape,
    /// As records have it.
    pub(crate) text: &'a str,
    /// To the byte.
    pub(crate) exact: &'a [u8],
    /// As people read it.
    pub(crate) shown: &'a [u8],
}

/// Why a message may not go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    Refused(Refusal),
    /// It waits for a person, longer than this connection does: the question of this id.
    Waits(Refusal, Arc<str>),
    /// Nobody could be shown it.
    TooLong,
}

impl To {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl Session {
    /// The permit for a message that belongs to what was asked for with `over`. Whoever must be asked for is waited for as long as
    /// the resource says.
    pub(crate) async fn message(&self, message: Message<'_>, over: &Understood) -> Result<Permit, Stopped> {
        let Message { shape, text, exact, shown } = message;
        let shape = Arc::new(shape);
        match self.gate.ask(Action { name: "message", shape: &shape, text, count: 1 }).await {
            Decision::Permit(permit) => Ok(permit),
            Decision::Refuse(refusal) => Err(Stopped::Refused(refusal)),
            Decision::Hold(_) if exact.len() > SHOWN || shown.len() > SHOWN => Err(Stopped::TooLong),
            Decision::Hold(hold) => {
                let matter = message_matter(text, (exact, shown), over, &self.way);
                Ok(hold.decided(matter, self.server.options.wait).await?)
            }
        }
    }
}

impl Understood {
    /// A message of so many bytes, over what was asked for: what rules see of it, apart from its body.
    pub(crate) fn message(&self, to: To, bytes: usize) -> Shape {
        let mut fields = vec![
            ("action", Value::Word("message")),
            ("to", Value::Word(to.word())),
            ("host", Value::Text(self.authority.host.clone())),
            ("path", Value::Text(target::as_rules_see(&self.path).into())),
            ("size", Value::Number(i64::try_from(bytes).unwrap_or(i64::MAX))),
        ];
        fields.extend(self.rpc().map(|rpc| ("grpc", Value::Text(rpc.into()))));
        Shape { items: vec![Item { fields, must_name: None }], open: true, ..Shape::default() }
    }

    /// The same as records have it.
    pub(crate) fn message_text(&self, to: To, bytes: usize) -> String {
        format!("message to {}, {} {}, {bytes} bytes", to.word(), self.authority.host, self.path)
    }
}

/// Adds what is known of bodies to whatever they belong to.
pub(crate) fn know(shape: &mut Shape, fields: &Fields) {
    for item in &mut shape.items {
        item.fields.push(("body", Value::Named(fields.clone())));
    }
}

impl From<Undecided> for Stopped {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Refused(refusal) => Self::Refused(refusal),
            Undecided::Stands { told, id } => Self::Waits(told, id),
        }
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refusal) => Self::refused(&refusal),
            Stopped::Waits(told, id) => Self::waits(&told, &id),
            Stopped::TooLong => Self::new(StatusCode::FORBIDDEN, TOO_LONG),
        }
    }
}

/// What is told of a message that is too long for anybody to be asked about.
pub(crate) const TOO_LONG: &str = "this needs an approval, and is longer than anybody can be shown";
