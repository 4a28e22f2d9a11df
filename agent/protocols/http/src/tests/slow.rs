//! Clients that send a body slowly, to keep what it takes for long.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Request, Response};
use tidegate_gate::contract::PATIENCE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

use super::stage::{HOST, Reached, Stage, ok};
use crate::patience::Patience;

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
  - {name: read, subjects: [tester], resources: [it], allow: [{path: /read, body: {a: "*"}}]}
"#;

/// Of which no test sees the end.
const LONG: Duration = PATIENCE;

/// Ends what is silent.
const OF_SILENCE: Patience =
    Patience { silence: Duration::from_millis(100), least: (0, LONG), whole: LONG, idle: LONG };

/// Ends what nothing is asked on.
const OF_IDLENESS: Patience =
    Patience { silence: LONG, least: (0, LONG), whole: LONG, idle: Duration::from_millis(100) };

/// Ends what comes byte by byte.
const OF_TRICKLES: Patience =
    Patience { silence: LONG, least: (1000, Duration::from_millis(300)), whole: LONG, idle: LONG };

async fn stage(patience: Patience) -> Stage {
    Stage::set(RULES, "{hosts: [it.test]}", Reached::Plainly, ok).await.waits(patience)
}

/// A POST that begins, of which the body is still to come.
async fn begun(stage: &Stage, path: &str, more: &str) -> TcpStream {
    let (mut client, _) = stage.connect().await;
    let head = stage.request(&format!("POST {path}"), more).replace("Connection: close\r\n", "");
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

/// What it is told, while it sends this again and again, up to the connection's end.
async fn told_while_it_sends(client: TcpStream, part: &[u8]) -> String {
    let (mut read, mut write) = client.into_split();
    let mut heard = Vec::new();
    let (mut ticks, mut is_open) = (interval(Duration::from_millis(10)), true);
    let listening = async {
        loop {
            tokio::select! {
                count = read.read_buf(&mut heard) => if count.unwrap_or(0) == 0 { break },
                _ = ticks.tick(), if is_open => is_open = write.write_all(part).await.is_ok(),
            }
        }
    };
    timeout(PATIENCE, listening).await.expect("the connection ends");
    String::from_utf8(heard).unwrap()
}

#[track_caller]
fn is_too_slow(heard: &str, why: &str) {
    assert!(heard.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{heard}");
    assert!(heard.contains("connection: close\r\n") && heard.contains(why), "{heard}");
}

#[tokio::test]
async fn silence_ends_a_body_and_its_request_with_it() {
    let stage = stage(OF_SILENCE).await;
    let client = begun(&stage, "/open/a", "Content-Length: 10\r\n").await;
    is_too_slow(&told_while_it_sends(client, b"").await, "nothing of it came for 100ms");
    assert!(stage.received().is_empty(), "a part of a body looks whole to nobody");
    let lines = stage.memory.lines();
    let outcome = lines.iter().find(|line| line["type"] == "outcome").expect("the request has an end");
    assert_eq!((&outcome["outcome"], &outcome["error"]), (&"failed".into(), &"408".into()));
}

#[tokio::test]
async fn a_body_that_trickles_ends() {
    let stage = stage(OF_TRICKLES).await;
    let client = begun(&stage, "/open/a", "Content-Length: 1000000\r\n").await;
    is_too_slow(&told_while_it_sends(client, b"x").await, "less than 1000 bytes of it came in 300ms");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_body_that_is_made_as_it_is_sent_has_its_own_time() {
    let stage = stage(OF_TRICKLES).await;
    let mut client = begun(&stage, "/open/a", "Transfer-Encoding: chunked\r\n").await;
    let mut ticks = interval(Duration::from_millis(10));
    for _ in 0..70 {
        ticks.tick().await;
        client.write_all(b"1\r\nx\r\n").await.unwrap();
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    let mut heard = [0; 15];
    timeout(PATIENCE, client.read_exact(&mut heard)).await.expect("it is answered").unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_body_that_is_slow_but_no_slower_than_it_may_arrives() {
    let patience =
        Patience { silence: LONG, least: (2, Duration::from_millis(200)), whole: LONG, idle: LONG };
    let stage = stage(patience).await;
    let mut client = begun(&stage, "/open/a", "Content-Length: 40\r\n").await;
    let mut ticks = interval(Duration::from_millis(20));
    for _ in 0..40 {
        ticks.tick().await;
        client.write_all(b"x").await.unwrap();
    }
    let mut heard = [0; 15];
    timeout(PATIENCE, client.read_exact(&mut heard)).await.expect("it is answered").unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200 OK");
    assert!(stage.received()[0].ends_with(&"x".repeat(40)));
}

#[tokio::test]
async fn a_body_that_is_read_first_has_its_time_in_all() {
    let whole = Duration::from_millis(200);
    let patience = Patience { silence: LONG, least: (0, LONG), whole, idle: LONG };
    let stage = stage(patience).await;
    let more = "Content-Type: application/json\r\nContent-Length: 100000\r\n";
    let client = begun(&stage, "/read", more).await;
    is_too_slow(&told_while_it_sends(client, b"{").await, "has it not whole after 200ms");
    assert!(stage.received().is_empty());
}

/// A client of HTTP/2, and a request of its that begins.
async fn begun_in_h2(
    client: &mut SendRequest<Bytes>,
    stage: &Stage,
    (name, value): (&str, &str),
) -> (Answer, SendStream<Bytes>) {
    let uri = format!("http://{HOST}:{}/open/a", stage.port);
    let post = Request::post(uri).header(name, value).body(()).unwrap();
    *client = client.clone().ready().await.unwrap();
    client.send_request(post, false).unwrap()
}

type Answer = h2::client::ResponseFuture;

async fn answer(answer: Answer) -> Response<RecvStream> {
    timeout(PATIENCE, answer).await.expect("it is answered").unwrap()
}

#[tokio::test]
async fn in_http_2_what_is_slow_ends_alone() {
    for (patience, why) in [(OF_SILENCE, "nothing of it came"), (OF_TRICKLES, "less than 1000 bytes")] {
        let stage = stage(patience).await;
        let (stream, _) = stage.connect().await;
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (silent, mut sending) = begun_in_h2(&mut client, &stage, ("content-length", "1000000")).await;
        let mut silent = Box::pin(answer(silent));
        let mut ticks = interval(Duration::from_millis(10));
        let slow = loop {
            tokio::select! {
                response = &mut silent => break response,
                _ = ticks.tick(), if patience.least.0 > 0 => sending.send_data("x".into(), false).unwrap(),
            }
        };
        assert_eq!(slow.status(), 408);
        let problem = slow.into_body().data().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&problem).contains(why), "{problem:?}");
        let (other, mut sending) = begun_in_h2(&mut client, &stage, ("content-type", "text/plain")).await;
        sending.send_data("all".into(), true).unwrap();
        assert_eq!(answer(other).await.status(), 200);
    }
}

#[tokio::test]
async fn a_stream_of_grpc_may_be_silent_for_longer_than_any_body() {
    let stage = stage(OF_SILENCE).await;
    let (stream, _) = stage.connect().await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (call, mut sending) = begun_in_h2(&mut client, &stage, ("content-type", "application/grpc")).await;
    let (silent, _body) = begun_in_h2(&mut client, &stage, ("content-type", "text/plain")).await;
    assert_eq!(answer(silent).await.status(), 408, "it began later, and was too silent");
    sending.send_data("call".into(), true).unwrap();
    assert_eq!(answer(call).await.status(), 200);
}

/// A place among the sessions is not for whoever has nothing to ask any more.
#[tokio::test]
async fn a_client_of_http_2_that_is_asked_to_leave_and_does_nothing_is_left() {
    let stage = stage(OF_SILENCE).await;
    let (stream, session) = stage.connect().await;
    let (mut client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let (response, mut sending) = begun_in_h2(&mut client, &stage, ("content-length", "1")).await;
    sending.send_data("x".into(), true).unwrap();
    tokio::select! {
        response = answer(response) => assert_eq!(response.status(), 200),
        _ = &mut connection => panic!("it ended"),
    }
    // From now on nobody reads what it is told, or answers.
    stage.stop();
    let ended = timeout(PATIENCE, session).await.expect("the session ends").unwrap();
    assert!(ended.is_err());
    drop(connection);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends_and_one_that_is_busy_for_longer_goes_on() {
    let stage = stage(OF_IDLENESS).await;
    let mut client = begun(&stage, "/open/a", "Content-Length: 1\r\n").await;
    tokio::time::sleep(3 * OF_IDLENESS.idle).await;
    client.write_all(b"x").await.unwrap();
    let mut heard = String::new();
    timeout(PATIENCE, client.read_to_string(&mut heard)).await.expect("it ends").unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK") && !heard.contains("connection: close"), "{heard}");
}

#[tokio::test]
async fn in_http_2_likewise() {
    let stage = stage(OF_IDLENESS).await;
    let (stream, _) = stage.connect().await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let (busy, mut sending) = begun_in_h2(&mut client, &stage, ("content-length", "1")).await;
    tokio::time::sleep(3 * OF_IDLENESS.idle).await;
    sending.send_data("x".into(), true).unwrap();
    let mut body = answer(busy).await.into_body();
    while let Some(part) = body.data().await {
        let count = part.unwrap().len();
        body.flow_control().release_capacity(count).unwrap();
    }
    timeout(PATIENCE, ended).await.expect("it ends").unwrap().unwrap();
}
