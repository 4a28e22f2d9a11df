//! Making the tables, and bringing those of an earlier version to the present one, while other agents use them.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Transaction};

use super::ids;
use crate::store::{Row, StoreError, schema, statements as sql_of};

/// How long one step may take: others of the fleet may have to end first.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Two agents that begin at once would both find the tables missing. That they are there already is nothing to note.
const LOCK: &str = "set local client_min_messages = warning; select pg_advisory_xact_lock(7423611)";
const IS_THERE: &str = "select cast(count(to_regclass('tidegate_questions')) as bigint)";

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

/// Brings the tables to the present version: their form in one short transaction, and what they hold in as many as it takes, so
/// that nobody else waits for long. What was cut off goes on where it was.
///
/// # Errors
///
/// The database is away, or a later agent made its tables.
pub(super) async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    step(client, form).await?;
    while step(client, renew).await? {}
    Ok(())
}

async fn step<T>(
    client: &mut Client,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let done = timeout(PATIENCE, async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        let done = work(&transaction).await?;
        transaction.commit().await?;
        Ok(done)
    });
    done.await
        .unwrap_or_else(|_| Err(StoreError::new("the database takes too long to make its tables ready")))
}

async fn form(sql: &Transaction<'_>) -> Result<(), StoreError> {
    sql.batch_execute(schema::SCHEMA).await?;
    let known: Option<i64> = sql.query_one(schema::GET_VERSION, &[]).await?.try_get(0)?;
    let from = match known {
        Some(version) => version,
        None => sql.query_one(IS_THERE, &[]).await?.try_get(0)?,
    };
    if from == schema::VERSION {
        return Ok(());
    }
    sql.batch_execute(&schema::steps(from)?).await?;
    if from < 2 {
        sql.batch_execute(CHANGED).await?;
    }
    sql.batch_execute(schema::RENEW_ALL).await?;
    sql.execute(schema::CLEAR_VERSION, &[]).await?;
    sql.execute(schema::SET_VERSION, &[&schema::VERSION]).await?;
    Ok(())
}

/// Renews some rows. False if there are none any more.
async fn renew(sql: &Transaction<'_>) -> Result<bool, StoreError> {
    let Some(next) = sql.query_opt(schema::RENEWAL, &[]).await? else { return Ok(false) };
    let (table, after): (&str, &str) = (next.try_get(0)?, next.try_get(1)?);
    let last = match table {
        schema::QUESTIONS => renew_questions(sql, after).await?,
        _ => renew_letters(sql, after).await?,
    };
    match last {
        Some(last) => sql.execute(schema::RENEWED, &[&last, &table]).await?,
        None => sql.execute(schema::ALL_RENEWED, &[&table]).await?,
    };
    Ok(true)
}

/// The last one's id.
async fn renew_questions(sql: &Transaction<'_>, after: &str) -> Result<Option<String>, StoreError> {
    // Nobody may change what is being renewed.
    let load = sql.prepare(&format!("{} for update", sql_of::LOAD)).await?;
    let renew = sql.prepare(schema::RENEW_QUESTION).await?;
    let insert_key = sql.prepare(sql_of::INSERT_KEY).await?;
    let some = ids(sql, schema::SOME_QUESTIONS, &[&after]).await?;
    for id in &some {
        // It may have been forgotten.
        let Some(row) = sql.query_opt(&load, &[id]).await? else { continue };
        let (version, body) = (row.try_get(1)?, row.try_get(2)?);
        let Some((Row { principal, answered, brief, .. }, keys)) = schema::renewed(id, version, body) else {
            continue;
        };
        sql.execute(&renew, &[&principal, &answered, &brief, id]).await?;
        for key in keys {
            sql.execute(&insert_key, &[&key, id]).await?;
        }
    }
    Ok(some.into_iter().next_back())
}

/// The last one's id.
async fn renew_letters(sql: &Transaction<'_>, after: &str) -> Result<Option<String>, StoreError> {
    let load = sql.prepare(&format!("{} for update", schema::LETTER)).await?;
    let renew = sql.prepare(schema::RENEW_LETTER).await?;
    let some = ids(sql, schema::SOME_LETTERS, &[&after]).await?;
    for id in &some {
        let Some(row) = sql.query_opt(&load, &[id]).await? else { continue };
        let (event, answered) = schema::told(row.try_get(1)?);
        let question: &str = row.try_get(0)?;
        sql.execute(&renew, &[&answered, &event, &question, id]).await?;
    }
    Ok(some.into_iter().next_back())
}
