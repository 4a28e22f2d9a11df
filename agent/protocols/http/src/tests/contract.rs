//! The contract of all protocols, held by this one.

use std::sync::Arc;

use tidegate_gate::{BoxFuture, contract, contract::Words};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::Http;

const BUNDLE: &str = r#"
tidegate: 1
name: contract
subjects:
  tester: {users: ["0"]}
resources:
  it:
    protocol: http
    addresses: ["127.0.0.1:{port}"]
    tls: {mode: disable}
issuers:
  people: {url: "https://people.example", audience: contract, tokens: [present]}
rules:
  - name: open
    subjects: [tester]
    resources: [it]
    allow: [{method: [GET, POST], path: "/open/**"}]
  - name: limited
    subjects: [tester]
    resources: [it]
    allow: [{path: /limited}]
    rate: 1/h
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{path: /held}]
    approve: {by: {users: [ann]}}
  - name: vouched
    subjects: [tester]
    resources: [it]
    who: {issuer: people}
    allow: [{path: /vouched}]
"#;

fn request(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{{port}}\r\n{more}\r\n").into_bytes()
}

fn words() -> Words {
    Words {
        protocol: Arc::new(Http::default()),
        bundle: BUNDLE,
        sign_in: request("GET", "/open/first", ""),
        forbidden_sign_in: request("GET", "/closed", "Connection: close\r\n"),
        allowed: (request("GET", "/open/permitted", ""), b"/open/permitted"),
        forbidden: (request("GET", "/unmentionable", ""), b"unmentionable"),
        limited: (request("GET", "/limited", ""), b"/limited"),
        held: (request("GET", "/held", ""), b"/held"),
        vouched: (request("GET", "/vouched", ""), b"/vouched"),
        upstream: play,
        is_ready: |heard| whole(heard).is_some_and(|length| length == heard.len()),
        is_refusal: |heard| {
            ["403", "429", "503"].iter().any(|code| heard.starts_with(format!("HTTP/1.1 {code}").as_bytes()))
        },
    }
}

/// The same with bodies.
fn with_bodies() -> Words {
    let post = |path: &str, body: &str| {
        [request("POST", path, &format!("Content-Length: {}\r\n", body.len())), body.into()].concat()
    };
    Words {
        allowed: (post("/open/x", "permitted"), b"permitted"),
        forbidden: (post("/closed", "unmentionable"), b"unmentionable"),
        limited: (post("/limited", "now and then"), b"now and then"),
        held: (post("/held", "held back"), b"held back"),
        vouched: (post("/vouched", "vouched for"), b"vouched for"),
        ..words()
    }
}

macro_rules! holds {
    ($($promise:ident)*) => {$(
        mod $promise {
            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn without_bodies() {
                super::contract::$promise(super::words()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn with_bodies() {
                super::contract::$promise(super::with_bodies()).await;
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

/// A server that is content with everything.
fn play(mut stream: TcpStream, report: mpsc::UnboundedSender<Vec<u8>>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut read = Vec::new();
        while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            // Whoever does not listen any more needs no report.
            let _ = report.send(read.clone());
            while let Some(length) = whole(&read) {
                read.drain(..length);
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
}

/// How long the message at the beginning is, once it is all there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |it| it.parse().unwrap());
    (bytes.len() >= head + body).then_some(head + body)
}
