//! What works as if there were no gate.

use super::stage::*;
use crate::wire::{backend::TransactionStatus, frontend::Kind};

/// The server's view of a refused message of the extended flow.
fn standin() -> Vec<u8> {
    parse("refused_by_tidegate", "refused_by_tidegate")
}

/// A whole exchange in which nothing is changed on the way.
async fn exchange(stage: &mut Stage, sent: &[u8], answer: &[u8]) {
    stage.say(sent).await;
    stage.server_gets(sent).await;
    stage.answer(answer).await;
    stage.client_gets(answer).await;
}

fn ran() -> Vec<u8> {
    [acknowledged(b'1'), acknowledged(b'2'), row("1"), complete("SELECT 1")].concat()
}

#[tokio::test]
async fn a_pipeline_goes_on_after_an_error_at_any_position() {
    for failing in 0..4 {
        let mut stage = Stage::open().await;
        let sent = [run("select 1"), sync()].concat().repeat(4);
        let answers: Vec<_> = (0..4)
            .map(|position| {
                if position == failing {
                    [error("22012"), ready()].concat()
                } else {
                    [ran(), ready()].concat()
                }
            })
            .collect();
        exchange(&mut stage, &sent, &answers.concat()).await;
        let memory = stage.leaves().await;
        let mut wanted = vec!["done"; 5];
        wanted[failing + 1] = "failed";
        assert_eq!(outcomes(&memory), wanted);
    }
}

#[tokio::test]
async fn an_error_at_any_message_of_a_pipeline_skips_the_rest_up_to_the_sync() {
    let steps =
        [acknowledged(b'1'), acknowledged(b'2'), described("one"), complete("SELECT 1"), acknowledged(b'3')];
    for failing in 0..steps.len() {
        let mut stage = Stage::open().await;
        let sent =
            [parse("s", "select 1"), bind("p", "s"), describe(Kind::Portal, "p"), execute("p")].concat();
        let sent = [sent, close(Kind::Portal, "p"), sync()].concat();
        let answers = [steps[..failing].concat(), error("22012"), ready()].concat();
        exchange(&mut stage, &sent, &answers).await;
        stage.still_works().await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn a_refusal_at_any_position_of_a_pipeline_fails_that_one_alone() {
    for status in [TransactionStatus::Idle, TransactionStatus::Failed] {
        for forbidden in 0..3 {
            let mut stage = Stage::open().await;
            let good = [run("select 1"), sync()].concat();
            let mut said = vec![good.clone(); 3];
            said[forbidden] = [run("drop table t"), sync()].concat();
            stage.say(&said.concat()).await;
            said[forbidden] = [standin(), sync()].concat();
            stage.server_gets(&said.concat()).await;
            for position in 0..3 {
                if position == forbidden {
                    stage.answer(&[error("42601"), ready_in(status)].concat()).await;
                    stage.client_gets_error("42501").await;
                    stage.client_gets(&ready_in(status)).await;
                } else {
                    stage.answer(&[ran(), ready()].concat()).await;
                    stage.client_gets(&[ran(), ready()].concat()).await;
                }
            }
            stage.leaves().await;
        }
    }
}

#[tokio::test]
async fn a_refused_query_among_others_is_an_error_in_its_place() {
    for forbidden in 0..3 {
        let mut stage = Stage::open().await;
        let mut said = vec![query("select 1"); 3];
        said[forbidden] = query("select 1; drop table t");
        stage.say(&said.concat()).await;
        said[forbidden] = query("refused_by_tidegate");
        stage.server_gets(&said.concat()).await;
        for position in 0..3 {
            if position == forbidden {
                stage.answer(&[error("42601"), ready()].concat()).await;
                stage.client_gets_error("42501").await;
                stage.client_gets(&ready()).await;
            } else {
                stage.answer(&[complete("SELECT 0"), ready()].concat()).await;
                stage.client_gets(&[complete("SELECT 0"), ready()].concat()).await;
            }
        }
        stage.leaves().await;
    }
}

#[tokio::test]
async fn statements_and_portals_are_described_suspended_resumed_and_closed() {
    let mut stage = Stage::open().await;
    let types = message(b't', b"\0\0");
    let sent =
        [parse("s", "select 1"), describe(Kind::Statement, "s"), bind("p", "s"), describe(Kind::Portal, "p")];
    let sent =
        [sent.concat(), execute("p"), execute("p"), close(Kind::Portal, "p"), close(Kind::Statement, "s")];
    let answer = [acknowledged(b'1'), types, described("one"), acknowledged(b'2'), described("one")].concat();
    let rows = [row("1"), acknowledged(b's'), row("2"), complete("SELECT 1")].concat();
    let closed = [acknowledged(b'3'), acknowledged(b'3'), ready()].concat();
    exchange(&mut stage, &[sent.concat(), sync()].concat(), &[answer, rows, closed].concat()).await;
    // What was closed is gone.
    stage.say(&[bind("", "s"), sync()].concat()).await;
    stage.server_gets(&[standin(), sync()].concat()).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("26000").await;
    stage.client_gets(&ready()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_masked_portal_that_is_suspended_stays_masked_when_resumed() {
    let mut stage = Stage::open().await;
    let opened = [parse("", "select card from customers"), bind("", "")].concat();
    stage.say(&[opened.clone(), execute(""), execute(""), sync()].concat()).await;
    let asked = [describe(Kind::Portal, ""), execute("")].concat().repeat(2);
    stage.server_gets(&[opened, asked, sync()].concat()).await;
    let part = |end: Vec<u8>| [described("card"), row("4111111111111111"), end].concat();
    let answer = [
        acknowledged(b'1'),
        acknowledged(b'2'),
        part(acknowledged(b's')),
        part(complete("SELECT 1")),
        ready(),
    ];
    stage.answer(&answer.concat()).await;
    let part = |end: Vec<u8>| [row("************1111"), end].concat();
    let shown = [
        acknowledged(b'1'),
        acknowledged(b'2'),
        part(acknowledged(b's')),
        part(complete("SELECT 1")),
        ready(),
    ];
    stage.client_gets(&shown.concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn each_statement_of_a_text_is_shown_under_its_own_masks() {
    let mut stage = Stage::open().await;
    let text = query("select 1; select card from customers; select 2");
    stage.say(&text).await;
    stage.server_gets(&text).await;
    let answer = |card: &str| {
        let first = [rows("one", &["4111111111111111"]), complete("SELECT 1")].concat();
        let second = [rows("card", &[card]), complete("SELECT 1")].concat();
        [first.clone(), second, first, ready()].concat()
    };
    stage.answer(&answer("4111111111111111")).await;
    stage.client_gets(&answer("************1111")).await;
    stage.leaves().await;
}

#[tokio::test]
async fn empty_statements_are_nothing_to_decide_on() {
    let mut stage = Stage::open().await;
    exchange(&mut stage, &query(" ; -- nothing"), &[acknowledged(b'I'), ready()].concat()).await;
    let empty = [acknowledged(b'1'), acknowledged(b'2'), acknowledged(b'I'), ready()].concat();
    exchange(&mut stage, &[run(""), sync()].concat(), &empty).await;
    assert_eq!(stage.leaves().await.actions(), 1);
}

#[tokio::test]
async fn copies_from_the_client_end_or_fail_as_it_says_and_swallow_its_syncs() {
    for (end, last) in [(copy_done(), complete("COPY 1")), (copy_fail(), error("57014"))] {
        let mut stage = Stage::open().await;
        let copy = run("copy customers from stdin");
        stage.say(&[copy.clone(), sync()].concat()).await;
        stage.server_gets(&[copy, flush()].concat()).await;
        let begun = [acknowledged(b'1'), acknowledged(b'2'), copies_in()].concat();
        stage.answer(&begun).await;
        stage.client_gets(&begun).await;
        stage.say(&[copy_data("1\t4111\n"), flush(), end.clone(), sync()].concat()).await;
        stage.server_gets(&[copy_data("1\t4111\n"), end, flush()].concat()).await;
        stage.answer(&last).await;
        stage.client_gets(&last).await;
        stage.server_gets(&sync()).await;
        stage.answer(&ready()).await;
        stage.client_gets(&ready()).await;
        stage.still_works().await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn a_copy_that_the_server_ends_in_the_middle_leaves_the_session_usable() {
    for copy in [query("copy customers from stdin"), run("copy customers from stdin")] {
        let mut stage = Stage::open().await;
        let is_simple = copy[0] == b'Q';
        stage.say(&copy).await;
        stage.server_gets(&copy).await;
        let first = if is_simple { Vec::new() } else { [acknowledged(b'1'), acknowledged(b'2')].concat() };
        stage.answer(&[first.clone(), copies_in()].concat()).await;
        stage.client_gets(&[first, copies_in()].concat()).await;
        stage.answer(&error("22P04")).await;
        stage.client_gets_error("22P04").await;
        if is_simple {
            stage.answer(&ready()).await;
            stage.client_gets(&ready()).await;
            stage.say(&[copy_data("late"), copy_done()].concat()).await;
        } else {
            stage.say(&[copy_data("late"), copy_done(), sync()].concat()).await;
            stage.server_gets(&sync()).await;
            stage.answer(&ready()).await;
            stage.client_gets(&ready()).await;
        }
        stage.still_works().await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn copies_to_the_client_are_masked() {
    let mut stage = Stage::open().await;
    let copy = query("copy customers (id, card) to stdout");
    stage.say(&copy).await;
    stage.server_gets(&copy).await;
    let answer = |card: &str| {
        let data = copy_data(&format!("1\t{card}\n"));
        [message(b'H', b"\0\0\x02\0\0\0\0"), data, message(b'c', b""), complete("COPY 1"), ready()].concat()
    };
    stage.answer(&answer("4111111111111111")).await;
    stage.client_gets(&answer("************1111")).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_name_keeps_its_meaning_when_the_server_does_not_give_it_again() {
    let mut stage = Stage::open().await;
    let first = [parse("s", "select card from customers"), sync()].concat();
    exchange(&mut stage, &first, &[acknowledged(b'1'), ready()].concat()).await;
    exchange(&mut stage, &[parse("s", "select 1"), sync()].concat(), &[error("42P05"), ready()].concat())
        .await;
    stage.say(&[bind("", "s"), execute(""), sync()].concat()).await;
    stage.server_gets(&[bind("", "s"), describe(Kind::Portal, ""), execute(""), sync()].concat()).await;
    stage
        .answer(
            &[acknowledged(b'2'), described("card"), row("4111111111111111"), complete("SELECT 1"), ready()]
                .concat(),
        )
        .await;
    stage
        .client_gets(&[acknowledged(b'2'), row("************1111"), complete("SELECT 1"), ready()].concat())
        .await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_sql_prepares_and_declares_is_masked_when_it_is_used() {
    for (given, used) in [
        ("prepare s as select card from customers", "execute s"),
        ("declare c cursor with hold for select card from customers", "fetch all from c"),
    ] {
        let mut stage = Stage::open().await;
        exchange(&mut stage, &query(given), &[complete("OK"), ready()].concat()).await;
        let both =
            format!("{}; {used}", given.replace(" s ", " t ").replace(" c ", " d ")).replace("e s", "e t");
        let both = both.replace("from c", "from d").replace("from dustomers", "from customers");
        let answer = |card: &str| [rows("card", &[card]), complete("SELECT 1"), ready()].concat();
        stage.say(&query(used)).await;
        stage.server_gets(&query(used)).await;
        stage.answer(&answer("4111111111111111")).await;
        stage.client_gets(&answer("************1111")).await;
        stage.say(&query(&both)).await;
        stage.server_gets(&query(&both)).await;
        stage.answer(&[complete("OK"), answer("4111111111111111")].concat()).await;
        stage.client_gets(&[complete("OK"), answer("************1111")].concat()).await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn what_uses_a_name_waits_until_the_server_has_given_it() {
    let mut stage = Stage::open().await;
    stage.say(&[query("prepare s as select 1"), query("execute s")].concat()).await;
    stage.server_gets(&[query("prepare s as select 1"), flush()].concat()).await;
    stage.answer(&[complete("PREPARE"), ready()].concat()).await;
    stage.client_gets(&[complete("PREPARE"), ready()].concat()).await;
    stage.server_gets(&query("execute s")).await;
    stage.answer(&[complete("SELECT 0"), ready()].concat()).await;
    stage.client_gets(&[complete("SELECT 0"), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_is_prepared_and_never_executed_is_in_the_record() {
    let mut stage = Stage::open().await;
    let asked =
        [parse("", "select 1 as executed"), bind("", ""), execute(""), parse("", "select 1 as idle"), sync()];
    stage.say(&asked.concat()).await;
    stage.server_gets(&asked.concat()).await;
    let answer = ["1", "2"].map(|tag| acknowledged(tag.as_bytes()[0])).concat();
    let answer = [answer, complete("SELECT 0"), acknowledged(b'1'), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    let memory = stage.leaves().await;
    let lines = memory.lines();
    let prepared: Vec<_> = lines.iter().filter(|line| line["event"] == "prepared-only").collect();
    assert!(matches!(prepared.as_slice(), [line] if line["detail"] == "select 1 as idle"), "{lines:?}");
}

#[tokio::test]
async fn a_secret_in_a_text_that_is_only_prepared_is_not_recorded() {
    let mut stage = Stage::open().await;
    let asked = [parse("", "select 'password=hunter2'"), sync()].concat();
    stage.say(&asked).await;
    stage.server_gets(&asked).await;
    stage.answer(&[acknowledged(b'1'), ready()].concat()).await;
    stage.client_gets(&[acknowledged(b'1'), ready()].concat()).await;
    let memory = stage.leaves().await;
    assert!(memory.lines().iter().any(|line| line["event"] == "prepared-only"));
    assert!(!format!("{:?}", memory.lines()).contains("hunter2"));
}

#[tokio::test]
async fn rows_are_recorded_up_to_the_rules_limit_and_the_record_says_so() {
    let bundle = BUNDLE.replace("masks: [cards]\n", "masks: [cards]\n    record: {data: true, limit: 20B}\n");
    let mut stage = Stage::open_under(&bundle).await;
    let values = ["first", "second", "third", "fourth"];
    for text in ["select 1", "select 2"] {
        stage.say(&query(text)).await;
        stage.server_gets(&query(text)).await;
        let answer = [rows("one", &values), complete("SELECT 4"), ready()].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
    }
    let memory = stage.leaves().await;
    let lines = memory.lines();
    let shown: Vec<_> =
        lines.iter().filter(|line| line["type"] == "shown").map(|line| &line["data"]).collect();
    assert_eq!(shown, [r#"["first"]"#, r#"["second"]"#]);
    let said = lines.iter().filter(|line| line["type"] == "data-ends");
    assert_eq!(said.count(), 2, "once for each action");
    let counted = lines.iter().filter(|line| line["rows"] == 4);
    assert_eq!(counted.count(), 2, "the rows are counted all the same");
}
