//! An action that waits for a person.

use std::{fmt, sync::Arc, time::Instant};

use tidegate_policy::{Effect, Held, Item, Principal, Shape, Value, Verdict};

use crate::{
    Action, Cause, Entry, Parts, Permit, Question, Refusal,
    approvals::{Answer, Inquiry, Step},
    inner::{Inner, refused},
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
    /// How many things it does.
    count: u32,
}

/// What exactly would run, byte for byte, and what approvers see of it beside the recorded text.
#[derive(Clone)]
pub struct Matter {
    exact: Parts,
    particulars: Vec<(String, Vec<u8>)>,
    server: Option<String>,
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
    /// The questions that it was said to. Never empty.
    ids: Vec<Arc<str>>,
    /// Somebody said it; else the policy came to allow it.
    yes: bool,
}

impl Matter {
    /// Of these very bytes.
    pub fn new(text: &[u8]) -> Self {
        let mut exact = Parts::new("matter");
        exact.add(text);
        Self { exact, particulars: Vec::new(), server: None }
    }

    /// For the server of this name, where the client names it and it is known to be one of its destination's: else it is known by
    /// the name that the session has for it.
    pub fn at(self, server: Option<String>) -> Self {
        Self { server, ..self }
    }

    /// What it runs with or in: bound to the answer, and shown through the resource's content masks, whomever they are for.
    pub fn with(self, name: impl Into<String>, value: &[u8]) -> Self {
        self.shown_as(name, value, value)
    }

    /// The same, where approvers read it better in another form.
    pub fn shown_as(mut self, name: impl Into<String>, exact: &[u8], shown: &[u8]) -> Self {
        let name = name.into();
        self.exact.add(&name).add(exact);
        self.particulars.push((name, shown.to_vec()));
        self
    }
}

impl Hold {
    pub(crate) fn new(gate: Arc<Inner>, id: u64, verdict: Arc<Verdict>, action: &Action<'_>) -> Self {
        let (principal, shape) = (gate.principal(), action.shape.clone());
        let text = gate.as_recorded(action.text, &verdict).into_owned();
        Self { gate, id, principal, verdict, shape, name: action.name, text, count: action.count }
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
                let ids = yeses.into_iter().map(|yes| yes.id).collect();
                let shape = self.shape.clone();
                let known = Approved { hold: Arc::new(self), items, ids, yes: true };
                Ok(Put::Permit(known.permit_of(&shape)?))
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
        let server = matter.server.as_deref().unwrap_or(&self.gate.server);
        let mut shape = Parts::new("shape");
        shape.add(server).add(items);
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
            text: shown(self.text.as_bytes()),
            particulars: std::iter::once(at).chain(particulars).collect(),
            holds: self.verdict.holds.clone(),
            exact: matter.exact.finish(),
            shape,
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

    /// Counts it where rules say how often: it is let through. A refusal is in the record.
    fn count(&self, verdict: &Verdict) -> Result<(), Refusal> {
        let taken = self.gate.rates.take(self.count, &verdict.limits, &self.gate.principal(), Instant::now());
        taken.map_err(|over| {
            let refusal = Refusal { cause: over.cause(), ..refused(&over.refused(verdict)) };
            self.gate.note(&Entry::Event { event: "over-rate".into(), detail: (&*refusal.message).into() });
            refusal
        })
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
            Effect::Deny => Err(refused(&verdict)),
            Effect::Hold => Ok(false),
            Effect::Allow => Ok(true),
        }
    }

    fn approved(&self, yes: bool) -> Approved {
        Approved { hold: self.hold.clone(), items: self.items, ids: vec![self.id.clone()], yes }
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
    /// The permit, if the yes still counts, what was asked is still what it was, and the policy in force asks for no other
    /// yes. `shape` is the action as it is understood now: it may have waited for something else since the yes.
    pub async fn permit(self, shape: &Arc<Shape>) -> Result<Permit, Refusal> {
        if self.yes {
            self.still_counts().await?;
        }
        self.permit_of(shape)
    }

    /// Refuses what was taken back, or is over, since it was said.
    async fn still_counts(&self) -> Result<(), Refusal> {
        let (gate, hold) = (&self.hold.gate, &self.hold);
        match gate.approvals().ended(&self.ids).await {
            Ok(None) => Ok(()),
            Ok(Some(revocation)) => {
                gate.note(&revocation.entry(hold.id));
                Err(hold.refusal(Cause::Policy, &revocation.to_string()))
            }
            Err(error) => {
                let message = format!("whether the yes to it still counts can't be known: {error}");
                Err(hold.refusal(Cause::Approvals, &message))
            }
        }
    }

    fn permit_of(self, shape: &Arc<Shape>) -> Result<Permit, Refusal> {
        let Self { hold, items: asked, ids, yes } = self;
        let verdict = hold.gate.verdict_now(shape);
        let met = |held: &Held| hold.verdict.holds.contains(held);
        let changed = match verdict.effect {
            Effect::Deny => return Err(refused(&verdict)),
            Effect::Hold if !yes || !verdict.holds.iter().all(met) => Some("the policy"),
            _ if items(shape) != asked => Some("what it does"),
            _ if !same(&hold.gate.principal(), &hold.principal) => Some("who asks"),
            _ => None,
        };
        if let Some(what) = changed {
            let message = format!("approval {}: {what} changed while it waited; ask again", ids.join(", "));
            return Err(hold.refusal(Cause::Policy, &message));
        }
        hold.count(&verdict)?;
        let held = verdict.effect == Effect::Hold;
        let permit = Permit::new(hold.gate.clone(), hold.id, verdict, shape.clone());
        Ok(if held { permit.by_yes_to(ids) } else { permit })
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

/// What the rules see of an action, in short.
fn items(shape: &Shape) -> [u8; 32] {
    let mut parts = Parts::new("items");
    parts.count(shape.items.len());
    for Item { fields, must_name, .. } in &shape.items {
        parts.maybe(*must_name).count(fields.len());
        for (field, value) in fields {
            parts.add(field);
            add(&mut parts, value);
        }
    }
    parts.finish()
}

/// A value after its kind.
fn add(parts: &mut Parts, value: &Value) {
    match value {
        Value::Word(word) => parts.add("word").add(word),
        Value::Text(text) => parts.add("text").add(&**text),
        Value::Set(values) => parts.add("set").list(values.iter().map(|value| &**value)),
        Value::Named(values) => {
            parts.add("named").count(values.len());
            values.iter().fold(parts, |parts, (name, value)| parts.add(&**name).add(&**value))
        }
        Value::Flag(flag) => parts.add("flag").add([u8::from(*flag)]),
        Value::Number(number) => parts.add("number").add(number.to_le_bytes()),
        Value::Unknown => parts.add("unknown"),
    };
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

    fn shape_of(values: &[(&'static str, Value)]) -> [u8; 32] {
        let fields = values.to_vec();
        items(&Shape { items: vec![Item { fields, ..Item::default() }], ..Shape::default() })
    }

    #[test]
    fn actions_that_rules_tell_apart_have_other_digests() {
        let text = |text: &str| Value::Text(text.into());
        let set = |parts: &[&str]| Value::Set(parts.iter().map(|part| (*part).into()).collect());
        let shapes = [
            shape_of(&[("table", text("a")), ("function", text("b"))]),
            shape_of(&[("table", set(&["a", "function", "b"]))]),
            shape_of(&[("table", set(&["a"])), ("function", text("b"))]),
            shape_of(&[("table", Value::Word("a")), ("function", text("b"))]),
            shape_of(&[("table", Value::Named(vec![("a".into(), "b".into())]))]),
            shape_of(&[("table", set(&["a", "b"]))]),
            shape_of(&[("table", Value::Unknown)]),
            shape_of(&[("table", text("unknown"))]),
            shape_of(&[("table", Value::Flag(true))]),
            shape_of(&[("table", Value::Number(1))]),
        ];
        for (number, one) in shapes.iter().enumerate() {
            assert!(shapes.iter().skip(number + 1).all(|other| other != one), "{number}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_whole() {
        assert_eq!(readable("é\n".as_bytes()), "é\n");
        assert_eq!(readable(&[0x1f, 0x8b, b'a']), "\\x1f8b61");
    }
}
