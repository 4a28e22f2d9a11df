//! The agent's signs of life. Without them the kernel refuses what it would send here.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{error::Error, notify, origins::Enforcer};

/// Well within the five seconds that the kernel waits.
const BEAT: Duration = Duration::from_secs(1);

/// Shows signs of life, to the kernel and to the service manager, from the thread that accepts connections: if that one hangs, they end.
pub(crate) struct Heart {
    enforcer: Arc<dyn Enforcer>,
    beating: JoinHandle<()>,
}

impl Heart {
    /// The first one has been shown when this returns.
    pub(crate) fn start(enforcer: Arc<dyn Enforcer>) -> Result<Self, Error> {
        enforcer.live().map_err(Error::Kernel)?;
        let shown = enforcer.clone();
        let beating = tokio::spawn(async move {
            let mut beats = interval(BEAT);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                if let Err(error) = notify::alive() {
                    tracing::warn!(%error, "the service manager was not told");
                }
                if let Err(error) = shown.live() {
                    tracing::error!(
                        error,
                        "the kernel was shown no sign of life: it will refuse connections"
                    );
                }
            }
        });
        Ok(Self { enforcer, beating })
    }

    /// Ends them. Connections are sent here for seconds more: somebody else accepts them.
    pub(crate) fn leave(self) {
        self.beating.abort();
    }

    /// Ends them, and has connections refused at once.
    pub(crate) async fn stop(self) {
        self.beating.abort();
        // Aborted: no sign comes after this.
        self.beating.await.ok();
        if let Err(error) = self.enforcer.rest() {
            tracing::error!(
                error,
                "the kernel could not be told: it refuses connections within five seconds"
            );
        }
    }
}
