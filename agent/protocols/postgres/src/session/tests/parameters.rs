//! What parameters are, to who answers for a statement that runs with them.

use super::{
    holding::{holding, told},
    stage::*,
};
use crate::wire::{Format, frontend::Kind, write};

/// A Parse that fixes the type of its parameter, and a Bind with these bytes in binary.
fn typed(types: &[u32], bytes: &[u8]) -> Vec<u8> {
    let text = b"delete from customers where id > $1";
    said(|out| {
        write::parse(out, b"", text, types);
        write::bind(out, b"", b"", &[Format::Binary], &[Some(bytes)], &[]);
    })
}

const OPEN: &str = "delete from customers where id > $1";

/// A Bind of statement `p` with these bytes in binary.
fn bytes(bytes: &[u8]) -> Vec<u8> {
    said(|out| write::bind(out, b"", b"p", &[Format::Binary], &[Some(bytes)], &[]))
}

#[tokio::test]
async fn a_yes_does_not_count_for_the_same_bytes_as_another_type() {
    let mut stage = Stage::open_under(&holding()).await;
    let cases: [(&[u32], _, _); 3] = [
        (&[23], "$1 (int4)", "1073741824"),
        (&[700], "$1 (float4)", "2"),
        (&[1700], "$1 (numeric)", "\\x40000000"),
    ];
    for (number, (types, label, shown)) in (1..).zip(cases) {
        let prepared = typed(types, &[0x40, 0, 0, 0]);
        stage.say(&[prepared.clone(), execute(""), sync()].concat()).await;
        stage.server_gets(&[prepared, flush()].concat()).await;
        let answer = [acknowledged(b'1'), acknowledged(b'2')].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        let question = told(&mut stage, number).await;
        assert_eq!(question.particulars[3], (label.to_owned(), shown.to_owned()));
        stage.rig.people.grant(&question);
        stage.rig.people.approve(&format!("q{number}"));
        stage.server_gets(&[execute(""), sync()].concat()).await;
        let answer = [complete("DELETE 0"), ready()].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
    }
    drop(stage);
}

/// What the server says of a statement with these parameters.
fn takes(types: &[u32]) -> Vec<u8> {
    [said(|out| write::parameter_description(out, types)), acknowledged(b'n')].concat()
}

#[tokio::test]
async fn binary_values_whose_type_the_client_leaves_open_are_shown_as_the_server_takes_them() {
    let mut stage = Stage::open_under(&holding()).await;
    let (parse, bind) = (parse("p", OPEN), bytes(&[0x40, 0, 0, 0]));
    stage.say(&[parse.clone(), bind.clone(), execute(""), sync()].concat()).await;
    stage.server_gets(&[parse, describe(Kind::Statement, "p"), flush()].concat()).await;
    stage.answer(&[acknowledged(b'1'), takes(&[23])].concat()).await;
    // What the gate asked for itself is not for the client.
    stage.client_gets(&acknowledged(b'1')).await;
    for number in 1..=2 {
        // The server is asked once.
        stage.server_gets(&[bind.clone(), flush()].concat()).await;
        stage.answer(&acknowledged(b'2')).await;
        stage.client_gets(&acknowledged(b'2')).await;
        let question = told(&mut stage, number).await;
        assert_eq!(question.particulars[3], ("$1 (int4)".to_owned(), "1073741824".to_owned()));
        stage.rig.people.approve(&format!("q{number}"));
        stage.server_gets(&[execute(""), sync()].concat()).await;
        stage.answer(&[complete("DELETE 0"), ready()].concat()).await;
        stage.client_gets(&[complete("DELETE 0"), ready()].concat()).await;
        stage.say(&[bind.clone(), execute(""), sync()].concat()).await;
    }
    drop(stage);
}

#[tokio::test]
async fn what_the_server_does_not_describe_is_its_own_error() {
    let mut stage = Stage::open_under(&holding()).await;
    let parse = parse("p", OPEN);
    stage.say(&[parse.clone(), bytes(&[0; 4]), execute(""), sync()].concat()).await;
    stage.server_gets(&[parse, describe(Kind::Statement, "p"), flush()].concat()).await;
    stage.answer(&error("42703")).await;
    stage.client_gets_error("42703").await;
    stage.server_gets(&sync()).await;
    stage.answer(&ready()).await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_yes_to_an_execute_does_not_count_where_the_statement_takes_another_type() {
    let mut stage = Stage::open_under(&holding()).await;
    for (number, (oid, name)) in (1..).zip([(25, "text"), (1042, "bpchar")]) {
        let text = b"delete from customers where name = $1";
        let prepare = said(|out| write::parse(out, b"p", text, &[oid]));
        stage.say(&[prepare.clone(), sync()].concat()).await;
        stage.server_gets(&[prepare, sync()].concat()).await;
        stage.answer(&[acknowledged(b'1'), ready()].concat()).await;
        stage.client_gets(&[acknowledged(b'1'), ready()].concat()).await;
        let run = query("execute p ('1 ')");
        stage.say(&run).await;
        let question = told(&mut stage, number).await;
        assert!(question.particulars.contains(&("p takes".into(), name.into())), "{question:?}");
        stage.rig.people.grant(&question);
        stage.rig.people.approve(&format!("q{number}"));
        stage.server_gets(&run).await;
        stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
        stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
        let close = [close(Kind::Statement, "p"), sync()].concat();
        stage.say(&close).await;
        stage.server_gets(&close).await;
        stage.answer(&[acknowledged(b'3'), ready()].concat()).await;
        stage.client_gets(&[acknowledged(b'3'), ready()].concat()).await;
    }
    drop(stage);
}

/// Calls of functions by their oid wait; `masks`: those of others, or none.
fn calls_are_held(masks: &str) -> String {
    let other = "  tester: {users: [\"0\"]}\n  other: {users: [\"1\"]}";
    let unmasked = holding().replace("    masks: [cards]\n", masks);
    let held = unmasked.replace("{statement: delete, table: public.customers}", "{statement: function-call}");
    let held =
        held.replace("  tester: {users: [\"0\"]}", other).replace("[select,", "[function-call, select,");
    match (masks, held.split_once("masks:\n  cards:")) {
        ("", Some((before, behind))) => format!("{before}rules:{}", behind.split_once("\nrules:").unwrap().1),
        _ => held,
    }
}

/// With an argument in binary and one as text.
fn call(oid: &str) -> Vec<u8> {
    let mut body = oid.parse::<u32>().unwrap().to_be_bytes().to_vec();
    body.extend([0, 2, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 3]);
    body.extend(b"old\0\0");
    message(b'F', &body)
}

#[tokio::test]
async fn approvers_of_a_call_by_oid_read_which_function_it_is_and_what_it_is_given() {
    // A column that is masked for somebody makes nothing of what it is given one of that column's values.
    let of_others = "  - name: hide\n    subjects: [other]\n    resources: [it]\n    masks: [cards]\n";
    for masks in ["", of_others] {
        let mut stage = Stage::open_under(&calls_are_held(masks)).await;
        let call = call(FUNCTIONS_OID);
        stage.say(&call).await;
        let question = told(&mut stage, 1).await;
        assert_eq!(question.text, "function call, oid 16400: public.remove(id integer, reason text)");
        for (label, shown) in ["$1 (int4)", "$2 (text)"].into_iter().zip(["7", "old"]) {
            assert!(question.particulars.contains(&(label.into(), shown.into())), "{question:?}");
        }
        stage.rig.people.approve("q1");
        stage.server_gets(&call).await;
        let answer = [message(b'V', &[0, 0, 0, 1, b'1']), ready()].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn nobody_is_asked_about_a_function_that_is_not_there() {
    let mut stage = Stage::open_under(&calls_are_held("")).await;
    stage.say(&call("16401")).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("42883").await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
}
