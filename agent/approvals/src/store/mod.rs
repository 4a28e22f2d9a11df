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

    /// Questions [in short](Inquiry::brief), newest first: those that wait, that owe a review, or whose yes still counts; or
    /// all. Of more than `limit`, those that wait come first, and of each principal as many as of the others.
    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Vec<Inquiry>, StoreError>>;

    /// Forgets this host's questions of which nothing comes any more, unless a review is owed: those that were asked before
    /// this time, and of each principal all but the newest.
    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_principal: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Letters of this host's agent to this receiver: of those that are due, alerts first, and of each asker as many as of
    /// the others; then those that are due next.
    fn letters<'a>(
        &'a self,
        host: &'a str,
        hook: &'a str,
        now: Timestamp,
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

/// How many may wait, and be asked.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Waiting, of everybody on the host.
    pub all: usize,
    /// Waiting, of one principal.
    pub of_principal: usize,
    /// Asked by one principal within a minute, whatever became of them.
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
    /// As many of this principal wait as may.
    PrincipalFull,
    /// This principal has asked as many within a minute as may be.
    TooMany,
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
create table if not exists tidegate_questions (
    id text primary key, version bigint not null, host text not null, principal text not null,
    waiting bigint not null, owed bigint not null, asked bigint not null, alive bigint not null,
    brief text not null, body text not null
);
create table if not exists tidegate_question_keys (
    key text not null, inquiry text not null, primary key (key, inquiry)
);
create index if not exists tidegate_questions_alive on tidegate_questions (alive);
create index if not exists tidegate_questions_principal on tidegate_questions (principal, asked);
create index if not exists tidegate_question_keys_inquiry on tidegate_question_keys (inquiry);
create table if not exists tidegate_letters (
    id text primary key, host text not null, hook text not null, question text not null, principal text not null,
    urgent bigint not null, body text not null, written bigint not null, due bigint not null, attempts bigint not null
);
create index if not exists tidegate_letters_due on tidegate_letters (host, hook, urgent, principal, due);
";

// Placeholders stand in the order of their numbers: SQLite counts them by first appearance.
const COUNT: &str = "select count(*), coalesce(sum(case when principal = $1 then 1 else 0 end), 0) \
    from tidegate_questions where host = $2 and waiting = 1 and alive > $3";
const RECENT: &str = "select count(*) from tidegate_questions where principal = $1 and asked > $2";
const INSERT: &str = "insert into tidegate_questions \
    (id, version, host, principal, waiting, owed, asked, alive, brief, body) \
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do nothing";
const INSERT_KEY: &str =
    "insert into tidegate_question_keys (key, inquiry) values ($1, $2) on conflict do nothing";
const LOAD: &str = "select version, body from tidegate_questions where id = $1";
const REPLACE: &str = "update tidegate_questions set version = version + 1, waiting = $1, owed = $2, alive = $3, \
    brief = $4, body = $5 where id = $6 and version = $7";
const FIND: &str = "select version, body from tidegate_questions where id in \
    (select inquiry from tidegate_question_keys where key = $1) and alive > $2 order by asked";
const LIST: &str = "select version, brief from tidegate_questions where alive > $1 or owed = 1 \
    order by waiting desc, row_number() over (partition by principal order by asked desc, id), asked desc, id limit $2";
const FORGET: &str = "delete from tidegate_questions where id in (select id from (\
    select id, asked, row_number() over (partition by principal order by asked desc, id) as place \
    from tidegate_questions where host = $1 and alive <= $2 and owed = 0) as ranked \
    where asked < $3 or place > $4)";
const FORGET_KEYS: &str =
    "delete from tidegate_question_keys where inquiry not in (select id from tidegate_questions)";
/// Most letters that wait for one receiver are 10,000, and 256 about one asker: who asks must not fill the disk while it is
/// away, nor take the room of the others. Alerts count by themselves.
const INSERT_LETTER: &str = "insert into tidegate_letters \
    (id, host, hook, question, principal, urgent, body, written, due, attempts) \
    select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as text), \
    cast($6 as bigint), cast($7 as text), cast($8 as bigint), cast($9 as bigint), cast($10 as bigint) \
    where (select count(*) from tidegate_letters where host = $2 and hook = $3 and urgent = $6) < 10000 \
    and (select count(*) from tidegate_letters \
    where host = $2 and hook = $3 and principal = $5 and urgent = $6) < 256";
const LETTERS: &str = "select id, host, hook, question, principal, urgent, body, written, due, attempts \
    from tidegate_letters where host = $1 and hook = $2 \
    order by case when due <= $3 then 0 else due end, urgent desc, \
    row_number() over (partition by principal order by due, written, id), due, written, id limit $4";
const POSTPONE: &str = "update tidegate_letters set due = $1, attempts = attempts + 1 where id = $2";
const DELIVERED: &str = "delete from tidegate_letters where id = $1";

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
    brief: String,
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
            brief: serde_json::to_string(&inquiry.brief()).map_err(StoreError::new)?,
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

/// From when on questions count as asked within a minute, in milliseconds since 1970.
fn a_minute_before(asked: i64) -> i64 {
    asked.saturating_sub(60_000)
}

/// Newest first.
fn sorted(mut inquiries: Vec<Inquiry>) -> Vec<Inquiry> {
    inquiries.sort_by(|one, other| other.asked.cmp(&one.asked).then_with(|| one.id.cmp(&other.id)));
    inquiries
}

/// Whether counts allow one more: of all that wait, of the principal's, and of what it asked of late.
fn judge(most: Most, all: i64, of_principal: i64, recent: i64) -> Inserted {
    let has = |count: i64, most: usize| usize::try_from(count).is_ok_and(|count| count >= most);
    if has(recent, most.a_minute) {
        Inserted::TooMany
    } else if has(of_principal, most.of_principal) {
        Inserted::PrincipalFull
    } else if has(all, most.all) {
        Inserted::Full
    } else {
        Inserted::Done
    }
}
