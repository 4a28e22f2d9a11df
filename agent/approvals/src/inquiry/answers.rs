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
    /// Somebody says yes.
    pub(crate) fn approve(
        &mut self,
        person: &Person,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let who = self.answerer(person, reason, now)?;
        if let Some(same) = self.agreed.iter().find(|other| other.may_be(&who)) {
            return Err(same_as(same, &who, Refused::Twice));
        }
        self.agreed.push(who);
        let by = person.to_string();
        if self.terms.iter().all(|term| self.agreed_to(term) >= term.held.approval.approvers) {
            self.settle(State::Approved, now, "approved", Some(&by), reason);
        } else {
            self.happened(now, "agreed", Some(&by), reason);
        }
        Ok(())
    }

    /// Somebody says no.
    pub(crate) fn deny(
        &mut self,
        person: &Person,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.answerer(person, reason, now)?;
        self.settle(State::Denied, now, "denied", Some(&person.to_string()), reason);
        Ok(())
    }

    /// Somebody who may acts at once; a review is owed.
    pub(crate) fn break_glass(
        &mut self,
        person: &Person,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.open(now)?;
        let may = |term: &Term| {
            let people = term.held.approval.break_glass.as_ref();
            people.is_some_and(|people| person.is_one_of(people, &self.host))
        };
        if !self.terms.iter().all(may) {
            let named: Vec<String> = self.glass().map(ToString::to_string).collect();
            let named = if named.is_empty() { String::new() } else { format!(" but {}", named.join(", ")) };
            return Err(Refused::NoGlass(named));
        }
        check_reason(reason, true)?;
        self.review_owed = true;
        self.agreed.push(person.who());
        self.settle(State::Approved, now, "break-glass", Some(&person.to_string()), reason);
        Ok(())
    }

    /// Somebody who may have answered looks at what was done at once. Not who did it.
    pub(crate) fn review(
        &mut self,
        person: &Person,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if !self.review_owed {
            return Err(Refused::NothingOwed(self.id.clone()));
        }
        let who = person.who();
        let asker = self.asker();
        if let Some(same) = self.agreed.iter().chain([&asker]).find(|other| other.may_be(&who)) {
            return Err(same_as(same, &who, Refused::OwnQuestion(self.asked_people())));
        }
        if !self.may_answer(person) {
            return Err(Refused::NotAsked(self.asked_people()));
        }
        check_reason(reason, true)?;
        self.review_owed = false;
        self.happened(now, "reviewed", Some(&person.to_string()), reason);
        Ok(())
    }

    /// Takes the yes back: from now on it counts for nothing. Those who may answer, who asked, and root may.
    pub(crate) fn revoke(
        &mut self,
        person: &Person,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        check_reason(reason, false)?;
        self.expire(now);
        let may = self.may_answer(person)
            || person.is_root(&self.host)
            || self.asker().is(&person.who())
            || self.agreed.iter().any(|other| other.is(&person.who()));
        if !may {
            return Err(Refused::NotAsked(self.asked_people()));
        }
        if !matches!(self.state, State::Waiting | State::Approved) {
            return Err(self.settled());
        }
        self.settle(State::Revoked, now, "revoked", Some(&person.to_string()), reason);
        Ok(())
    }

    /// What somebody could say to it now.
    pub fn choices(&self, person: &Person, now: Timestamp) -> Vec<Say> {
        let may = |say: &Say| self.clone().take(person, *say, Some("because"), now).is_ok();
        Say::ALL.into_iter().filter(may).collect()
    }

    /// Takes what somebody says.
    pub(crate) fn take(
        &mut self,
        person: &Person,
        say: Say,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        match say {
            Say::Approve => self.approve(person, reason, now),
            Say::Deny => self.deny(person, reason, now),
            Say::BreakGlass => self.break_glass(person, reason, now),
            Say::Review => self.review(person, reason, now),
            Say::Revoke => self.revoke(person, reason, now),
        }
    }

    /// Whom every rule lets act at once.
    fn glass(&self) -> impl Iterator<Item = &People> {
        self.terms.iter().filter_map(|term| term.held.approval.break_glass.as_ref())
    }

    /// That somebody may answer now.
    fn answerer(&mut self, person: &Person, reason: Option<&str>, now: Timestamp) -> Result<Who, Refused> {
        self.open(now)?;
        let mut who = person.who();
        let asker = self.asker();
        if asker.may_be(&who) {
            return Err(same_as(&asker, &who, Refused::OwnQuestion(self.asked_people())));
        }
        if !self.may_answer(person) {
            return Err(Refused::NotAsked(self.asked_people()));
        }
        check_reason(reason, self.needs_reason())?;
        who.may_answer = self
            .terms
            .iter()
            .filter(|term| person.is_one_of(&term.held.approval.by, &self.host))
            .map(|term| term.key.clone())
            .collect();
        Ok(who)
    }

    /// How many have said yes to a term, as far as they are known to be different people.
    fn agreed_to(&self, term: &Term) -> u32 {
        let agreed = self.agreed.iter().filter(|who| who.may_answer.contains(&term.key));
        u32::try_from(told_apart(agreed)).unwrap_or(u32::MAX)
    }

    fn open(&mut self, now: Timestamp) -> Result<(), Refused> {
        self.expire(now);
        if self.state == State::Waiting { Ok(()) } else { Err(self.settled()) }
    }

    fn settled(&self) -> Refused {
        let by = self.trail.iter().rev().find_map(|event| event.by.clone());
        let by = by.filter(|_| matches!(self.state, State::Approved | State::Denied | State::Revoked));
        Refused::Settled { id: self.id.clone(), state: self.state, by }
    }
}

/// Why one who may be another may not answer: `known` if that is known, else that it could not be told.
fn same_as(one: &Who, other: &Who, known: Refused) -> Refused {
    match one.untold_between(other) {
        Some(uid) if !one.is_by_what_is_told(other) => Refused::MayBeTheirs(uid),
        _ => known,
    }
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
