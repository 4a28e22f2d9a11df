//! The embedded store: one file.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tidegate_gate::BoxFuture;
use tokio::{runtime::Handle, sync::Mutex};

use super::{
    Changed, Health, Inserted, Listed, Most, Row, STRAY, Store, StoreError, Unreadable, heard, is_taken_back,
    judge, keys, lost, read, schema, sorted, statements as sql_of,
};
use crate::{Inquiry, Letter};

/// One file, which only this agent writes. Those who read neither wait for whoever writes nor hold them up, and lists, which
/// take longest, no others.
#[derive(Debug, Clone)]
pub struct Sqlite {
    write: Line,
    read: Line,
    list: Line,
    unreadable: Unreadable,
}

/// One connection, in the order in which it is asked for. Whoever waits for it holds no thread, and whoever has it waits for none
/// of the asker's own runtime, where others may keep all busy.
#[derive(Debug, Clone)]
struct Line {
    connection: Arc<Mutex<Connection>>,
    writes: bool,
    home: Handle,
}

impl Sqlite {
    /// Opens the file, or begins it, within a runtime that outlives whoever asks; tables of an earlier version are brought to the
    /// present one, which blocks for as long as it takes.
    ///
    /// # Errors
    ///
    /// It is no such file, cannot be written, or is of a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let at = |error: StoreError| StoreError::new(format!("{}: {error}", path.display()));
        Self::open_all(path).map_err(at)
    }

    fn open_all(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        migrate(&mut connection)?;
        Ok(Self {
            write: Line::new(connection, true),
            read: Line::reading(path)?,
            list: Line::reading(path)?,
            unreadable: Unreadable::default(),
        })
    }

    async fn one(
        &self,
        line: &Line,
        statement: &'static str,
        id: &str,
    ) -> Result<Option<Inquiry>, StoreError> {
        let one = line.inquiries(statement, [id.to_owned()]).await?.pop().transpose();
        one.inspect_err(|error| self.unreadable.tell(error))
    }

    /// Runs a transaction that writes.
    fn run<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        self.write.run(work, Ok)
    }
}

impl Line {
    fn new(connection: Connection, writes: bool) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), writes, home: Handle::current() }
    }

    fn reading(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "query_only", true)?;
        // What the file's journal needs is opened now, as long as the path leads there.
        connection.query_row("select count(*) from sqlite_master", [], |_| Ok(()))?;
        Ok(Self::new(connection, false))
    }

    /// Runs a transaction where blocking is no harm, and `then` when others may have the connection again.
    fn run<'a, T: 'static, U: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(T) -> Result<U, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<U, StoreError>> {
        let Self { connection, writes, home } = self.clone();
        let behavior = if writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
        Box::pin(async move {
            let mut connection = connection.lock_owned().await;
            let done = home.spawn_blocking(move || {
                let transaction = connection.transaction_with_behavior(behavior)?;
                let done = work(&transaction)?;
                transaction.commit()?;
                drop(connection);
                then(done)
            });
            done.await.unwrap_or_else(|_| Err(StoreError::new("it was cut off")))
        })
    }

    fn inquiries<'a>(
        &self,
        statement: &'static str,
        values: impl rusqlite::Params + Send + 'static,
    ) -> BoxFuture<'a, Result<Vec<Result<Inquiry, StoreError>>, StoreError>> {
        let rows = move |sql: &Transaction<'_>| {
            let mut statement = sql.prepare_cached(statement)?;
            let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<Vec<(String, i64, String)>, _>>()?)
        };
        self.run(rows, |rows| Ok(rows.iter().map(|(id, version, body)| read(id, *version, body)).collect()))
    }
}

impl Store for Sqlite {
    fn insert<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        most: Most,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<Inserted, StoreError>> {
        let row = Row::of(inquiry);
        let (keys, letters) = (keys(inquiry), letters.to_vec());
        self.run(move |sql| {
            let row = row?;
            let counts = params![row.principal, row.host, row.asked];
            let (all, own) = sql.query_row(sql_of::COUNT, counts, |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (since, until) = super::a_minute_around(row.asked);
            let recent =
                sql.query_row(sql_of::RECENT, params![row.principal, since, until], |row| row.get(0))?;
            let judged = judge(most, all, own, recent);
            if judged != Inserted::Done {
                return Ok(judged);
            }
            let Row { id, version, host, principal, waiting, owed, answered, asked, alive, brief, body } =
                row;
            let values =
                params![id, version, host, principal, waiting, owed, answered, asked, alive, brief, body];
            if sql.execute(sql_of::INSERT, values)? == 0 {
                return Ok(Inserted::Taken);
            }
            for key in keys {
                sql.execute(sql_of::INSERT_KEY, params![key, id])?;
            }
            post(sql, &letters)?;
            Ok(Inserted::Done)
        })
    }

    fn load<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(self.one(&self.read, sql_of::LOAD, id))
    }

    fn brief<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(self.one(&self.read, sql_of::BRIEF, id))
    }

    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let row = Row::of(inquiry);
        let (taken_back, asked_at, letters) =
            (is_taken_back(inquiry), inquiry.host.clone(), letters.to_vec());
        self.run(move |sql| {
            let Row { id, version, waiting, owed, answered, alive, brief, body, .. } = row?;
            let values = params![waiting, owed, answered, alive, brief, body, id, version];
            if sql.execute(sql_of::REPLACE, values)? == 0 {
                return Ok(false);
            }
            if taken_back {
                let unsaid = ids(sql, sql_of::UNSAY, params![asked_at, id])?;
                post(sql, &heard(&letters, &asked_at, &unsaid))?;
            } else {
                post(sql, &letters)?;
            }
            Ok(true)
        })
    }

    fn find<'a>(
        &'a self,
        key: &'a str,
        waiting: bool,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        let key = key.to_owned();
        let found = move |sql: &Transaction<'_>| {
            ids(sql, sql_of::FIND, params![key, i64::from(waiting), now.as_millisecond()])
        };
        self.read.run(found, |ids| Ok(ids.into_iter().map(Into::into).collect()))
    }

    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Listed, StoreError>> {
        let since = if all { i64::MIN } else { now.as_millisecond() };
        let listing = self.list.inquiries(sql_of::LIST, (since, limit));
        Box::pin(async move { Ok(sorted(self.unreadable.sort_out(listing.await?))) })
    }

    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_account: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (host, now, before) = (host.to_owned(), now.as_millisecond(), before.as_millisecond());
        self.run(move |sql| {
            let stray = before.saturating_sub(STRAY);
            let mut forgotten = ids(sql, sql_of::FORGET, params![host, now, before, of_account])?;
            forgotten.extend(ids(sql, sql_of::FORGET_STRAYS, params![now, stray])?);
            for id in forgotten {
                sql.execute(sql_of::FORGET_KEYS, [id])?;
            }
            sql.execute(sql_of::FORGET_LETTERS, [stray])?;
            Ok(())
        })
    }

    fn letters<'a>(
        &'a self,
        host: &'a str,
        hook: &'a str,
        now: Timestamp,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Letter>, StoreError>> {
        let (host, hook, (now, latest)) = (host.to_owned(), hook.to_owned(), Letter::due_between(now));
        let rows = move |sql: &Transaction<'_>| {
            let mut statement = sql.prepare_cached(sql_of::LETTERS)?;
            let mut rows = statement.query(params![host, hook, now, latest, limit])?;
            let mut letters = Vec::new();
            while let Some(row) = rows.next()? {
                letters.push(Letter {
                    id: row.get(0)?,
                    host: row.get(1)?,
                    hook: row.get(2)?,
                    question: row.get(3)?,
                    account: row.get(4)?,
                    urgent: row.get(5)?,
                    answered: row.get(6)?,
                    event: row.get(7)?,
                    body: super::letter_body(&row.get::<_, String>(8)?),
                    written: row.get(9)?,
                    due: row.get(10)?,
                    attempts: row.get(11)?,
                });
            }
            Ok(letters)
        };
        self.list.run(rows, Ok)
    }

    fn attempt<'a>(&'a self, letter: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        let letter = letter.to_owned();
        self.run(move |sql| Ok(sql.execute(sql_of::ATTEMPT, [letter])? == 1))
    }

    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let letter = letter.to_owned();
        self.run(move |sql| {
            match due {
                Some(due) => sql.execute(sql_of::POSTPONE, params![due.as_millisecond(), letter])?,
                None => sql.execute(sql_of::DELIVERED, [letter])?,
            };
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn changed(&self, _since: Option<i64>) -> BoxFuture<'_, Result<Changed, StoreError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn health(&self) -> Health {
        Health { trouble: None, unreadable: self.unreadable.count() }
    }
}

/// Brings the tables to the present version: what they hold some at a time, so that the file's journal stays small. What was cut off
/// goes on where it was.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    step(connection, form)?;
    while step(connection, renew)? {}
    Ok(())
}

fn step<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

fn form(sql: &Transaction<'_>) -> Result<(), StoreError> {
    sql.execute_batch(schema::SCHEMA)?;
    let known: Option<i64> = sql.query_row(schema::GET_VERSION, [], |row| row.get(0))?;
    let is_there = "select count(*) from sqlite_master where type = 'table' and name = 'tidegate_questions'";
    let from = match known {
        Some(version) => version,
        None => sql.query_row(is_there, [], |row| row.get(0))?,
    };
    if from == schema::VERSION {
        return Ok(());
    }
    sql.execute_batch(&schema::steps(from)?)?;
    sql.execute_batch(schema::RENEW_ALL)?;
    sql.execute(schema::CLEAR_VERSION, [])?;
    sql.execute(schema::SET_VERSION, [schema::VERSION])?;
    Ok(())
}

/// Renews some rows. False if there are none any more.
fn renew(sql: &Transaction<'_>) -> Result<bool, StoreError> {
    let next = sql.query_row(schema::RENEWAL, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((table, after)): Option<(String, String)> = next else { return Ok(false) };
    let last = match &*table {
        schema::QUESTIONS => renew_questions(sql, &after)?,
        _ => renew_letters(sql, &after)?,
    };
    match last {
        Some(last) => sql.execute(schema::RENEWED, [&last, &table])?,
        None => sql.execute(schema::ALL_RENEWED, [&table])?,
    };
    Ok(true)
}

/// The last one's id.
fn renew_questions(sql: &Transaction<'_>, after: &str) -> Result<Option<String>, StoreError> {
    let some = ids(sql, schema::SOME_QUESTIONS, params![after])?;
    for id in &some {
        let (version, body): (i64, String) =
            sql.query_row(sql_of::LOAD, [id], |row| Ok((row.get(1)?, row.get(2)?)))?;
        let Some((Row { principal, answered, brief, .. }, keys)) = schema::renewed(id, version, &body) else {
            continue;
        };
        sql.execute(schema::RENEW_QUESTION, params![principal, answered, brief, id])?;
        for key in keys {
            sql.execute(sql_of::INSERT_KEY, params![key, id])?;
        }
    }
    Ok(some.into_iter().next_back())
}

/// The last one's id.
fn renew_letters(sql: &Transaction<'_>, after: &str) -> Result<Option<String>, StoreError> {
    let some = ids(sql, schema::SOME_LETTERS, params![after])?;
    for id in &some {
        let (question, body): (String, String) =
            sql.query_row(schema::LETTER, [id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (event, answered) = schema::told(&body);
        sql.execute(schema::RENEW_LETTER, params![answered, event, question, id])?;
    }
    Ok(some.into_iter().next_back())
}

fn post(sql: &Transaction<'_>, letters: &[Letter]) -> Result<(), StoreError> {
    for letter in letters {
        let Letter { id, host, hook, question, account, urgent, answered, event, .. } = letter;
        let Letter { body, written, due, attempts, .. } = letter;
        let body = body.to_string();
        let values =
            params![id, host, hook, question, account, urgent, answered, event, body, written, due, attempts];
        if sql.execute(sql_of::INSERT_LETTER, values)? == 0 {
            lost(letter);
        }
    }
    Ok(())
}

fn ids(
    sql: &Transaction<'_>,
    statement: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<String>, StoreError> {
    let mut statement = sql.prepare_cached(statement)?;
    let ids = statement.query_map(values, |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error)
    }
}
