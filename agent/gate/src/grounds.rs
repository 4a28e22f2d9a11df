//! What a yes let in ends when the yes is taken back.

use std::sync::Arc;

use crate::{Cause, Entry, Refusal, Revocation, inner::Inner};

/// The questions whose yes an action runs by, or a session exists by. None where nobody had to be asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grounds {
    /// The action's number.
    action: u64,
    questions: Arc<[Arc<str>]>,
}

impl Grounds {
    /// Of the action of this number.
    pub(crate) fn new(action: u64, questions: Vec<Arc<str>>) -> Self {
        Self { action, questions: questions.into() }
    }

    /// Resolves when somebody has taken one of the yeses back, which is then in the record. `what` is what it let in.
    pub(crate) async fn taken_back(&self, gate: &Inner, what: &str) -> Refusal {
        if self.questions.is_empty() {
            return std::future::pending().await;
        }
        let Revocation { question, by, reason } = gate.approvals().revoked(&self.questions).await;
        gate.note(&Entry::Approval {
            id: self.action,
            question: (&*question).into(),
            step: "revoked".into(),
            by: by.as_deref().map(Into::into),
            reason: reason.as_deref().map(Into::into),
        });
        let by = by.map_or_else(String::new, |by| format!(" by {by}"));
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let message =
            format!("this {what} is no longer allowed: approval {question} was revoked{by}{reason}");
        Refusal { message: message.into(), hint: None, cause: Cause::Policy }
    }
}
