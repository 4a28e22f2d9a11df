//! The store of a fleet: one PostgreSQL for many agents.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_gate::BoxFuture;
use tokio::{runtime::Handle, sync::Mutex, time::timeout};
use tokio_postgres::{Client, Config, Transaction, config::SslMode, types::ToSql};

use super::{
    Changed, Inserted, Most, Row, STRAY, Store, StoreError, heard, is_taken_back, judge, keys, lost, read,
    schema, sorted, statements as sql_of, tls::Tls,
};
use crate::{Inquiry, Letter};

/// How long one transaction may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the one may take that brings tables of an earlier version to the present one.
const PATIENCE_OF_STEPS: Duration = Duration::from_secs(600);
/// How long before a look a change may have been made that it is the first to see, in milliseconds: its transaction has to end
/// first, and a little more.
const LATE: i64 = 15_000;

/// When a question was asked or last changed, by the database's clock and through whichever agent, of whatever version.
const CHANGED: &str = "\
alter table tidegate_questions add column changed bigint not null default 0;
create index tidegate_questions_changed on tidegate_questions (changed);
create function tidegate_question_changed() returns trigger language plpgsql as $$ begin
    new.changed := cast(extract(epoch from clock_timestamp()) * 1000 as bigint);
    return new;
end $$;
create trigger tidegate_question_changed before insert or update on tidegate_questions
    for each row execute function tidegate_question_changed();
";
const NOW: &str = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
const CHANGED_SINCE: &str = "select id, version from tidegate_questions where changed > $1";

/// Where the database is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A connection string or URL as libpq takes it, `sslmode` included.
    pub connection: Config,
    /// PEM file of the authorities that are trusted with TLS; none for the system's.
    pub ca: Option<std::path::PathBuf>,
}

/// A database that the agents of a fleet share. Lists, which take longest, hold up no questions and answers.
pub struct Postgres {
    settings: Settings,
    tls: Tls,
    asking: Line,
    listing: Line,
    /// Where its connections live: those that ask come from threads that end.
    home: Handle,
}

/// One connection, in the order in which it is asked for.
type Line = Mutex<Option<Client>>;

impl Postgres {
    /// Connects. Tables that are missing are made, and those of an earlier version brought to the present one.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or a later agent made its tables.
    pub async fn open(settings: Settings) -> Result<Self, StoreError> {
        let tls = Tls::new(settings.ca.as_deref())?;
        let (asking, listing) = (Line::default(), Line::default());
        let store = Self { settings, tls, asking, listing, home: Handle::current() };
        store.run_on(&store.asking, PATIENCE_OF_STEPS, migrate).await?;
        Ok(store)
    }

    /// Runs a transaction; after an error its connection is made anew.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.run_on(&self.asking, PATIENCE, work).await
    }

    async fn run_on<T>(
        &self,
        line: &Line,
        patience: Duration,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slot = line.lock().await;
        let done = timeout(patience, async {
            let mut client = match slot.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let transaction = client.transaction().await?;
            let done = work(&transaction).await?;
            transaction.commit().await?;
            Ok((done, client))
        });
        let (done, client) =
            done.await.unwrap_or_else(|_| Err(StoreError::new("the database does not answer")))?;
        *slot = Some(client);
        Ok(done)
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let config = &self.settings.connection;
        let (client, driven) = match config.get_ssl_mode() {
            SslMode::Disable => {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                (client, self.home.spawn(connection))
            }
            _ => {
                let (client, connection) = config.connect(self.tls.clone()).await?;
                (client, self.home.spawn(connection))
            }
        };
        // It ends with the client, and what is wrong with it shows up there.
        drop(driven);
        Ok(client)
    }

    async fn inquiries(
        &self,
        line: &Line,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Inquiry>, StoreError> {
        let rows =
            self.run_on(line, PATIENCE, async move |sql| Ok(sql.query(statement, values).await?)).await?;
        rows.iter().map(|row| read(row.try_get(0)?, row.try_get(1)?)).collect()
    }
}

/// Brings the tables to the present version. Serialised: two agents that begin at once would both find the tables missing.
async fn migrate(sql: &Transaction<'_>) -> Result<(), StoreError> {
    sql.batch_execute("select pg_advisory_xact_lock(7423611)").await?;
    sql.batch_execute(schema::SCHEMA).await?;
    let known: Option<i64> = sql.query_one(schema::GET_VERSION, &[]).await?.try_get(0)?;
    let is_there = "select cast(count(to_regclass('tidegate_questions')) as bigint)";
    let from = match known {
        Some(version) => version,
        None => sql.query_one(is_there, &[]).await?.try_get(0)?,
    };
    if from == schema::VERSION {
        return Ok(());
    }
    sql.batch_execute(&schema::steps(from)?).await?;
    if from < 2 {
        sql.batch_execute(CHANGED).await?;
    }
    for id in ids(sql, schema::QUESTIONS, &[]).await? {
        let row = sql.query_one(sql_of::LOAD, &[&id]).await?;
        let (Row { id, principal, answered, brief, .. }, keys) =
            schema::renewed(row.try_get(0)?, row.try_get(1)?)?;
        sql.execute(schema::RENEW_QUESTION, &[&principal, &answered, &brief, &id]).await?;
        for key in keys {
            sql.execute(sql_of::INSERT_KEY, &[&key, &id]).await?;
        }
    }
    for id in ids(sql, schema::LETTERS, &[]).await? {
        let row = sql.query_one(schema::LETTER, &[&id]).await?;
        let (event, answered) = schema::told(row.try_get(1)?);
        let question: &str = row.try_get(0)?;
        sql.execute(schema::RENEW_LETTER, &[&answered, &event, &question, &id]).await?;
    }
    sql.execute(schema::CLEAR_VERSION, &[]).await?;
    sql.execute(schema::SET_VERSION, &[&schema::VERSION]).await?;
    Ok(())
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
        Box::pin(async move { Ok(self.inquiries(&self.asking, sql_of::LOAD, &[&id]).await?.pop()) })
    }

    fn brief<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(async move { Ok(self.inquiries(&self.listing, sql_of::BRIEF, &[&id]).await?.pop()) })
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

    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Vec<Inquiry>, StoreError>> {
        let since = if all { i64::MIN } else { now.as_millisecond() };
        Box::pin(async move {
            let values: [&(dyn ToSql + Sync); 2] = [&since, &i64::from(limit)];
            self.inquiries(&self.listing, sql_of::LIST, &values).await.map(sorted)
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
        Box::pin(self.run_on(&self.listing, PATIENCE, async move |sql| {
            let now = now.as_millisecond();
            let values: [&(dyn ToSql + Sync); 4] = [&host, &hook, &now, &i64::from(limit)];
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
                    body: serde_json::from_str(row.try_get(8)?).map_err(StoreError::new)?,
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
        Box::pin(self.run_on(&self.listing, PATIENCE, async move |sql| {
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

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The source says what the server said.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        Self(Arc::from(text))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}
