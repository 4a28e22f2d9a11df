//! What is told to the outside.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::rand;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Event, Fact, Inquiry, store::StoreError};

/// One event to be sent to one receiver; kept until it was taken, or given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Unique; receivers know a repeated one by it.
    pub id: String,
    /// The host whose agent sends it.
    pub host: Arc<str>,
    /// The receiver's name.
    pub hook: Arc<str>,
    /// The question's id.
    pub question: Arc<str>,
    /// As whom whoever asked it counts, as a key.
    pub account: String,
    /// It is an alert: it goes before the others, and has room of its own.
    pub urgent: bool,
    /// People have answered the question: what came of that has room of its own, too.
    pub answered: bool,
    /// The event that it tells of, as [`Told::step`] has it.
    pub event: String,
    /// The whole event, as it is sent or the receiver's words are made from it; null if it can't be read any more.
    pub body: Value,
    /// When it was written, in milliseconds since 1970.
    pub written: i64,
    /// When it is to be tried next, in milliseconds since 1970.
    pub due: i64,
    /// How often it was tried.
    pub attempts: i64,
}

/// How much later than now a letter is tried at most.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Letter {
    /// Until when what is due is due now, and from when on it is, too, in milliseconds since 1970: what is put off for longer than
    /// any letter is was put off by a clock that was ahead.
    pub(crate) fn due_between(now: Timestamp) -> (i64, i64) {
        let latest = now.checked_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX);
        (now.as_millisecond(), latest.as_millisecond())
    }

    /// Whether it is to be tried now, as it is if it never was, whatever the clock said then.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let (now, latest) = Self::due_between(now);
        self.attempts == 0 || self.due <= now || self.due > latest
    }
}

/// What can be told of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// It waits.
    Asked,
    /// Somebody said yes, and more must.
    Agreed,
    /// It may run.
    Approved,
    /// It ran at once, and a review is owed.
    BreakGlass,
    /// It may not run.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// Who asked is gone.
    Withdrawn,
    /// Who asked cancelled it.
    Cancelled,
    /// The yes was taken back.
    Revoked,
    /// What ran at once was looked at.
    Reviewed,
}

/// Whom this host's agent tells of what happens to questions.
#[derive(Debug, Clone, Default)]
pub struct Audience {
    /// Each receiver's name, and what it wants to know.
    pub hooks: Vec<(Arc<str>, Vec<Told>)>,
    /// Where people answer in a browser: a question's id is added to it.
    pub page: Option<Arc<str>>,
}

impl Told {
    /// Everything that can be told.
    pub const ALL: [Self; 10] = [
        Self::Asked,
        Self::Agreed,
        Self::Approved,
        Self::BreakGlass,
        Self::Denied,
        Self::Expired,
        Self::Withdrawn,
        Self::Cancelled,
        Self::Revoked,
        Self::Reviewed,
    ];

    /// The event's step that it stands for.
    pub fn step(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Agreed => "agreed",
            Self::Approved => "approved",
            Self::BreakGlass => "break-glass",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Cancelled => "cancelled",
            Self::Revoked => "revoked",
            Self::Reviewed => "reviewed",
        }
    }
}

impl Audience {
    /// What is told of events, by this host's agent. Without it they must not happen: somebody would never hear of them.
    pub(crate) fn letters(
        &self,
        host: &Arc<str>,
        inquiry: &Inquiry,
        events: &[Event],
    ) -> Result<Vec<Letter>, StoreError> {
        let mut letters = Vec::new();
        for event in events {
            for (hook, wanted) in &self.hooks {
                if wanted.iter().any(|told| told.step() == event.step) {
                    letters.push(self.letter(host, hook, inquiry, event)?);
                }
            }
        }
        Ok(letters)
    }

    /// Not without randomness: an id that is not unique would be taken for a repetition.
    fn letter(
        &self,
        host: &Arc<str>,
        hook: &Arc<str>,
        inquiry: &Inquiry,
        event: &Event,
    ) -> Result<Letter, StoreError> {
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| StoreError::new("there is no randomness for a letter's id"))?;
        let id = format!("msg_{}", hex::encode(random));
        let page = self.page.as_ref().map(|page| format!("{page}{}", inquiry.id));
        let body = body(&id, page, inquiry, event);
        let written = event.time.as_millisecond();
        Ok(Letter {
            id,
            host: host.clone(),
            hook: hook.clone(),
            question: inquiry.id.clone(),
            account: inquiry.share_key(),
            urgent: event.step == Told::BreakGlass.step(),
            answered: inquiry.is_answered(),
            event: event.step.clone(),
            body,
            written,
            due: written,
            attempts: 0,
        })
    }
}

/// As approvers see the question: what is masked for them is masked here.
fn body(id: &str, page: Option<String>, inquiry: &Inquiry, event: &Event) -> Value {
    let rules: Vec<&str> = inquiry.terms.iter().map(|term| &*term.held.rule).collect();
    let process = &inquiry.principal.process;
    let fact = |(fact, text): (Fact, String)| json!({"fact": fact, "name": fact.caption(), "text": text});
    let facts: Vec<Value> = inquiry.facts(event).into_iter().map(fact).collect();
    json!({
        "id": id,
        "type": format!("approval.{}", event.step),
        "timestamp": event.time,
        "data": {
            "event": event.step,
            "by": event.by,
            "reason": event.reason,
            "facts": facts,
            "question": {
                "id": inquiry.id,
                "link": page,
                "state": inquiry.state,
                "host": inquiry.host,
                "session": inquiry.session,
                "action": inquiry.name,
                "text": inquiry.text,
                "particulars": inquiry.particulars,
                "resource": inquiry.resource,
                "protocol": inquiry.protocol,
                "rules": rules,
                "may-approve": inquiry.asked_people(),
                "asked": inquiry.asked,
                "expires": inquiry.expires,
                "review-owed": inquiry.review_owed,
            },
            "asker": {
                "name": inquiry.asker().name,
                "uid": process.uid,
                "executable": process.executable,
                "unit": process.unit,
                "container": process.container,
                "image": process.image,
            },
        },
    })
}
