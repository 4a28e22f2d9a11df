//! What people say to a question, and what that does.

use jiff::Timestamp;
use tidegate_gate::policy::People;

use super::{Inquiry, State, Term};
use crate::{
    Refused, Say,
    person::{Person, Who, told_apart},
};

/// Longest reason, in characters.
const LONGEST_REASON: usize = 500;

impl Inquiry {
    /// What somebody could say to it now.
    pub fn choices(&self, person: &Person, now: Timestamp) -> Vec<Say> {
        Say::ALL.into_iter().filter(|say| self.may(person, *say, now).is_ok()).collect()
    }

    /// Takes what somebody says, if they may.
    pub(crate) fn take(
        &mut self,
        person: &Person,
        say: Say,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.expire(now);
        self.may(person, say, now)?;
        let needed = match say {
            Say::Approve | Say::Deny => self.needs_reason(),
            Say::BreakGlass | Say::Review => true,
            Say::Revoke => false,
        };
        check_reason(reason, needed)?;
        let by = Some(person.to_string());
        match say {
            Say::Approve => self.approve(person, by.as_deref(), reason, now),
            Say::Deny => self.settle(State::Denied, now, "denied", by.as_deref(), reason),
            Say::BreakGlass => {
                self.review_owed = true;
                self.agreed.push(person.who());
                self.settle(State::Approved, now, "break-glass", by.as_deref(), reason);
            }
            Say::Review => {
                self.review_owed = false;
                self.happened(now, "reviewed", by.as_deref(), reason);
            }
            Say::Revoke => self.settle(State::Revoked, now, "revoked", by.as_deref(), reason),
        }
        Ok(())
    }

    /// That somebody may say this now, whatever their reason.
    fn may(&self, person: &Person, say: Say, now: Timestamp) -> Result<(), Refused> {
        match say {
            Say::Approve => {
                self.may_be_answered_by(person, now)?;
                is_none_of(&self.agreed, &person.who(), || Refused::Twice)
            }
            Say::Deny => self.may_be_answered_by(person, now),
            Say::BreakGlass => self.may_be_acted_on_by(person, now),
            Say::Review => self.may_be_reviewed_by(person),
            Say::Revoke => self.may_be_revoked_by(person, now),
        }
    }

    /// Not by who asks.
    fn may_be_answered_by(&self, person: &Person, now: Timestamp) -> Result<(), Refused> {
        self.open(now)?;
        let own = || Refused::OwnQuestion(self.asked_people());
        is_none_of([&self.asker()], &person.who(), own)?;
        if self.may_answer(person) { Ok(()) } else { Err(Refused::NotAsked(self.asked_people())) }
    }

    /// At once: who asks may, where every rule says so.
    fn may_be_acted_on_by(&self, person: &Person, now: Timestamp) -> Result<(), Refused> {
        self.open(now)?;
        let may = |term: &Term| {
            let people = term.held.approval.break_glass.as_ref();
            people.is_some_and(|people| person.is_one_of(people, &self.host))
        };
        if self.terms.iter().all(may) {
            return Ok(());
        }
        let named: Vec<String> = self.glass().map(ToString::to_string).collect();
        let named = if named.is_empty() { String::new() } else { format!(" but {}", named.join(", ")) };
        Err(Refused::NoGlass(named))
    }

    /// By somebody who may have answered; not by who did it.
    fn may_be_reviewed_by(&self, person: &Person) -> Result<(), Refused> {
        if !self.review_owed {
            return Err(Refused::NothingOwed(self.id.clone()));
        }
        let own = || Refused::OwnQuestion(self.asked_people());
        is_none_of(self.agreed.iter().chain([&self.asker()]), &person.who(), own)?;
        if self.may_answer(person) { Ok(()) } else { Err(Refused::NotAsked(self.asked_people())) }
    }

    /// From then on it counts for nothing. Those who may answer, who asked, and root may.
    fn may_be_revoked_by(&self, person: &Person, now: Timestamp) -> Result<(), Refused> {
        let who = person.who();
        let may = self.may_answer(person)
            || person.is_root(&self.host)
            || self.asker().is(&who)
            || self.agreed.iter().any(|other| other.is(&who));
        match self.state_at(now) {
            _ if !may => Err(Refused::NotAsked(self.asked_people())),
            State::Waiting | State::Approved => Ok(()),
            state => Err(self.settled(state)),
        }
    }

    /// One more yes; it is approved once every term has as many as it asks for.
    fn approve(&mut self, person: &Person, by: Option<&str>, reason: Option<&str>, now: Timestamp) {
        let theirs = self.terms.iter().filter(|term| person.is_one_of(&term.held.approval.by, &self.host));
        let may_answer = theirs.map(|term| term.key.clone()).collect();
        self.agreed.push(Who { may_answer, ..person.who() });
        if self.terms.iter().all(|term| self.agreed_to(term) >= term.held.approval.approvers) {
            self.settle(State::Approved, now, "approved", by, reason);
        } else {
            self.happened(now, "agreed", by, reason);
        }
    }

    /// Whom every rule lets act at once.
    fn glass(&self) -> impl Iterator<Item = &People> {
        self.terms.iter().filter_map(|term| term.held.approval.break_glass.as_ref())
    }

    /// How many have said yes to a term, as far as they are known to be different people.
    fn agreed_to(&self, term: &Term) -> u32 {
        let agreed = self.agreed.iter().filter(|who| who.may_answer.contains(&term.key));
        u32::try_from(told_apart(agreed)).unwrap_or(u32::MAX)
    }

    fn open(&self, now: Timestamp) -> Result<(), Refused> {
        match self.state_at(now) {
            State::Waiting => Ok(()),
            state => Err(self.settled(state)),
        }
    }

    fn settled(&self, state: State) -> Refused {
        let by = self.trail.iter().rev().find_map(|event| event.by.clone());
        let by = by.filter(|_| matches!(state, State::Approved | State::Denied | State::Revoked));
        Refused::Settled { id: self.id.clone(), state, by }
    }
}

/// That somebody is none of those who did something already. If they may be one: `known` if that is known, else that it could not
/// be told.
fn is_none_of<'a>(
    those: impl IntoIterator<Item = &'a Who>,
    who: &Who,
    known: impl FnOnce() -> Refused,
) -> Result<(), Refused> {
    let Some(same) = those.into_iter().find(|other| other.may_be(who)) else { return Ok(()) };
    Err(match same.untold_between(who) {
        Some(uid) if !same.is_by_what_is_told(who) => Refused::MayBeTheirs(uid),
        _ => known(),
    })
}

fn check_reason(reason: Option<&str>, needed: bool) -> Result<(), Refused> {
    match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        None if needed => Err(Refused::NoReason),
        Some(reason) if reason.chars().count() > LONGEST_REASON || reason.contains(char::is_control) => {
            Err(Refused::BadReason)
        }
        _ => Ok(()),
    }
}
