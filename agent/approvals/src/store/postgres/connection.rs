//! Connections to the fleet's database. None is needed to begin: whoever comes while it is away is told so.

use std::{sync::Arc, time::Duration};

use tidegate_gate::Credentials;
use tokio::{
    runtime::Handle,
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Config, Transaction, config::SslMode};

use super::{
    tables,
    tls::Tls,
    trouble::{self, Troubles},
};
use crate::store::StoreError;

/// How long one transaction may take, and how long its turn may be waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer the server goes on with a statement.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// For how long a database that was away is taken to be so, and how soon it is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// Where the database is, and who signs in.
#[derive(Clone)]
pub struct Settings {
    /// A connection string or URL as libpq takes it, `sslmode` included, without a password.
    pub connection: Config,
    /// PEM file of the authorities that are trusted with TLS; none for the system's.
    pub ca: Option<std::path::PathBuf>,
    /// Who has the credential to sign in with. It is asked for at each connect, so that a rotated one counts.
    pub credentials: Arc<dyn Credentials>,
    /// The credential's name.
    pub credential: Arc<str>,
}

/// The database, and what is wrong with it.
pub(super) struct Database {
    settings: Settings,
    tls: Tls,
    /// Where its connections live: those that ask come from threads that end.
    pub(super) home: Handle,
    pub(super) troubles: Troubles,
}

/// One connection, in the order in which it is asked for.
pub(super) struct Line {
    database: Arc<Database>,
    purpose: Purpose,
    slot: Mutex<Slot>,
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Questions and answers.
    Asking,
    /// Lists, letters, and what happens elsewhere, which is looked for all the time: nothing but reads.
    Listing,
}

#[derive(Default)]
struct Slot {
    client: Option<Client>,
    /// The database was away at this time. Whoever waited then, and whoever comes soon after, need not try again.
    away: Option<(Instant, StoreError)>,
}

/// Whether the tables are there.
#[derive(Clone)]
enum Prepared {
    /// Nobody knows yet.
    NotYet,
    /// Not for this reason.
    Failed(StoreError),
    /// They are.
    Yes,
}

/// What came of one attempt that did not succeed.
enum Attempt {
    /// The database is not there.
    Away(StoreError),
    /// It is, and did not do it.
    Failed(StoreError),
}

/// Makes the tables ready in the background: as soon as the database is there, however long that takes.
#[derive(Clone)]
pub(super) struct Preparation(watch::Receiver<Prepared>);

impl Database {
    pub(super) fn new(settings: Settings) -> Result<Arc<Self>, StoreError> {
        let tls = Tls::new(settings.ca.as_deref())?;
        Ok(Arc::new(Self { settings, tls, home: Handle::current(), troubles: Troubles::default() }))
    }

    /// Connects. The server ends a statement that takes longer than this and a little more, by when nobody waits for it any more:
    /// it doesn't see that they are gone while it waits for a lock or a standby.
    pub(super) async fn connect(&self, longest: Duration) -> Result<Client, StoreError> {
        let Settings { connection, credentials, credential, .. } = &self.settings;
        let mut config = connection.clone();
        let credential = credentials.credential(credential).await.map_err(StoreError::new)?;
        if let Some(user) = &credential.user {
            config.user(&**user);
        }
        if let Some(password) = &credential.password {
            config.password(password.expose());
        }
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
        let limit = longest.saturating_add(GRACE).as_millis();
        client.batch_execute(&format!("set statement_timeout = {limit}")).await?;
        Ok(client)
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let connected = timeout(PATIENCE, self.connect(tables::PATIENCE)).await;
        let mut client = connected.unwrap_or_else(|_| Err(no_answer()))?;
        tables::migrate(&mut client).await
    }
}

impl Preparation {
    /// Begins. It ends when nobody holds it any more.
    pub(super) fn begin(database: Arc<Database>) -> Self {
        let (told, prepared) = watch::channel(Prepared::NotYet);
        let home = database.home.clone();
        home.spawn(async move {
            loop {
                let outcome = tokio::select! {
                    () = told.closed() => return,
                    outcome = database.prepare() => outcome,
                };
                database.troubles.note_asking(outcome.as_ref().map(|&()| ()));
                let done = outcome.is_ok();
                told.send_replace(outcome.map_or_else(Prepared::Failed, |()| Prepared::Yes));
                if done {
                    return;
                }
                sleep(AGAIN).await;
            }
        });
        Self(prepared)
    }

    /// The tables are there; else why not. Only while nobody knows yet it waits.
    pub(super) async fn done(&self) -> Result<(), StoreError> {
        let mut prepared = self.0.clone();
        let known = timeout(PATIENCE, prepared.wait_for(|now| !matches!(now, Prepared::NotYet))).await;
        match known.ok().and_then(Result::ok).map(|now| now.clone()) {
            Some(Prepared::Yes) => Ok(()),
            Some(Prepared::Failed(why)) => Err(why),
            _ => Err(StoreError::new("the database does not answer, or its tables are still made ready")),
        }
    }
}

impl Line {
    pub(super) fn new(database: &Arc<Database>, purpose: Purpose) -> Self {
        Self { database: database.clone(), purpose, slot: Mutex::default() }
    }

    /// Runs a transaction. While the database is away nobody waits for longer than one attempt takes, however many come.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let came = Instant::now();
        let mut slot = timeout(PATIENCE, self.slot.lock()).await.map_err(|_| no_answer())?;
        if let Some((at, why)) = &slot.away
            && (came <= *at || at.elapsed() < AGAIN)
        {
            return Err(why.clone());
        }
        let kept = slot.client.take().filter(|client| !client.is_closed());
        let done = timeout(PATIENCE, attempt(&self.database, kept, work)).await;
        match done.unwrap_or_else(|_| Err(Attempt::Away(no_answer()))) {
            Ok((done, client)) => {
                *slot = Slot { client: Some(client), away: None };
                self.note(Ok(()));
                Ok(done)
            }
            Err(Attempt::Failed(why)) => {
                self.note(Err(&Attempt::Failed(why.clone())));
                Err(why)
            }
            Err(Attempt::Away(why)) => {
                slot.away = Some((Instant::now(), why.clone()));
                self.note(Err(&Attempt::Away(why.clone())));
                Err(why)
            }
        }
    }

    /// What an attempt says of the database. Of what it refused one question may be the cause: a write that nobody asked for tells.
    fn note(&self, outcome: Result<(), &Attempt>) {
        let troubles = &self.database.troubles;
        match (self.purpose, outcome) {
            (Purpose::Asking, Ok(())) => {}
            (Purpose::Asking, Err(attempt)) => {
                if let Attempt::Away(why) = attempt {
                    troubles.note_asking(Err(why));
                }
                trouble::probe(&self.database);
            }
            (Purpose::Listing, Ok(())) => troubles.note_listing(Ok(())),
            (Purpose::Listing, Err(Attempt::Away(why) | Attempt::Failed(why))) => {
                troubles.note_listing(Err(why))
            }
        }
    }
}

/// One transaction, by the connection that was kept, if that still is one. After an error it isn't kept.
async fn attempt<T>(
    database: &Database,
    mut kept: Option<Client>,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<(T, Client), Attempt> {
    loop {
        let is_kept = kept.is_some();
        let mut client = match kept.take() {
            Some(client) => client,
            None => database.connect(PATIENCE).await.map_err(Attempt::Away)?,
        };
        let transaction = match client.transaction().await {
            Ok(transaction) => transaction,
            // Nothing was begun: the server may have been restarted since.
            Err(_) if is_kept => continue,
            Err(error) => return Err(Attempt::Away(error.into())),
        };
        let done = async {
            let done = work(&transaction).await?;
            transaction.commit().await?;
            Ok(done)
        };
        return match done.await {
            Ok(done) => Ok((done, client)),
            Err(error) if client.is_closed() => Err(Attempt::Away(error)),
            Err(error) => Err(Attempt::Failed(error)),
        };
    }
}

pub(super) fn no_answer() -> StoreError {
    StoreError::new("the database does not answer")
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
        Self::new(text)
    }
}
