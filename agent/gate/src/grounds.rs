//! What a yes let in ends when the yes is taken back.

use std::{fmt, sync::Arc};

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
        let revocation = gate.approvals().revoked(&self.questions).await;
        gate.note(&revocation.entry(self.action));
        let message = format!("this {what} is no longer allowed: {revocation}");
        Refusal { message: message.into(), hint: None, cause: Cause::Policy }
    }
}

impl Revocation {
    /// What the record of the action of this number tells of it.
    pub(crate) fn entry(&self, action: u64) -> Entry<'_> {
        Entry::Approval {
            id: action,
            question: (&*self.question).into(),
            step: "revoked".into(),
            by: self.by.as_deref().map(Into::into),
            reason: self.reason.as_deref().map(Into::into),
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "approval {} was revoked", self.question)?;
        if let Some(by) = &self.by {
            write!(f, " by {by}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}
