//! Where questions are kept. Both stores hold the same tables and run the same statements.

mod postgres;
mod schema;
mod sqlite;
mod statements;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;
use tidegate_gate::BoxFuture;

pub use self::{
    postgres::{Postgres, Settings},
    sqlite::Sqlite,
};
use crate::{Inquiry, Letter, State};

/// Keeps questions. Every change is durable when it returns.
pub trait Store: Send + Sync {
    /// Keeps a new question, unless its id is taken or too many wait.
    fn insert<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        limits: Most,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<Inserted, StoreError>>;

    /// The question of this id.
    fn load<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>>;

    /// The same [in short](Inquiry::brief).
    fn brief<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>>;

    /// Replaces a question by what became of it, if nobody has since `inquiry.version`. False if somebody has.
    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Ids of the questions with this key that something can still come of, oldest first: those that wait, or those that are
    /// settled.
    fn find<'a>(
        &'a self,
        key: &'a str,
        waiting: bool,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>>;

    /// Questions [in short](Inquiry::brief), newest first: those that wait, that owe a review, or whose yes still counts; or
    /// all. Of more than `limit`, those that wait come first, and of each account as many as of the others.
    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Listed, StoreError>>;

    /// Forgets this host's questions of which nothing comes any more, unless a review is owed: those that were asked before
    /// this time and, of what people did not answer, all but each account's newest; of what they did, its newest 10,000. Of other hosts, and of letters, what is so
    /// old that whose it is must be gone. That goes by the store's clock, where it has
    /// one and the host's is ahead.
    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_account: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Letters of this host's agent to this receiver: of those that are due, alerts first, and of each account as many as of
    /// the others; then those that are due next.
    fn letters<'a>(
        &'a self,
        host: &'a str,
        hook: &'a str,
        now: Timestamp,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Letter>, StoreError>>;

    /// An attempt to send it begins; false if there is no such letter any more. From now on it is not taken back.
    fn attempt<'a>(&'a self, letter: &'a str) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Another attempt is to be made at this time; none: never again.
    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Whether others change it, too: what came of that must be looked for from time to time.
    fn is_shared(&self) -> bool;

    /// Ids and versions of what was asked or changed since a mark that an earlier look gave, and the next look's mark; nothing
    /// for the first. What is told is told again for a while: a change may be seen late.
    fn changed(&self, since: Option<i64>) -> BoxFuture<'_, Result<Changed, StoreError>>;

    /// How it is.
    fn health(&self) -> Health;
}

/// Questions in short, and how many more there are that can't be read.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// In the order that was asked for.
    pub inquiries: Vec<Inquiry>,
    /// Left out.
    pub unreadable: usize,
}

/// How a store is.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Why nothing can be kept now, if so.
    pub trouble: Option<Trouble>,
    /// Questions that were met since it was opened and can't be read.
    pub unreadable: usize,
}

/// That a store can't be reached.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// As it was found last.
    pub why: StoreError,
}

/// What was asked or changed of late.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Ids and versions.
    pub questions: Vec<(Arc<str>, i64)>,
    /// For the next look.
    pub mark: i64,
}

/// How many may wait, and be asked.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Waiting, of everybody on the host.
    pub all: usize,
    /// Waiting, of one account.
    pub of_account: usize,
    /// Asked by one account within a minute, whatever became of them.
    pub a_minute: usize,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is kept.
    Done,
    /// Another question has this id.
    Taken,
    /// As many wait on this host as may.
    Full,
    /// As many of this account wait as may.
    AccountFull,
    /// This account has asked as many within a minute as may be.
    TooMany,
}

/// Why a store did not do it. Nothing was changed.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// It could not.
    #[error("the store of approvals: {0}")]
    Failed(Arc<str>),
    /// What is kept there is no question that this agent understands.
    #[error("the store of approvals: question {id} can't be read: {why}")]
    Unreadable {
        /// Which.
        id: Arc<str>,
        /// What is wrong with it.
        why: Arc<str>,
    },
}

impl StoreError {
    pub(crate) fn new(error: impl ToString) -> Self {
        Self::Failed(error.to_string().into())
    }

    /// Whether it is about one question alone.
    pub(crate) fn is_of_one(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

/// Questions that could not be read. Each is told loudly, once.
#[derive(Debug, Clone, Default)]
struct Unreadable(Arc<Mutex<HashSet<Arc<str>>>>);

impl Unreadable {
    /// Those that can be read, and how many can't.
    fn sort_out(&self, read: impl IntoIterator<Item = Result<Inquiry, StoreError>>) -> Listed {
        let mut listed = Listed::default();
        for question in read {
            match question {
                Ok(question) => listed.inquiries.push(question),
                Err(error) => {
                    listed.unreadable += 1;
                    self.tell(&error);
                }
            }
        }
        listed
    }

    fn tell(&self, error: &StoreError) {
        if let StoreError::Unreadable { id, .. } = error
            && self.ids().insert(id.clone())
        {
            tracing::error!(question = %id, %error, "a question is left out: nobody can see or answer it");
        }
    }

    fn count(&self) -> usize {
        self.ids().len()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question as a row; `principal` is as whom whoever asks counts, as a key: an account, or a container.
struct Row {
    id: String,
    version: i64,
    host: String,
    principal: String,
    waiting: i64,
    owed: i64,
    answered: i64,
    asked: i64,
    alive: i64,
    brief: String,
    body: String,
}

impl Row {
    fn of(inquiry: &Inquiry) -> Result<Self, StoreError> {
        Ok(Self {
            id: inquiry.id.to_string(),
            version: inquiry.version,
            host: inquiry.host.to_string(),
            principal: inquiry.share_key(),
            waiting: i64::from(inquiry.state == State::Waiting),
            owed: i64::from(inquiry.review_owed),
            answered: i64::from(inquiry.is_answered()),
            asked: inquiry.asked.as_millisecond(),
            alive: inquiry.alive_until().as_millisecond(),
            brief: serde_json::to_string(&inquiry.brief()).map_err(StoreError::new)?,
            body: serde_json::to_string(inquiry).map_err(StoreError::new)?,
        })
    }
}

/// Keys that a question is found by.
fn keys(inquiry: &Inquiry) -> Vec<String> {
    inquiry.terms.iter().map(|term| term.key.clone()).chain([inquiry.same_key()]).collect()
}

fn read(id: &str, version: i64, body: &str) -> Result<Inquiry, StoreError> {
    let unreadable =
        |error: serde_json::Error| StoreError::Unreadable { id: id.into(), why: error.to_string().into() };
    let inquiry: Inquiry = serde_json::from_str(body).map_err(unreadable)?;
    Ok(Inquiry { version, ..inquiry })
}

/// Of a body that can't be read nothing is told.
fn letter_body(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}

/// That a letter found no place.
fn lost(letter: &Letter) {
    tracing::error!(hook = %letter.hook, question = %letter.question, "too many letters wait: one was lost");
}

/// How long before what this host forgets that of others is forgotten, too, in milliseconds.
const STRAY: i64 = 7 * 24 * 3600 * 1000;

/// Whether nobody needs to be told any more that it was asked: nobody answered, and it is asked no more.
fn is_taken_back(inquiry: &Inquiry) -> bool {
    !inquiry.is_answered() && matches!(inquiry.state, State::Cancelled | State::Withdrawn)
}

/// What is told to those who heard, or will hear, that it was asked; these receivers never will.
fn heard(letters: &[Letter], host: &str, unsaid: &[String]) -> Vec<Letter> {
    let heard = |letter: &&Letter| *letter.host != *host || !unsaid.iter().any(|hook| **hook == *letter.hook);
    letters.iter().filter(heard).cloned().collect()
}

/// From when on, and until when, questions count as asked within a minute, in milliseconds since 1970. Those of whoever comes
/// at the same time may be asked a little later.
fn a_minute_around(asked: i64) -> (i64, i64) {
    (asked.saturating_sub(60_000), asked.saturating_add(60_000))
}

/// Newest first.
fn sorted(mut listed: Listed) -> Listed {
    listed.inquiries.sort_by(|one, other| other.asked.cmp(&one.asked).then_with(|| one.id.cmp(&other.id)));
    listed
}

/// Whether counts allow one more: of all that wait, of the account's, and of what it asked of late.
fn judge(most: Most, all: i64, of_account: i64, recent: i64) -> Inserted {
    let has = |count: i64, most: usize| usize::try_from(count).is_ok_and(|count| count >= most);
    if has(recent, most.a_minute) {
        Inserted::TooMany
    } else if has(of_account, most.of_account) {
        Inserted::AccountFull
    } else if has(all, most.all) {
        Inserted::Full
    } else {
        Inserted::Done
    }
}
