//! Sessions that ask for replication.

use tidegate_gate::{
    ServeError,
    contract::{Memory, Rig},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::stage::*;
use crate::{
    Postgres,
    wire::{ErrorFields, HEADER_BYTES, write},
};

/// Replication is spelled out, and nothing is masked.
const SPELLED_OUT: &str = r#"
tidegate: 1
name: replication
subjects:
  tester: {users: ["0"]}
resources:
  it:
    protocol: postgres
    addresses: ["127.0.0.1:{port}"]
    tls: {mode: disable}
    credential: any
rules:
  - name: stream
    subjects: [tester]
    resources: [it]
    allow: [{action: [login, cancel]}, {statement: replication}]
"#;

/// A mask that the tester stands under, in whose doubts a result is masked rather than refused.
fn masked(by: &str) -> String {
    format!(
        "{SPELLED_OUT}  - name: hide
    subjects: [tester]
    resources: [it]
    masks: [it]
masks:
  it: {{{by}, untraced: mask, show: {{keep-last: 4}}}}
"
    )
}

fn asking(value: &str) -> Vec<u8> {
    let parameters = [("user", "anyone"), ("database", "shop"), ("replication", value)];
    said(|out| write::startup(out, 0, parameters))
}

/// A client that asks for replication has said so; nobody has answered.
async fn arrive(bundle: &str, value: &str) -> (Rig, TcpListener) {
    let (mut rig, listener) = Rig::set(&Postgres::new(), bundle, Memory::default()).await;
    rig.client.write_all(&asking(value)).await.unwrap();
    (rig, listener)
}

/// The same, signed in.
async fn open() -> Stage {
    let (rig, listener) = arrive(SPELLED_OUT, "database").await;
    Stage::sign_in(rig, listener).await
}

/// The client was refused in these words, and nobody connected to the server.
async fn refused(mut rig: Rig, listener: TcpListener, says: &str) {
    let mut heard = Vec::new();
    within(rig.client.read_to_end(&mut heard)).await.unwrap();
    let fields = ErrorFields::parse(&heard[HEADER_BYTES..]).unwrap();
    assert_eq!((heard[0], fields.get(b'C').unwrap()), (b'E', &b"42501"[..]), "{}", fields.summary());
    let message = String::from_utf8_lossy(fields.get(b'M').unwrap()).into_owned();
    assert!(message.contains(says), "{message}");
    assert!(within(&mut rig.session).await.unwrap().is_ok());
    let probe = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_, first) = within(listener.accept()).await.unwrap();
    assert_eq!(first, probe.local_addr().unwrap(), "the server was connected to");
    let lines = rig.memory.lines();
    assert!(lines.iter().any(|line| line["action"] == "login" && line["decision"] == "deny"), "{lines:?}");
}

#[tokio::test]
async fn replication_must_be_spelled_out() {
    for (value, statements) in
        [("database", "\"*\""), ("true", "\"*\""), ("on", "select"), ("yes", "copy-to")]
    {
        let bundle = SPELLED_OUT.replace("statement: replication", &format!("statement: {statements}"));
        let (rig, listener) = arrive(&bundle, value).await;
        refused(rig, listener, "no rule allows statement replication").await;
    }
}

#[tokio::test]
async fn replication_is_refused_where_columns_or_content_are_masked() {
    for by in ["columns: [\"public.customers.card\"]", "content: [card]"] {
        for value in ["database", "true"] {
            let (rig, listener) = arrive(&masked(by), value).await;
            refused(rig, listener, "masks apply to this account").await;
        }
    }
}

#[tokio::test]
async fn a_mask_that_refuses_what_it_cannot_trace_refuses_replication() {
    let bundle = masked("columns: [\"public.customers.card\"]").replace("untraced: mask", "untraced: refuse");
    let (rig, listener) = arrive(&bundle, "database").await;
    refused(rig, listener, "refused by mask \"it\"").await;
}

#[tokio::test]
async fn a_client_that_asks_for_no_replication_has_a_session_like_any_other() {
    for value in ["false", "off", "0"] {
        let (rig, listener) = arrive(BUNDLE, value).await;
        let mut stage = Stage::sign_in(rig, listener).await;
        stage.still_works().await;
        stage.leaves().await;
    }
}

#[tokio::test]
async fn both_streams_pass_as_they_are_and_the_record_says_that_nothing_is_decided() {
    let mut stage = open().await;
    let asked = query("START_REPLICATION SLOT wal PHYSICAL 0/0");
    stage.say(&asked).await;
    stage.server_gets(&asked).await;
    let stream = [message(b'W', &[0, 0, 0]), copy_data(&"wal".repeat(100_000))].concat();
    stage.answer(&stream).await;
    stage.client_gets(&stream).await;
    stage.say(&copy_data("status")).await;
    stage.server_gets(&copy_data("status")).await;
    let memory = stage.leaves().await;
    let lines = memory.lines();
    let event = lines.iter().find(|line| line["event"] == "replication").expect("the record says so");
    assert!(event["detail"].as_str().unwrap().contains("nothing of this session is decided"));
    assert_eq!(lines.iter().filter(|line| line["type"] == "action").count(), 1, "the sign-in alone");
}

#[tokio::test]
async fn what_the_client_says_before_it_is_greeted_is_not_lost() {
    let bundle = format!(
        "{SPELLED_OUT}  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{{action: login}}]
    approve: {{by: {{users: [ann]}}}}
"
    );
    let (mut rig, listener) = arrive(&bundle, "database").await;
    let early = query("IDENTIFY_SYSTEM");
    rig.client.write_all(&early).await.unwrap();
    rig.people.question(1).await;
    // By now the session waits for the answer, and takes what comes.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    rig.people.approve("q1");
    let mut stage = Stage::sign_in(rig, listener).await;
    stage.server_gets(&early).await;
    stage.leaves().await;
}

#[tokio::test]
async fn a_cancel_request_reaches_the_server() {
    let mut stage = open().await;
    let (mut client, session) = stage.rig.connect().await;
    client.write_all(&cancel_request(&stage.key)).await.unwrap();
    within(session).await.unwrap().unwrap();
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
}

#[tokio::test]
async fn it_ends_in_order_when_it_is_no_longer_allowed_when_masks_begin_and_when_the_agent_stops() {
    type Means = fn(&Rig);
    let ends: [(&str, Means); 3] = [
        ("no longer allowed", |rig| {
            rig.reload(&SPELLED_OUT.replace("{statement: replication}", "{statement: select}"))
        }),
        ("masks apply", |rig| rig.reload(&masked("content: [card]"))),
        ("stopping", Rig::stop),
    ];
    for (says, end) in ends {
        let stage = open().await;
        end(&stage.rig);
        let ended = stage.ends().await;
        ended.with("57P01");
        assert!(contains(&ended.client, says.as_bytes()), "{}", ended.client.escape_ascii());
        assert!(matches!(ended.result, Err(ServeError::Policy(_))));
    }
}

#[tokio::test]
async fn what_it_is_told_last_comes_between_two_messages() {
    let mut stage = open().await;
    let wal = copy_data(&"wal".repeat(1000));
    let (half, rest) = wal.split_at(1500);
    stage.answer(half).await;
    stage.client_gets(half).await;
    stage.rig.reload(&masked("content: [card]"));
    // Nothing comes between the halves, and nothing of the next message behind them.
    stage.answer(&[rest, &copy_data("next")].concat()).await;
    stage.client_gets(rest).await;
    stage.ends().await.told("57P01");
}

#[tokio::test]
async fn a_client_whose_server_goes_is_told() {
    let mut stage = open().await;
    stage.reset().await;
    let ended = stage.ends().await;
    ended.told("08006");
    assert!(matches!(ended.result, Err(ServeError::Upstream(_))));
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_ends_it_and_the_server_is_told() {
    let mut stage = open().await;
    within(stage.rig.client.shutdown()).await.unwrap();
    let ended = stage.ends().await;
    assert!(ended.result.is_ok(), "{:?}", ended.result);
    assert_eq!(ended.server, terminate());
}
