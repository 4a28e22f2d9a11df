//! What is looked after from time to time, until the desk is gone.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::sleep;

use super::state::Inner;

/// How often a store that others change is looked at for questions that somebody here waits for.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked for what is old.
const TIDY: Duration = Duration::from_secs(60);
/// How long a question is kept of which nothing comes any more. Longer than any yes counts.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many such questions of one principal are kept, the newest.
const KEPT_OF_PRINCIPAL: u32 = 1_000;

/// Looks for answers that came in through other agents, until the desk is gone.
pub(super) async fn look(desk: Weak<Inner>) {
    loop {
        sleep(LOOK).await;
        let Some(desk) = desk.upgrade() else { return };
        let waited: Vec<Arc<str>> = desk.waited().keys().cloned().collect();
        for id in waited {
            match desk.store.load(&id).await {
                Ok(Some(inquiry)) => desk.publish_newer(&inquiry),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "answers from elsewhere are not seen");
                    break;
                }
            }
        }
    }
}

/// Forgets what is old: records keep it.
pub(super) async fn tidy(desk: Weak<Inner>) {
    loop {
        let Some(inner) = desk.upgrade() else { return };
        let now = inner.clock.now();
        let before = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        if let Err(error) = inner.store.forget(&inner.host, now, before, KEPT_OF_PRINCIPAL).await {
            tracing::warn!(%error, "old questions are not forgotten");
        }
        drop(inner);
        sleep(TIDY).await;
    }
}
