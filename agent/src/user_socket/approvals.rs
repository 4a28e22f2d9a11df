//! Questions that wait for people, and their answers.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tidegate_approvals::{Answered, Desk, Failed, Inquiry, Person, Say, State};
use tidegate_policy::Sharer;
use tokio::{sync::broadcast::error::RecvError, time::timeout};

use super::{Answer, Answers, Users, caller::Identities};

/// Most questions in one answer.
const MOST: u32 = 1000;
/// How long reading a list may take, however slowly it is read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Questions whose version one who watches was told is remembered of, beside those that wait.
const REMEMBERED: usize = 4 * MOST as usize;

/// The questions that somebody may know of, told as they are read: none but one list of an account is there at a time.
pub(super) async fn list(
    users: &Users,
    sharer: &Sharer,
    person: &Person,
    all: bool,
    answers: &mut Answers,
) -> io::Result<Option<Answer>> {
    let _turn = users.lists.of(sharer.clone()).await;
    match users.desk.list(person, all, MOST).await {
        Ok(overview) => {
            timeout(PATIENCE, answers.tell_questions(overview)).await??;
            Ok(None)
        }
        Err(error) => Ok(Some(Answer::failed(error))),
    }
}

/// One of them.
pub(super) async fn show(desk: &Desk, person: &Person, id: &str) -> Answer {
    one(desk.show(person, id).await)
}

/// Takes what somebody says to one.
pub(super) async fn say(desk: &Desk, person: &Person, id: &str, say: Say, reason: Option<&str>) -> Answer {
    one(desk.answer(person, id, Answered { say, reason, shown: None }).await)
}

/// Tells of every question that counts, and of each as it is asked or changed, until nobody reads any more. The store is asked
/// once, and again only if they fall behind. They are told what they may know by what issuers say of them at the time.
pub(super) async fn watch(
    users: &Users,
    sharer: &Sharer,
    mut person: Person,
    mut identities: Identities,
    answers: &mut Answers,
) -> io::Result<Answer> {
    let Some(_share) = users.watchers.take(sharer.clone()) else {
        return Ok(Answer::failed("you watch as often as one account may, or all do: end another one first"));
    };
    let (mut told, mut followed) = (Told::default(), true);
    loop {
        // From before they are listed, so that none is missed.
        let mut changes = users.desk.briefs();
        if let Err(error) = told.catch_up(users, sharer, &person, answers).await? {
            return Ok(Answer::failed(error));
        }
        loop {
            let change = tokio::select! {
                biased;
                changed = identities.changed(), if followed => {
                    followed = changed.is_ok();
                    person.identities = identities.borrow_and_update().clone();
                    continue;
                }
                change = changes.recv() => change,
            };
            match change {
                Ok(question) if question.is_visible_to(&person) => told.tell(&question, answers).await?,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(Answer::failed("the agent ends")),
            }
        }
    }
}

/// What one who watches was told: each question's version, and whether it waits.
#[derive(Default)]
struct Told(HashMap<Arc<str>, (i64, bool)>);

impl Told {
    /// Tells of all that count, and of those that were told before and changed since.
    async fn catch_up(
        &mut self,
        users: &Users,
        sharer: &Sharer,
        person: &Person,
        answers: &mut Answers,
    ) -> io::Result<Result<(), String>> {
        let _turn = users.lists.of(sharer.clone()).await;
        let is_first = self.0.is_empty();
        let overview = match users.desk.list(person, !is_first, MOST).await {
            Ok(overview) => overview,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let telling = async {
            for question in overview.inquiries.iter().rev() {
                let counts =
                    question.review_owed || matches!(question.state, State::Waiting | State::Approved);
                if counts || self.0.contains_key(&question.id) {
                    self.tell(question, answers).await?;
                }
            }
            io::Result::Ok(())
        };
        timeout(PATIENCE, telling).await??;
        Ok(Ok(()))
    }

    /// Tells of a question, unless they know it as it is, or as it was later.
    async fn tell(&mut self, question: &Inquiry, answers: &mut Answers) -> io::Result<()> {
        if self.0.get(&question.id).is_some_and(|(version, _)| *version >= question.version) {
            return Ok(());
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (_, waits)| *waits);
        }
        self.0.insert(question.id.clone(), (question.version, question.state == State::Waiting));
        answers.tell(&Answer::Question { question: Box::new(question.clone()) }).await
    }
}

fn one(question: Result<Inquiry, Failed>) -> Answer {
    match question {
        Ok(question) => Answer::Question { question: question.into() },
        Err(error) => Answer::failed(error),
    }
}
