//! A question on its way to its answer.

use std::{fmt, sync::Arc, time::Duration};

use tidegate_policy::Effect;
use tokio::time::timeout;

use crate::{
    Approved, Cause, Gate, Refusal,
    approvals::{Inquiry, Step},
    hold::Hold,
    inner::refused,
    matter::Asked,
};

/// A question that waits for an answer. Dropped before it is settled, it is withdrawn; an agent that stops leaves it
/// standing, so that the answer counts when the client comes back.
pub struct Waiting {
    hold: Arc<Hold>,
    asked: Asked,
    inquiry: Option<Box<dyn Inquiry>>,
    id: Arc<str>,
}

/// Why what was held may not run.
#[derive(Debug)]
pub enum Undecided {
    /// It is refused, or the session is over.
    Refused(Refusal),
    /// It waits longer than its client does: the question of this id stands, and whoever asks the same again takes it up.
    Stands {
        /// For the client: what for, and who may answer.
        told: Refusal,
        /// The question's.
        id: Arc<str>,
    },
}

impl From<Refusal> for Undecided {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Waiting {
    pub(crate) fn new(hold: Hold, asked: Asked, inquiry: Box<dyn Inquiry>) -> Self {
        let id = inquiry.id().clone();
        Self { hold: Arc::new(hold), asked, inquiry: Some(inquiry), id }
    }

    /// The question's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// For the client, while it waits: what for, and who may answer.
    pub fn told(&self) -> Refusal {
        self.hold.told(&self.id)
    }

    /// Waits for the answer for so long at the most, and as long as the session may exist. Where only the patience is over, the
    /// question is left standing: an answer that comes meanwhile counts. By dropping the future it is taken back.
    pub async fn answered(mut self, patience: Duration) -> Result<Approved, Undecided> {
        let gate = Gate(self.hold.gate.clone());
        let settled = tokio::select! {
            settled = timeout(patience, self.settled()) => settled,
            refusal = gate.revoked() => return Err(refusal.into()),
        };
        match settled {
            Ok(approved) => Ok(approved?),
            Err(_) => {
                // Nobody takes it back now.
                self.inquiry = None;
                Err(Undecided::Stands { told: self.told(), id: self.id.clone() })
            }
        }
    }

    /// Waits for the answer, as long as the question stands and the policy still holds it: where it allows it meanwhile,
    /// it goes on, and nobody need answer any more. Nothing is lost by dropping the future.
    pub async fn settled(&mut self) -> Result<Approved, Refusal> {
        loop {
            let changed = self.hold.gate.changed();
            let allowed = self.is_allowed_now()?;
            let Some(inquiry) = self.inquiry.take() else { return Err(self.ended("it was withdrawn")) };
            if allowed {
                inquiry.withdraw("withdrawn");
                self.hold.record("allowed", None, Some("the policy allows it now"), &self.id)?;
                return Ok(self.approved(false));
            }
            let inquiry = self.inquiry.insert(inquiry);
            let step = tokio::select! {
                step = inquiry.next() => step,
                () = changed => continue,
            };
            match step {
                Err(error) => return Err(self.hold.refusal(Cause::Approvals, &error.to_string())),
                Ok(Step::Seen { by }) => {
                    self.hold.gate.note(&self.hold.step("seen", Some(&by), None, &self.id))
                }
                Ok(Step::Agreed { by, reason }) => {
                    self.hold.gate.note(&self.hold.step("agreed", Some(&by), reason.as_deref(), &self.id));
                }
                Ok(Step::Approved { by, reason, urgent }) => {
                    self.inquiry = None;
                    let word = if urgent { "break-glass" } else { "approved" };
                    self.hold.record(word, Some(&by), reason.as_deref(), &self.id)?;
                    return Ok(self.approved(true));
                }
                Ok(Step::Refused { word, by, reason }) => {
                    self.inquiry = None;
                    self.hold.gate.note(&self.hold.step(&word, by.as_deref(), reason.as_deref(), &self.id));
                    let by = by.map_or_else(String::new, |by| format!(" by {by}"));
                    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                    return Err(match &*word {
                        "expired" => self.ended("nobody answered in time"),
                        word => self.ended(&format!("it was {word}{by}{reason}")),
                    });
                }
            }
        }
    }

    /// Takes the question back because the client cancelled what it asked for.
    pub fn cancel(mut self) {
        self.withdraw("cancelled");
    }

    /// Whether the policy now in force lets it run without anybody's yes; the refusal if it denies it.
    fn is_allowed_now(&self) -> Result<bool, Refusal> {
        let verdict = self.hold.gate.verdict_now(&self.hold.shape);
        match verdict.effect {
            Effect::Deny => Err(refused(&verdict)),
            Effect::Hold => Ok(false),
            Effect::Allow => Ok(true),
        }
    }

    fn approved(&self, yes: bool) -> Approved {
        Approved { hold: self.hold.clone(), asked: self.asked, ids: vec![self.id.clone()], yes }
    }

    fn ended(&self, what: &str) -> Refusal {
        self.hold.refusal(Cause::Policy, &format!("approval {}: {what}", self.id))
    }

    fn withdraw(&mut self, word: &str) {
        let Some(inquiry) = self.inquiry.take() else { return };
        if self.hold.gate.is_stopping() {
            return;
        }
        self.hold.gate.note(&self.hold.step(word, None, None, &self.id));
        inquiry.withdraw(word);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.withdraw("withdrawn");
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("id", &self.id).finish_non_exhaustive()
    }
}
