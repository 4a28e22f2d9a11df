//! HTTP/2 on either side.

use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::stage::{HOST, PATIENCE, Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - {name: read, subjects: [tester], resources: [it], allow: [{method: [GET, HEAD, POST], path: "/open/**"}]}
"#;

type Client = h2::client::SendRequest<Bytes>;

async fn stage() -> Stage {
    Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), ok).await
}

async fn client(stage: &Stage) -> Client {
    client_that_pings(stage).await.0
}

async fn client_that_pings(stage: &Stage) -> (Client, h2::PingPong) {
    let stream: TlsStream<TcpStream> = stage.connect_tls(HOST, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    (client.ready().await.unwrap(), pings)
}

fn request(stage: &Stage, method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://{HOST}:{}{path}", stage.port))
}

async fn body(response: Response<h2::RecvStream>) -> String {
    let mut stream = response.into_body();
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_client_of_http_2_reaches_an_upstream_of_http_1_1() {
    let stage = stage().await.signs_in(None, "s3cret");
    let mut client = client(&stage).await;
    let get = request(&stage, Method::GET, "/open/a").header("cookie", "a=1").body(()).unwrap();
    let (response, _) = client.send_request(get, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!((response.status().as_u16(), &*body(response).await), (200, "ok"));
    let post = request(&stage, Method::POST, "/open/b").header("content-length", 4).body(()).unwrap();
    let (response, mut stream) = client.send_request(post, false).unwrap();
    stream.send_data("body".into(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let received = stage.received();
    assert!(
        received[0].starts_with("GET /open/a HTTP/1.1\r\n") && !received[0].contains("cookie"),
        "{received:?}"
    );
    assert!(received[0].contains(&format!("host: {HOST}:{}\r\n", stage.port)), "{received:?}");
    assert!(
        received[1].ends_with("content-length: 4\r\n\r\nbody") || received[1].ends_with("body"),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_one_stream_s_and_the_connection_stays() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let mut answers = Vec::new();
    for path in ["/closed", "/open/a"] {
        let (response, _) =
            client.send_request(request(&stage, Method::GET, path).body(()).unwrap(), true).unwrap();
        answers.push(response.await.unwrap().status().as_u16());
    }
    assert_eq!(answers, [403, 200]);
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    for path in ["/closed", "/open/a"] {
        let (response, _) =
            client.send_request(request(&stage, Method::HEAD, path).body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert!(response.headers()["content-length"] != "0", "{path}: as much as GET would have");
        assert!(response.into_body().data().await.is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_is_refused_early_may_send_its_body_to_the_end() {
    let stage = stage().await;
    let (mut client, mut pings) = client_that_pings(&stage).await;
    let post = request(&stage, Method::POST, "/closed").header("content-length", 4).body(()).unwrap();
    let (response, mut stream) = client.send_request(post, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(!body(response).await.is_empty());
    // What was sent behind the response would have come before the answer.
    pings.ping(h2::Ping::opaque()).await.unwrap();
    stream.send_data("body".into(), true).unwrap();
}

#[tokio::test]
async fn a_refusal_of_grpc_is_one_that_its_clients_read() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let call =
        request(&stage, Method::POST, "/pkg.Service/Method").header("content-type", "application/grpc");
    let (response, _) = client.send_request(call.body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"7".parse().unwrap())
    );
}

#[tokio::test]
async fn host_and_authority_must_agree_in_http_2_too() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    let other = request(&stage, Method::GET, "/open/a").header("host", "other.test").body(()).unwrap();
    let (response, _) = client.send_request(other, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
    let elsewhere = Request::get(format!("https://other.test:{}/open/a", stage.port)).body(()).unwrap();
    let (response, _) = client.send_request(elsewhere, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 421);
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn many_requests_at_once_get_their_own_answers() {
    let stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), |request| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())
    })
    .await;
    let mut client = client(&stage).await;
    let asked: Vec<_> = (0..50)
        .map(|number| {
            let path = format!("/open/{number}");
            let get = request(&stage, Method::GET, &path).body(()).unwrap();
            (path, client.send_request(get, true).unwrap().0)
        })
        .collect();
    for (path, response) in asked {
        assert_eq!(body(response.await.unwrap()).await, path);
    }
}

#[tokio::test]
async fn the_last_part_of_a_response_says_that_it_is_the_last() {
    let stage = stage().await;
    let mut client = client(&stage).await;
    for path in ["/open/a", "/closed"] {
        let get = request(&stage, Method::GET, path).body(()).unwrap();
        let (response, _) = client.send_request(get, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(!body.data().await.unwrap().unwrap().is_empty());
        assert!(body.is_end_stream(), "an empty frame follows: {path}");
    }
}

/// Clients that verify behind the handshake tell nobody why they leave.
#[tokio::test]
async fn a_client_that_leaves_behind_the_handshake_is_recorded_with_what_that_means() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let stage = stage().await;
        let (client, serving) = stage.connect_tls_served(HOST, &[alpn]).await;
        drop(client);
        let _ = timeout(PATIENCE, serving).await.expect("it ends");
        let record = format!("{:?}", stage.memory.lines());
        assert!(record.contains("client-distrusts") && record.contains("tidegate ca show"), "{record}");
    }
}

#[tokio::test]
async fn a_client_that_says_it_speaks_http_1_0_alone_is_answered() {
    let stage = stage().await;
    let mut client = stage.connect_tls(HOST, &[b"http/1.0"]).await;
    client.write_all(b"GET /open/a HTTP/1.0\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    timeout(PATIENCE, client.read_to_string(&mut heard)).await.expect("it ends").unwrap();
    assert!(heard.contains(" 200 ") && heard.ends_with("ok"), "{heard}");
}
