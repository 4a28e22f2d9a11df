//! The contract of all protocols, held by this one.

use std::sync::Arc;

use tidegate_gate::{BoxFuture, contract, contract::Words};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::{
    Postgres,
    wire::{self, ErrorFields, HEADER_BYTES, backend::TransactionStatus, frontend::tag, write},
};

const BUNDLE: &str = r#"
tidegate: 1
name: contract
subjects:
  tester: {users: ["0"]}
resources:
  it:
    protocol: postgres
    addresses: ["127.0.0.1:{port}"]
    tls: {mode: disable}
    credential: any
issuers:
  people: {url: "https://people.example", audience: contract, tokens: [present]}
rules:
  - name: sign-in
    subjects: [tester]
    resources: [it]
    allow: [{action: [login], database: [shop]}, {statement: [select]}]
  - name: limited
    subjects: [tester]
    resources: [it]
    allow: [{statement: [show]}]
    rate: 1/h
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{statement: [notify]}]
    approve: {by: {users: [ann]}}
  - name: vouched
    subjects: [tester]
    resources: [it]
    who: {issuer: people}
    allow: [{statement: [listen]}]
"#;

fn words() -> Words {
    Words {
        protocol: Arc::new(Postgres::default()),
        bundle: BUNDLE,
        sign_in: startup("shop"),
        forbidden_sign_in: startup("payroll"),
        allowed: (query("select 'permitted'"), b"permitted"),
        forbidden: (query("drop table t -- unmentionable"), b"unmentionable"),
        limited: (query("show lc_collate"), b"lc_collate"),
        held: (query("notify held_back"), b"held_back"),
        vouched: (query("listen vouched_for"), b"vouched_for"),
        upstream: play,
        is_ready: |heard| heard.ends_with(b"Z\0\0\0\x05I"),
        is_refusal: |heard| {
            [&b"C42501\0"[..], b"C58030\0", b"C53400\0"].iter().any(|code| contains(heard, code))
        },
    }
}

fn pipelined() -> Words {
    Words {
        // What acts is the Execute.
        allowed: (extended("select 1"), b"E\0\0\0\x09\0\0\0\0\0"),
        forbidden: (extended("drop table t -- unmentionable"), b"unmentionable"),
        limited: (extended("show lc_collate"), b"E\0\0\0\x09\0\0\0\0\0"),
        held: (extended("notify held_back"), b"E\0\0\0\x09\0\0\0\0\0"),
        vouched: (extended("listen vouched_for"), b"E\0\0\0\x09\0\0\0\0\0"),
        ..words()
    }
}

macro_rules! holds {
    ($($promise:ident)*) => {$(
        mod $promise {
            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn in_simple_queries() {
                tidegate_gate::contract::$promise(super::words()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn in_pipelines() {
                tidegate_gate::contract::$promise(super::pipelined()).await;
            }
        }
    )*};
}

holds! {
    nothing_reaches_the_upstream_before_admission
    the_record_precedes_the_connection
    a_refused_action_never_arrives_and_the_session_goes_on
    the_record_precedes_the_action
    what_cannot_be_recorded_is_refused
    what_is_over_its_rate_is_refused_and_the_session_goes_on
    an_abort_closes_the_record_once
    a_client_that_leaves_closes_the_record_once
    a_held_action_waits_for_a_yes_and_goes_on_in_its_connection
    a_held_action_without_a_yes_is_refused_and_the_session_goes_on
    a_client_that_goes_away_takes_its_question_back
    an_agent_that_stops_leaves_a_question_standing
    what_an_identity_lets_do_ends_with_it
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_refusal_in_a_pipeline_skips_the_rest_of_it() {
    let both = [parse_to_execute("drop table t -- unmentionable"), extended("select 'swallowed'")].concat();
    let words = Words { forbidden: (both, b"swallowed"), ..words() };
    contract::a_refused_action_never_arrives_and_the_session_goes_on(words).await;
}

fn startup(database: &str) -> Vec<u8> {
    let mut message = Vec::new();
    write::startup(&mut message, 0, [("user", "anyone"), ("database", database)]);
    message
}

fn query(text: &str) -> Vec<u8> {
    let mut message = Vec::new();
    write::query(&mut message, text.as_bytes());
    message
}

fn parse_to_execute(text: &str) -> Vec<u8> {
    let mut messages = Vec::new();
    write::parse(&mut messages, b"", text.as_bytes(), &[]);
    write::bind(&mut messages, b"", b"", &[], &[], &[]);
    write::execute(&mut messages, b"", None);
    messages
}

fn extended(text: &str) -> Vec<u8> {
    let mut messages = parse_to_execute(text);
    write::sync(&mut messages);
    messages
}

/// A server that knows no relation, fails what has no spaces, and completes everything else.
fn play(mut stream: TcpStream, report: mpsc::UnboundedSender<Vec<u8>>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut read = Vec::new();
        let mut answer = Vec::new();
        let (mut started, mut failed) = (false, false);
        while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            let _ = report.send(read.clone());
            while let Some(length) = message_length(&read, started) {
                let message: Vec<u8> = read.drain(..length).collect();
                match started {
                    true => reply(&message, &mut failed, &mut answer),
                    false => {
                        write::authentication_ok(&mut answer);
                        write::ready_for_query(&mut answer, TransactionStatus::Idle);
                        started = true;
                    }
                }
            }
            if stream.write_all(&std::mem::take(&mut answer)).await.is_err() {
                break;
            }
        }
    })
}

fn message_length(read: &[u8], started: bool) -> Option<usize> {
    let length = if started {
        HEADER_BYTES + wire::header(read).unwrap()?.length
    } else {
        u32::from_be_bytes(read.get(..4)?.try_into().unwrap()) as usize
    };
    (read.len() >= length).then_some(length)
}

fn reply(message: &[u8], failed: &mut bool, answer: &mut Vec<u8>) {
    let error = ErrorFields::new("ERROR", "42601", "syntax error");
    let standin = contains(message, b"refused_by_tidegate");
    match message[0] {
        tag::SYNC => {
            *failed = false;
            write::ready_for_query(answer, TransactionStatus::Idle);
        }
        _ if *failed => {}
        tag::QUERY => {
            match standin {
                true => write::error_response(answer, &error),
                false => write::command_complete(answer, b"SELECT 0"),
            }
            write::ready_for_query(answer, TransactionStatus::Idle);
        }
        tag::PARSE if standin => {
            write::error_response(answer, &error);
            *failed = true;
        }
        tag::PARSE => write::raw(answer, b'1', b""),
        tag::BIND => write::raw(answer, b'2', b""),
        tag::EXECUTE => write::command_complete(answer, b"SELECT 0"),
        _ => {}
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
