//! What a client might try to see masked values, or to run what it may not.

use super::stage::*;
use crate::wire::{backend::TransactionStatus, frontend::Kind};

const CARDS: &str = "select card from customers";
const CARD: &str = "4111111111111111";

/// Whatever the server answers to the masked query, its values don't reach the client.
async fn cards_stay_hidden(mut stage: Stage, answers: &[u8]) {
    stage.answer(answers).await;
    stage.answer(&fatal("57P01")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut stage.server).await.unwrap();
    let ended = stage.ends().await;
    assert!(!contains(&ended.client, CARD.as_bytes()), "{}", ended.client.escape_ascii());
}

/// A simple query's answer that shows a card.
fn card() -> Vec<u8> {
    [rows("card", &[CARD]), complete("SELECT 1"), ready()].concat()
}

#[tokio::test]
async fn a_masked_column_is_masked() {
    let mut stage = Stage::open().await;
    stage.say(&query(CARDS)).await;
    stage.server_gets(&query(CARDS)).await;
    stage.answer(&card()).await;
    let shown = [rows("card", &["************1111"]), complete("SELECT 1"), ready()].concat();
    stage.client_gets(&shown).await;
}

#[tokio::test]
async fn a_copy_that_fails_before_it_reads_puts_no_masks_out_of_step() {
    let mut stage = Stage::open().await;
    let copy = run("copy customers from stdin (freeze)");
    stage.say(&[copy.clone(), sync(), copy_done(), sync(), query(CARDS), query("select 1")].concat()).await;
    stage.server_gets(&copy).await;
    stage.server_gets(&flush()).await;
    stage.answer(&[acknowledged(b'1'), acknowledged(b'2'), copies_in()].concat()).await;
    stage.answer(&error("55000")).await;
    // As many answers as a server gives that read both Syncs after its error.
    cards_stay_hidden(stage, &[ready(), ready(), card(), card()].concat()).await;
}

#[tokio::test]
async fn a_sync_between_two_copies_of_one_query_puts_no_masks_out_of_step() {
    let mut stage = Stage::open().await;
    let copies = query("copy customers from stdin; copy customers from stdin");
    let tail = [query("select 1/0"), query(CARDS)].concat();
    stage.say(&[copies.clone(), copy_done(), sync(), copy_done(), tail].concat()).await;
    stage.server_gets(&copies).await;
    let answers = [copies_in(), complete("COPY 0"), copies_in(), complete("COPY 0"), ready()].concat();
    cards_stay_hidden(stage, &[answers, error("22012"), ready(), card()].concat()).await;
}

#[tokio::test]
async fn what_follows_an_error_of_a_pipeline_puts_no_masks_out_of_step() {
    let mut stage = Stage::open().await;
    stage.say(&[parse("", "select nothing"), flush()].concat()).await;
    stage.server_gets(&[parse("", "select nothing"), flush()].concat()).await;
    stage.answer(&error("42703")).await;
    stage.client_gets_error("42703").await;
    // A server skips the query before the Sync.
    stage.say(&[query("select 1"), sync(), query("select 1/0"), query(CARDS)].concat()).await;
    stage.server_gets(&[sync(), query("select 1/0"), query(CARDS)].concat()).await;
    cards_stay_hidden(stage, &[ready(), error("22012"), ready(), card()].concat()).await;
}

#[tokio::test]
async fn nothing_but_copy_traffic_reaches_a_server_that_copies_in() {
    let others = [
        describe(Kind::Statement, ""),
        close(Kind::Portal, ""),
        query(&" ".repeat(20_000)),
        query("select 1"),
        run("select 1"),
        bind("", ""),
        execute(""),
        message(b'F', &[0; 10]),
    ];
    for other in others {
        let mut stage = Stage::open().await;
        let copy = query("copy customers from stdin");
        stage.say(&copy).await;
        stage.server_gets(&copy).await;
        stage.answer(&copies_in()).await;
        stage.client_gets(&copies_in()).await;
        stage.say(&other).await;
        stage.ends().await.with("08P01");
    }
}

#[tokio::test]
async fn a_name_prepared_by_a_text_that_failed_later_is_not_trusted_to_mean_what_it_meant() {
    let mut stage = Stage::open().await;
    stage.say(&query("prepare s as select 1")).await;
    stage.server_gets(&query("prepare s as select 1")).await;
    stage.answer(&[complete("PREPARE"), ready()].concat()).await;
    stage.client_gets(&[complete("PREPARE"), ready()].concat()).await;
    // PREPARE outlives the rollback of what it came with.
    let again = query(&format!("deallocate s; prepare s as {CARDS}; select 1/0"));
    stage.say(&again).await;
    stage.server_gets(&again).await;
    stage.answer(&[complete("DEALLOCATE"), complete("PREPARE"), error("22012"), ready()].concat()).await;
    stage.client_gets(&[complete("DEALLOCATE"), complete("PREPARE")].concat()).await;
    stage.client_gets_error("22012").await;
    stage.client_gets(&ready()).await;
    stage.say(&query("execute s")).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
}

#[tokio::test]
async fn a_statement_that_executes_another_follows_what_that_one_has_become() {
    let mut stage = Stage::open().await;
    let told = [complete("PREPARE"), ready()].concat();
    for text in ["prepare s as select 1", "begin"] {
        stage.say(&query(text)).await;
        stage.server_gets(&query(text)).await;
        stage.answer(&told).await;
        stage.client_gets(&told).await;
    }
    let parsed = [acknowledged(b'1'), ready()].concat();
    stage.say(&[parse("p", "execute s"), sync()].concat()).await;
    stage.server_gets(&[parse("p", "execute s"), sync()].concat()).await;
    stage.answer(&parsed).await;
    stage.client_gets(&parsed).await;
    let again = query(&format!("deallocate s; prepare s as {CARDS}"));
    stage.say(&again).await;
    stage.server_gets(&again).await;
    stage.answer(&[complete("DEALLOCATE"), told.clone()].concat()).await;
    stage.client_gets(&[complete("DEALLOCATE"), told].concat()).await;
    stage.say(&[bind("", "p"), execute(""), sync()].concat()).await;
    // Its rows are described to the gate, to be masked.
    stage.server_gets(&[bind("", "p"), describe(Kind::Portal, ""), execute(""), sync()].concat()).await;
    let answers = [acknowledged(b'2'), described("card"), row(CARD), complete("SELECT 1"), ready()].concat();
    cards_stay_hidden(stage, &answers).await;
}

#[tokio::test]
async fn names_that_a_server_cuts_to_the_same_are_refused() {
    for forbidden in [
        parse(&"n".repeat(64), "select 1"),
        bind(&"n".repeat(64), "s"),
        bind("", &"n".repeat(64)),
        execute(&"n".repeat(64)),
        describe(Kind::Portal, &"n".repeat(64)),
        close(Kind::Statement, &"n".repeat(64)),
    ] {
        let mut stage = Stage::open().await;
        let before = [parse("s", "select 1"), flush()].concat();
        stage.say(&before).await;
        stage.server_gets(&before).await;
        stage.answer(&acknowledged(b'1')).await;
        stage.client_gets(&acknowledged(b'1')).await;
        stage.say(&[forbidden, sync()].concat()).await;
        stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error("42622").await;
        stage.client_gets(&ready()).await;
        stage.still_works().await;
    }
}

#[tokio::test]
async fn rows_that_were_never_described_are_not_shown_under_a_mask() {
    let mut stage = Stage::open().await;
    stage.say(&query(CARDS)).await;
    stage.server_gets(&query(CARDS)).await;
    cards_stay_hidden(stage, &[row(CARD), complete("SELECT 1"), ready()].concat()).await;
}

#[tokio::test]
async fn rows_of_a_portal_that_was_said_to_have_none_are_not_shown_under_a_mask() {
    let mut stage = Stage::open().await;
    stage.say(&[run(CARDS), sync()].concat()).await;
    let asked = [parse("", CARDS), bind("", ""), describe(Kind::Portal, ""), execute(""), sync()].concat();
    stage.server_gets(&asked).await;
    let answers = [acknowledged(b'1'), acknowledged(b'2'), acknowledged(b'n'), row(CARD)].concat();
    cards_stay_hidden(stage, &answers).await;
}

#[tokio::test]
async fn a_function_call_whose_result_would_be_masked_is_refused() {
    let bundle = BUNDLE
        .replace("  - name: work", "  - name: calls\n    subjects: [tester]\n    resources: [it]\n    allow: [{statement: [function-call]}]\n  - name: work")
        .replace("    show: {keep-last: 4}", "    content: [card]\n    show: {keep-last: 4}")
        .replace("allow: [{statement: [function-call]}]", "allow: [{statement: [function-call]}]\n    masks: [cards]");
    let mut stage = Stage::open_under(&bundle).await;
    stage.say(&message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("42501").await;
    stage.client_gets(&ready()).await;
}

#[tokio::test]
async fn a_function_call_is_refused_unless_a_rule_spells_it_out() {
    let call = message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let of_others = "  - name: hide\n    subjects: [other]\n    resources: [it]\n    masks: [cards]\n";
    let unmasked = BUNDLE
        .replace("    masks: [cards]\n", of_others)
        .replace("  tester: {users: [\"0\"]}", "  tester: {users: [\"0\"]}\n  other: {users: [\"1\"]}");
    let anything = unmasked.replace("statement: [select,", "statement: [\"*\", select,");
    for bundle in [&unmasked, &anything] {
        let mut stage = Stage::open_under(bundle).await;
        stage.say(&call).await;
        stage.server_gets(&query("refused_by_tidegate")).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error("42501").await;
        stage.client_gets(&ready()).await;
        stage.still_works().await;
    }
    let mut stage = Stage::open_under(&unmasked.replace("[select,", "[function-call, select,")).await;
    stage.say(&call).await;
    stage.server_gets(&call).await;
    let answer = [message(b'V', &[0, 0, 0, 1, b'1']), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    stage.leaves().await;
}

#[tokio::test]
async fn nothing_of_a_refused_statement_reaches_the_server_whatever_the_state_of_the_transaction() {
    for status in [TransactionStatus::Idle, TransactionStatus::Transaction, TransactionStatus::Failed] {
        let mut stage = Stage::open().await;
        stage.say(&query("drop table customers")).await;
        stage.server_gets(&query("refused_by_tidegate")).await;
        stage.answer(&[error("42601"), ready_in(status)].concat()).await;
        stage.client_gets_error("42501").await;
        stage.client_gets(&ready_in(status)).await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn a_cursor_that_a_function_may_have_opened_by_a_known_name_is_not_shown() {
    let calling = "      - {statement: select, function: \"*.get_cards\"}\n      - statement: [select,";
    let bundle = BUNDLE.replace("      - statement: [select,", calling);
    let in_transaction = || ready_in(TransactionStatus::Transaction);
    let declare = query("declare p cursor for select id from customers");
    let calls = query("select 1 from (select get_cards('p') offset 0) s");
    let fetch = query("fetch all from p");
    let refused = query("refused_by_tidegate");
    let mut stage = Stage::open_under(&bundle).await;
    for (asked, tag) in [(&declare, "DECLARE CURSOR"), (&fetch, "FETCH 0"), (&calls, "SELECT 1")] {
        stage.say(asked).await;
        stage.server_gets(asked).await;
        stage.answer(&[complete(tag), in_transaction()].concat()).await;
        stage.client_gets(&[complete(tag), in_transaction()].concat()).await;
    }
    // In a text of its own, and beside a call.
    for asked in [
        &fetch,
        &query(
            "declare p cursor for select id from customers; select 1 from (select get_cards('p') offset 0) s; fetch p",
        ),
    ] {
        stage.say(asked).await;
        stage.server_gets(&refused).await;
        stage.answer(&[error("42601"), in_transaction()].concat()).await;
        stage.client_gets_error("42501").await;
        stage.client_gets(&in_transaction()).await;
    }
    // By the extended flow.
    stage.say(&[execute("p"), sync()].concat()).await;
    stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
    stage.answer(&[error("42601"), in_transaction()].concat()).await;
    stage.client_gets_error("42501").await;
    stage.client_gets(&in_transaction()).await;
    // The next one by that name is known again, and goes on.
    for (asked, tag) in [(&declare, "DECLARE CURSOR"), (&fetch, "FETCH 0")] {
        stage.say(asked).await;
        stage.server_gets(asked).await;
        stage.answer(&[complete(tag), in_transaction()].concat()).await;
        stage.client_gets(&[complete(tag), in_transaction()].concat()).await;
    }
}
