//! The store of a fleet: one PostgreSQL for many agents.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_gate::BoxFuture;
use tokio::{runtime::Handle, sync::Mutex, time::timeout};
use tokio_postgres::{Client, Config, Transaction, config::SslMode, types::ToSql};

use super::{Inserted, Most, Row, Store, StoreError, judge, read};
use crate::{Inquiry, Letter, store::tls::Tls};

/// How long one transaction may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the database is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A connection string or URL as libpq takes it, `sslmode` included.
    pub connection: Config,
    /// PEM file of the authorities that are trusted with TLS; none for the system's.
    pub ca: Option<std::path::PathBuf>,
}

/// A database that the agents of a fleet share.
pub struct Postgres {
    settings: Settings,
    tls: Tls,
    client: Mutex<Option<Client>>,
    /// Where its connections live: those that ask come from threads that end.
    home: Handle,
}

impl Postgres {
    /// Connects, and makes the tables if they are missing.
    pub async fn open(settings: Settings) -> Result<Self, StoreError> {
        let tls = Tls::new(settings.ca.as_deref())?;
        let store = Self { settings, tls, client: Mutex::default(), home: Handle::current() };
        // Serialised: two agents that begin at once would both find the tables missing.
        store
            .run(async |sql| {
                sql.batch_execute("select pg_advisory_xact_lock(7423611)").await?;
                sql.batch_execute(super::TABLES).await?;
                Ok(())
            })
            .await?;
        Ok(store)
    }

    /// Runs a transaction on the one connection; after an error it is made anew.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slot = self.client.lock().await;
        let done = timeout(PATIENCE, async {
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
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Inquiry>, StoreError> {
        self.run(async |sql| {
            let rows = sql.query(statement, values).await?;
            rows.iter().map(|row| read(row.try_get(0)?, row.try_get(1)?)).collect()
        })
        .await
    }
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
            let counts = sql.query_one(super::COUNT, &[&row.principal, &row.host, &row.asked]).await?;
            let (all, own): (i64, i64) = (counts.try_get(0)?, counts.try_get(1)?);
            let recent: [&(dyn ToSql + Sync); 2] = [&row.principal, &super::a_minute_before(row.asked)];
            let recent = sql.query_one(super::RECENT, &recent).await?.try_get(0)?;
            let judged = judge(most, all, own, recent);
            if judged != Inserted::Done {
                return Ok(judged);
            }
            let Row { id, version, host, principal, waiting, owed, asked, alive, brief, body } = &row;
            let values: [&(dyn ToSql + Sync); 10] =
                [id, version, host, principal, waiting, owed, asked, alive, brief, body];
            if sql.execute(super::INSERT, &values).await? == 0 {
                return Ok(Inserted::Taken);
            }
            for term in &inquiry.terms {
                sql.execute(super::INSERT_KEY, &[&term.key, id]).await?;
            }
            post(sql, letters).await?;
            Ok(Inserted::Done)
        }))
    }

    fn load<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Inquiry>, StoreError>> {
        Box::pin(async move { Ok(self.inquiries(super::LOAD, &[&id]).await?.pop()) })
    }

    fn replace<'a>(
        &'a self,
        inquiry: &'a Inquiry,
        letters: &'a [Letter],
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.run(async |sql| {
            let Row { waiting, owed, alive, brief, body, id, version, .. } = Row::of(inquiry)?;
            let values: [&(dyn ToSql + Sync); 7] = [&waiting, &owed, &alive, &brief, &body, &id, &version];
            let replaced = sql.execute(super::REPLACE, &values).await? == 1;
            if replaced {
                post(sql, letters).await?;
            }
            Ok(replaced)
        }))
    }

    fn find<'a>(&'a self, key: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Inquiry>, StoreError>> {
        Box::pin(async move { self.inquiries(super::FIND, &[&key, &now.as_millisecond()]).await })
    }

    fn list(&self, all: bool, now: Timestamp, limit: u32) -> BoxFuture<'_, Result<Vec<Inquiry>, StoreError>> {
        let since = if all { i64::MIN } else { now.as_millisecond() };
        Box::pin(
            async move { self.inquiries(super::LIST, &[&since, &i64::from(limit)]).await.map(super::sorted) },
        )
    }

    fn forget<'a>(
        &'a self,
        host: &'a str,
        now: Timestamp,
        before: Timestamp,
        of_principal: u32,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.run(async move |sql| {
            let (now, before) = (now.as_millisecond(), before.as_millisecond());
            let values: [&(dyn ToSql + Sync); 4] = [&host, &now, &before, &i64::from(of_principal)];
            if sql.execute(super::FORGET, &values).await? > 0 {
                sql.execute(super::FORGET_KEYS, &[]).await?;
            }
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
        Box::pin(self.run(async move |sql| {
            let now = now.as_millisecond();
            let values: [&(dyn ToSql + Sync); 4] = [&host, &hook, &now, &i64::from(limit)];
            let rows = sql.query(super::LETTERS, &values).await?;
            let letters = rows.iter().map(|row| {
                Ok(Letter {
                    id: row.try_get(0)?,
                    host: row.try_get::<_, &str>(1)?.into(),
                    hook: row.try_get::<_, &str>(2)?.into(),
                    question: row.try_get::<_, &str>(3)?.into(),
                    principal: row.try_get(4)?,
                    urgent: row.try_get::<_, i64>(5)? != 0,
                    body: serde_json::from_str(row.try_get(6)?).map_err(StoreError::new)?,
                    written: row.try_get(7)?,
                    due: row.try_get(8)?,
                    attempts: row.try_get(9)?,
                })
            });
            letters.collect()
        }))
    }

    fn postpone<'a>(
        &'a self,
        letter: &'a str,
        due: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.run(async move |sql| {
            match due {
                Some(due) => sql.execute(super::POSTPONE, &[&due.as_millisecond(), &letter]).await?,
                None => sql.execute(super::DELIVERED, &[&letter]).await?,
            };
            Ok(())
        }))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

async fn post(sql: &Transaction<'_>, letters: &[Letter]) -> Result<(), StoreError> {
    for letter in letters {
        let Letter { id, host, hook, question, principal, urgent, body, written, due, attempts } = letter;
        let (host, hook, question, body) = (&**host, &**hook, &**question, body.to_string());
        let urgent = i64::from(*urgent);
        let values: [&(dyn ToSql + Sync); 10] =
            [id, &host, &hook, &question, principal, &urgent, &body, written, due, attempts];
        if sql.execute(super::INSERT_LETTER, &values).await? == 0 {
            super::lost(letter);
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
