//! What is looked after from time to time, until the desk is gone.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{task::spawn_blocking, time::sleep};

use super::state::Inner;
use crate::{
    Inquiry,
    store::{Changed, StoreError},
};

/// How often a store that others change is looked at, once for all who wait or watch here.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked for what is old.
const TIDY: Duration = Duration::from_secs(60);
/// How long a question is kept of which nothing comes any more. Longer than any yes counts.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many such questions of one account are kept that nobody answered, the newest.
const KEPT_OF_ACCOUNT: u32 = 1_000;

/// What earlier looks have seen.
#[derive(Default)]
struct Seen {
    mark: Option<i64>,
    versions: HashMap<Arc<str>, i64>,
}

/// Looks for what came in through other agents, until the desk is gone.
pub(super) async fn look(desk: Weak<Inner>) {
    let mut seen = Seen::default();
    loop {
        let Some(inner) = desk.upgrade() else { return };
        if let Err(error) = seen.look(&inner).await {
            // The store says aloud that it is away, once.
            tracing::debug!(%error, "answers from elsewhere are not seen");
        }
        drop(inner);
        sleep(LOOK).await;
    }
}

impl Seen {
    /// Tells those who wait or watch here of what changed since the last look.
    async fn look(&mut self, desk: &Inner) -> Result<(), StoreError> {
        let Changed { questions, mark } = desk.store.changed(self.mark).await?;
        for (id, version) in &questions {
            if self.versions.get(id).is_some_and(|seen| seen >= version) {
                continue;
            }
            if let Err(error) = tell(desk, id).await
                && !error.is_of_one()
            {
                return Err(error);
            }
        }
        // Only those that the next look tells again.
        self.versions = questions.into_iter().collect();
        self.mark = Some(mark);
        Ok(())
    }
}

/// Tells those who wait, rely or watch here of a question that changed.
async fn tell(desk: &Inner, id: &Arc<str>) -> Result<(), StoreError> {
    if desk.is_waited_for(id) || desk.relied().contains_key(id) {
        if let Some(inquiry) = desk.store.load(id).await? {
            desk.publish(&inquiry);
        }
    } else if desk.is_watched()
        && let Some(brief) = desk.store.brief(id).await?
    {
        desk.tell(&brief, Inquiry::clone);
    }
    Ok(())
}

/// Looks for what no change tells: yeses that are no longer kept, though somebody relies on them. Each once, however many do.
async fn look_back(desk: &Inner) {
    let relied: Vec<Arc<str>> = desk.relied().keys().cloned().collect();
    for id in relied {
        if let Err(error) = desk.look_back(&id).await {
            tracing::warn!(question = %id, %error, "whether a yes still stands is not known");
            return;
        }
    }
}

/// Forgets what is old: records keep it.
pub(super) async fn tidy(desk: Weak<Inner>) {
    loop {
        let Some(inner) = desk.upgrade() else { return };
        let clock = inner.clock.clone();
        // Nobody waits for the disk.
        drop(spawn_blocking(move || clock.keep()));
        let now = inner.clock.now();
        let before = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        if let Err(error) = inner.store.forget(&inner.host, now, before, KEPT_OF_ACCOUNT).await {
            tracing::warn!(%error, "old questions are not forgotten");
        }
        look_back(&inner).await;
        drop(inner);
        sleep(TIDY).await;
    }
}
