//! Servers that say that rows come from elsewhere than the gate takes them to come from.

use super::stage::*;
use crate::wire::frontend::Kind;

/// What the gate shows in clear.
const READ: &str = "select id from customers";

/// `public.customers`, and the numbers of its columns.
const CUSTOMERS: u32 = 16384;
const ID: (u32, i16) = (CUSTOMERS, 1);
const CARD: (u32, i16) = (CUSTOMERS, 3);

const NUMBER: &str = "4111111111111111";

fn differs(memory: &tidegate_gate::contract::Memory) -> Vec<String> {
    let lines = memory.lines();
    let events = lines.iter().filter(|line| line["event"] == "origin-differs");
    events.map(|line| line["detail"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_masked_column_that_the_plan_would_show_hides_the_result() {
    let mut stage = Stage::open().await;
    stage.say(&query(READ)).await;
    stage.server_gets(&query(READ)).await;
    stage.answer(&[described_as("id", CARD), row(NUMBER), complete("SELECT 1"), ready()].concat()).await;
    let hidden = [described_as("id", CARD), row("***"), complete("SELECT 1"), ready()].concat();
    stage.client_gets(&hidden).await;
    let memory = stage.leaves().await;
    assert_eq!(differs(&memory), ["column 1 is public.customers.card, which is masked"]);
}

#[tokio::test]
async fn a_driver_that_skips_describe_does_not_go_past_that() {
    let mut stage = Stage::open().await;
    let described = [parse("", READ), bind("", ""), describe(Kind::Portal, "")].concat();
    stage.say(&[run(READ), sync()].concat()).await;
    stage.server_gets(&[described, execute(""), sync()].concat()).await;
    let begun = [acknowledged(b'1'), acknowledged(b'2')].concat();
    let rows = [row(NUMBER), complete("SELECT 1"), ready()].concat();
    stage.answer(&[begun.clone(), described_as("id", CARD), rows].concat()).await;
    stage.client_gets(&[begun, row("***"), complete("SELECT 1"), ready()].concat()).await;
    assert_eq!(differs(&stage.leaves().await).len(), 1);
}

#[tokio::test]
async fn what_was_sent_before_the_catalog_was_forgotten_is_hidden_all_the_same() {
    let mut stage = Stage::open().await;
    stage.say(&query(READ).repeat(2)).await;
    stage.server_gets(&query(READ).repeat(2)).await;
    let answer = |value: &str| [described_as("id", CARD), row(value), complete("SELECT 1"), ready()].concat();
    stage.answer(&answer(NUMBER)).await;
    stage.client_gets(&answer("***")).await;
    // Understanding this forgets what the first answer contradicted.
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    stage.answer(&answer(NUMBER)).await;
    stage.client_gets(&answer("***")).await;
    assert_eq!(differs(&stage.leaves().await).len(), 2);
}

#[tokio::test]
async fn other_columns_than_were_expected_end_the_statement_in_an_error() {
    let text = "select id, id from customers";
    for extended in [false, true] {
        let mut stage = Stage::open().await;
        let begun = [acknowledged(b'1'), acknowledged(b'2')].concat();
        if extended {
            stage.say(&[run(text), sync()].concat()).await;
            let described = [parse("", text), bind("", ""), describe(Kind::Portal, "")].concat();
            stage.server_gets(&[described, execute(""), sync()].concat()).await;
            stage.answer(&begun).await;
            stage.client_gets(&begun).await;
        } else {
            stage.say(&query(text)).await;
            stage.server_gets(&query(text)).await;
        }
        stage.answer(&[described_as("id", ID), row("7")].concat()).await;
        stage.cancelled().await;
        if !extended {
            stage.client_gets(&described_as("id", ID)).await;
        }
        stage.answer(&[error("57014"), ready()].concat()).await;
        stage.client_gets_error("0A000").await;
        stage.client_gets(&ready()).await;
        assert_eq!(differs(&stage.leaves().await), ["1 columns where 2 were expected"]);
    }
}

#[tokio::test]
async fn other_columns_of_what_is_over_already_end_the_session() {
    let mut stage = Stage::open().await;
    let text = "select id, id from customers";
    stage.say(&query(text)).await;
    stage.server_gets(&query(text)).await;
    stage.answer(&[described_as("id", ID), row("7"), complete("SELECT 1"), ready()].concat()).await;
    stage.client_gets(&described_as("id", ID)).await;
    stage.ends().await.with("0A000");
}

#[tokio::test]
async fn what_was_foreseen_is_shown_as_it_was_planned() {
    let mut stage = Stage::open().await;
    for (text, origin, sent, shown) in [
        (READ, ID, "7", "7"),
        ("select card from customers", CARD, NUMBER, "************1111"),
        // A relation that nobody knows, and what is no column.
        (READ, (1, 1), "7", "7"),
        (READ, (0, 0), "7", "7"),
    ] {
        stage.say(&query(text)).await;
        stage.server_gets(&query(text)).await;
        let answer =
            |value: &str| [described_as("x", origin), row(value), complete("SELECT 1"), ready()].concat();
        stage.answer(&answer(sent)).await;
        stage.client_gets(&answer(shown)).await;
    }
    assert!(differs(&stage.leaves().await).is_empty());
}
