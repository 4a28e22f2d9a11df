//! WebSocket: what goes through in either direction, and what is refused.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt, stream::FuturesUnordered};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use tidegate_gate::Step;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::stage::{PATIENCE, Reached, Stage};

const RULES: &str = r#"
rules:
  - name: talk
    subjects: [tester]
    resources: [it]
    allow:
      - {action: websocket, path: /live}
      - {action: message, path: /live, to: client}
      - {action: message, path: /live, to: server, message: text, size: "<= 5000000"}
    masks: [people]
  - {name: plain, subjects: [tester], resources: [it], allow: [{method: GET, path: "/pages/**"}]}
  - {name: no-orders, subjects: [tester], resources: [it], deny: [{action: message, to: server, body: {op: order}}]}
masks:
  people: {columns: [body.owner], content: [card], show: {keep-last: 4}}
"#;

pub(super) const DEPLOY: &str = r#"
  - name: deploy
    subjects: [tester]
    resources: [it]
    hold: [{action: message, to: server, body: {op: deploy}}]
    approve: {by: {users: [ann]}}
"#;

/// A server that says back what it hears; what it heard goes to `received`.
async fn echo(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let received = received.clone();
        tokio::spawn(async move {
            #[expect(clippy::result_large_err, reason = "the library's own signature")]
            let note = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                received.lock().unwrap().push(format!("{:?}", request.headers()));
                if let Some(protocol) = request.headers().get(SEC_WEBSOCKET_PROTOCOL) {
                    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
                }
                Ok(response)
            };
            let Ok(mut socket) = accept_hdr_async(stream, note).await else { return };
            while let Some(Ok(message)) = socket.next().await {
                received.lock().unwrap().push(format!("{message:?}"));
                let answer = match message {
                    Message::Text(text) if text == "\"leave\"" => Message::Close(Some(CloseFrame {
                        code: CloseCode::from(4001),
                        reason: "bye 4111111111111111".into(),
                    })),
                    Message::Text(text) if text == "\"binary\"" => Message::binary(b"4111".as_slice()),
                    Message::Text(_) => message,
                    _ => continue,
                };
                if socket.send(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

pub(super) async fn stage() -> Stage {
    Stage::serving(RULES, "{}", Reached::Plainly, |listener, _, received| {
        tokio::spawn(echo(listener, received))
    })
    .await
}

/// The same with one more rule.
pub(super) async fn holding(rule: &str, options: &str) -> Stage {
    let rules = RULES.replace("\nmasks:\n", &format!("{rule}masks:\n"));
    let serving = |listener, _, received| tokio::spawn(echo(listener, received));
    Stage::serving(&rules, options, Reached::Plainly, serving).await
}

pub(super) async fn connect(stage: &Stage) -> WebSocketStream<TcpStream> {
    connect_with(stage, "", &[]).await
}

async fn connect_with(
    stage: &Stage,
    query: &str,
    fields: &[(&'static str, &str)],
) -> WebSocketStream<TcpStream> {
    let (stream, _) = stage.connect().await;
    let mut request = format!("ws://127.0.0.1:{}/live{query}", stage.port).into_client_request().unwrap();
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client_async(request, stream).await.unwrap().0
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it does not take so long")
}

pub(super) async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Message {
    soon(socket.next()).await.expect("there is more").unwrap()
}

/// The close frame that comes next.
pub(super) async fn closed<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> (u16, String) {
    match next(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

pub(super) fn messages(stage: &Stage) -> Vec<String> {
    stage.received().into_iter().filter(|it| it.starts_with("Text") || it.starts_with("Binary")).collect()
}

#[tokio::test]
async fn messages_go_both_ways_each_decided_and_recorded() {
    let stage = stage().await.signs_in(None, "s3cret");
    let mut socket = connect(&stage).await;
    for text in [r#"{"op": "look"}"#, "\"é\"", "7"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text(text));
    }
    assert_eq!(stage.memory.actions(), 7);
    assert!(stage.received()[0].contains("upgrade") && stage.received()[0].contains("authorization"));
    socket.close(None).await.unwrap();
    assert!(soon(socket.next()).await.is_some());
}

#[tokio::test]
async fn a_refused_message_closes_with_the_rule_s_name_and_never_arrives() {
    let stage = stage().await;
    let mut socket = connect(&stage).await;
    socket.send(Message::text(r#"{"op": "order"}"#)).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1008, "denied by rule \"no-orders\"".into()));
    let mut socket = connect(&stage).await;
    socket.send(Message::binary(b"x".as_slice())).await.unwrap();
    let (code, why) = closed(&mut socket).await;
    assert!(code == 1008 && why.contains("it is binary"), "{code} {why}");
    assert_eq!(messages(&stage), [""; 0]);
}

#[tokio::test]
async fn a_message_in_fragments_is_the_message() {
    let stage = stage().await;
    let mut socket = connect(&stage).await;
    let fragment =
        |text: &'static str, kind, last| Message::Frame(Frame::message(text, OpCode::Data(kind), last));
    for fragment in [
        fragment(r#"{"op": "#, Data::Text, false),
        Message::Ping("between".into()),
        fragment(r#""look"}"#, Data::Continue, true),
    ] {
        socket.send(fragment).await.unwrap();
    }
    assert_eq!(next(&mut socket).await, Message::Pong("between".into()));
    assert_eq!(next(&mut socket).await, Message::text(r#"{"op": "look"}"#));
    socket.send(fragment(r#"{"op": "or"#, Data::Text, false)).await.unwrap();
    socket.send(fragment(r#"der"}"#, Data::Continue, true)).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, 1008);
    assert!(!stage.received().iter().any(|heard| heard.contains("order") || heard.contains("between")));
}

#[tokio::test]
async fn what_cannot_be_looked_into_is_refused_where_a_rule_looks() {
    for text in ["not json", r#"{"op": "look", "op": "order"}"#, r#"{"op": "look", "OP": "order"}"#] {
        let stage = stage().await;
        let mut socket = connect(&stage).await;
        socket.send(Message::text(text)).await.unwrap();
        let (code, why) = closed(&mut socket).await;
        assert!(code == 1008 && why.contains("cannot be looked into"), "{code} {why}");
    }
}

#[tokio::test]
async fn what_the_server_says_is_masked_and_what_cannot_be_is_refused() {
    let stage = stage().await;
    let mut socket = connect(&stage).await;
    socket.send(Message::text(r#"{"owner": "Ada Lovelace", "n": "4111111111111111"}"#)).await.unwrap();
    assert_eq!(
        next(&mut socket).await,
        Message::text(r#"{"owner": "********lace", "n": "************1111"}"#)
    );
    socket.send(Message::text("\"leave\"")).await.unwrap();
    assert_eq!(closed(&mut socket).await, (4001, "bye ************1111".into()));
    let mut socket = connect(&stage).await;
    socket.send(Message::text("\"binary\"")).await.unwrap();
    let (code, why) = closed(&mut socket).await;
    assert!(code == 1008 && why.contains("cannot be masked: it is binary"), "{code} {why}");
}

#[tokio::test]
async fn a_rule_must_name_the_websocket_and_its_messages() {
    let stage = stage().await;
    for path in ["/pages/live", "/other"] {
        let (stream, _) = stage.connect().await;
        let refused = client_async(format!("ws://127.0.0.1:{}{path}", stage.port), stream).await.unwrap_err();
        assert!(refused.to_string().contains("403"), "{path}: {refused}");
    }
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_message_waits_for_somebody_and_what_comes_back_meanwhile_does_not() {
    let stage = holding(DEPLOY, "{}").await;
    let mut socket = connect(&stage).await;
    for text in [r#"{"op": "look"}"#, r#"{"op": "deploy"}"#] {
        socket.send(Message::text(text)).await.unwrap();
    }
    assert_eq!(next(&mut socket).await, Message::text(r#"{"op": "look"}"#));
    stage.people.question(1).await;
    assert_eq!(messages(&stage).len(), 1);
    stage.people.approve("q1");
    assert_eq!(next(&mut socket).await, Message::text(r#"{"op": "deploy"}"#));
    socket.send(Message::text(r#"{"op": "deploy"}"#)).await.unwrap();
    stage.people.question(2).await;
    stage.people.answer("q2", Step::Refused { word: "denied".into(), by: Some("ann".into()), reason: None });
    let (code, why) = closed(&mut socket).await;
    assert!(code == 1008 && why.contains("it was denied by ann"), "{code} {why}");
    assert_eq!(messages(&stage).len(), 2);
}

#[tokio::test]
async fn a_yes_to_a_message_counts_over_a_websocket_that_was_asked_for_with_the_same_and_no_other() {
    const PAY: &str = r#"{"op": "deploy"}"#;
    const TEST: &[(&str, &str)] =
        &[("x-tenant", "test"), ("x-csrf-token", "s3cret"), ("sec-websocket-protocol", "v1")];
    let stage = holding(DEPLOY, "{wait: 0}").await;
    let asks = async |query: &str, fields| {
        let mut socket = connect_with(&stage, query, fields).await;
        socket.send(Message::text(PAY)).await.unwrap();
        closed(&mut socket).await.0
    };
    assert_eq!(asks("?room=test&access_token=s3cret", TEST).await, 1008);
    let question = stage.people.question(1).await;
    let shown = format!("{:?}", question.particulars);
    assert!(["/live?room=test&", "x-tenant", "v1", "deploy"].iter().all(|it| shown.contains(it)), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    stage.people.grant(&question);
    let others: [(&str, &[(&str, &str)]); 5] = [
        ("?room=prod&access_token=s3cret", TEST),
        ("?room=test&access_token=other", TEST),
        ("?room=test&access_token=s3cret", &[("x-tenant", "prod"), TEST[1], TEST[2]]),
        ("?room=test&access_token=s3cret", &[TEST[0], ("x-csrf-token", "other"), TEST[2]]),
        ("?room=test&access_token=s3cret", &[TEST[0], TEST[1], ("sec-websocket-protocol", "v2")]),
    ];
    for (query, fields) in others {
        assert_eq!(asks(query, fields).await, 1008, "{query} {fields:?}");
    }
    assert_eq!((stage.people.asked(), messages(&stage)), (6, Vec::new()));
    let mut socket = connect_with(&stage, "?room=test&access_token=s3cret", TEST).await;
    socket.send(Message::text(PAY)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text(PAY));
}

#[tokio::test]
async fn a_yes_to_a_websocket_counts_when_its_client_asks_again_with_another_key() {
    let stage =
        holding(&DEPLOY.replace("message, to: server, body: {op: deploy}", "websocket"), "{wait: 0}").await;
    let (stream, _) = stage.connect().await;
    let refused = client_async(format!("ws://127.0.0.1:{}/live", stage.port), stream).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    stage.people.grant(&stage.people.question(1).await);
    connect(&stage).await;
    assert_eq!(stage.people.asked(), 1);
}

#[tokio::test]
async fn an_upstream_that_goes_away_closes_the_client_s_socket_with_an_error() {
    let serving = |listener: TcpListener, _, _| {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(tokio_tungstenite::accept_async(stream).await);
            }
        })
    };
    let stage = Stage::serving(RULES, "{}", Reached::Plainly, serving).await;
    let mut socket = connect(&stage).await;
    assert_eq!(closed(&mut socket).await, (1011, "the upstream went away".into()));
}

#[tokio::test]
async fn a_socket_that_is_no_longer_allowed_is_closed() {
    let stage = stage().await;
    let mut socket = connect(&stage).await;
    stage.reload("rules: [{name: none, subjects: [tester], resources: [it], allow: [{path: /x}]}]");
    let (code, why) = closed(&mut socket).await;
    assert!(code == 1008 && why.contains("no longer allowed"), "{code} {why}");
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_it() {
    // Unmasked, an unknown opcode, a compressed one though none was negotiated, a long ping, a close of one byte, text that
    // is none.
    for (frame, code) in [
        (&[0x81, 0x01, b'x'][..], 1002),
        (&[0x83, 0x81, 0, 0, 0, 0, b'x'], 1002),
        (&[0xc1, 0x81, 0, 0, 0, 0, b'x'], 1002),
        (&[&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat(), 1002),
        (&[0x80, 0x81, 0, 0, 0, 0, b'x'], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&[0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        let stage = stage().await;
        let (mut stream, _) = stage.connect().await;
        let head = stage.request("GET /live", "");
        let head = head.replace("Connection: close", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(
                soon(stream.read_buf(&mut heard)).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&heard)
            );
        }
        stream.write_all(frame).await.unwrap();
        heard.clear();
        soon(stream.read_to_end(&mut heard)).await.unwrap();
        assert!(heard.first() == Some(&0x88), "{frame:x?}: {heard:x?}");
        assert_eq!(
            u16::from_be_bytes([heard[2], heard[3]]),
            code,
            "{frame:x?}: {}",
            String::from_utf8_lossy(&heard)
        );
        assert_eq!(messages(&stage), [""; 0], "{frame:x?}");
    }
}

#[tokio::test]
async fn what_comes_before_the_connection_is_switched_is_no_message() {
    let stage = stage().await;
    let head = stage.request("GET /live", "").replace("Connection: close", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
    let heard = stage.told(&(head + "GET /live HTTP/1.1\r\n\r\n")).await;
    assert_eq!(heard, "");
    assert_eq!(messages(&stage), [""; 0]);
}

#[tokio::test]
async fn an_upstream_that_switches_to_something_else_is_not_believed() {
    let yes = |_: &str| {
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_owned()
    };
    let stage = Stage::set(RULES, "{}", Reached::Plainly, yes).await;
    let (stream, _) = stage.connect().await;
    let refused = client_async(format!("ws://127.0.0.1:{}/live", stage.port), stream).await.unwrap_err();
    assert!(refused.to_string().contains("502"), "{refused}");
    let heard = stage.told(&stage.request("GET /pages/a", "")).await;
    assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
}

/// Messages that stay unfinished take their account's share of the agent's memory, and nobody else's.
#[tokio::test]
async fn an_account_that_finishes_no_message_shuts_no_other_out() {
    let mut stage = stage().await;
    let mut sockets = Vec::new();
    for _ in 0..17 {
        let mut socket = connect(&stage).await;
        let part = Frame::message(vec![b'x'; 4 * 1024 * 1024 - 1024], OpCode::Data(Data::Text), false);
        // One of them is told while it sends.
        let _ = soon(socket.send(Message::Frame(part))).await;
        sockets.push(socket);
    }
    let mut told: FuturesUnordered<_> = sockets.iter_mut().map(closed).collect();
    let (code, why) = soon(told.next()).await.unwrap();
    assert!(code == 1013 && why.contains("this account has"), "{code} {why}");
    stage.account = 1;
    let mut socket = connect(&stage).await;
    let text = Message::text(format!("\"{}\"", "x".repeat(1024 * 1024)));
    socket.send(text.clone()).await.unwrap();
    assert!(next(&mut socket).await == text);
}
