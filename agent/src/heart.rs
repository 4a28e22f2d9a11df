//! The agent's signs of life. Without them the kernel refuses what it would send here.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{error::Error, notify, origins::Enforcer};

/// Well within the five seconds that the kernel waits.
const BEAT: Duration = Duration::from_secs(1);

/// How often the kernel's counts of users are tidied up.
const ROUND: Duration = Duration::from_secs(10);

/// Has the kernel drop what it keeps of users of whom no connection waits, until dropped.
pub(crate) async fn tidy(enforcer: Arc<dyn Enforcer>) {
    loop {
        sleep(ROUND).await;
        let enforcer = enforcer.clone();
        if let Ok(Err(error)) = spawn_blocking(move || enforcer.tidy()).await {
            tracing::error!(
                error,
                "the kernel's counts of users were not tidied up: there is room for 16,384"
            );
        }
    }
}

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
