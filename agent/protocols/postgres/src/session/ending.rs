//! How a session ends that its client doesn't end: by the policy, or with the agent.

use std::{future::Future, pin::Pin, time::Duration};

use tidegate_gate::{Cause, Refusal, ServeError};
use tokio::{
    task::unconstrained,
    time::{sleep, timeout},
};

use super::{Session, refuse};
use crate::upstream;

/// How long the server may take to answer for a statement that was cancelled.
pub(super) const LAST_ANSWER: Duration = Duration::from_secs(3);

/// How long it may take to reach the server with a cancel request.
pub(super) const CANCEL: Duration = Duration::from_secs(2);

/// What clients are told, in the server's own words for it.
pub(super) const ADMIN_SHUTDOWN: &str = "terminating connection due to administrator command";

/// How far the session's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It goes on.
    Serving,
    /// The agent is asked to stop: what runs is finished, and nothing more is begun.
    Stopping,
    /// The grace is over: what ran was cancelled, and the server's answer to that is all that is waited for.
    BrokenOff,
}

/// Resolves when the next phase begins, or the session may no longer exist.
pub(super) type Ending = Pin<Box<dyn Future<Output = Refusal> + Send>>;

impl Session {
    /// What ends this phase.
    pub(super) fn ending(&self) -> Ending {
        let gate = self.gate.clone();
        // Unconstrained: a session that always has something to do is let go of regularly, and just then this must be seen.
        match self.phase {
            Phase::Serving => Box::pin(unconstrained(async move { gate.revoked().await })),
            Phase::Stopping => Box::pin(unconstrained(async move { gate.over().await })),
            Phase::BrokenOff => Box::pin(async {
                sleep(LAST_ANSWER).await;
                Refusal { message: ADMIN_SHUTDOWN.into(), hint: None, cause: Cause::Shutdown }
            }),
        }
    }

    /// Goes on to the next phase.
    pub(super) async fn next_phase(&mut self, refusal: Refusal) -> Result<(), ServeError> {
        match self.phase {
            Phase::Serving if refusal.cause == Cause::Shutdown => self.stop(),
            Phase::Stopping => self.break_off().await,
            Phase::Serving | Phase::BrokenOff => return Err(ServeError::Policy(refusal.message.to_string())),
        }
        Ok(())
    }

    /// What the server owes is fetched: the client's own Sync or Flush is not taken any more.
    fn stop(&mut self) {
        self.phase = Phase::Stopping;
        if self.input.body.is_none() {
            self.flush();
        }
    }

    /// Has the server cancel what runs.
    async fn break_off(&mut self) {
        self.phase = Phase::BrokenOff;
        let detail = match timeout(CANCEL, self.cancel()).await {
            Ok(Ok(())) => "the grace is over: what runs was cancelled".to_owned(),
            Ok(Err(why)) => format!("the grace is over, and what runs could not be cancelled: {why}"),
            Err(_) => format!("the grace is over, and the server took no cancel request within {CANCEL:?}"),
        };
        self.gate.event("broken-off", &detail);
    }

    /// Has the server cancel what runs in this session, if anything does.
    pub(super) async fn cancel(&self) -> Result<(), String> {
        let target = self.cancel_key.target().ok_or("the session has no cancel key")?;
        let upstream = self.gate.consult().await.map_err(|refusal| refusal.message.to_string())?;
        let again = || upstream::again(&self.gate);
        upstream::cancel(upstream.stream, again, self.database.settings(), target.process_id, &target.secret)
            .await
            .map_err(|error| error.to_string())
    }

    /// What the client is told last, unless it is in the middle of a message.
    pub(super) fn farewell(&mut self, code: &str, message: &str, hint: Option<&str>) {
        if self.output.passing == 0 && !self.told {
            refuse::fatal(&mut self.client.outbound, code, message, hint);
        }
    }
}
