//! The tables, and how those of earlier versions become these.

use serde_json::Value;

use super::{Row, StoreError, keys, read};
use crate::Told;

/// The version that this agent reads and writes. What an earlier agent made is brought here when it is opened; what a later
/// one made is left alone.
pub(super) const VERSION: i64 = 2;

/// Where the version is kept, and what of the rows is to be renewed still. Tables without it are of version 1.
pub(super) const SCHEMA: &str = "\
create table if not exists tidegate_schema (version bigint not null);
create table if not exists tidegate_renewal (what text primary key, after text not null);
";
pub(super) const GET_VERSION: &str = "select max(version) from tidegate_schema";
pub(super) const CLEAR_VERSION: &str = "delete from tidegate_schema";
pub(super) const SET_VERSION: &str = "insert into tidegate_schema (version) values ($1)";

/// Version 1. `alive` is the time (milliseconds since 1970) from which on nothing comes of a question any more.
const FIRST: &str = "\
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

/// Version 2: which questions people answered, and which letters tell of that; `principal` is the account that asks, and a
/// question is found by the very same one, too. An agent of
/// version 1 that still writes to a fleet's store leaves the new columns as they are by default.
const SECOND: &str = "\
alter table tidegate_questions add column answered bigint not null default 0;
alter table tidegate_letters add column answered bigint not null default 0;
alter table tidegate_letters add column event text not null default '';
";

/// Each version's statements, from the first.
const STEPS: [&str; 2] = [FIRST, SECOND];

/// What is made anew of each row after the steps, so many at a time and questions first: all together may be more than fits, and
/// takes longer than others should wait.
pub(super) const RENEW_ALL: &str = "delete from tidegate_renewal; \
    insert into tidegate_renewal (what, after) values ('questions', ''), ('letters', '')";
pub(super) const RENEWAL: &str = "select what, after from tidegate_renewal order by what desc limit 1";
pub(super) const RENEWED: &str = "update tidegate_renewal set after = $1 where what = $2";
pub(super) const ALL_RENEWED: &str = "delete from tidegate_renewal where what = $1";
/// What [`RENEWAL`] calls questions.
pub(super) const QUESTIONS: &str = "questions";
pub(super) const SOME_QUESTIONS: &str =
    "select id from tidegate_questions where id > $1 order by id limit 200";
pub(super) const RENEW_QUESTION: &str =
    "update tidegate_questions set principal = $1, answered = $2, brief = $3 where id = $4";
pub(super) const SOME_LETTERS: &str = "select id from tidegate_letters where id > $1 order by id limit 200";
pub(super) const LETTER: &str = "select question, body from tidegate_letters where id = $1";
pub(super) const RENEW_LETTER: &str = "update tidegate_letters set answered = $1, event = $2, \
     principal = coalesce((select principal from tidegate_questions where id = $3), principal) where id = $4";

/// The statements that bring tables of this version, 0 if there are none, to the present one.
///
/// # Errors
///
/// A later agent made them.
pub(super) fn steps(from: i64) -> Result<String, StoreError> {
    if from > VERSION {
        return Err(StoreError::new(format!(
            "its tables are of version {from}, and this agent knows {VERSION}: run the agent that made them, or a later one, or \
             give this one a store of its own"
        )));
    }
    let done = usize::try_from(from).unwrap_or_default();
    Ok(STEPS.get(done..).unwrap_or_default().concat())
}

/// A question as this version keeps it, and the keys that it is found by. One that can't be read stays as it is.
pub(super) fn renewed(id: &str, version: i64, body: &str) -> Option<(Row, Vec<String>)> {
    let renewed = read(id, version, body).and_then(|inquiry| Ok((Row::of(&inquiry)?, keys(&inquiry))));
    renewed.inspect_err(|error| tracing::error!(%error, "left as an earlier agent wrote it")).ok()
}

/// What a letter tells of, and whether people brought that about.
pub(super) fn told(body: &str) -> (String, i64) {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let event = body.pointer("/data/event").and_then(Value::as_str).unwrap_or_default();
    let asker_s = [Told::Asked, Told::Expired, Told::Withdrawn, Told::Cancelled].map(Told::step);
    (event.to_owned(), i64::from(!asker_s.contains(&event)))
}
