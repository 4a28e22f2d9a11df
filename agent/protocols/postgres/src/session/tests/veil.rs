//! What approvers are shown of values that have to do with masked columns.

use super::{
    holding::{holding, told},
    stage::*,
};

const CARD: &str = "4111111111111111";

/// Deletes wait for ann, and cards are masked for others than who asks.
pub(super) fn masking_for_others() -> String {
    holding().replace("users: [\"0\"]}", "users: [\"0\"]}\n  others: {users: [\"4242\"]}").replace(
        "    masks: [cards]\n",
        "  - {name: theirs, subjects: [others], resources: [it], allow: [{statement: select}], masks: [cards]}\n",
    )
}

/// What approvers read of a statement that is held.
async fn read(text: &str) -> String {
    let bundle = masking_for_others()
        .replace("{statement: delete, table: public.customers}", "{statement: [delete, update, insert, do]}");
    let mut stage = Stage::open_under(&bundle.replace("insert, create]", "create]")).await;
    stage.say(&query(text)).await;
    let question = told(&mut stage, 1).await;
    question.text
}

#[tokio::test]
async fn a_value_that_is_tied_to_a_masked_column_is_shown_by_its_mask_and_others_as_they_are() {
    for (text, shown) in [
        ("delete from customers where id = 7", "delete from customers where id = 7"),
        (
            "delete from customers where id = -7 and card = '4111111111111111'",
            "delete from customers where id = -7 and card = '************1111'",
        ),
        (
            "delete from customers where card in ('4111111111111111', 'x''y') or id between 1 and 9",
            "delete from customers where card in ('************1111', '***') or id between 1 and 9",
        ),
        (
            "delete from customers c where c.card like '4111111%' or c.card > 'x'",
            "delete from customers c where c.card like '****111%' or c.card > '***'",
        ),
        (
            "update customers set card = '4111111111111111' where id = 7",
            "update customers set card = '************1111' where id = 7",
        ),
        (
            "insert into customers values (7, '4111111111111111'), (8, $$4111111111111111$$)",
            "insert into customers values (7, '************1111'), (8, '[masked]')",
        ),
        ("do $$begin delete from customers; end$$", "do $$begin delete from customers; end$$"),
        // In another place it may be the card as well.
        (
            "delete from customers using (values ('4111111111111111')) v (c) where card = v.c and id = 7 -- 4111111111111111",
            "delete from customers using (values ('[masked]')) v (c) where card = v.c and id = 7 /* [masked] */",
        ),
    ] {
        let read = read(text).await;
        assert_eq!(read, shown);
    }
}

#[tokio::test]
async fn nobody_hides_what_runs_beside_what_is_masked() {
    for text in [
        "delete from customers where card = 'x'; do $$begin delete from customers; end$$",
        "set search_path = 'elsewhere'; delete from customers where card = 'x'",
    ] {
        let bundle = holding().replace("{statement: delete,", "{statement: [delete, do],");
        let bundle = bundle.replace("hold: [", "hold: [{statement: do}, ");
        let mut stage = Stage::open_under(&bundle).await;
        stage.say(&query(text)).await;
        stage.server_gets(&query("refused_by_tidegate")).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error("42501").await;
        assert_eq!(stage.rig.people.asked(), 0, "{text}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_tied_to_a_masked_column_is_shown_by_its_mask_and_an_answer_is_for_its_bytes() {
    let mut exact = Vec::new();
    for card in [CARD, "4012888888881111"] {
        let mut stage = Stage::open_under(&masking_for_others()).await;
        let mut sent = parse("", "delete from customers where id = $1 or card = $2");
        crate::wire::write::bind(&mut sent, b"", b"", &[], &[Some(b"7"), Some(card.as_bytes())], &[]);
        stage.say(&[sent.clone(), execute(""), sync()].concat()).await;
        stage.server_gets(&[sent, flush()].concat()).await;
        let answer = [acknowledged(b'1'), acknowledged(b'2')].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        let question = told(&mut stage, 1).await;
        let parameters = [("$1", "7"), ("$2", "************1111")];
        assert_eq!(
            question.particulars[3..5],
            parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        exact.push(question.exact);
    }
    assert_ne!(exact[0], exact[1]);
}

#[tokio::test]
async fn what_a_prepared_statement_stands_for_and_what_a_session_made_show_no_masked_value() {
    let mut stage = Stage::open_under(&masking_for_others()).await;
    for (text, tag) in [
        (format!("create temp table mine as select id from customers where card = '{CARD}'"), "SELECT 1"),
        (format!("prepare p as delete from customers where card = '{CARD}'"), "PREPARE"),
    ] {
        stage.say(&query(&text)).await;
        stage.server_gets(&query(&text)).await;
        stage.answer(&[complete(tag), ready()].concat()).await;
        stage.client_gets(&[complete(tag), ready()].concat()).await;
    }
    stage.say(&query("execute p")).await;
    let question = told(&mut stage, 1).await;
    assert!(!format!("{question:?}").contains(CARD), "{question:?}");
    assert!(
        format!("{question:?}").contains("prepare p as delete from customers where card ="),
        "{question:?}"
    );
}
