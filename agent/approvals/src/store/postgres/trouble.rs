//! Whether people can be asked: what fails is told from when on, and a write that is tried for nothing else says when it is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::connection::{AGAIN, Database, PATIENCE, no_answer};
use crate::store::{StoreError, Trouble};

/// A question of nobody, as long as one of many bytes is, and gone before anybody else sees it: all that asking needs is tried.
const PROBE: &str = "insert into tidegate_questions \
    (id, version, host, principal, waiting, owed, answered, asked, alive, brief, body) \
    select 'probe ' || md5(cast(random() as text)), 0, '', '', 0, 0, 0, 0, 0, '', \
    string_agg(md5(cast(random() as text)), '') from generate_series(1, 1000) returning id";
const TAKE_BACK: &str = "delete from tidegate_questions where id = $1";

/// What is wrong, of what is done in one way.
#[derive(Default)]
pub(super) struct Troubles {
    asking: Mutex<Asking>,
    listing: Mutex<Option<Trouble>>,
}

/// Questions and answers.
#[derive(Default)]
struct Asking {
    trouble: Option<Trouble>,
    /// It is being tried whether a write goes through.
    is_probed: bool,
}

impl Troubles {
    /// Since when people can't be asked, or what they say elsewhere isn't seen, and why.
    pub(super) fn known(&self) -> Option<Trouble> {
        let asking = self.asking().trouble.clone();
        asking.or_else(|| self.listing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether people can be asked.
    pub(super) fn note_asking(&self, outcome: Result<(), &StoreError>) {
        match note(&mut self.asking().trouble, outcome) {
            Some(Told::Over) => {
                tracing::info!("people can be asked again: the database of approvals takes it")
            }
            Some(Told::Begun(why)) => {
                tracing::error!(%why, "people can't be asked until the database of approvals takes it");
            }
            Some(Told::Other(why)) => tracing::error!(%why, "people still can't be asked"),
            None => {}
        }
    }

    /// Whether lists, letters and what happens elsewhere can be read.
    pub(super) fn note_listing(&self, outcome: Result<(), &StoreError>) {
        let mut trouble = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        match note(&mut trouble, outcome) {
            Some(Told::Over) => tracing::info!("the database of approvals can be read again"),
            Some(Told::Begun(why)) => {
                tracing::error!(%why, "answers through other agents aren't seen until the database of approvals can be read");
            }
            Some(Told::Other(why)) => tracing::error!(%why, "the database of approvals still can't be read"),
            None => {}
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is new.
enum Told {
    Begun(StoreError),
    Other(StoreError),
    Over,
}

fn note(trouble: &mut Option<Trouble>, outcome: Result<(), &StoreError>) -> Option<Told> {
    match (outcome, &mut *trouble) {
        (Ok(()), known) => known.take().map(|_| Told::Over),
        (Err(why), None) => {
            *trouble = Some(Trouble { since: Timestamp::now(), why: why.clone() });
            Some(Told::Begun(why.clone()))
        }
        (Err(why), Some(known)) => (known.why.to_string() != why.to_string()).then(|| {
            known.why = why.clone();
            Told::Other(why.clone())
        }),
    }
}

/// Tries in the background whether a write goes through, until one does: what was read in the meantime says nothing of that, and
/// nor does it that one statement was refused.
pub(super) fn probe(database: &Arc<Database>) {
    let mut asking = database.troubles.asking();
    if asking.is_probed {
        return;
    }
    asking.is_probed = true;
    drop(asking);
    database.home.spawn(probe_until_it_is_well(Arc::downgrade(database)));
}

async fn probe_until_it_is_well(database: Weak<Database>) {
    loop {
        let Some(database) = database.upgrade() else { return };
        let outcome = timeout(PATIENCE, try_to_write(&database)).await.unwrap_or_else(|_| Err(no_answer()));
        let is_well = outcome.is_ok();
        if is_well {
            // Before that is told: a failure from now on is tried anew.
            database.troubles.asking().is_probed = false;
        }
        database.troubles.note_asking(outcome.as_ref().map(|&()| ()));
        drop(database);
        if is_well {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn try_to_write(database: &Database) -> Result<(), StoreError> {
    let mut client: Client = database.connect(PATIENCE).await?;
    let transaction = client.transaction().await?;
    let id: String = transaction.query_one(PROBE, &[]).await?.try_get(0)?;
    transaction.execute(TAKE_BACK, &[&id]).await?;
    Ok(transaction.commit().await?)
}
