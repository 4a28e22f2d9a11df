//! WebSocket on streams of HTTP/2 (RFC 8441): what holds of one over HTTP/1.1 holds of them.

use std::future::poll_fn;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::{client::SendRequest, ext::Protocol};
use http::{Method, Request, Response, Version};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{
    stage::{Reached, Stage, ok},
    websockets::{self, DEPLOY, closed, holding, messages, next, soon, stage},
};
use crate::client::stream::Carried;

const ALL: &str = "rules: [{name: all, subjects: [tester], resources: [it], allow: [{action: websocket}, {action: message}]}]";

type Socket = WebSocketStream<Carried>;

/// A client of HTTP/2, once it knows that it may ask for WebSockets.
async fn client(stage: &Stage) -> SendRequest<Bytes> {
    let (stream, _) = stage.connect().await;
    let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    // The settings come before the answer.
    soon(pings.ping(h2::Ping::opaque())).await.unwrap();
    assert!(client.is_extended_connect_protocol_enabled());
    client.ready().await.unwrap()
}

fn wish(stage: &Stage, protocol: &'static str) -> http::request::Builder {
    Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(format!("http://127.0.0.1:{}/live", stage.port))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
}

async fn asked(
    client: &mut SendRequest<Bytes>,
    wish: http::request::Builder,
) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let (response, send) = client.send_request(wish.body(()).unwrap(), false).unwrap();
    (soon(response).await.unwrap(), send)
}

async fn connect(stage: &Stage, client: &mut SendRequest<Bytes>) -> Socket {
    let (response, send) = asked(client, wish(stage, "websocket")).await;
    assert_eq!(
        (response.status(), response.headers().get("sec-websocket-accept")),
        (200.try_into().unwrap(), None)
    );
    WebSocketStream::from_raw_socket(Carried::new(response.into_body(), send), Role::Client, None).await
}

/// All that was decided, without what differs from stage to stage.
fn decided(stage: &Stage) -> Vec<String> {
    let lines = stage.memory.lines();
    let actions = lines.iter().filter(|line| line["type"] == "action");
    let told = actions.map(|line| {
        let text = line["text"].as_str().unwrap().replace(&stage.port.to_string(), "PORT");
        let text = text.replace("HTTP/1.1", "HTTP/2");
        format!("{} {text:?} {} {} {}", line["action"], line["decision"], line["rule"], line["reason"])
    });
    told.collect()
}

#[tokio::test]
async fn messages_go_both_ways_decided_masked_and_recorded_as_over_http_1_1() {
    const CARD: &str = r#"{"owner": "ada@x.example", "card": "4111111111111111"}"#;
    let (old, new) = (stage().await, stage().await.signs_in(None, "s3cret"));
    let mut shown = Vec::new();
    let mut socket = websockets::connect(&old).await;
    let mut client = client(&new).await;
    let mut stream = connect(&new, &mut client).await;
    for text in [CARD, "\"é\"", r#"{"op": "order"}"#] {
        socket.send(Message::text(text)).await.unwrap();
        stream.send(Message::text(text)).await.unwrap();
        let (one, other) = (next(&mut socket).await, next(&mut stream).await);
        assert_eq!(one, other);
        shown.push(other);
    }
    assert_eq!(shown[0], Message::text(r#"{"owner": "*********mple", "card": "************1111"}"#));
    assert!(matches!(&shown[2], Message::Close(Some(frame)) if u16::from(frame.code) == 1008), "{shown:?}");
    assert_eq!(messages(&new), messages(&old));
    assert_eq!(decided(&new), decided(&old));
    assert!(
        new.received()[0].contains("\"upgrade\": \"websocket\"")
            && new.received()[0].contains("authorization")
    );
}

#[tokio::test]
async fn a_connection_carries_several_and_requests_and_what_one_may_not_is_its_own_end() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let (mut one, mut other) = (connect(&stage, &mut client).await, connect(&stage, &mut client).await);
    one.send(Message::text(r#"{"op": "order"}"#)).await.unwrap();
    assert_eq!(closed(&mut one).await, (1008, "denied by rule \"no-orders\"".into()));
    let refused = Request::get(format!("http://127.0.0.1:{}/other", stage.port)).body(()).unwrap();
    assert_eq!(soon(client.send_request(refused, true).unwrap().0).await.unwrap().status(), 403);
    other.send(Message::text("7")).await.unwrap();
    assert_eq!(next(&mut other).await, Message::text("7"));
    other.close(None).await.unwrap();
    assert!(soon(other.next()).await.is_some());
    // Both streams have their end.
    assert!(soon(other.next()).await.is_none());
}

#[tokio::test]
async fn a_message_that_is_larger_than_any_window_gets_through_both_ways() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let text = Message::text(format!("{:?}", "x".repeat(3 * 1024 * 1024)));
    let (mut sink, mut stream) = connect(&stage, &mut client).await.split();
    let (sent, came) = tokio::join!(sink.send(text.clone()), soon(stream.next()));
    sent.unwrap();
    assert!(came.unwrap().unwrap() == text);
}

#[tokio::test]
async fn a_yes_to_a_held_message_counts_over_either_version() {
    const PAY: &str = r#"{"op": "deploy"}"#;
    let stage = holding(DEPLOY, "{wait: 0}").await;
    let mut socket = websockets::connect(&stage).await;
    socket.send(Message::text(PAY)).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, 1008);
    stage.people.grant(&stage.people.question(1).await);
    let mut client = client(&stage).await;
    let mut socket = connect(&stage, &mut client).await;
    socket.send(Message::text(PAY)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text(PAY));
    assert_eq!(stage.people.asked(), 1);
}

#[tokio::test]
async fn a_socket_that_waits_for_a_yes_is_not_read_before_it_has_it() {
    let rule = DEPLOY.replace("message, to: server, body: {op: deploy}", "websocket");
    let stage = holding(&rule, "{}").await;
    let mut client = client(&stage).await;
    let (response, mut send) =
        client.send_request(wish(&stage, "websocket").body(()).unwrap(), false).unwrap();
    send.send_data("early".into(), false).unwrap();
    stage.people.question(1).await;
    assert!(stage.received().is_empty());
    stage.people.approve("q1");
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_socket_that_is_no_longer_allowed_is_closed() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let mut socket = connect(&stage, &mut client).await;
    stage.reload("rules: [{name: none, subjects: [tester], resources: [it], allow: [{path: /x}]}]");
    let (code, why) = closed(&mut socket).await;
    assert!(code == 1008 && why.contains("no longer allowed"), "{code} {why}");
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_its_socket_and_no_other() {
    let (over, mut ends) = mpsc::channel(2);
    let stage = Stage::serving(ALL, "{}", Reached::Plainly, |listener, _, _| {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let over = over.clone();
                tokio::spawn(async move {
                    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_text() {
                            socket.send(message).await.unwrap();
                        }
                    }
                    over.send(()).await.unwrap();
                });
            }
        })
    })
    .await;
    let mut client = client(&stage).await;
    let (_response, mut send) = asked(&mut client, wish(&stage, "websocket")).await;
    let mut other = connect(&stage, &mut client).await;
    send.send_reset(h2::Reason::CANCEL);
    soon(ends.recv()).await.unwrap();
    other.send(Message::text("7")).await.unwrap();
    assert_eq!(next(&mut other).await, Message::text("7"));
}

#[tokio::test]
async fn what_is_no_wish_for_a_websocket_is_refused() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let version = |version: &str| {
        let mut wish = wish(&stage, "websocket");
        wish.headers_mut().unwrap().insert("sec-websocket-version", version.parse().unwrap());
        wish
    };
    for (name, wish, status) in [
        ("another protocol", wish(&stage, "connect-udp"), 501),
        ("another version", version("8"), 400),
        ("a body", wish(&stage, "websocket").header("content-length", 4), 400),
        ("no subprotocol", wish(&stage, "websocket").header("sec-websocket-protocol", "a b"), 400),
        (
            "what no rule allows",
            wish(&stage, "websocket").uri(format!("http://127.0.0.1:{}/x", stage.port)),
            403,
        ),
        (
            "another host",
            wish(&stage, "websocket").uri(format!("http://other.test:{}/live", stage.port)),
            421,
        ),
    ] {
        assert_eq!(asked(&mut client, wish).await.0.status().as_u16(), status, "{name}");
    }
    assert!(stage.received().is_empty(), "{:?}", stage.received());
}

#[tokio::test]
async fn of_an_upstream_that_opens_none_the_status_is_told() {
    let stage = Stage::set(ALL, "{}", Reached::Plainly, ok).await;
    let mut client = client(&stage).await;
    let (response, mut send) = asked(&mut client, wish(&stage, "websocket")).await;
    assert_eq!(response.status(), 502);
    // Nobody listens to what it would say.
    soon(poll_fn(|context| send.poll_reset(context))).await.unwrap();
}
