//! What is told to the outside.

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Event, Inquiry};

/// One event to be sent out; kept until it was taken, or given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Unique; receivers know a repeated one by it.
    pub id: String,
    /// The question's id.
    pub question: String,
    /// The whole event, as it is sent.
    pub body: serde_json::Value,
    /// When it is to be tried next, in milliseconds since 1970.
    pub due: i64,
    /// How often it was tried.
    pub attempts: i64,
}

impl Letter {
    /// What is told of something that happened to a question; none if it is nobody's concern.
    pub(crate) fn of(inquiry: &Inquiry, event: &Event) -> Option<Self> {
        if matches!(event.step.as_str(), "seen" | "asked-again") {
            return None;
        }
        let mut id = [0; 16];
        rand::fill(&mut id).ok()?;
        let id = hex::encode(id);
        let rules: Vec<&str> = inquiry.terms.iter().map(|term| &*term.held.rule).collect();
        let process = &inquiry.principal.process;
        let body = json!({
            "id": id,
            "event": event.step,
            "time": event.time,
            "by": event.by,
            "reason": event.reason,
            "question": {
                "id": inquiry.id,
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
            },
        });
        let due = event.time.as_millisecond();
        Some(Self { id, question: inquiry.id.to_string(), body, due, attempts: 0 })
    }
}
