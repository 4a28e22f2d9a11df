//! Somebody who waits for an answer.

use std::sync::Arc;

use tidegate_gate::{ApprovalError, BoxFuture, Inquiry as Asking, Step};
use tokio::{sync::watch, time::sleep_until};

use super::{Desk, asking::failed};
use crate::{Event, Inquiry};

/// Somebody who waits.
pub(super) struct Waits {
    pub(super) desk: Desk,
    pub(super) id: Arc<str>,
    pub(super) session: Arc<str>,
    pub(super) now: watch::Receiver<Arc<Inquiry>>,
    /// How much of the trail was told.
    pub(super) told: usize,
}

impl Asking for Waits {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Step, ApprovalError>> {
        Box::pin(async move {
            loop {
                let now = self.now.borrow_and_update().clone();
                if let Some(event) = now.trail.get(self.told) {
                    let step = self.step(event).await?;
                    self.told += 1;
                    match step {
                        Some(step) => return Ok(step),
                        None => continue,
                    }
                }
                tokio::select! {
                    changed = self.now.changed() => {
                        changed.map_err(|_| ApprovalError("the agent ends".into()))?;
                    }
                    () = sleep_until(self.desk.0.clock.until(now.expires)) => self.expire().await?,
                }
            }
        })
    }

    fn withdraw(self: Box<Self>, word: &str) {
        let (desk, id, word) = (self.desk.clone(), self.id.clone(), word.to_owned());
        let home = desk.0.home.clone();
        home.spawn(async move {
            let withdraw = |inquiry: &mut Inquiry, now| {
                inquiry.withdraw(&word, now);
                Ok::<_, ()>(())
            };
            if let Err(error) = desk.0.change(&id, withdraw).await {
                tracing::warn!(question = %id, %error, "not withdrawn; it stands until it expires");
            }
            // Only now may somebody else take it up.
            drop(self);
        });
    }
}

impl Waits {
    /// What an event is to whoever waits, if it is anything; a yes is claimed for them.
    async fn step(&self, event: &Event) -> Result<Option<Step>, ApprovalError> {
        let (by, reason) = (event.by.clone(), event.reason.clone());
        Ok(match &*event.step {
            "seen" => Some(Step::Seen { by: by.unwrap_or_default() }),
            "agreed" => Some(Step::Agreed { by: by.unwrap_or_default(), reason }),
            word @ ("approved" | "break-glass") => {
                let claimed = self.desk.claim(&self.id, &self.session).await.map_err(failed)?;
                let (by, urgent) = (by.unwrap_or_default(), word == "break-glass");
                claimed.then_some(Step::Approved { by, reason, urgent })
            }
            word @ ("denied" | "expired" | "withdrawn" | "cancelled" | "revoked") => {
                Some(Step::Refused { word: word.into(), by, reason })
            }
            _ => None,
        })
    }

    async fn expire(&self) -> Result<(), ApprovalError> {
        let expire = |inquiry: &mut Inquiry, now| {
            inquiry.expire(now);
            Ok::<_, ()>(())
        };
        let settled = self.desk.0.change(&self.id, expire).await.map_err(failed)?;
        let gone = || ApprovalError("the question is no longer kept".into());
        if let Ok(inquiry) = settled.ok_or_else(gone)? {
            // It may have been settled elsewhere in the last moment.
            self.desk.0.publish(&inquiry);
        }
        Ok(())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.desk.0.waited().remove(&self.id);
    }
}
