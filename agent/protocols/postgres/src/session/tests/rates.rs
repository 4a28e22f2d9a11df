//! What takes from a rate, and what doesn't.

use tokio::io::AsyncWriteExt;

use super::stage::*;
use crate::wire::backend::TransactionStatus;

/// The same bundle, in which everything but the sign-in is limited to two an hour.
async fn open() -> Stage {
    let limited = "    allow:\n      - statement: [select,";
    assert!(BUNDLE.contains(limited));
    Stage::open_under(&BUNDLE.replace(limited, &format!("    rate: 2/h\n{limited}"))).await
}

/// The client's text arrives, and is answered with this.
async fn passes(stage: &mut Stage, text: &str, answer: Vec<u8>) {
    stage.say(&query(text)).await;
    stage.server_gets(&query(text)).await;
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
}

/// The client's text doesn't arrive.
async fn is_over(stage: &mut Stage, text: &str) {
    is_over_in(stage, text, TransactionStatus::Idle).await;
}

async fn is_over_in(stage: &mut Stage, text: &str, status: TransactionStatus) {
    stage.say(&query(text)).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready_in(status)].concat()).await;
    stage.client_gets_error("53400").await;
    stage.client_gets(&ready_in(status)).await;
}

#[tokio::test]
async fn a_text_counts_as_many_as_its_statements_and_runs_whole_or_not_at_all() {
    let mut stage = open().await;
    is_over(&mut stage, "notify a; notify b; notify c").await;
    passes(&mut stage, "notify a", [complete("NOTIFY"), ready()].concat()).await;
    is_over(&mut stage, "notify a; notify b").await;
    passes(&mut stage, "notify b", [complete("NOTIFY"), ready()].concat()).await;
    is_over(&mut stage, "notify c").await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_ends_a_transaction_is_never_over_a_rate() {
    let mut stage = open().await;
    let open = |tag: &str| [complete(tag), ready_in(TransactionStatus::Transaction)].concat();
    passes(&mut stage, "begin", open("BEGIN")).await;
    passes(&mut stage, "savepoint s", open("SAVEPOINT")).await;
    passes(&mut stage, "rollback to s", open("ROLLBACK")).await;
    passes(&mut stage, "release s", open("RELEASE")).await;
    passes(&mut stage, "commit", [complete("COMMIT"), ready()].concat()).await;
    is_over(&mut stage, "commit; notify a").await;
    passes(&mut stage, "rollback", [complete("ROLLBACK"), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_portal_counts_once_however_often_it_goes_on_and_anew_when_it_is_bound_again() {
    let mut stage = open().await;
    let opened = [parse("s", "select 1"), bind("p", "s")].concat();
    let sent = [opened, execute("p").repeat(4), bind("q", "s"), execute("q"), sync()].concat();
    let suspended = [row("1"), acknowledged(b's')].concat().repeat(3);
    let done = [row("1"), complete("SELECT 1")].concat();
    let first = [acknowledged(b'1'), acknowledged(b'2'), suspended, done.clone()].concat();
    let answer = [first, acknowledged(b'2'), done, ready()].concat();
    stage.say(&sent).await;
    stage.server_gets(&sent).await;
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    is_over(&mut stage, "select 1").await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_stands_around_others_in_a_text_counts_only_by_itself() {
    let mut stage = open().await;
    let whole = "begin; set application_name = 'a'; savepoint s; notify a; release s; commit";
    let tags = ["BEGIN", "SET", "SAVEPOINT", "NOTIFY", "RELEASE", "COMMIT"];
    let answer = [tags.map(complete).concat(), ready()].concat();
    passes(&mut stage, whole, answer.clone()).await;
    passes(&mut stage, whole, answer).await;
    is_over(&mut stage, whole).await;
    is_over(&mut stage, "begin").await;
    is_over(&mut stage, "set application_name = 'a'").await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_cursor_that_is_declared_and_fetched_from_in_one_text_counts_once() {
    let mut stage = open().await;
    let whole =
        |name: &str| format!("begin; declare {name} cursor for select 1; fetch 1 from {name}; commit");
    let answer = [complete("BEGIN"), complete("DECLARE CURSOR"), rows("one", &["1"]), complete("FETCH 1")];
    for name in ["c", "d"] {
        passes(&mut stage, &whole(name), [answer.concat(), complete("COMMIT"), ready()].concat()).await;
    }
    is_over(&mut stage, &whole("e")).await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_fetches_more_from_a_known_cursor_counts_as_nothing() {
    let mut stage = open().await;
    let open = |tag: &str| [complete(tag), ready_in(TransactionStatus::Transaction)].concat();
    passes(&mut stage, "begin", open("BEGIN")).await;
    passes(&mut stage, "declare c cursor for select 1", open("DECLARE CURSOR")).await;
    for _ in 0..3 {
        let more = [rows("one", &["1"]), open("FETCH 1")].concat();
        passes(&mut stage, "fetch 1 from c; fetch 1 from c", more).await;
    }
    // What another cursor is, nobody knows.
    is_over_in(&mut stage, "move 1 in d", TransactionStatus::Transaction).await;
    passes(&mut stage, "rollback", [complete("ROLLBACK"), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_is_fetched_first_from_a_portal_that_was_bound_counts() {
    let mut stage = open().await;
    let within = TransactionStatus::Transaction;
    passes(&mut stage, "begin", [complete("BEGIN"), ready_in(within)].concat()).await;
    let bound = [parse("", "select 1"), bind("p", ""), sync()].concat();
    stage.say(&bound).await;
    stage.server_gets(&bound).await;
    let answer = [acknowledged(b'1'), acknowledged(b'2'), ready_in(within)].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    for _ in 0..3 {
        let answer = [rows("one", &["1"]), complete("FETCH 1"), ready_in(within)].concat();
        passes(&mut stage, "fetch 1 from p", answer).await;
    }
    is_over_in(&mut stage, "notify a", within).await;
    passes(&mut stage, "rollback", [complete("ROLLBACK"), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_cancel_request_is_never_over_a_rate() {
    let sign_in = "    allow: [{action: [login, cancel]}]\n";
    assert!(BUNDLE.contains(sign_in));
    // The sign-in is the one of the hour.
    let bundle = BUNDLE.replace(sign_in, &format!("{sign_in}    rate: 1/h\n"));
    let mut stage = Stage::open_under(&bundle).await;
    for _ in 0..2 {
        let (mut client, _session) = stage.rig.connect().await;
        client.write_all(&cancel_request(&stage.key)).await.unwrap();
        assert_eq!(within(stage.cancelled()).await, cancel_request(&(42, vec![1, 2, 3, 4])));
    }
    stage.still_works().await;
}
