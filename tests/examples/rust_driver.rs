//! tokio-postgres as a governed account runs it: prepared statements, binary results, pipelining, COPY, a refusal.

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, Config, NoTls, error::SqlState};

const RAW: &str = "4111111111111111";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (client, connection) = configuration()?.connect(NoTls).await?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT card_number, email FROM customers WHERE id = $1", &[&1]).await?;
    let (card, mail): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    ensure!(card.ends_with("1111") && card != RAW, "not masked: {card}");
    ensure!(mail.starts_with("tok_"), "not masked: {mail}");
    pipelined(&client).await?;
    refused(&client).await?;
    println!("ok");
    Ok(())
}

/// Three statements in flight at once on one connection.
async fn pipelined(client: &Client) -> Result<()> {
    let statement = client.prepare("SELECT $1::int * 2").await?;
    let ask = async |number: i32| client.query_one(&statement, &[&number]).await?.try_get::<_, i32>(0);
    let doubled = tokio::try_join!(ask(1), ask(2), ask(3))?;
    ensure!(doubled == (2, 4, 6), "answers were mixed up: {doubled:?}");
    Ok(())
}

/// A refusal names the rule and leaves the connection usable.
async fn refused(client: &Client) -> Result<()> {
    let error = client.execute("DROP TABLE orders", &[]).await.err().context("DROP TABLE went through")?;
    ensure!(error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE), "another error: {error}");
    let message = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
    ensure!(message.contains("no-drop"), "it does not name the rule: {message}");
    let one: i32 = client.query_one("SELECT 1", &[]).await?.try_get(0)?;
    ensure!(one == 1, "the connection is not usable");
    Ok(())
}

/// libpq's variables, which this driver does not read by itself.
fn configuration() -> Result<Config> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let mut config = Config::new();
    config
        .host(variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .dbname(variable("PGDATABASE")?)
        .user(variable("PGUSER")?)
        .password(variable("PGPASSWORD")?);
    Ok(config)
}
