//! Questions that wait for people, and their answers.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tidegate_approvals::{Answered, Desk, Failed, Inquiry, Person, Say};
use tokio::time::sleep;

use super::{Answer, Answers};

/// Most questions in one answer.
const MOST: u32 = 1000;
/// How often one who watches is told of what came in through other agents of a fleet.
const LOOK: Duration = Duration::from_secs(1);

/// The questions that somebody may know of.
pub(super) async fn list(desk: &Desk, person: &Person, all: bool) -> Answer {
    match desk.list(person, all, MOST).await {
        Ok(overview) => Answer::Questions { questions: overview.inquiries },
        Err(error) => Answer::failed(error),
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

/// Tells of every question as it is and as it changes, until nobody reads any more.
pub(super) async fn watch(desk: &Desk, person: &Person, answers: &mut Answers) -> io::Result<Answer> {
    let mut changes = desk.changes();
    let mut told: HashMap<Arc<str>, usize> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let Ok(overview) = desk.list(person, !told.is_empty(), MOST).await else {
            return Ok(Answer::failed("the store of approvals does not answer"));
        };
        for question in overview.inquiries.into_iter().rev() {
            let steps = question.trail.len();
            if told.insert(question.id.clone(), steps) != Some(steps) {
                answers.tell(&Answer::Question { question: question.into() }).await?;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(Answer::failed("the agent ends")) },
            () = sleep(LOOK), if desk.store().is_shared() => {}
        }
    }
}

fn one(question: Result<Inquiry, Failed>) -> Answer {
    match question {
        Ok(question) => Answer::Question { question: question.into() },
        Err(error) => Answer::failed(error),
    }
}
