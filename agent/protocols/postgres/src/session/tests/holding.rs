//! Statements that wait for a person.

use tidegate_gate::{Question, Step, contract::SERVER, policy::Effect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::*;
use crate::wire::{ErrorFields, backend::TransactionStatus};

pub(super) const DELETE: &str = "delete from customers where id = 7";

/// The same bundle, in which deletes wait for ann.
pub(super) fn holding() -> String {
    format!(
        "{BUNDLE}
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{{statement: delete, table: public.customers}}]
    approve: {{by: {{users: [ann]}}, wait: 1h}}
    hint: ask ann
"
    )
}

async fn open() -> Stage {
    Stage::open_under(&holding()).await
}

/// The client is told that it waits, for question number `number`.
pub(super) async fn told(stage: &mut Stage, number: usize) -> Question {
    let question = stage.rig.people.question(number).await;
    let (kind, body) = next_message(&mut stage.rig.client).await;
    assert_eq!(char::from(kind), 'N', "{}", body.escape_ascii());
    let fields = ErrorFields::parse(&body).unwrap();
    let text = |code| String::from_utf8_lossy(fields.get(code).unwrap()).into_owned();
    assert_eq!(text(b'M'), format!("waits for approval q{number}, by rule \"ask\""));
    let hint = text(b'H');
    assert_eq!(
        hint,
        format!("May approve: user ann; not the asker. Within 1 h: tidegate approvals approve q{number}")
    );
    question
}

/// The steps that the record tells of.
fn steps(stage: &Stage) -> Vec<String> {
    let lines = stage.rig.memory.lines();
    let steps = lines.iter().filter(|line| line["type"] == "approval");
    steps.map(|line| line["step"].as_str().unwrap().to_owned()).collect()
}

fn bound(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::write::bind(&mut out, b"", b"", &[], values, &[]);
    out
}

/// The client gets a refusal that says this, and the session goes on.
async fn refused(stage: &mut Stage, sqlstate: &str, says: &str) {
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    let (kind, body) = next_message(&mut stage.rig.client).await;
    assert_eq!(char::from(kind), 'E');
    let fields = ErrorFields::parse(&body).unwrap();
    assert_eq!(fields.summary(), format!("{sqlstate} {says}"));
    stage.client_gets(&ready()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_held_statement_waits_and_goes_on_when_somebody_says_yes() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    let question = told(&mut stage, 1).await;
    assert_eq!((question.text.as_str(), &*question.name), (DELETE, "statement"));
    assert_eq!(question.particulars[0], ("at".to_owned(), SERVER.to_owned()));
    assert_eq!(
        question.particulars[1..],
        [("database", "shop"), ("signed in as", "gate"), ("does", "delete public.customers")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    stage.rig.people.answer("q1", Step::Seen { by: "ann".into() });
    stage.rig.people.approve("q1");
    stage.server_gets(&query(DELETE)).await;
    stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
    stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
    stage.still_works().await;
    assert_eq!(steps(&stage), ["asked", "seen", "approved"]);
    let held = stage.rig.memory.lines();
    let held: Vec<_> = held.iter().filter(|line| line["text"] == DELETE).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0]["decision"], serde_json::to_value(Effect::Hold).unwrap());
    assert_eq!(outcomes(&stage.leaves().await), ["done"; 3]);
}

/// If this fails, yeses of before count no more and what was left standing is asked anew: README tells people of it first.
#[tokio::test]
async fn what_a_yes_counts_for_is_what_it_was_to_earlier_agents() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    let question = told(&mut stage, 1).await;
    let told = [question.exact, question.shape].map(hex::encode);
    assert_eq!(
        told,
        [
            "19aa9c9140bf72c7d18c986ecf706748c6014d01a19b9aaddc48bfed4f396a1d",
            "b24f327e38d1d09d11544dd9f7d30e0a3bb91ec50efea720d059c5b55fe11ddc"
        ]
    );
}

/// Cards are masked, for statements that the held one is none of.
fn masking() -> String {
    let masks = "masks:\n  numbers: {content: [card], show: {keep-last: 4}}\n";
    let elsewhere = "
  - name: theirs
    subjects: [tester]
    resources: [it]
    allow: [{statement: update}]
    masks: [numbers]
";
    holding().replace("masks:\n", masks) + elsewhere
}

#[tokio::test]
async fn approvers_see_nothing_that_is_masked_for_anybody_and_answer_for_the_very_bytes() {
    let mut exact = Vec::new();
    for card in ["4111111111111111", "4012888888881881"] {
        let mut stage = Stage::open_under(&masking()).await;
        let text = format!("delete from customers where id = $1 or name = '{card}'");
        let sent = [parse("", &text), bound(&[Some(card.as_bytes())])].concat();
        stage.say(&[sent.clone(), execute(""), sync()].concat()).await;
        stage.server_gets(&[sent, flush()].concat()).await;
        let answer = [acknowledged(b'1'), acknowledged(b'2')].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        let question = told(&mut stage, 1).await;
        assert!(!format!("{question:?}").contains(card), "{question:?}");
        let shown = format!("************{}", &card[12..]);
        assert!(question.text.contains(&format!("name = '{shown}'")), "{}", question.text);
        assert!(question.particulars.contains(&("$1".into(), shown)), "{:?}", question.particulars);
        exact.push(question.exact);
    }
    assert_ne!(exact[0], exact[1], "a yes to the one would let the other run");
}

#[tokio::test]
async fn a_statement_that_runs_is_finished_when_its_approval_is_taken_back() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.people.approve("q1");
    stage.server_gets(&query(DELETE)).await;
    stage.rig.people.revoke("q1");
    stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
    stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 2).await;
    drop(stage);
}

#[tokio::test]
async fn a_no_is_an_ordinary_refusal_with_its_reason() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    let (by, reason) = (Some("ann".into()), Some("not today".into()));
    stage.rig.people.answer("q1", Step::Refused { word: "denied".into(), by, reason });
    refused(&mut stage, "42501", "approval q1: it was denied by ann: not today").await;
    assert_eq!(steps(&stage), ["asked", "denied"]);
    stage.leaves().await;
}

#[tokio::test]
async fn a_question_that_nobody_answers_is_an_ordinary_refusal_that_says_so() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.people.answer("q1", Step::Refused { word: "expired".into(), by: None, reason: None });
    refused(&mut stage, "42501", "approval q1: nobody answered in time").await;
    assert_eq!(steps(&stage), ["asked", "expired"]);
    stage.leaves().await;
}

#[tokio::test]
async fn what_comes_behind_waits_too() {
    let mut stage = open().await;
    stage.say(&[query(DELETE), query("select 1")].concat()).await;
    told(&mut stage, 1).await;
    stage.rig.people.approve("q1");
    stage.server_gets(&[query(DELETE), query("select 1")].concat()).await;
    drop(stage);
}

#[tokio::test]
async fn a_cancel_request_cancels_what_waits_and_nothing_upstream() {
    // Nobody need be allowed to take back what runs nowhere.
    let mut stage = Stage::open_under(&holding().replace("[login, cancel]", "[login]")).await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    let (mut client, _session) = stage.rig.connect().await;
    client.write_all(&cancel_request(&stage.key)).await.unwrap();
    refused(&mut stage, "57014", "canceling statement due to user request").await;
    assert_eq!(stage.rig.people.withdrawn(1).await, [("q1".to_owned(), "cancelled".to_owned())]);
    assert_eq!(steps(&stage), ["asked", "cancelled"]);
    drop(stage);
}

#[tokio::test]
async fn a_client_that_leaves_withdraws_its_question() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.client.shutdown().await.unwrap();
    assert_eq!(stage.rig.people.withdrawn(1).await, [("q1".to_owned(), "withdrawn".to_owned())]);
    let ended = stage.ends().await;
    assert_eq!(ended.server, terminate());
}

#[tokio::test]
async fn an_agent_that_stops_leaves_the_question_standing() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    let people = stage.rig.people.clone();
    stage.rig.stop();
    stage.ends().await.told("57P01");
    let withdrawn = tokio::time::timeout(std::time::Duration::from_millis(200), people.withdrawn(1)).await;
    assert!(withdrawn.is_err(), "{withdrawn:?}");
}

#[tokio::test]
async fn a_policy_that_denies_ends_the_waiting() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.reload(&holding().replace(
        "  - name: ask",
        "  - {name: never, subjects: [tester], resources: [it], deny: [{statement: delete, where: real}]}\n  - name: ask",
    ));
    refused(&mut stage, "42501", "denied by rule \"never\"").await;
    assert_eq!(stage.rig.people.withdrawn(1).await, [("q1".to_owned(), "withdrawn".to_owned())]);
    stage.leaves().await;
}

#[tokio::test]
async fn a_policy_that_allows_it_meanwhile_lets_it_go_on() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.reload(&format!(
        "{BUNDLE}
  - {{name: free, subjects: [tester], resources: [it], allow: [{{statement: delete, table: public.customers}}]}}
"
    ));
    stage.server_gets(&query(DELETE)).await;
    assert_eq!(stage.rig.people.withdrawn(1).await, [("q1".to_owned(), "withdrawn".to_owned())]);
    assert_eq!(steps(&stage), ["asked", "allowed"]);
    stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
    stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_rule_that_asks_for_more_meanwhile_is_not_met() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.reload(&holding().replace("users: [ann]", "users: [ann, bob], approvers: 2"));
    stage.rig.people.approve("q1");
    refused(&mut stage, "42501", "approval q1: the policy changed while it waited; ask again").await;
    stage.leaves().await;
}

const REDEFINED: &str =
    "approval q1: what others have defined, and it runs by, changed while it waited; ask again";

#[tokio::test]
async fn what_others_define_anew_while_it_waits_is_not_what_a_yes_was_for() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.others_define();
    stage.rig.people.approve("q1");
    refused(&mut stage, "42501", REDEFINED).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_yes_that_lasts_counts_by_no_other_definitions_neither_for_the_same_nor_for_its_like() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    let before = told(&mut stage, 1).await;
    stage.rig.people.grant(&before);
    stage.rig.people.approve("q1");
    stage.server_gets(&query(DELETE)).await;
    stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
    stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
    stage.others_define();
    stage.say(&query(DELETE)).await;
    let after = told(&mut stage, 2).await;
    assert!(before.exact != after.exact && before.shape != after.shape);
}

#[tokio::test]
async fn what_was_bound_by_other_definitions_than_approvers_would_be_asked_about_is_refused() {
    let mut stage = open().await;
    let sent = [parse("", DELETE), bind("", ""), flush()].concat();
    stage.say(&sent).await;
    stage.server_gets(&sent).await;
    let answer = [acknowledged(b'1'), acknowledged(b'2')].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    stage.others_define();
    stage.say(&[execute(""), sync()].concat()).await;
    stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("42501").await;
    stage.client_gets(&ready()).await;
    assert_eq!(stage.rig.people.asked(), 0);
    stage.leaves().await;
}

const VIEW: &str = "create view v as select id from customers";

/// No column is masked for whoever asks.
async fn unmasked() -> Stage {
    let theirs = "  - {name: theirs, subjects: [others], resources: [it], allow: [{statement: select}], masks: [cards]}\n";
    let bundle = holding().replace("users: [\"0\"]}", "users: [\"0\"]}\n  others: {users: [\"4242\"]}");
    Stage::open_under(&bundle.replace("    masks: [cards]\n", theirs)).await
}

#[tokio::test]
async fn nobody_is_asked_while_others_change_definitions_and_what_was_answered_waits_for_them() {
    let mut stage = unmasked().await;
    let mut other = stage.beside().await;
    other.sends(&query(VIEW)).await;
    stage.say(&query(DELETE)).await;
    assert_eq!(next_message(&mut stage.rig.client).await.0, b'N', "it waits for the change's end");
    assert_eq!(stage.rig.people.asked(), 0);
    other.answers(&[complete("CREATE VIEW"), ready()].concat()).await;
    told(&mut stage, 1).await;
    other.sends(&query(VIEW)).await;
    stage.rig.people.approve("q1");
    assert_eq!(next_message(&mut stage.rig.client).await.0, b'N', "a yes is for the definitions of then");
    other.answers(&[complete("CREATE VIEW"), ready()].concat()).await;
    stage.server_gets(&query(DELETE)).await;
}

#[tokio::test]
async fn others_change_no_definitions_before_the_server_has_read_what_a_person_let_through() {
    let mut stage = unmasked().await;
    let mut other = stage.beside().await;
    stage.say(&query(DELETE)).await;
    told(&mut stage, 1).await;
    stage.rig.people.approve("q1");
    stage.server_gets(&query(DELETE)).await;
    other.client.write_all(&query(VIEW)).await.unwrap();
    assert_eq!(next_message(&mut other.client).await.0, b'N', "it waits until the other's is read");
    stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
    stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
    other.server_gets(&query(VIEW)).await;
}

#[tokio::test]
async fn a_prepare_that_is_held_itself_goes_on_after_a_yes() {
    let bundle = holding().replace("{statement: delete, table: public.customers}", "{statement: prepare}");
    let mut stage = Stage::open_under(&bundle).await;
    let prepare = query("prepare p as select id from customers");
    stage.say(&prepare).await;
    told(&mut stage, 1).await;
    stage.rig.people.approve("q1");
    stage.server_gets(&prepare).await;
}

#[tokio::test]
async fn approvers_see_what_an_execute_runs_with() {
    let mut stage = open().await;
    let text = "delete from customers where id = $1 or name = $2";
    let prepared = [parse("", text), bound(&[Some(b"7"), None]), execute(""), sync()].concat();
    stage.say(&prepared).await;
    // What was sent before is answered first: nobody is asked about what an error would skip.
    stage.server_gets(&[parse("", text), bound(&[Some(b"7"), None]), flush()].concat()).await;
    assert_eq!(stage.rig.people.asked(), 0);
    stage.answer(&[acknowledged(b'1'), acknowledged(b'2')].concat()).await;
    stage.client_gets(&[acknowledged(b'1'), acknowledged(b'2')].concat()).await;
    let question = told(&mut stage, 1).await;
    let parameters = [("$1", "7"), ("$2", "NULL")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(question.particulars[3..5], parameters);
    stage.rig.people.approve("q1");
    stage.server_gets(&[execute(""), sync()].concat()).await;
    let answer = [complete("DELETE 1"), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    // The same with another parameter is not the same.
    stage.rig.people.grant(&question);
    stage.say(&[bound(&[Some(b"8"), None]), execute(""), sync()].concat()).await;
    stage.server_gets(&[bound(&[Some(b"8"), None]), flush()].concat()).await;
    stage.answer(&acknowledged(b'2')).await;
    stage.client_gets(&acknowledged(b'2')).await;
    told(&mut stage, 2).await;
    drop(stage);
}

#[tokio::test]
async fn nobody_is_asked_about_what_an_error_skips() {
    let mut stage = open().await;
    stage.say(&[run("select 1"), run(DELETE), sync()].concat()).await;
    stage.server_gets(&[run("select 1"), parse("", DELETE), bind("", ""), flush()].concat()).await;
    stage.answer(&error("22012")).await;
    stage.client_gets(&error("22012")).await;
    stage.server_gets(&sync()).await;
    stage.answer(&ready()).await;
    stage.client_gets(&ready()).await;
    assert_eq!(stage.rig.people.asked(), 0);
    stage.still_works().await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_yes_that_still_counts_asks_nobody() {
    let mut stage = open().await;
    stage.say(&query(DELETE)).await;
    let question = told(&mut stage, 1).await;
    stage.rig.people.grant(&question);
    stage.rig.people.approve("q1");
    for _ in 0..2 {
        stage.server_gets(&query(DELETE)).await;
        stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
        stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
        stage.say(&query(DELETE)).await;
    }
    stage.server_gets(&query(DELETE)).await;
    assert_eq!(stage.rig.people.asked(), 1);
    assert_eq!(steps(&stage), ["asked", "approved", "granted", "granted"]);
    drop(stage);
}

#[tokio::test]
async fn who_prepares_and_executes_asks_once_and_for_another_meaning_again() {
    let mut stage = open().await;
    let mut asked = Vec::new();
    for (number, id) in [(1, 7), (2, 8)] {
        let prepare = query(&format!("prepare p as delete from customers where id = {id}"));
        stage.say(&prepare).await;
        stage.server_gets(&prepare).await;
        stage.answer(&[complete("PREPARE"), ready()].concat()).await;
        stage.client_gets(&[complete("PREPARE"), ready()].concat()).await;
        stage.say(&query("execute p")).await;
        let question = told(&mut stage, number).await;
        assert_eq!(
            question.particulars[3],
            ("p stands for".to_owned(), format!("prepare p as delete from customers where id = {id}"))
        );
        stage.rig.people.grant(&question);
        asked.push(question.exact);
        stage.rig.people.approve(&format!("q{number}"));
        stage.server_gets(&query("execute p")).await;
        stage.answer(&[complete("DELETE 1"), ready()].concat()).await;
        stage.client_gets(&[complete("DELETE 1"), ready()].concat()).await;
        let forget = query("deallocate p");
        stage.say(&forget).await;
        stage.server_gets(&forget).await;
        stage.answer(&[complete("DEALLOCATE"), ready()].concat()).await;
        stage.client_gets(&[complete("DEALLOCATE"), ready()].concat()).await;
    }
    assert_ne!(asked[0], asked[1]);
    drop(stage);
}

#[tokio::test]
async fn nobody_is_asked_about_the_row_that_a_cursor_stands_on() {
    const WHY: &str = "this needs an approval, and nobody can be shown which row a cursor stands on (WHERE CURRENT \
                       OF): name the row by its key";
    let mut stage = open().await;
    stage.say(&query("delete from customers where current of c")).await;
    refused(&mut stage, "42501", WHY).await;
    stage.say(&query("with gone as (delete from customers where current of c returning 1) table gone")).await;
    refused(&mut stage, "42501", WHY).await;
    let prepare = query("prepare p as delete from customers where current of c");
    stage.say(&prepare).await;
    stage.server_gets(&prepare).await;
    stage.answer(&[complete("PREPARE"), ready()].concat()).await;
    stage.client_gets(&[complete("PREPARE"), ready()].concat()).await;
    stage.say(&query("execute p")).await;
    refused(&mut stage, "42501", WHY).await;
    assert_eq!(stage.rig.people.asked(), 0);
    stage.leaves().await;
}

#[tokio::test]
async fn what_is_prepared_beside_something_else_is_held_with_it() {
    let mut stage = open().await;
    stage.say(&query("prepare p as delete from customers; execute p")).await;
    told(&mut stage, 1).await;
    stage.rig.people.approve("q1");
    stage.server_gets(&query("prepare p as delete from customers; execute p")).await;
}

#[tokio::test]
async fn approvers_are_told_that_nobody_has_seen_what_will_be_copied() {
    let mut stage = Stage::open_under(&holding().replace("statement: delete", "statement: copy-from")).await;
    stage.say(&query("copy customers from stdin")).await;
    let question = told(&mut stage, 1).await;
    let data = question.particulars.iter().find(|(name, _)| name == "data");
    assert!(data.is_some_and(|(_, told)| told.contains("nobody sees that")), "{question:?}");
}

#[tokio::test]
async fn parameters_that_nobody_could_read_are_refused() {
    let mut stage = open().await;
    let text = "delete from customers where name = $1";
    let long = "x".repeat(70_000);
    stage.say(&[parse("", text), bound(&[Some(long.as_bytes())]), execute(""), sync()].concat()).await;
    let standin = parse("refused_by_tidegate", "refused_by_tidegate");
    stage.server_gets(&[parse("", text), standin, sync()].concat()).await;
    stage.answer(&[acknowledged(b'1'), error("42601"), ready()].concat()).await;
    stage.client_gets(&acknowledged(b'1')).await;
    stage.client_gets_error("54000").await;
    stage.client_gets(&ready()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_sign_in_that_waits_is_withdrawn_when_the_client_leaves() {
    let bundle = holding().replace(
        "allow: [{action: [login, cancel]}]",
        "hold: [{action: login}]\n    approve: {by: {users: [ann]}}",
    );
    let protocol = crate::Postgres::new();
    let memory = tidegate_gate::contract::Memory::default();
    let (mut rig, _listener) = tidegate_gate::contract::Rig::set(&protocol, &bundle, memory).await;
    rig.client.write_all(&startup()).await.unwrap();
    rig.people.question(1).await;
    rig.client.shutdown().await.unwrap();
    assert_eq!(rig.people.withdrawn(1).await.len(), 1);
    assert_eq!(within(rig.client.read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_that_was_bound_runs_unasked_however_it_is_fetched_from() {
    let calling = "      - {statement: select, function: \"*.mine\"}\n      - statement: [select,";
    let bundle = super::veil::masking_for_others().replace("      - statement: [select,", calling);
    let in_transaction = || ready_in(TransactionStatus::Transaction);
    let fetch = "fetch all from p";
    let call = "select 1 from (select mine() offset 0) s";
    for (between, fetches) in [
        (None, fetch),
        (Some(call), fetch),
        (None, "fetch all from p; close p; declare p cursor for select 1"),
        (None, "select 1 from (select mine() offset 0) s; fetch all from p"),
    ] {
        let mut stage = Stage::open_under(&bundle).await;
        let bound = [parse("", &format!("{DELETE} returning 1")), bind("p", ""), sync()].concat();
        stage.say(&bound).await;
        stage.server_gets(&bound).await;
        let answer = [acknowledged(b'1'), acknowledged(b'2'), in_transaction()].concat();
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        if let Some(call) = between {
            stage.say(&query(call)).await;
            stage.server_gets(&query(call)).await;
            stage.answer(&[complete("SELECT 1"), in_transaction()].concat()).await;
            stage.client_gets(&[complete("SELECT 1"), in_transaction()].concat()).await;
        }
        stage.say(&query(fetches)).await;
        tokio::select! {
            _ = stage.rig.people.question(1) => {}
            // What a yes would be bound to may be another by now.
            (_, refused) = next_message(&mut stage.server) => assert!(refused.starts_with(b"refused_by_tidegate")),
        }
    }
}
