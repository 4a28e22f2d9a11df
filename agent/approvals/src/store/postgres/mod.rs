//! The store of a fleet: one PostgreSQL for many agents.

mod connection;
mod tables;
mod tls;
mod trouble;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use tidegate_gate::BoxFuture;
use tokio_postgres::{Transaction, types::ToSql};

pub use self::connection::Settings;
use self::connection::{Database, Line, Preparation, Purpose};
use super::{
    Changed, Health, Inserted, Listed, Most, Row, STRAY, Store, StoreError, Unreadable, heard, is_taken_back,
    judge, keys, lost, read, sorted, statements as sql_of,
};
use crate::{Inquiry, Letter};

/// How long before a look a change may have been made that it is the first to see, in milliseconds: its transaction has to end
/// first, by the server's limit if nobody waits for it any more, and a little more.
const LATE: i64 = 25_000;
const NOW: &str = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
const CHANGED_SINCE: &str = "select id, version from tidegate_questions where changed > $1";

/// A database that the agents of a fleet share. Lists, which take longest, hold up no questions and answers.
pub struct Postgres {
    database: Arc<Database>,
    preparation: Preparation,
    asking: Line,
    listing: Line,
    unreadable: Unreadable,
}

impl Postgres {
    /// Begins to connect, within a runtime that outlives whoever asks: nobody waits for a database that is away. Once it is there,
    /// tables that are missing are made, and those of an earlier version brought to the present one. Until then, or if a later
    /// agent made its tables, everything is refused.
    ///
    /// # Errors
    ///
    /// The authorities that are to be trusted can't be read.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let database = Database::new(settings)?;
        Ok(Self {
            preparation: Preparation::begin(database.clone()),
            asking: Line::new(&database, Purpose::Asking),
            listing: Line::new(&database, Purpose::Listing),
            database,
            unreadable: Unreadable::default(),
        })
    }

    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.run_on(&self.asking, work).await
    }

    async fn run_on<T>(
        &self,
        line: &Line,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.preparation.done().await?;
        line.run(work).await
    }

    /// Each as far as it can be read.
    async fn inquiries(
        &self,
        line: &Line,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Result<Inquiry, StoreError>>, StoreError> {
        let rows = self.run_on(line, async move |sql| Ok(sql.query(statement, values).await?)).await?;
        let question = |row: &tokio_postgres::Row| read(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(rows.iter().map(question).collect())
    }

    async fn one(&self, line: &Line, statement: &str, id: &str) -> Result<Option<Inquiry>, StoreError> {
        let one = self.inquiries(line, statement, &[&id]).await?.pop().transpose();
        one.inspect_err(|error| self.unreadable.tell(error))
    }
}

async fn ids(
    sql: &Transaction<'_>,
    statement: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<String>, StoreError> {
    let rows = sql.query(statement, values).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

impl Store for Postgres {
    fn insert<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        most: Most,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<Inserted, StoreError>> {
        Box::pin(self.run(async move |sql| {
            let row = Row::of(inquiry)?;
            let counts = sql.query_one(sql_of::COUNT, &[&row.principal, &row.host, &row.asked]).await?;
            let (all, own): (i64, i64) = (counts.try_get(0)?, counts.try_get(1)?);
            let (since, until) = super::a_minute_around(row.asked);
            let recent: [&(dyn ToSql + Sync); 3] = [&row.principal, &since, &until];
            let recent = sql.query_one(sql_of::RECENT, &recent).await?.try_get(0)?;
            let judged = judge(most, all, own, recent);
            if judged != Inserted::Done {
                return Ok(judged);
            }
            let Row { id, version, host, principal, waiting, owed, answered, asked, alive, brief, body } =
                &row;
            let values: [&(dyn ToSql + Sync); 11] =
                [id, version, host, principal, waiting, owed, answered, asked, alive, brief, body];
            if sql.execute(sql_of::INSERT, &values).await? == 0 {
                return Ok(Inserted::Taken);
            }
            for key in keys(inquiry) {
                sql.execute(sql_of::INSERT_KEY, &[&key, id]).await?;
            }
            post(sql, letters).await?;
            Ok(Inserted::Done)
        }))
    }

    fn load<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(self.one(&self.asking, sql_of::LOAD, id))
    }

    fn brief<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(self.one(&self.listing, sql_of::BRIEF, id))
    }

    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.run(async |sql| {
            let Row { id, version, waiting, owed, answered, alive, brief, body, .. } = Row::of(inquiry)?;
            let values: [&(dyn ToSql + Sync); 8] =
                [&waiting, &owed, &answered, &alive, &brief, &body, &id, &version];
            let replaced = sql.execute(sql_of::REPLACE, &values).await? == 1;
            if !replaced {
                return Ok(false);
            }
            if is_taken_back(inquiry) {
                let unsaid = ids(sql, sql_of::UNSAY, &[&&*inquiry.host, &&*inquiry.id]).await?;
                post(sql, &heard(letters, &inquiry.host, &unsaid)).await?;
            } else {
                post(sql, letters).await?;
            }
            Ok(true)
        }))
    }

    fn find<'a>(
        &'a self,
        key: &'a str,
        waiting: bool,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        Box::pin(self.run(async move |sql| {
            let values: [&(dyn ToSql + Sync); 3] = [&key, &i64::from(waiting), &now.as_millisecond()];
            Ok(ids(sql, sql_of::FIND, &values).await?.into_iter().map(Into::into).collect())
        }))
    }

    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Listed, StoreError>> {
        let since = if all { i64::MIN } else { now.as_millisecond() };
        Box::pin(async move {
            let values: [&(dyn ToSql + Sync); 2] = [&since, &i64::from(limit)];
            let read = self.inquiries(&self.listing, sql_of::LIST, &values).await?;
            Ok(sorted(self.unreadable.sort_out(read)))
        })
    }

    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_account: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.run(async move |sql| {
            let (now, before) = (now.as_millisecond(), before.as_millisecond());
            let own: [&(dyn ToSql + Sync); 4] = [&host, &now, &before, &i64::from(of_account)];
            let mut forgotten = ids(sql, sql_of::FORGET, &own).await?;
            // A host whose clock is ahead must not take what the others wait for and rely on for old.
            let shared = now.min(sql.query_one(NOW, &[]).await?.try_get(0)?);
            let stray = before.saturating_sub(now.saturating_sub(shared)).saturating_sub(STRAY);
            forgotten.extend(ids(sql, sql_of::FORGET_STRAYS, &[&shared, &stray]).await?);
            for id in forgotten {
                sql.execute(sql_of::FORGET_KEYS, &[&id]).await?;
            }
            sql.execute(sql_of::FORGET_LETTERS, &[&stray]).await?;
            Ok(())
        }))
    }

    fn letters<'a>(
        &'a self,
        host: &'a str,
        hook: &'a str,
        now: Timestamp,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Letter>, StoreError>> {
        Box::pin(self.run_on(&self.listing, async move |sql| {
            let (now, latest) = Letter::due_between(now);
            let values: [&(dyn ToSql + Sync); 5] = [&host, &hook, &now, &latest, &i64::from(limit)];
            let rows = sql.query(sql_of::LETTERS, &values).await?;
            let letters = rows.iter().map(|row| {
                Ok(Letter {
                    id: row.try_get(0)?,
                    host: row.try_get::<_, &str>(1)?.into(),
                    hook: row.try_get::<_, &str>(2)?.into(),
                    question: row.try_get::<_, &str>(3)?.into(),
                    account: row.try_get(4)?,
                    urgent: row.try_get::<_, i64>(5)? != 0,
                    answered: row.try_get::<_, i64>(6)? != 0,
                    event: row.try_get(7)?,
                    body: super::letter_body(row.try_get(8)?),
                    written: row.try_get(9)?,
                    due: row.try_get(10)?,
                    attempts: row.try_get(11)?,
                })
            });
            letters.collect()
        }))
    }

    fn attempt<'a>(&'a self, letter: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.run(async move |sql| Ok(sql.execute(sql_of::ATTEMPT, &[&letter]).await? == 1)))
    }

    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.run(async move |sql| {
            match due {
                Some(due) => sql.execute(sql_of::POSTPONE, &[&due.as_millisecond(), &letter]).await?,
                None => sql.execute(sql_of::DELIVERED, &[&letter]).await?,
            };
            Ok(())
        }))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn changed(&self, since: Option<i64>) -> BoxFuture<'_, Result<Changed, StoreError>> {
        Box::pin(self.run_on(&self.listing, async move |sql| {
            let now: i64 = sql.query_one(NOW, &[]).await?.try_get(0)?;
            let rows = match since {
                Some(since) => sql.query(CHANGED_SINCE, &[&since]).await?,
                None => Vec::new(),
            };
            let questions = rows.iter().map(|row| Ok((row.try_get::<_, &str>(0)?.into(), row.try_get(1)?)));
            Ok(Changed {
                questions: questions.collect::<Result<_, StoreError>>()?,
                mark: now.saturating_sub(LATE),
            })
        }))
    }

    fn health(&self) -> Health {
        Health { trouble: self.database.troubles.known(), unreadable: self.unreadable.count() }
    }
}

async fn post(sql: &Transaction<'_>, letters: &[Letter]) -> Result<(), StoreError> {
    for letter in letters {
        let Letter { id, host, hook, question, account, urgent, answered, event, .. } = letter;
        let Letter { body, written, due, attempts, .. } = letter;
        let (host, hook, question, body) = (&**host, &**hook, &**question, body.to_string());
        let (urgent, answered) = (i64::from(*urgent), i64::from(*answered));
        let values: [&(dyn ToSql + Sync); 12] =
            [id, &host, &hook, &question, account, &urgent, &answered, event, &body, written, due, attempts];
        if sql.execute(sql_of::INSERT_LETTER, &values).await? == 0 {
            lost(letter);
        }
    }
    Ok(())
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}
