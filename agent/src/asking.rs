//! Questions that connections put to people.

use std::sync::Arc;

use tidegate_gate::{Answer, ApprovalError, Approvals, BoxFuture, Question, Revocation};

use crate::accounts::Accounts;

/// A desk that is told whose account asks: what the host could not tell when a connection was made, it may tell by now.
pub(crate) struct Asking {
    /// Where people are asked.
    pub(crate) desk: Arc<dyn Approvals>,
    /// Whose account is whose.
    pub(crate) accounts: Accounts,
}

impl Approvals for Asking {
    fn put(&self, mut question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
        Box::pin(async move {
            self.accounts.complete(&mut question.principal.process).await.map_err(ApprovalError)?;
            self.desk.put(question).await
        })
    }

    fn ended<'a>(
        &'a self,
        questions: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>> {
        self.desk.ended(questions)
    }

    fn revoked<'a>(&'a self, questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
        self.desk.revoked(questions)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tidegate_policy::{Principal, Process};

    use super::*;
    use crate::accounts::tests::Fake;

    /// Keeps who asked.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Process>>);

    impl Approvals for Noted {
        fn put(&self, question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
            self.0.lock().unwrap().push(question.principal.process);
            Box::pin(async { Ok(Answer::Known(Vec::new())) })
        }

        fn ended<'a>(
            &'a self,
            _: &'a [Arc<str>],
        ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>> {
            Box::pin(async { Ok(None) })
        }

        fn revoked<'a>(&'a self, _: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
            Box::pin(std::future::pending())
        }
    }

    fn question(process: Process) -> Question {
        Question {
            session: "s".into(),
            principal: Principal { process, ..Principal::default() },
            resource: "shop".into(),
            protocol: "postgres".into(),
            policy: "digest".into(),
            action: 1,
            name: "statement".into(),
            text: "DELETE".into(),
            particulars: Vec::new(),
            holds: Vec::new(),
            exact: [1; 32],
            shape: [1; 32],
        }
    }

    #[tokio::test]
    async fn who_could_not_be_named_when_they_connected_is_named_when_they_ask() {
        let (noted, fake) = (Arc::new(Noted::default()), Arc::new(Fake::default()));
        let asking = Asking { desk: noted.clone(), accounts: Accounts::of(fake, Duration::from_secs(3600)) };
        asking.put(question(Process { uid: 2000, ..Process::default() })).await.unwrap();
        assert_eq!(noted.0.lock().unwrap()[0].user.as_deref(), Some("late"));
    }

    #[tokio::test]
    async fn nobody_is_asked_for_one_who_may_be_everybody() {
        let noted = Arc::new(Noted::default());
        let fake = Fake::stuck_for_whoever_comes();
        let accounts = Accounts::of(fake.clone(), Duration::from_millis(20));
        let asking = Asking { desk: noted.clone(), accounts };
        let process = Process { uid: 2000, owner_untold: true, ..Process::default() };
        let error = asking.put(question(process)).await.err().unwrap();
        fake.let_go();
        assert!(error.to_string().contains("2000"), "{error}");
        assert!(noted.0.lock().unwrap().is_empty());
    }
}
