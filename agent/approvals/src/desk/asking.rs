//! Questions that come in: covered by a yes of before, taken up where they were left, or new.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aws_lc_rs::rand;
use tidegate_gate::{Answer, ApprovalError, Approvals, BoxFuture, Question, Revocation, Yes};
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};

use super::{
    Desk, Limits,
    state::{ATTEMPTS, Relies},
    waiting::Waits,
};
use crate::{
    Inquiry, State,
    inquiry::Cover,
    store::{Inserted, Most, StoreError},
};

/// How soon a store is asked again that could not say whether a yes still stands.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// Longest question, in bytes: a body or parameters of 64 KiB in hexadecimal, and as much again.
const LONGEST: usize = 256 << 10;
/// How often as many as may be asked may be asked again: whoever is told to come back does.
const RETURNS: usize = 10;
/// Of what an id is made: nothing that looks like something else.
const LETTERS: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";

impl Approvals for Desk {
    fn put(&self, question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
        Box::pin(async move {
            check_length(&question)?;
            let account = question.principal.process.sharer();
            let asked = Inquiry::new("".into(), self.0.host.clone(), question, self.0.clock.now());
            let _turn = self.0.turns.of(account.clone()).await;
            if let Some(yeses) = self.known(&asked).await.map_err(failed)? {
                return Ok(Answer::Known(yeses));
            }
            let most = self.0.limits.a_minute;
            if !self.0.returns.take(account, most.saturating_mul(RETURNS), asked.asked) {
                return Err(too_often(most));
            }
            let waits = match self.take_up(&asked).await.map_err(failed)? {
                Some(waits) => waits,
                None => self.ask(asked).await?,
            };
            Ok(Answer::Waits(Box::new(waits)))
        })
    }

    fn ended<'a>(
        &'a self,
        questions: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>> {
        Box::pin(async move { self.0.ended(questions).await.map_err(failed) })
    }

    fn revoked<'a>(&'a self, questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
        Box::pin(async move {
            // From before the first look, so that none is missed.
            let mut revoked = self.0.revoked.subscribe();
            let _relies = Relies::on(&self.0, questions);
            loop {
                match self.0.revocation(questions).await {
                    Ok(Some(revocation)) => return revocation,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(?questions, %error, "whether a yes still stands is not known");
                        sleep(LOOK_BACK).await;
                        continue;
                    }
                }
                if let Some(revocation) = hears_of(&mut revoked, questions).await {
                    return revocation;
                }
            }
        })
    }
}

impl Desk {
    /// Finds what covers all of a question, and claims it where it counts for one only. Who comes too late for a claim may be
    /// covered by what it was claimed for: a yes that lasts, for their own session.
    async fn known(&self, asked: &Inquiry) -> Result<Option<Vec<Yes>>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(covering) = self.covering(asked).await? else { return Ok(None) };
            if self.claim_each(&covering, &asked.session).await? {
                return Ok(yeses(covering));
            }
        }
        Ok(None)
    }

    /// What covers each term of a question, if all are.
    async fn covering(&self, asked: &Inquiry) -> Result<Option<Vec<(Inquiry, Cover)>>, StoreError> {
        let now = self.0.clock.now();
        let mut covering: Vec<(Inquiry, Cover)> = Vec::new();
        for term in &asked.terms {
            let mut found = None;
            for id in self.0.store.find(&term.key, false, now).await? {
                let Some(inquiry) = self.readable(&id).await? else { continue };
                let attended = self.0.is_waited_for(&id) || inquiry.host != asked.host;
                let cover = inquiry.covers(asked, &term.key, attended, now);
                if cover != Cover::No {
                    found = Some((inquiry, cover));
                    break;
                }
            }
            let Some(found) = found else { return Ok(None) };
            covering.push(found);
        }
        Ok(Some(covering))
    }

    /// Claims those that go to one only, each once. False if somebody else was faster: in the same session, too, where much is
    /// asked at once.
    async fn claim_each(
        &self,
        covering: &[(Inquiry, Cover)],
        session: &Arc<str>,
    ) -> Result<bool, StoreError> {
        let free = covering.iter().filter(|(_, cover)| *cover == Cover::OnceClaimed);
        let ids: BTreeSet<&Arc<str>> = free.map(|(inquiry, _)| &inquiry.id).collect();
        for id in ids {
            let claim = |inquiry: &mut Inquiry, _| inquiry.claim(session).then_some(()).ok_or(());
            if !matches!(self.0.change(id, claim).await?, Some(Ok(_))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A question; one that can't be read is as none.
    async fn readable(&self, id: &str) -> Result<Option<Inquiry>, StoreError> {
        match self.0.store.load(id).await {
            Err(error) if error.is_of_one() => Ok(None),
            loaded => loaded,
        }
    }

    /// The yes goes to the session that waits for it. True if it did, now or before: nobody else in it can have it meanwhile.
    pub(super) async fn claim(&self, id: &str, session: &Arc<str>) -> Result<bool, StoreError> {
        let claimed = self
            .0
            .change(id, |inquiry, _| {
                let ours = inquiry.claim(session) || inquiry.claimed.as_ref() == Some(session);
                if ours && inquiry.state == State::Approved { Ok(()) } else { Err(()) }
            })
            .await?;
        Ok(matches!(claimed, Some(Ok(_))))
    }

    /// A question that was left standing is taken up by whoever asks the very same.
    async fn take_up(&self, asked: &Inquiry) -> Result<Option<Waits>, StoreError> {
        let now = self.0.clock.now();
        for id in self.0.store.find(&asked.same_key(), true, now).await? {
            if self.0.is_waited_for(&id) {
                continue;
            }
            let Some(inquiry) = self.readable(&id).await? else { continue };
            if inquiry.state != State::Waiting || now >= inquiry.expires || !inquiry.is_same(asked) {
                continue;
            }
            let Some(waits) = self.wait_for(&inquiry, &asked.session) else { continue };
            // It may have been settled since it was found.
            let again = |inquiry: &mut Inquiry, now| {
                inquiry.expire(now);
                let waits = inquiry.state == State::Waiting;
                waits.then(|| inquiry.asked_again(asked, now)).ok_or(())
            };
            if matches!(self.0.change(&inquiry.id, again).await?, Some(Ok(_))) {
                return Ok(Some(waits));
            }
        }
        Ok(None)
    }

    async fn ask(&self, mut asked: Inquiry) -> Result<Waits, ApprovalError> {
        let Limits { all, of_account, a_minute } = self.0.limits;
        if !self.0.asks.take(asked.principal.process.sharer(), a_minute, asked.asked) {
            return Err(too_often(a_minute));
        }
        let most = Most { all, of_account, a_minute };
        for _ in 0..ATTEMPTS {
            asked.id = id()?;
            let letters = self.0.audience.letters(&self.0.host, &asked, &asked.trail).map_err(failed)?;
            let Some(waits) = self.wait_for(&asked, &asked.session) else { continue };
            match self.0.store.insert(&asked, most, &letters).await.map_err(failed)? {
                Inserted::Done => {
                    self.0.publish(&asked);
                    return Ok(waits);
                }
                Inserted::Taken => {}
                Inserted::Full => {
                    return Err(ApprovalError(format!("{all} questions wait already, as many as may")));
                }
                Inserted::AccountFull => {
                    let text = format!("{of_account} of your questions wait already, as many as may");
                    return Err(ApprovalError(text));
                }
                Inserted::TooMany => return Err(too_often(a_minute)),
            }
        }
        Err(ApprovalError("no id is free".into()))
    }

    /// None if somebody waits for it already.
    fn wait_for(&self, inquiry: &Inquiry, session: &Arc<str>) -> Option<Waits> {
        let mut waited = self.0.waited();
        if waited.contains_key(&inquiry.id) {
            return None;
        }
        let (sender, now) = watch::channel(Arc::new(inquiry.clone()));
        waited.insert(inquiry.id.clone(), sender);
        let told = inquiry.trail.len();
        Some(Waits { desk: self.clone(), id: inquiry.id.clone(), session: session.clone(), now, told })
    }
}

/// Each yes once; none if nothing is covered.
fn yeses(covering: Vec<(Inquiry, Cover)>) -> Option<Vec<Yes>> {
    let mut yeses: Vec<Yes> = Vec::new();
    for (inquiry, _) in covering {
        if yeses.iter().all(|yes| yes.id != inquiry.id) {
            let by: Vec<String> = inquiry.agreed.into_iter().map(|who| who.name).collect();
            yeses.push(Yes { id: inquiry.id, by: by.join(", ") });
        }
    }
    (!yeses.is_empty()).then_some(yeses)
}

/// Ready when one of these yeses was taken back; none if it may have been, among more than could be told.
async fn hears_of(
    revoked: &mut broadcast::Receiver<Arc<Revocation>>,
    questions: &[Arc<str>],
) -> Option<Revocation> {
    while let Ok(revocation) = revoked.recv().await {
        if questions.contains(&revocation.question) {
            return Some(Revocation::clone(&revocation));
        }
    }
    None
}

/// What nobody can read before they answer is not asked.
fn check_length(question: &Question) -> Result<(), ApprovalError> {
    let particulars = question.particulars.iter().map(|(name, value)| name.len() + value.len());
    if question.text.len() + particulars.sum::<usize>() > LONGEST {
        return Err(ApprovalError(format!(
            "it is longer than anybody can be shown ({} KiB, with all that it runs with)",
            LONGEST >> 10
        )));
    }
    Ok(())
}

fn too_often(most: usize) -> ApprovalError {
    ApprovalError(format!("you asked {most} questions within a minute, as many as may; wait"))
}

/// Eight letters, 40 bits.
fn id() -> Result<Arc<str>, ApprovalError> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| ApprovalError("there is no randomness".into()))?;
    let letter = |byte: &u8| char::from(*LETTERS.get(usize::from(byte % 32)).unwrap_or(&b'0'));
    let text: String = bytes.iter().map(letter).collect();
    let (one, other) = text.split_at(4);
    Ok(format!("{one}-{other}").into())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: StoreError) -> ApprovalError {
    ApprovalError(error.to_string())
}
