//! An action that waits for a person.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_policy::{Principal, Shape, Verdict};

use crate::{
    Action, Approved, Cause, Entry, Parts, Permit, Question, Refusal, Undecided, Waiting,
    approvals::Answer,
    inner::{Inner, refused},
    matter::{Asked, Matter},
};

/// An action that the policy holds. It is in the record; nobody was asked yet.
#[derive(Debug)]
pub struct Hold {
    pub(crate) gate: Arc<Inner>,
    pub(crate) id: u64,
    pub(crate) principal: Arc<Principal>,
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) shape: Arc<Shape>,
    name: &'static str,
    /// As recorded: masked.
    text: String,
    /// How many things it does.
    count: u32,
}

/// What became of a hold.
#[derive(Debug)]
pub enum Put {
    /// Somebody said yes before, and that still counts.
    Permit(Permit),
    /// It waits.
    Waits(Waiting),
}

impl Hold {
    pub(crate) fn new(gate: Arc<Inner>, id: u64, verdict: Arc<Verdict>, action: &Action<'_>) -> Self {
        let (principal, shape) = (gate.principal(), action.shape.clone());
        let text = gate.as_recorded(action.text, &verdict).into_owned();
        Self { gate, id, principal, verdict, shape, name: action.name, text, count: action.count }
    }

    /// What the client is told while it waits for the answer to question `id`: who may answer, and how.
    pub(crate) fn told(&self, id: &str) -> Refusal {
        let rules: Vec<String> = self.verdict.holds.iter().map(|held| format!("{:?}", held.rule)).collect();
        let who: Vec<String> = self.verdict.holds.iter().map(|held| held.approval.to_string()).collect();
        let wait = self.verdict.holds.iter().map(|held| held.approval.wait).min().unwrap_or_default();
        Refusal {
            message: format!("waits for approval {id}, by rule {}", rules.join(", ")).into(),
            hint: Some(
                format!(
                    "May approve: {}; not the asker. Within {}: tidegate approvals approve {id}",
                    who.join("; and "),
                    span(wait)
                )
                .into(),
            ),
            cause: Cause::Policy,
        }
    }

    /// Asks, unless the answer is known, and waits for it: see [`Waiting::answered`].
    pub async fn decided(self, matter: Matter, patience: Duration) -> Result<Permit, Undecided> {
        let (shape, definitions) = (self.shape.clone(), matter.definitions);
        match self.put(matter).await? {
            Put::Permit(permit) => Ok(permit),
            Put::Waits(waiting) => Ok(waiting.answered(patience).await?.permit(&shape, definitions).await?),
        }
    }

    /// Asks, unless the answer is known.
    pub async fn put(self, matter: Matter) -> Result<Put, Refusal> {
        let asked = Asked::new(&self.shape, matter.definitions);
        let question = self.question(matter, &asked);
        let approvals = self.gate.approvals().clone();
        match approvals.put(question).await {
            Err(error) => {
                self.gate.note(&self.step("failed", None, Some(&error.to_string()), ""));
                Err(self.refusal(Cause::Approvals, &format!("nobody can be asked: {error}")))
            }
            Ok(Answer::Known(yeses)) => {
                yeses.iter().try_for_each(|yes| self.record("granted", Some(&yes.by), None, &yes.id))?;
                let ids = yeses.into_iter().map(|yes| yes.id).collect();
                let shape = self.shape.clone();
                let known = Approved { hold: Arc::new(self), asked, ids, yes: true };
                Ok(Put::Permit(known.permit_of(&shape, asked.definitions)?))
            }
            Ok(Answer::Waits(inquiry)) => {
                let id = inquiry.id().clone();
                self.record("asked", None, None, &id)?;
                Ok(Put::Waits(Waiting::new(self, asked, inquiry)))
            }
        }
    }

    fn question(&self, matter: Matter, asked: &Asked) -> Question {
        // What approvers may see of the resource nobody knows: what is masked for anybody is masked for them.
        let mask = self.gate.masked_for_anybody().or_else(|| self.verdict.content.clone());
        let shown = |value: &[u8]| match &mask {
            Some(mask) => readable(&self.gate.masker().scan(mask, value)),
            None => readable(value),
        };
        let server = matter.server.as_deref().unwrap_or(&self.gate.server);
        let mut shape = Parts::new("shape");
        shape.add(server).add(asked.items);
        if let Some(definitions) = asked.definitions {
            shape.add(definitions);
        }
        let shape = shape.finish();
        let at = ("at".to_owned(), server.to_owned());
        let particulars = matter.particulars.iter().map(|(name, value)| (name.clone(), shown(value)));
        Question {
            session: self.gate.session().clone(),
            principal: Principal::clone(&self.principal),
            resource: self.gate.resource().name.clone(),
            protocol: self.gate.resource().protocol.clone(),
            policy: self.gate.policy_digest(),
            action: self.id,
            name: self.name.into(),
            text: shown(matter.text.as_ref().unwrap_or(&self.text).as_bytes()),
            particulars: std::iter::once(at).chain(particulars).collect(),
            holds: self.verdict.holds.clone(),
            exact: matter.exact.finish(),
            shape,
        }
    }

    pub(crate) fn step<'a>(
        &self,
        step: &'a str,
        by: Option<&'a str>,
        reason: Option<&'a str>,
        question: &'a str,
    ) -> Entry<'a> {
        Entry::Approval {
            id: self.id,
            question: question.into(),
            step: step.into(),
            by: by.map(Into::into),
            reason: reason.map(Into::into),
        }
    }

    pub(crate) fn record(
        &self,
        step: &str,
        by: Option<&str>,
        reason: Option<&str>,
        question: &str,
    ) -> Result<(), Refusal> {
        self.gate.write(&self.step(step, by, reason, question)).map_err(|error| {
            tracing::error!(session = %self.gate.session(), %error, "refused: not recorded");
            self.refusal(Cause::Record, "the gate cannot record this, so it may not run")
        })
    }

    pub(crate) fn refusal(&self, cause: Cause, message: &str) -> Refusal {
        Refusal { message: message.into(), hint: self.verdict.hint.clone(), cause }
    }

    /// Counts it where rules say how often: it is let through. A refusal is in the record.
    pub(crate) fn count(&self, verdict: &Verdict) -> Result<(), Refusal> {
        let taken = self.gate.rates.take(self.count, &verdict.limits, &self.gate.principal(), Instant::now());
        taken.map_err(|over| {
            let refusal = Refusal { cause: over.cause(), ..refused(&over.refused(verdict)) };
            self.gate.note(&Entry::Event { event: "over-rate".into(), detail: (&*refusal.message).into() });
            refusal
        })
    }
}

/// Bytes as a text that leaves nothing of them out: in hexadecimal where they are none.
fn readable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\\x{}", hex::encode(value)),
    }
}

/// A duration in its largest whole unit.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_whole() {
        assert_eq!(readable("é\n".as_bytes()), "é\n");
        assert_eq!(readable(&[0x1f, 0x8b, b'a']), "\\x1f8b61");
    }
}
