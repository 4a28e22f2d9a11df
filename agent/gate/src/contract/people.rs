//! People who answer what a test says.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc};

use super::PATIENCE;
use crate::{Answer, ApprovalError, Approvals, BoxFuture, Inquiry, Question, Revocation, Step, Yes};

/// Approvers in a test's hand. Questions are numbered `q1`, `q2`, ...
#[derive(Debug, Clone, Default)]
pub struct People(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    known: Mutex<Known>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Known {
    questions: Vec<Question>,
    answers: HashMap<String, mpsc::UnboundedSender<Step>>,
    withdrawn: Vec<(String, String)>,
    /// Digests of what was granted before.
    granted: Vec<[u8; 32]>,
    revoked: Vec<Revocation>,
}

impl People {
    /// The question of this number, once it is put.
    pub async fn question(&self, number: usize) -> Question {
        let asked = async {
            loop {
                let more = self.0.more.notified();
                if let Some(question) = self.known().questions.get(number - 1) {
                    return question.clone();
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the question is put")
    }

    /// How many questions were put.
    pub fn asked(&self) -> usize {
        self.known().questions.len()
    }

    /// What happens to a question.
    pub fn answer(&self, id: &str, step: Step) {
        let known = self.known();
        // Whoever asked may be gone.
        let _ = known.answers.get(id).expect("the question was put").send(step);
    }

    /// Says yes.
    pub fn approve(&self, id: &str) {
        self.answer(id, Step::Approved { by: "ann".into(), reason: None, urgent: false });
    }

    /// Ann takes her yes to a question back.
    pub fn revoke(&self, id: &str) {
        let (by, reason) = (Some("ann".into()), Some("enough".into()));
        self.known().revoked.push(Revocation { question: id.into(), by, reason });
        self.0.more.notify_waiters();
    }

    /// From now on a yes for these very bytes is known.
    pub fn grant(&self, question: &Question) {
        self.known().granted.push(question.exact);
    }

    /// The withdrawn question and the word for it, once there are so many.
    pub async fn withdrawn(&self, count: usize) -> Vec<(String, String)> {
        let withdrawn = async {
            loop {
                let more = self.0.more.notified();
                let known = self.known().withdrawn.clone();
                if known.len() >= count {
                    return known;
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, withdrawn).await.expect("the question is withdrawn")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Approvals for People {
    fn put(&self, question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
        Box::pin(async move {
            let mut known = self.known();
            if known.granted.contains(&question.exact) {
                return Ok(Answer::Known(vec![Yes { id: "q0".into(), by: "ann".into() }]));
            }
            known.questions.push(question);
            let id: Arc<str> = format!("q{}", known.questions.len()).into();
            let (sender, steps) = mpsc::unbounded_channel();
            known.answers.insert(id.to_string(), sender);
            drop(known);
            self.0.more.notify_waiters();
            Ok(Answer::Waits(Box::new(Put { people: self.clone(), id, steps })))
        })
    }

    fn ended<'a>(
        &'a self,
        questions: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>> {
        Box::pin(async { Ok(self.known().of(questions)) })
    }

    fn revoked<'a>(&'a self, questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
        Box::pin(async move {
            loop {
                let mut more = pin!(self.0.more.notified());
                more.as_mut().enable();
                let taken_back = self.known().of(questions);
                match taken_back {
                    Some(revocation) => return revocation,
                    None => more.await,
                }
            }
        })
    }
}

impl Known {
    /// How the yes to one of these was taken back, if one was.
    fn of(&self, questions: &[Arc<str>]) -> Option<Revocation> {
        self.revoked.iter().find(|one| questions.contains(&one.question)).cloned()
    }
}

struct Put {
    people: People,
    id: Arc<str>,
    steps: mpsc::UnboundedReceiver<Step>,
}

impl Inquiry for Put {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Step, ApprovalError>> {
        Box::pin(async { self.steps.recv().await.ok_or_else(|| ApprovalError("nobody is there".into())) })
    }

    fn withdraw(self: Box<Self>, word: &str) {
        self.people.known().withdrawn.push((self.id.to_string(), word.to_owned()));
        self.people.0.more.notify_waiters();
    }
}
