//! Where questions come in and people answer them.

mod asking;
mod letters;
mod rounds;
mod state;
mod waiting;

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use serde::Serialize;
use tidegate_gate::{Pace, Turns};
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
};

use self::state::Inner;
use crate::{
    Answered, Audience, Clock, Inquiry, Person, Refused, Say, State,
    store::{Health, Listed, Store, StoreError},
};

/// How many yeses taken back one who relies on another may be behind before they ask the store.
const BACKLOG: usize = 64;

/// How many changes one who watches may be behind before they list all anew.
const CHANGES: usize = 256;
/// How many questions of one account, and of all, are looked up at a time.
const LOOKUPS: (usize, usize) = (2, 8);

/// How many questions may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of everybody on the host.
    pub all: usize,
    /// Of one account.
    pub of_account: usize,
    /// How many one account may ask within a minute.
    pub a_minute: usize,
}

/// What one person may know of all questions.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Newest first, in short: the beginning of what would run, who asks, and what happened last.
    pub inquiries: Vec<Inquiry>,
    /// How many of all were left out because they can't be read: whose they are can't be told.
    pub unreadable: usize,
}

/// Where questions come in and people answer them.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

impl Desk {
    /// A desk of this host, within a runtime that outlives whoever asks.
    pub fn open(host: &str, store: Arc<dyn Store>, limits: Limits, audience: Audience) -> Self {
        Self::open_by(Clock::default(), host, store, limits, audience)
    }

    /// The same, by another clock than the system's.
    pub fn open_by(
        clock: Clock,
        host: &str,
        store: Arc<dyn Store>,
        limits: Limits,
        audience: Audience,
    ) -> Self {
        let inner = Inner {
            host: host.into(),
            clock,
            store,
            limits,
            audience,
            asks: Pace::default(),
            returns: Pace::default(),
            turns: Turns::new(LOOKUPS.0, LOOKUPS.1),
            waited: Mutex::default(),
            relied: Mutex::default(),
            changes: watch::Sender::new(0),
            briefs: broadcast::Sender::new(CHANGES),
            revoked: broadcast::Sender::new(BACKLOG),
            home: Handle::current(),
        };
        let desk = Self(Arc::new(inner));
        if desk.0.store.is_shared() {
            desk.0.home.spawn(rounds::look(Arc::downgrade(&desk.0)));
        }
        desk.0.home.spawn(rounds::tidy(Arc::downgrade(&desk.0)));
        desk
    }

    /// Whether people can be asked, and all that was asked be read.
    pub fn health(&self) -> Health {
        self.0.store.health()
    }

    /// The host that asks here.
    pub fn host(&self) -> &Arc<str> {
        &self.0.host
    }

    /// Ticks whenever a question is asked or changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Each question in short as it is asked or changed, whoever may know of it; versions may come out of their order. Whoever
    /// falls behind is told so, and lists all anew.
    pub fn briefs(&self) -> broadcast::Receiver<Arc<Inquiry>> {
        self.0.briefs.subscribe()
    }

    /// What this person may know: questions that wait, owe a review, or whose yes still counts; or `all`. Of more than
    /// `limit`, those that wait come first, and of each account as many as of the others.
    pub async fn list(&self, person: &Person, all: bool, limit: u32) -> Result<Overview, StoreError> {
        let now = self.0.clock.now();
        let Listed { mut inquiries, unreadable } = self.0.store.list(all, now, limit).await?;
        for inquiry in &mut inquiries {
            inquiry.expire(now);
        }
        inquiries.retain(|inquiry| {
            let lives =
                all || inquiry.review_owed || matches!(inquiry.state, State::Waiting | State::Approved);
            lives && inquiry.is_visible_to(person)
        });
        Ok(Overview { inquiries: inquiries.into_iter().map(Inquiry::shown).collect(), unreadable })
    }

    /// One question; that somebody who may answer has seen it is noted.
    pub async fn show(&self, person: &Person, id: &str) -> Result<Inquiry, Failed> {
        self.change(person, id, |inquiry, now| {
            inquiry.seen(person, now);
            Ok(())
        })
        .await
    }

    /// Takes an answer.
    pub async fn answer(&self, person: &Person, id: &str, answered: Answered<'_>) -> Result<Inquiry, Failed> {
        let Answered { say, reason, shown } = answered;
        let taken = self
            .change(person, id, |inquiry, now| {
                let is_another = match shown {
                    Some(shown) => inquiry.seal() != shown,
                    None => say.lets_run() && inquiry.is_another_to(person),
                };
                if is_another {
                    return Err(Refused::NotShown(inquiry.id.clone()));
                }
                inquiry.take(person, say, reason, now)
            })
            .await?;
        if say == Say::BreakGlass {
            tracing::error!(question = id, by = %person, reason, "glass broken: a review is owed");
        }
        Ok(taken)
    }

    /// Changes a question that this person may know of.
    async fn change(
        &self,
        person: &Person,
        id: &str,
        change: impl Fn(&mut Inquiry, Timestamp) -> Result<(), Refused>,
    ) -> Result<Inquiry, Failed> {
        let change = |inquiry: &mut Inquiry, now| match inquiry.is_visible_to(person) {
            true => change(inquiry, now),
            false => Err(Refused::Unknown(id.to_owned())),
        };
        match self.0.change(id, change).await? {
            Some(changed) => Ok(changed?.shown()),
            None => Err(Refused::Unknown(id.to_owned()).into()),
        }
    }
}

/// Why somebody's answer did not count.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// They may not, or it is too late.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("host", &self.0.host).finish_non_exhaustive()
    }
}
