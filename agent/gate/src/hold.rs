//! An action that waits for a person.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use tidegate_policy::{Effect, Held, Principal, Shape, Value, Verdict};

use crate::{
    Cause, Entry, Permit, Question, Refusal,
    approvals::{Answer, Inquiry, Step},
    inner::Inner,
};

/// An action that the policy holds. It is in the record; nobody was asked yet.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Inner>,
    id: u64,
    principal: Arc<Principal>,
    verdict: Arc<Verdict>,
    shape: Arc<Shape>,
    name: &'static str,
    /// As recorded: masked.
    text: String,
}

/// What exactly would run, byte for byte, and what approvers see of it beside the recorded text.
pub struct Matter {
    exact: digest::Context,
    particulars: Vec<(String, Vec<u8>)>,
}

/// What became of a hold.
#[derive(Debug)]
pub enum Put {
    /// Somebody said yes before, and that still counts.
    Permit(Permit),
    /// It waits.
    Waits(Waiting),
}

/// A question that waits for an answer. Dropped before it is settled, it is withdrawn; an agent that stops leaves it
/// standing, so that the answer counts when the client comes back.
pub struct Waiting {
    hold: Arc<Hold>,
    items: [u8; 32],
    inquiry: Option<Box<dyn Inquiry>>,
    id: Arc<str>,
}

/// Somebody's yes, for what was asked and nothing else.
#[derive(Debug)]
pub struct Approved {
    hold: Arc<Hold>,
    items: [u8; 32],
    id: Arc<str>,
    /// Somebody said it; else the policy came to allow it.
    yes: bool,
}

impl Matter {
    /// Of these very bytes.
    pub fn new(text: &[u8]) -> Self {
        let mut exact = digest::Context::new(&digest::SHA256);
        add(&mut exact, text);
        Self { exact, particulars: Vec::new() }
    }

    /// What it runs with or in: bound to the answer, and shown through the resource's content masks, whomever they are for.
    pub fn with(self, name: impl Into<String>, value: &[u8]) -> Self {
        self.shown_as(name, value, value)
    }

    /// The same, where approvers read it better in another form.
    pub fn shown_as(mut self, name: impl Into<String>, exact: &[u8], shown: &[u8]) -> Self {
        let name = name.into();
        add(&mut self.exact, name.as_bytes());
        add(&mut self.exact, exact);
        self.particulars.push((name, shown.to_vec()));
        self
    }
}

impl Hold {
    pub(crate) fn new(
        gate: Arc<Inner>,
        id: u64,
        verdict: Arc<Verdict>,
        shape: Arc<Shape>,
        (name, text): (&'static str, String),
    ) -> Self {
        let principal = gate.principal();
        Self { gate, id, principal, verdict, shape, name, text }
    }

    /// What the client is told while it waits for the answer to question `id`: who may answer, and how.
    fn told(&self, id: &str) -> Refusal {
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

    /// Asks, unless the answer is known.
    pub async fn put(self, matter: Matter) -> Result<Put, Refusal> {
        let items = items(&self.shape);
        let question = self.question(matter, items);
        let approvals = self.gate.approvals().clone();
        match approvals.put(question).await {
            Err(error) => {
                self.gate.note(&self.step("failed", None, Some(&error.to_string()), ""));
                Err(self.refusal(Cause::Approvals, &format!("nobody can be asked: {error}")))
            }
            Ok(Answer::Known(yeses)) => {
                yeses.iter().try_for_each(|yes| self.record("granted", Some(&yes.by), None, &yes.id))?;
                let (gate, action, verdict) = (self.gate.clone(), self.id, self.verdict.clone());
                let questions = yeses.into_iter().map(|yes| yes.id).collect();
                Ok(Put::Permit(Permit::new(gate, action, verdict, self.shape).by_yes_to(questions)))
            }
            Ok(Answer::Waits(inquiry)) => {
                let id = inquiry.id().clone();
                self.record("asked", None, None, &id)?;
                Ok(Put::Waits(Waiting { hold: Arc::new(self), items, inquiry: Some(inquiry), id }))
            }
        }
    }

    fn question(&self, matter: Matter, items: [u8; 32]) -> Question {
        // What approvers may see of the resource nobody knows: what is masked for anybody is masked for them.
        let mask = self.gate.masked_for_anybody().or_else(|| self.verdict.content.clone());
        let shown = |value: &[u8]| match &mask {
            Some(mask) => readable(&self.gate.masker().scan(mask, value)),
            None => readable(value),
        };
        Question {
            session: self.gate.session().clone(),
            principal: Principal::clone(&self.principal),
            resource: self.gate.resource().name.clone(),
            protocol: self.gate.resource().protocol.clone(),
            policy: self.gate.policy_digest(),
            action: self.id,
            name: self.name.into(),
            text: shown(self.text.as_bytes()),
            particulars: matter
                .particulars
                .iter()
                .map(|(name, value)| (name.clone(), shown(value)))
                .collect(),
            holds: self.verdict.holds.clone(),
            exact: finish(matter.exact),
            shape: items,
        }
    }

    fn step<'a>(
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

    fn record(
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

    fn refusal(&self, cause: Cause, message: &str) -> Refusal {
        Refusal { message: message.into(), hint: self.verdict.hint.clone(), cause }
    }
}

impl Waiting {
    /// The question's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// For the client, while it waits: what for, and who may answer.
    pub fn told(&self) -> Refusal {
        self.hold.told(&self.id)
    }

    /// Waits for the answer, as long as the question stands and the policy still holds it: where it allows it meanwhile,
    /// it goes on, and nobody need answer any more. Nothing is lost by
    /// dropping the future.
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

    /// Withdraws the question because the client cancelled what it asked for.
    pub fn cancel(mut self) {
        self.withdraw("cancelled");
    }

    /// Goes away and leaves the question standing: whoever asks for the same again takes it up, and an answer that came
    /// meanwhile counts.
    pub fn leave(mut self) {
        self.inquiry = None;
    }

    /// Whether the policy now in force lets it run without anybody's yes; the refusal if it denies it.
    fn is_allowed_now(&self) -> Result<bool, Refusal> {
        let verdict = self.hold.gate.verdict_now(&self.hold.shape);
        match verdict.effect {
            Effect::Deny => Err(denied(&verdict)),
            Effect::Hold => Ok(false),
            Effect::Allow => Ok(true),
        }
    }

    fn approved(&self, yes: bool) -> Approved {
        Approved { hold: self.hold.clone(), items: self.items, id: self.id.clone(), yes }
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

impl Approved {
    /// The permit, if what was asked is still what it was and the policy in force asks for no other yes. `shape` is
    /// the action as it is understood now.
    pub fn permit(self, shape: &Arc<Shape>) -> Result<Permit, Refusal> {
        let Self { hold, items: asked, id, yes } = self;
        let verdict = hold.gate.verdict_now(shape);
        let met = |held: &Held| hold.verdict.holds.contains(held);
        let changed = match verdict.effect {
            Effect::Deny => return Err(denied(&verdict)),
            Effect::Hold if !yes || !verdict.holds.iter().all(met) => Some("the policy"),
            _ if items(shape) != asked => Some("what it does"),
            _ if !same(&hold.gate.principal(), &hold.principal) => Some("who asks"),
            _ => None,
        };
        if let Some(what) = changed {
            let message = format!("approval {id}: {what} changed while it waited; ask again");
            return Err(hold.refusal(Cause::Policy, &message));
        }
        let held = verdict.effect == Effect::Hold;
        let permit = Permit::new(hold.gate.clone(), hold.id, verdict, shape.clone());
        Ok(if held { permit.by_yes_to(vec![id]) } else { permit })
    }
}

/// Bytes as a text that leaves nothing of them out: in hexadecimal where they are none.
fn readable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\\x{}", hex::encode(value)),
    }
}

/// Whether issuers say the same of both: a renewed token is the same person's.
fn same(one: &Principal, other: &Principal) -> bool {
    let one = one.identities.iter().map(|identity| (&identity.issuer, &identity.subject));
    one.eq(other.identities.iter().map(|identity| (&identity.issuer, &identity.subject)))
}

fn denied(verdict: &Verdict) -> Refusal {
    Refusal { message: verdict.message.clone(), hint: verdict.hint.clone(), cause: Cause::Policy }
}

/// Each part after its length, so that no two lists of parts are the same bytes.
fn add(context: &mut digest::Context, part: &[u8]) {
    context.update(&(part.len() as u64).to_le_bytes());
    context.update(part);
}

fn finish(context: digest::Context) -> [u8; 32] {
    let digest = context.finish();
    let mut bytes = [0; 32];
    // SHA-256 has 32 bytes.
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// What the rules see of an action, in short.
fn items(shape: &Shape) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for item in &shape.items {
        add(&mut context, b"item");
        add(&mut context, item.must_name.unwrap_or_default().as_bytes());
        for (field, value) in &item.fields {
            add(&mut context, field.as_bytes());
            match value {
                Value::Word(word) => add(&mut context, word.as_bytes()),
                Value::Text(text) => add(&mut context, text.as_bytes()),
                Value::Named(values) => {
                    values
                        .iter()
                        .flat_map(|(name, value)| [name, value])
                        .for_each(|part| add(&mut context, part.as_bytes()));
                }
                Value::Set(parts) => parts.iter().for_each(|part| add(&mut context, part.as_bytes())),
                Value::Flag(flag) => add(&mut context, &[u8::from(*flag)]),
                Value::Number(number) => add(&mut context, &number.to_le_bytes()),
                Value::Unknown => add(&mut context, b"unknown"),
            }
        }
    }
    finish(context)
}

/// A duration in its largest whole unit.
fn span(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

impl fmt::Debug for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matter").finish_non_exhaustive()
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("id", &self.id).finish_non_exhaustive()
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
