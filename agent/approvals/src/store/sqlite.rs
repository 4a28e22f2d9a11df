//! The embedded store: one file.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tidegate_gate::BoxFuture;

use super::{Inserted, Most, Row, Store, StoreError, judge, read};
use crate::{Inquiry, Letter};

/// One file, which only this agent writes.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Mutex<Connection>>);

impl Sqlite {
    /// Opens the file, or begins it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let at = |error: rusqlite::Error| StoreError::new(format!("{}: {error}", path.display()));
        let connection = Connection::open(path).map_err(at)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(at)?;
        connection.pragma_update(None, "synchronous", "full").map_err(at)?;
        connection.execute_batch(super::TABLES).map_err(at)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Runs a transaction where blocking is no harm.
    fn run<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let mut connection = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            });
            done.await.unwrap_or_else(|_| Err(StoreError::new("it was cut off")))
        })
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
            let (all, own) = sql.query_row(super::COUNT, counts, |row| Ok((row.get(0)?, row.get(1)?)))?;
            let recent = params![row.principal, super::a_minute_before(row.asked)];
            let recent = sql.query_row(super::RECENT, recent, |row| row.get(0))?;
            let judged = judge(most, all, own, recent);
            if judged != Inserted::Done {
                return Ok(judged);
            }
            let inserted = sql.execute(
                super::INSERT,
                params![
                    row.id,
                    row.version,
                    row.host,
                    row.principal,
                    row.waiting,
                    row.owed,
                    row.asked,
                    row.alive,
                    row.brief,
                    row.body
                ],
            )?;
            if inserted == 0 {
                return Ok(Inserted::Taken);
            }
            for key in keys {
                sql.execute(super::INSERT_KEY, params![key, row.id])?;
            }
            post(sql, &letters)?;
            Ok(Inserted::Done)
        })
    }

    fn load<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        let id = id.to_owned();
        self.run(move |sql| {
            let row: Option<(i64, String)> =
                sql.query_row(super::LOAD, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            row.map(|(version, body)| read(version, &body)).transpose()
        })
    }

    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let row = Row::of(inquiry);
        let letters = letters.to_vec();
        self.run(move |sql| {
            let row = row?;
            let values = params![row.waiting, row.owed, row.alive, row.brief, row.body, row.id, row.version];
            let replaced = sql.execute(super::REPLACE, values)? == 1;
            if replaced {
                post(sql, &letters)?;
            }
            Ok(replaced)
        })
    }

    fn find<'a>(&'a self, key: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Inquiry>, StoreError>> {
        let key = key.to_owned();
        self.run(move |sql| inquiries(sql, super::FIND, params![key, now.as_millisecond()]))
    }

    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Vec<Inquiry>, StoreError>> {
        let since = if all { i64::MIN } else { now.as_millisecond() };
        self.run(move |sql| inquiries(sql, super::LIST, params![since, limit]).map(super::sorted))
    }

    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_principal: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (host, now, before) = (host.to_owned(), now.as_millisecond(), before.as_millisecond());
        self.run(move |sql| {
            if sql.execute(super::FORGET, params![host, now, before, of_principal])? > 0 {
                sql.execute(super::FORGET_KEYS, [])?;
            }
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
        let (host, hook, now) = (host.to_owned(), hook.to_owned(), now.as_millisecond());
        self.run(move |sql| {
            let mut statement = sql.prepare_cached(super::LETTERS)?;
            let mut rows = statement.query(params![host, hook, now, limit])?;
            let mut letters = Vec::new();
            while let Some(row) = rows.next()? {
                letters.push(Letter {
                    id: row.get(0)?,
                    host: row.get(1)?,
                    hook: row.get(2)?,
                    question: row.get(3)?,
                    principal: row.get(4)?,
                    urgent: row.get(5)?,
                    body: serde_json::from_str(&row.get::<_, String>(6)?).map_err(StoreError::new)?,
                    written: row.get(7)?,
                    due: row.get(8)?,
                    attempts: row.get(9)?,
                });
            }
            Ok(letters)
        })
    }

    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let letter = letter.to_owned();
        self.run(move |sql| {
            match due {
                Some(due) => sql.execute(super::POSTPONE, params![due.as_millisecond(), letter])?,
                None => sql.execute(super::DELIVERED, [letter])?,
            };
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        false
    }
}

fn keys(inquiry: &Inquiry) -> Vec<String> {
    inquiry.terms.iter().map(|term| term.key.clone()).collect()
}

fn post(sql: &Transaction<'_>, letters: &[Letter]) -> Result<(), StoreError> {
    for letter in letters {
        let Letter { id, host, hook, question, principal, urgent, body, written, due, attempts } = letter;
        let body = body.to_string();
        let values = params![id, host, hook, question, principal, urgent, body, written, due, attempts];
        if sql.execute(super::INSERT_LETTER, values)? == 0 {
            super::lost(letter);
        }
    }
    Ok(())
}

fn inquiries(
    sql: &Transaction<'_>,
    statement: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Inquiry>, StoreError> {
    let mut statement = sql.prepare_cached(statement)?;
    let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (version, body) = row?;
        read(version, &body)
    })
    .collect()
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error)
    }
}
