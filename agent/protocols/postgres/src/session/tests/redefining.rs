//! Changes of definitions, beside another session's statements.

use std::{io::ErrorKind, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    holding::{holding, told},
    stage::*,
};
use crate::wire::{ErrorFields, backend::TransactionStatus, frontend::Kind};

const CHANGE: &str = "create view v as select 1";
const READ: &str = "select id from customers";

/// Whom no mask is for.
fn unmasked() -> String {
    let masks = BUNDLE.find("masks:\n").zip(BUNDLE.find("rules:\n")).expect("the bundle has masks");
    BUNDLE.replace(&BUNDLE[masks.0..masks.1], "").replace("    masks: [cards]\n", "")
}

/// Who may lock tables, and alter them.
fn altering() -> String {
    BUNDLE.replace("insert, create]", "insert, create, alter, lock]")
}

/// The client is told that it waits; nothing has reached the server.
async fn waits(stage: &mut Stage) {
    let (kind, body) = next_message(&mut stage.rig.client).await;
    assert_eq!(char::from(kind), 'N', "{}", body.escape_ascii());
    let said = ErrorFields::parse(&body).unwrap().summary();
    assert!(said.contains("waits for 1 other session"), "{said}");
    let error = stage.server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

async fn goes_through(stage: &mut Stage, text: &str, tag: &str, status: TransactionStatus) {
    stage.say(&query(text)).await;
    stage.server_gets(&query(text)).await;
    let answer = [complete(tag), ready_in(status)].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
}

/// It reaches the server at once, though the other session's statements were not answered.
async fn is_not_kept_waiting(stage: &mut Stage) {
    goes_through(stage, CHANGE, "CREATE VIEW", TransactionStatus::Idle).await;
    let lines = stage.rig.memory.lines();
    assert!(!lines.iter().any(|line| line["event"] == "definitions-in-use"), "{lines:?}");
}

#[tokio::test]
async fn a_change_waits_until_the_server_has_read_what_was_allowed_before() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    let lines = stage.rig.memory.lines();
    let told = lines.iter().find(|line| line["event"] == "definitions-in-use").expect("the record tells");
    assert_eq!(told["detail"], "waits for statements of contract");
    other.answers(&described("id")).await;
    stage.server_gets(&query(CHANGE)).await;
    stage.answer(&[complete("CREATE VIEW"), ready()].concat()).await;
    stage.client_gets(&[complete("CREATE VIEW"), ready()].concat()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_change_that_waits_can_be_cancelled() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    let (mut canceller, _) = stage.rig.connect().await;
    canceller.write_all(&cancel_request(&stage.key)).await.unwrap();
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("57014").await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_change_waits_ends_its_session() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    stage.rig.client.shutdown().await.unwrap();
    let ended = stage.ends().await;
    assert!(ended.result.is_ok());
    assert_eq!(ended.server.escape_ascii().to_string(), terminate().escape_ascii().to_string());
}

#[tokio::test]
async fn an_agent_that_stops_waits_for_no_change_of_definitions() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    stage.rig.stop();
    stage.ends().await.told("57P01");
}

#[tokio::test]
async fn what_a_change_waits_for_puts_nobody_in_doubt() {
    let mut stage = Stage::open().await;
    let (mut other, mut third) = (stage.beside().await, stage.beside().await);
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    third.sends(&query(READ)).await;
    third.answers(&[rows("id", &["7"]), complete("SELECT 1"), ready()].concat()).await;
}

#[tokio::test]
async fn what_names_no_relation_is_waited_for_by_nobody() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query("select 1")).await;
    is_not_kept_waiting(&mut stage).await;
}

#[tokio::test]
async fn what_is_decided_without_masks_is_waited_for_by_nobody() {
    let mut stage = Stage::open_under(&unmasked()).await;
    let mut other = stage.beside().await;
    other.sends(&[parse("", READ), bind("", ""), execute(""), sync(), query(READ)].concat()).await;
    is_not_kept_waiting(&mut stage).await;
}

#[tokio::test]
async fn what_is_only_prepared_is_waited_for_by_nobody() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&[parse("s", READ), describe(Kind::Statement, "s")].concat()).await;
    is_not_kept_waiting(&mut stage).await;
}

#[tokio::test]
async fn the_answers_of_an_idle_pipeline_are_fetched_when_somebody_waits() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&[parse("", READ), bind("", "")].concat()).await;
    stage.say(&query(CHANGE)).await;
    other.server_gets(&flush()).await;
    other.answers(&[acknowledged(b'1'), acknowledged(b'2')].concat()).await;
    stage.server_gets(&query(CHANGE)).await;
}

#[tokio::test]
async fn a_pipeline_that_never_rests_comes_to_an_end_when_somebody_waits() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    other.client.write_all(&query("select card from customers")).await.unwrap();
    // It is held back, and the server's answers are asked for.
    other.server_gets(&flush()).await;
    other.answers(&[rows("id", &["1"]), complete("SELECT 1")].concat()).await;
    stage.server_gets(&query(CHANGE)).await;
    other.answers(&ready()).await;
    // What came after it was held back, and waits for the change now.
    stage.answer(&[complete("CREATE VIEW"), ready()].concat()).await;
    other.server_gets(&query("select card from customers")).await;
}

#[tokio::test]
async fn what_is_bound_while_a_change_is_open_waits_for_its_end() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    stage.say(&query(CHANGE)).await;
    stage.server_gets(&query(CHANGE)).await;
    let (parsed, rest) = (parse("", READ), [bind("", ""), execute(""), sync()].concat());
    other.client.write_all(&[parsed.clone(), rest.clone()].concat()).await.unwrap();
    other.server_gets(&[parsed, flush()].concat()).await;
    other.answers(&acknowledged(b'1')).await;
    stage.answer(&[complete("CREATE VIEW"), ready()].concat()).await;
    other.server_gets(&[bind("", ""), describe(Kind::Portal, ""), execute(""), sync()].concat()).await;
}

#[tokio::test]
async fn who_reads_while_a_change_stays_open_is_told_and_refused_in_the_end() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    let open = TransactionStatus::Transaction;
    other.sends(&query("begin")).await;
    other.answers(&[complete("BEGIN"), ready_in(open)].concat()).await;
    goes_through(&mut stage, "begin", "BEGIN", open).await;
    goes_through(&mut stage, CHANGE, "CREATE VIEW", open).await;
    other.client.write_all(&query(READ)).await.unwrap();
    let (kind, body) = next_message(&mut other.client).await;
    assert_eq!(char::from(kind), 'N', "{}", body.escape_ascii());
    other.server_gets(&query("refused_by_tidegate")).await;
    // What reads nothing goes through all the same.
    other.server.write_all(&[error("42601"), ready_in(open)].concat()).await.unwrap();
    read_until_ready(&mut other.client).await;
    other.sends(&query("select 1")).await;
}

#[tokio::test]
async fn a_bind_that_is_half_sent_is_waited_for_by_nobody_and_is_in_doubt() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&[parse("s", READ), flush()].concat()).await;
    other.answers(&acknowledged(b'1')).await;
    let bound = bind("p", "s");
    let (half, rest) = bound.split_at(bound.len() - 3);
    other.sends(half).await;
    is_not_kept_waiting(&mut stage).await;
    other.client.write_all(&[rest, &execute("p"), &sync()].concat()).await.unwrap();
    // Nobody knows which definitions it reads by.
    let stand_in = parse("refused_by_tidegate", "refused_by_tidegate");
    other.server_gets(&[rest, &stand_in, &sync()].concat()).await;
}

#[tokio::test]
async fn a_copy_from_the_client_is_waited_for_until_it_begins() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query("copy customers from stdin")).await;
    stage.say(&query(CHANGE)).await;
    waits(&mut stage).await;
    other.answers(&copies_in()).await;
    stage.server_gets(&query(CHANGE)).await;
}

#[tokio::test]
async fn a_change_behind_a_lock_waits_for_nobody_who_waits_for_that_lock() {
    let mut stage = Stage::open_under(&altering()).await;
    let mut other = stage.beside().await;
    let open = TransactionStatus::Transaction;
    goes_through(&mut stage, "begin", "BEGIN", open).await;
    goes_through(&mut stage, "lock table customers", "LOCK TABLE", open).await;
    other.client.write_all(&query(READ)).await.unwrap();
    goes_through(&mut stage, "alter table customers add extra text", "ALTER TABLE", open).await;
    let error = other.server.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    goes_through(&mut stage, "commit", "COMMIT", TransactionStatus::Idle).await;
    // By the definitions as they are now.
    other.server_gets(&query(READ)).await;
    other.answers(&[rows("id", &["7"]), complete("SELECT 1"), ready()].concat()).await;
}

#[tokio::test]
async fn a_lock_of_who_may_alter_nothing_puts_nobody_in_doubt() {
    let locking = BUNDLE.replace("insert, create]", "insert, lock]");
    let mut stage = Stage::open_under(&locking).await;
    let mut other = stage.beside().await;
    let open = TransactionStatus::Transaction;
    goes_through(&mut stage, "begin", "BEGIN", open).await;
    goes_through(&mut stage, "lock table customers", "LOCK TABLE", open).await;
    other.sends(&query(READ)).await;
    other.answers(&[rows("id", &["7"]), complete("SELECT 1"), ready()].concat()).await;
}

#[tokio::test]
async fn definitions_that_changed_are_left_to_no_later_commit() {
    let mut stage = Stage::open().await;
    goes_through(&mut stage, "begin", "BEGIN", TransactionStatus::Transaction).await;
    goes_through(&mut stage, CHANGE, "CREATE VIEW", TransactionStatus::Transaction).await;
    for text in ["prepare transaction 'x'", "begin; create view w as select 1; prepare transaction 'x'"] {
        stage.say(&query(text)).await;
        stage.server_gets(&query("refused_by_tidegate")).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error("0A000").await;
        stage.client_gets(&ready()).await;
    }
}

#[tokio::test]
async fn a_table_that_was_made_is_left_to_no_later_commit() {
    let mut stage = Stage::open().await;
    goes_through(&mut stage, "begin", "BEGIN", TransactionStatus::Transaction).await;
    goes_through(&mut stage, "create table t (id int)", "CREATE TABLE", TransactionStatus::Transaction).await;
    stage.say(&query("prepare transaction 'x'")).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("0A000").await;
    stage.client_gets(&ready()).await;
}

#[tokio::test]
async fn a_change_that_needs_no_second_yes_waits_for_others_all_the_same() {
    let bundle = holding()
        .replace("insert, create]", "insert]")
        .replace("statement: delete, table: public.customers", "statement: create");
    let mut stage = Stage::open_under(&bundle).await;
    let (mut other, mut third) = (stage.beside().await, stage.beside().await);
    stage.say(&query(CHANGE)).await;
    let question = told(&mut stage, 1).await;
    stage.rig.people.grant(&question);
    stage.rig.people.approve("q1");
    let done = [complete("CREATE VIEW"), ready()].concat();
    stage.server_gets(&query(CHANGE)).await;
    stage.answer(&done).await;
    stage.client_gets(&done).await;
    other.sends(&query(READ)).await;
    third.client.write_all(&query(CHANGE)).await.unwrap();
    let (kind, body) = next_message(&mut third.client).await;
    let said = ErrorFields::parse(&body).unwrap().summary();
    assert!(kind == b'N' && said.contains("waits for 1 other session"), "{said}");
    assert_eq!(third.server.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    other.answers(&[rows("id", &["7"]), complete("SELECT 1"), ready()].concat()).await;
    third.server_gets(&query(CHANGE)).await;
    assert_eq!(stage.rig.people.asked(), 1);
}

#[tokio::test]
async fn a_change_that_waits_in_vain_after_a_yes_is_told_that_the_yes_is_gone() {
    let bundle = holding()
        .replace("insert, create]", "insert]")
        .replace("statement: delete, table: public.customers", "statement: create");
    let mut stage = Stage::open_under(&bundle).await;
    let mut other = stage.beside().await;
    stage.say(&query(CHANGE)).await;
    told(&mut stage, 1).await;
    other.sends(&query(READ)).await;
    stage.rig.people.approve("q1");
    waits(&mut stage).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    let (kind, body) = next_message(&mut stage.rig.client).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(kind == b'E' && said.contains("55006") && said.contains("given again"), "{said}");
}

#[tokio::test]
async fn a_yes_that_is_taken_back_while_its_change_waits_for_others_lets_nothing_run() {
    let bundle = holding()
        .replace("insert, create]", "insert]")
        .replace("statement: delete, table: public.customers", "statement: create");
    let mut stage = Stage::open_under(&bundle).await;
    let mut other = stage.beside().await;
    stage.say(&query(CHANGE)).await;
    told(&mut stage, 1).await;
    other.sends(&query(READ)).await;
    stage.rig.people.approve("q1");
    waits(&mut stage).await;
    stage.rig.people.revoke("q1");
    other.answers(&[rows("id", &["7"]), complete("SELECT 1"), ready()].concat()).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    let (kind, body) = next_message(&mut stage.rig.client).await;
    let said = ErrorFields::parse(&body).unwrap().summary();
    assert!(kind == b'E' && said == "42501 approval q1 was revoked by ann: enough", "{said}");
    let lines = stage.rig.memory.lines();
    assert!(lines.iter().any(|line| line["step"] == "revoked" && line["question"] == "q1"), "{lines:?}");
}

#[tokio::test]
async fn what_a_change_reads_waits_for_the_end_of_another_change() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    let open = TransactionStatus::Transaction;
    goes_through(&mut stage, "begin", "BEGIN", open).await;
    goes_through(&mut stage, CHANGE, "CREATE VIEW", open).await;
    let reads = query("create view w as select id from customers");
    other.client.write_all(&reads).await.unwrap();
    let (kind, body) = next_message(&mut other.client).await;
    assert_eq!(char::from(kind), 'N', "{}", body.escape_ascii());
    goes_through(&mut stage, "commit", "COMMIT", TransactionStatus::Idle).await;
    other.server_gets(&reads).await;
}

#[tokio::test]
async fn a_change_behind_an_execute_waits_no_longer_than_in_a_transaction() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.sends(&query(READ)).await;
    let before = [parse("", "select 1"), bind("", ""), execute(""), parse("", CHANGE), bind("", "")].concat();
    stage.say(&[&*before, &execute("")].concat()).await;
    stage.server_gets(&[&*before, &flush()].concat()).await;
    let bound = [acknowledged(b'1'), acknowledged(b'2')].concat();
    let answer = [&*bound, &complete("SELECT 1"), &bound].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    waits(&mut stage).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    stage.server_gets(&parse("refused_by_tidegate", "refused_by_tidegate")).await;
}

#[tokio::test]
async fn a_refused_message_that_never_ends_keeps_no_change_waiting() {
    let mut stage = Stage::open().await;
    let mut other = stage.beside().await;
    other.client.write_all(&run(READ)).await.unwrap();
    let described = describe(Kind::Portal, "");
    other.server_gets(&[parse("", READ), bind("", ""), described, execute("")].concat()).await;
    let too_long = parse("s", &"x".repeat(20_000));
    other.client.write_all(&too_long[..100]).await.unwrap();
    other.server_gets(&parse("refused_by_tidegate", "refused_by_tidegate")).await;
    stage.say(&query(CHANGE)).await;
    other.server_gets(&flush()).await;
    other.answers(&[acknowledged(b'1'), acknowledged(b'2')].concat()).await;
    other.server.write_all(&described_as("id", (16384, 1))).await.unwrap();
    other.answers(&complete("SELECT 0")).await;
    stage.server_gets(&query(CHANGE)).await;
}

#[tokio::test]
async fn pipelined_binds_that_weigh_much_wait_for_the_server() {
    const BINDS: usize = 1000;
    let mut stage = Stage::open().await;
    let long = format!("select 1 /* {} */", "x".repeat(9_900));
    let mut asked = parse("s", &long);
    for _ in 0..BINDS {
        asked.extend([bind("", "s"), execute("")].concat());
    }
    stage.say(&[asked, sync()].concat()).await;
    let server = async {
        let mut bound = 0;
        while bound < BINDS {
            let (kind, body) = next_message(&mut stage.server).await;
            let answer = match kind {
                b'P' => acknowledged(b'1'),
                b'B' => acknowledged(b'2'),
                b'E' => complete("SELECT 0"),
                b'H' => Vec::new(),
                other => panic!("{:?} {}", char::from(other), body.escape_ascii()),
            };
            bound += usize::from(kind == b'E');
            stage.server.write_all(&answer).await.unwrap();
        }
        stage.server.write_all(&ready()).await.unwrap();
    };
    let (mut seen, mut part) = (Vec::new(), vec![0; 64 << 10]);
    let client = async {
        while !seen.ends_with(&ready()) {
            let count = stage.rig.client.read(&mut part).await.unwrap();
            seen.extend_from_slice(&part[..count]);
        }
    };
    within(async { tokio::join!(server, client) }).await;
    assert_eq!(seen.windows(6).filter(|part| part == b"C\0\0\0\x0dS").count(), BINDS);
}
