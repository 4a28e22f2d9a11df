//! While a statement is being understood, which may take long, everything else goes on.

use std::time::Duration;

use tidegate_gate::ServeError;
use tokio::io::AsyncWriteExt;

use super::stage::*;
use crate::database::{READERS, UNDERSTANDING};

/// The rig's user id.
const ACCOUNT: u32 = 0;

/// A text that is read on a thread of its own.
fn long() -> String {
    format!("select {}", ["1111"; 1600].join(", "))
}

/// A text whose relation the server says nothing about.
fn of_silence() -> String {
    format!("select * from {SILENCE}")
}

/// Asks for a session to be cancelled, and waits until the gate has taken that.
async fn cancel(stage: &Stage) {
    let (mut client, session) = stage.rig.connect().await;
    client.write_all(&cancel_request(&stage.key)).await.unwrap();
    within(session).await.unwrap().unwrap();
}

/// A session whose last message waits to be understood.
async fn waiting(text: &str) -> Stage {
    let mut stage = Stage::open().await;
    stage.say(&[query("select 1"), query(text)].concat()).await;
    stage.server_gets(&query("select 1")).await;
    // By the time that this arrives the next one is waited for.
    let answer = [rows("one", &["1"]), complete("SELECT 1"), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    stage
}

/// The statement was refused, and nothing of it reached the server.
async fn refused_unread(stage: &mut Stage, sqlstate: &str) {
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error(sqlstate).await;
    stage.client_gets(&ready()).await;
    let lines = stage.rig.memory.lines();
    assert_eq!(lines.iter().filter(|line| line["decision"] == "deny").count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_cancel_request_ends_the_wait_and_the_session_goes_on() {
    let turn = READERS.of(ACCOUNT).await;
    for text in [long(), of_silence()] {
        let mut stage = waiting(&text).await;
        cancel(&stage).await;
        refused_unread(&mut stage, "57014").await;
        stage.still_works().await;
    }
    drop(turn);
}

#[tokio::test]
async fn a_long_text_that_waits_for_the_catalog_keeps_no_other_waiting() {
    let _stage = waiting(&format!("{} from {SILENCE}", long())).await;
    drop(within(READERS.of(ACCOUNT)).await);
}

#[tokio::test]
async fn a_cancel_request_is_for_what_runs_as_long_as_anything_does() {
    let turn = READERS.of(ACCOUNT).await;
    let mut stage = Stage::open().await;
    stage.say(&[query("select 1"), query(&long())].concat()).await;
    stage.server_gets(&query("select 1")).await;
    cancel(&stage).await;
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
    let answer = [error("57014"), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets_error("57014").await;
    stage.client_gets(&ready()).await;
    drop(turn);
    stage.server_gets(&query(&long())).await;
}

#[tokio::test]
async fn a_cancel_request_reaches_it_behind_a_pipeline_that_the_client_has_not_ended() {
    let _turn = READERS.of(ACCOUNT).await;
    let mut stage = Stage::open().await;
    stage.say(&[run("select 1"), parse("", &long())].concat()).await;
    stage.server_gets(&run("select 1")).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1001)).await;
    tokio::time::resume();
    stage.server_gets(&flush()).await;
    let answer = [acknowledged(b'1'), acknowledged(b'2'), row("1"), complete("SELECT 1")].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    cancel(&stage).await;
    stage.server_gets(&parse("refused_by_tidegate", "refused_by_tidegate")).await;
    stage.say(&sync()).await;
    stage.server_gets(&sync()).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("57014").await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_session_whose_sign_in_is_no_longer_allowed_ends_at_once() {
    let _turn = READERS.of(ACCOUNT).await;
    for text in [long(), of_silence()] {
        let stage = waiting(&text).await;
        stage.rig.reload(&BUNDLE.replace("action: [login, cancel]", "action: cancel"));
        let ended = stage.ends().await;
        ended.with("57P01");
        assert!(matches!(ended.result, Err(ServeError::Policy(_))), "{:?}", ended.result);
    }
}

#[tokio::test]
async fn a_stopping_agent_does_not_wait_for_it() {
    let _turn = READERS.of(ACCOUNT).await;
    let stage = waiting(&long()).await;
    stage.rig.stop();
    stage.ends().await.told("57P01");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session() {
    let _turn = READERS.of(ACCOUNT).await;
    for text in [long(), of_silence()] {
        let mut stage = waiting(&text).await;
        stage.rig.client.shutdown().await.unwrap();
        let ended = stage.ends().await;
        assert!(ended.result.is_ok(), "{:?}", ended.result);
        assert_eq!(ended.server, terminate());
    }
}

#[tokio::test]
async fn it_waits_no_longer_than_the_time_limit() {
    let _turn = READERS.of(ACCOUNT).await;
    for text in [long(), of_silence()] {
        let mut stage = waiting(&text).await;
        tokio::time::pause();
        tokio::time::advance(UNDERSTANDING + Duration::from_millis(1)).await;
        tokio::time::resume();
        let sqlstate = if text == long() { "53000" } else { "58030" };
        refused_unread(&mut stage, sqlstate).await;
        stage.still_works().await;
    }
}

#[tokio::test]
async fn a_change_of_definitions_does_not_wait_for_it_and_counts_for_it() {
    let turn = READERS.of(ACCOUNT).await;
    let text = format!("select card, {} from customers", ["1111"; 1600].join(", "));
    let mut stage = waiting(&text).await;
    let mut beside = stage.beside().await;
    beside.sends(&query("create view v as select 1 as one")).await;
    beside.answers(&[complete("CREATE VIEW"), ready()].concat()).await;
    drop(turn);
    stage.server_gets(&query(&text)).await;
}

#[tokio::test]
async fn a_text_that_differs_in_its_literals_alone_is_not_read_again() {
    let mut stage = Stage::open().await;
    let text = |card: &str| {
        format!("select id from customers where card = '{card}' or card in ({})", ["'x'"; 1200].join(", "))
    };
    let first = query(&text("4111"));
    stage.say(&first).await;
    stage.server_gets(&first).await;
    stage.answer(&[complete("SELECT 0"), ready()].concat()).await;
    stage.client_gets(&[complete("SELECT 0"), ready()].concat()).await;
    // From now on nothing of this length is read for this account.
    let _turn = READERS.of(ACCOUNT).await;
    let again = query(&text("4222"));
    stage.say(&again).await;
    stage.server_gets(&again).await;
}
