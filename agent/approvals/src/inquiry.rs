//! One question and what may happen to it.

mod answers;
mod brief;
mod facts;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_gate::{
    Question,
    policy::{Approval, Held, Principal, Sessions},
};

pub use facts::Fact;

use crate::{
    key,
    person::{Person, Who},
};

/// One question, everything that happened to it, and for how long its answer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    /// For people to name it by.
    pub id: Arc<str>,
    /// Counts up with every change; kept beside it, not in it.
    #[serde(skip)]
    pub version: i64,
    /// The host that asks.
    pub host: Arc<str>,
    /// When it was asked.
    pub asked: Timestamp,
    /// Until when it can be answered.
    pub expires: Timestamp,
    /// What became of it.
    pub state: State,
    /// The session that asks.
    pub session: Arc<str>,
    /// The action's number within the session.
    pub action: u64,
    /// What it is, in the protocol's words.
    pub name: Arc<str>,
    /// What would run, masked.
    pub text: String,
    /// What it runs with and in, masked.
    pub particulars: Vec<(String, String)>,
    /// Digest of the very bytes that would run, and all that they run with and in. Empty where people see the question:
    /// it would tell a masked value to whoever tries them all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) exact: String,
    /// Who asks.
    pub principal: Principal,
    /// On which resource.
    pub resource: Arc<str>,
    /// In which protocol.
    pub protocol: Arc<str>,
    /// Digest of the bundle that held it.
    pub policy: Arc<str>,
    /// Every rule that holds it.
    pub terms: Vec<Term>,
    /// Who said yes.
    pub agreed: Vec<Who>,
    /// When it was decided.
    pub decided: Option<Timestamp>,
    /// The session that the yes went to.
    pub claimed: Option<Arc<str>>,
    /// Somebody acted at once, and nobody has reviewed it yet.
    pub review_owed: bool,
    /// Everything that happened, in order.
    pub trail: Vec<Event>,
}

/// One rule that holds an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The rule and its terms.
    #[serde(flatten)]
    pub held: Held,
    /// What a yes counts for. Empty where people see the question, as `exact` is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It can be answered.
    Waiting,
    /// Enough people said yes.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// Who asked is gone.
    Withdrawn,
    /// Who asked cancelled it.
    Cancelled,
    /// The yes was taken back.
    Revoked,
}

/// Something that happened to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `asked`, `asked-again`, `seen`, `agreed`, `approved`, `break-glass`, `denied`, `expired`, `withdrawn`,
    /// `cancelled`, `revoked`, `reviewed`.
    pub step: String,
    /// Who, if anybody did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
    /// Why, as they say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Of a look: what was seen, by its [seal](Inquiry::seal). Nobody is shown it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) seal: Option<String>,
}

/// How a yes covers somebody who asks the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cover {
    /// Not at all.
    No,
    /// As it stands.
    Yes,
    /// If it is claimed for their session first.
    OnceClaimed,
}

impl Inquiry {
    /// A new question.
    pub(crate) fn new(id: Arc<str>, host: Arc<str>, question: Question, now: Timestamp) -> Self {
        let who = key::principal(&host, &question.principal);
        let terms = question
            .holds
            .iter()
            .map(|held| Term { held: held.clone(), key: key::term(&who, &question, held) });
        let terms: Vec<Term> = terms.collect();
        let wait = terms.iter().map(|term| term.held.approval.wait).min().unwrap_or_default();
        let exact = key::matter(&question);
        let mut inquiry = Self {
            id,
            version: 0,
            host,
            asked: now,
            expires: after(now, wait),
            state: State::Waiting,
            session: question.session,
            action: question.action,
            name: question.name,
            text: question.text,
            particulars: question.particulars,
            exact,
            principal: question.principal,
            resource: question.resource,
            protocol: question.protocol,
            policy: question.policy,
            terms,
            agreed: Vec::new(),
            decided: None,
            claimed: None,
            review_owed: false,
            trail: Vec::new(),
        };
        inquiry.happened(now, "asked", Some(&inquiry.asker().name), None);
        inquiry
    }

    /// The account that asks, as a key.
    pub(crate) fn account_key(&self) -> String {
        key::account(&self.host, self.principal.process.account())
    }

    /// As whom it counts where each has a share, as a key: whoever has several identities or none has one.
    pub(crate) fn share_key(&self) -> String {
        key::share(&self.host, &self.principal.process.sharer())
    }

    /// What the very same question has, and no other, as [`is_same`](Self::is_same) tells.
    pub(crate) fn same_key(&self) -> String {
        key::same(self)
    }

    /// Whether people have answered it, or acted on it at once. Who asks can't bring that about unless a rule lets them act.
    pub(crate) fn is_answered(&self) -> bool {
        let answers = ["agreed", "approved", "denied", "break-glass"];
        self.trail.iter().any(|event| answers.contains(&&*event.step))
    }

    /// Whether it was approved, and for one rule at least longer ago than that yes lasts.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        let is_over = |decided| {
            let ends = |term: &Term| after(decided, lasts(&term.held.approval));
            self.terms.iter().any(|term| now >= ends(term))
        };
        self.state == State::Approved && self.decided.is_some_and(is_over)
    }

    /// Until when anything can still come of it.
    pub(crate) fn alive_until(&self) -> Timestamp {
        let decided = match (self.state, self.decided) {
            (State::Approved, Some(decided)) => decided,
            (State::Waiting, _) | (_, None) => return self.expires,
            (_, Some(decided)) => return decided,
        };
        let spans = self.terms.iter().map(|term| lasts(&term.held.approval));
        after(decided, spans.max().unwrap_or_default())
    }

    /// A question that nobody answered in time has expired, whether or not anybody noticed. True if it has just now.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        let due = self.state != self.state_at(now);
        if due {
            self.settle(State::Expired, self.expires, "expired", None, None);
        }
        due
    }

    /// What has become of it by now.
    fn state_at(&self, now: Timestamp) -> State {
        if self.state == State::Waiting && now >= self.expires { State::Expired } else { self.state }
    }

    /// Whether somebody may know of it: who asks, who may answer or act at once, and root of the host.
    pub fn is_visible_to(&self, person: &Person) -> bool {
        let concerned = |term: &Term| {
            let approval = &term.held.approval;
            let glass = approval.break_glass.as_ref();
            person.is_one_of(&approval.by, &self.host)
                || glass.is_some_and(|people| person.is_one_of(people, &self.host))
        };
        person.is_root(&self.host) || self.asker().is(&person.who()) || self.terms.iter().any(concerned)
    }

    /// Somebody looked at it as it is. False if that is known, or nothing to those who wait.
    pub(crate) fn seen(&mut self, person: &Person, now: Timestamp) -> bool {
        let seal = self.seal();
        if self.state != State::Waiting || self.seen_by(person) == Some(&seal) || !self.may_answer(person) {
            return false;
        }
        self.happened(now, "seen", Some(&person.to_string()), None);
        if let Some(look) = self.trail.last_mut() {
            look.seal = Some(seal);
        }
        true
    }

    /// Whether this is another question than somebody looked at last: it was asked again, by another program or account.
    pub(crate) fn is_another_to(&self, person: &Person) -> bool {
        self.seen_by(person).is_some_and(|seal| *seal != self.seal())
    }

    /// The seal of what they looked at last.
    fn seen_by(&self, person: &Person) -> Option<&String> {
        let by = person.to_string();
        let looks = self.trail.iter().rev().filter(|event| event.step == "seen");
        looks.filter(|look| look.by.as_ref() == Some(&by)).find_map(|look| look.seal.as_ref())
    }

    /// Who asked is gone, or wants it no more. A yes that nobody has claimed goes with it. False if it is too late.
    pub(crate) fn withdraw(&mut self, word: &str, now: Timestamp) -> bool {
        self.expire(now);
        let unclaimed = self.state == State::Approved && self.claimed.is_none();
        if self.state != State::Waiting && !unclaimed {
            return false;
        }
        let state = if word == "cancelled" { State::Cancelled } else { State::Withdrawn };
        self.settle(state, now, word, None, None);
        true
    }

    /// Whether a yes of this question covers one who asks something with this key. `attended`: whoever asked first still
    /// waits for it. As long as nobody has it, it goes to those first, or to whoever comes with the very same.
    pub(crate) fn covers(&self, asked: &Self, key: &str, attended: bool, now: Timestamp) -> Cover {
        let Some(decided) = self.decided.filter(|_| self.state == State::Approved) else { return Cover::No };
        let alive = |term: &&Term| term.key == key && now < after(decided, lasts(&term.held.approval));
        let Some(term) = self.terms.iter().find(alive) else { return Cover::No };
        let approval = &term.held.approval;
        let same = !self.exact.is_empty() && self.exact == asked.exact;
        match (&self.claimed, approval.grant, approval.sessions) {
            (None, Some(_), Sessions::Any) if attended => Cover::Yes,
            (None, _, _) if attended || !same => Cover::No,
            (None, _, _) => Cover::OnceClaimed,
            (Some(holder), Some(_), Sessions::One) if *holder == asked.session => Cover::Yes,
            (Some(_), Some(_), Sessions::Any) => Cover::Yes,
            (Some(_), _, _) => Cover::No,
        }
    }

    /// The yes goes to this session. False if there is none, or it went to another.
    pub(crate) fn claim(&mut self, session: &Arc<str>) -> bool {
        let free = self.state == State::Approved && self.claimed.is_none();
        if free {
            self.claimed = Some(session.clone());
        }
        free
    }

    /// Whether another question is the very same: of the same principal and rules, with the same bytes, and shown alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same_matter = !self.exact.is_empty() && self.exact == other.exact;
        let shown_alike =
            self.name == other.name && self.text == other.text && self.particulars == other.particulars;
        same_matter && shown_alike && self.terms == other.terms && self.host == other.host
    }

    /// Who asked is back with the very same, maybe in another process: it is shown as that asks it. Who agreed to what was shown
    /// otherwise has agreed to nothing.
    pub(crate) fn asked_again(&mut self, again: &Self, now: Timestamp) {
        let shown = self.seal();
        self.session = again.session.clone();
        self.action = again.action;
        self.principal = again.principal.clone();
        // However often.
        let last = self.trail.len().saturating_sub(1);
        if self.trail.last().is_some_and(|event| event.step == "asked-again") {
            self.trail.truncate(last);
        }
        let anew = !self.agreed.is_empty() && self.seal() != shown;
        let reason =
            anew.then_some("by another program or account: who agreed before must look and agree anew");
        self.happened(now, "asked-again", Some(&self.asker().name), reason);
        if anew {
            self.agreed.clear();
        }
    }

    /// As people may see it, whom masks hide values from: without the digests that such values went into.
    pub(crate) fn shown(mut self) -> Self {
        self.exact.clear();
        self.terms.iter_mut().for_each(|term| term.key.clear());
        self.agreed.iter_mut().for_each(|who| who.may_answer.clear());
        self.trail.iter_mut().for_each(|event| event.seal = None);
        self
    }

    /// Whether an answer needs a reason.
    pub fn needs_reason(&self) -> bool {
        self.terms.iter().any(|term| term.held.approval.reason)
    }

    /// A digest of what is asked, as it is shown: what would run, for whom, where, and by which rules.
    pub fn seal(&self) -> String {
        key::seal(self)
    }

    /// Who may answer, in words.
    pub fn asked_people(&self) -> String {
        let people: Vec<String> = self.terms.iter().map(|term| term.held.approval.to_string()).collect();
        people.join("; and ")
    }

    /// Who asked.
    pub fn asker(&self) -> Who {
        Who::of(&self.host, &self.principal)
    }

    /// The last thing that happened.
    pub fn last(&self) -> Option<&Event> {
        self.trail.last()
    }

    fn may_answer(&self, person: &Person) -> bool {
        self.terms.iter().any(|term| person.is_one_of(&term.held.approval.by, &self.host))
    }

    fn settle(&mut self, state: State, now: Timestamp, step: &str, by: Option<&str>, reason: Option<&str>) {
        self.state = state;
        self.decided = self.decided.or(Some(now));
        self.happened(now, step, by, reason);
    }

    fn happened(&mut self, time: Timestamp, step: &str, by: Option<&str>, reason: Option<&str>) {
        self.trail.push(Event {
            time,
            step: step.into(),
            by: by.map(Into::into),
            reason: reason.map(Into::into),
            seal: None,
        });
    }
}

/// How long a yes on these terms lasts. One that counts once waits for whoever asked as long as the question would.
fn lasts(approval: &Approval) -> Duration {
    approval.grant.unwrap_or(approval.wait)
}

fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Cancelled => "cancelled",
            Self::Revoked => "revoked",
        })
    }
}
