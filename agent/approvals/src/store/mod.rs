//! Where questions are kept. Both stores hold the same tables and run the same statements.

mod postgres;
mod sqlite;
mod tls;

use std::sync::Arc;

use jiff::Timestamp;
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

    /// Replaces a question by what became of it, if nobody has since `inquiry.version`. False if somebody has.
    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Questions with this key that something can still come of, oldest first.
    fn find<'a>(&'a self, key: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Inquiry>, StoreError>>;

    /// The newest questions: those that wait, that owe a review, or whose yes still counts; or all.
    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Vec<Inquiry>, StoreError>>;

    /// Letters of this host's agent to this receiver, those first that are due first.
    fn letters<'a>(
        &'a self,
        host: &'a str,
        hook: &'a str,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Letter>, StoreError>>;

    /// Another attempt is to be made at this time; none: never again.
    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Whether others change it, too: what is waited for must be looked at from time to time.
    fn is_shared(&self) -> bool;
}

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Of everybody on the host.
    pub all: usize,
    /// Of one principal.
    pub of_principal: usize,
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
    /// As many of this principal wait as may.
    PrincipalFull,
}

/// Why a store did not do it. Nothing was changed.
#[derive(Debug, Clone, Error)]
#[error("the store of approvals: {0}")]
pub struct StoreError(Arc<str>);

impl StoreError {
    pub(crate) fn new(error: impl ToString) -> Self {
        Self(error.to_string().into())
    }
}

/// The tables. `alive` is the time (milliseconds since 1970) from which on nothing comes of a question any more.
const TABLES: &str = "\
create table if not exists tidegate_inquiries (
    id text primary key, version bigint not null, host text not null, principal text not null,
    waiting bigint not null, owed bigint not null, asked bigint not null, alive bigint not null, body text not null
);
create table if not exists tidegate_keys (
    key text not null, inquiry text not null, primary key (key, inquiry)
);
create index if not exists tidegate_inquiries_alive on tidegate_inquiries (alive);
create table if not exists tidegate_post (
    id text primary key, host text not null, hook text not null, inquiry text not null, body text not null,
    written bigint not null, due bigint not null, attempts bigint not null
);
create index if not exists tidegate_post_due on tidegate_post (host, hook, due);
";

// Placeholders stand in the order of their numbers: SQLite counts them by first appearance.
const COUNT: &str = "select count(*), coalesce(sum(case when principal = $1 then 1 else 0 end), 0) \
    from tidegate_inquiries where host = $2 and waiting = 1 and alive > $3";
const INSERT: &str = "insert into tidegate_inquiries \
    (id, version, host, principal, waiting, owed, asked, alive, body) \
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (id) do nothing";
const INSERT_KEY: &str = "insert into tidegate_keys (key, inquiry) values ($1, $2) on conflict do nothing";
const LOAD: &str = "select version, body from tidegate_inquiries where id = $1";
const REPLACE: &str = "update tidegate_inquiries set version = version + 1, waiting = $1, owed = $2, alive = $3, \
    body = $4 where id = $5 and version = $6";
const FIND: &str = "select version, body from tidegate_inquiries where id in \
    (select inquiry from tidegate_keys where key = $1) and alive > $2 order by asked";
const LIST: &str = "select version, body from tidegate_inquiries where alive > $1 or owed = 1 \
    order by asked desc, id limit $2";
/// Most letters that wait for one receiver are 10,000: who asks must not fill the disk while it is away.
const INSERT_LETTER: &str = "insert into tidegate_post (id, host, hook, inquiry, body, written, due, attempts) \
    select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as text), \
    cast($6 as bigint), cast($7 as bigint), cast($8 as bigint) \
    where (select count(*) from tidegate_post where host = $2 and hook = $3) < 10000";
const LETTERS: &str = "select id, host, hook, inquiry, body, written, due, attempts from tidegate_post \
    where host = $1 and hook = $2 order by due, written, id limit $3";
const POSTPONE: &str = "update tidegate_post set due = $1, attempts = attempts + 1 where id = $2";
const FORGET: &str = "delete from tidegate_post where id = $1";

/// A question as a row.
struct Row {
    id: String,
    version: i64,
    host: String,
    principal: String,
    waiting: i64,
    owed: i64,
    asked: i64,
    alive: i64,
    body: String,
}

impl Row {
    fn of(inquiry: &Inquiry) -> Result<Self, StoreError> {
        Ok(Self {
            id: inquiry.id.to_string(),
            version: inquiry.version,
            host: inquiry.host.to_string(),
            principal: inquiry.principal_key(),
            waiting: i64::from(inquiry.state == State::Waiting),
            owed: i64::from(inquiry.review_owed),
            asked: inquiry.asked.as_millisecond(),
            alive: inquiry.alive_until().as_millisecond(),
            body: serde_json::to_string(inquiry).map_err(StoreError::new)?,
        })
    }
}

fn read(version: i64, body: &str) -> Result<Inquiry, StoreError> {
    let inquiry: Inquiry = serde_json::from_str(body).map_err(StoreError::new)?;
    Ok(Inquiry { version, ..inquiry })
}

/// That a letter found no place.
fn lost(letter: &Letter) {
    tracing::error!(hook = %letter.hook, question = %letter.question, "too many letters wait: one was lost");
}

/// Whether a count allows one more.
fn judge(most: Most, all: i64, of_principal: i64) -> Inserted {
    let has = |count: i64, most: usize| usize::try_from(count).is_ok_and(|count| count >= most);
    if has(of_principal, most.of_principal) {
        Inserted::PrincipalFull
    } else if has(all, most.all) {
        Inserted::Full
    } else {
        Inserted::Done
    }
}
