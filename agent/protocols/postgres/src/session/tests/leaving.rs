//! Clients that leave while the server is still about to read, or to change, what others go by.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::stage::*;

const CHANGE: &str = "create view v as select 1 as one";
const READ: &str = "select card from customers";

/// A change that its client doesn't wait for, and another session. The server has been asked for its answer.
async fn left() -> (Stage, Beside) {
    let mut stage = Stage::open().await;
    let other = stage.beside().await;
    stage.say(&[run(CHANGE), terminate()].concat()).await;
    stage.server_gets(&[parse("", CHANGE), bind("", ""), flush()].concat()).await;
    stage.answer(&[acknowledged(b'1'), acknowledged(b'2')].concat()).await;
    stage.server_gets(&[execute(""), flush()].concat()).await;
    (stage, other)
}

async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// It is told that it waits for the change.
async fn waits(other: &mut Beside) {
    other.client.write_all(&query(READ)).await.unwrap();
    let (kind, body) = next_message(&mut other.client).await;
    assert_eq!(char::from(kind), 'N', "{}", body.escape_ascii());
}

#[tokio::test]
async fn what_the_server_finishes_by_itself_is_not_cancelled() {
    let (mut stage, mut other) = left().await;
    stage.answer(&complete("CREATE VIEW")).await;
    stage.server_gets(&terminate()).await;
    stage.nothing_is_cancelled();
    stage.reset().await;
    within(&mut stage.rig.session).await.unwrap().unwrap();
    assert_eq!(outcomes(&stage.rig.memory), ["done", "done", "done"]);
    other.sends(&query(READ)).await;
}

#[tokio::test]
async fn what_goes_on_is_cancelled_before_the_goodbye() {
    let (mut stage, mut other) = left().await;
    later(4).await;
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
    let nothing = stage.server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    stage.answer(&error("57014")).await;
    stage.server_gets(&terminate()).await;
    stage.reset().await;
    other.sends(&query(READ)).await;
}

#[tokio::test]
async fn what_is_sent_by_a_session_that_may_no_longer_exist_is_cancelled_at_once() {
    let mut stage = Stage::open().await;
    stage.say(&query(CHANGE)).await;
    stage.server_gets(&query(CHANGE)).await;
    stage.rig.reload(&BUNDLE.replace("action: [login, cancel]", "action: cancel"));
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
    stage.answer(&[error("57014"), ready()].concat()).await;
    stage.ends().await.with("57P01");
}

#[tokio::test]
async fn a_change_that_never_ends_counts_for_as_long_as_the_server_goes_on() {
    let (mut stage, mut other) = left().await;
    later(4).await;
    stage.cancelled().await;
    later(4).await;
    stage.server_gets(&terminate()).await;
    within(&mut stage.rig.session).await.unwrap().unwrap();
    later(86_400).await;
    waits(&mut other).await;
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_may_have_been_a_poolers() {
    let (mut stage, mut other) = left().await;
    later(4).await;
    stage.cancelled().await;
    later(4).await;
    stage.server_gets(&terminate()).await;
    stage.reset().await;
    counts_for_a_while(&mut other).await;
}

#[tokio::test]
async fn a_connection_that_closes_before_the_client_leaves_may_have_been_a_poolers() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    stage.say(&query(CHANGE)).await;
    stage.server_gets(&query(CHANGE)).await;
    stage.reset().await;
    let ended = within(&mut stage.rig.session).await.unwrap();
    assert!(matches!(ended, Err(tidegate_gate::ServeError::Upstream(_))), "{ended:?}");
    counts_for_a_while(&mut other).await;
}

/// The change is held to go on for 30 seconds.
async fn counts_for_a_while(other: &mut Beside) {
    waits(other).await;
    later(31).await;
    // That was longer than it waits; and from now on nobody changes anything any more.
    other.server_gets(&query("refused_by_tidegate")).await;
    other.server.write_all(&[error("42601"), ready()].concat()).await.unwrap();
    read_until_ready(&mut other.client).await;
    other.sends(&query(READ)).await;
}
