//! What the gate does at the upstream's side of a session.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::stage::{Authority, HOST, PATIENCE, Reached, Stage, accept, ok, whole};

const RULES: &str = r#"
rules:
  - {name: read, subjects: [tester], resources: [it], allow: [{method: [GET, POST], path: "/open/**"}]}
"#;

async fn get(stage: &Stage, host: &str) -> String {
    let mut client = stage.connect_tls(host, &[]).await;
    let request = stage.request("GET /open/x", "").replace("127.0.0.1", host);
    client.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn a_credential_with_a_certificate_signs_in_by_it() {
    let mut stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::Mutually(HOST), ok).await;
    let heard = get(&stage, HOST).await;
    assert!(heard.starts_with("HTTP/1.1 502"), "without one: {heard}");
    assert!(stage.received().is_empty());
    stage.signs_in_by_certificate();
    let heard = get(&stage, HOST).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(!stage.received()[0].contains("authorization"), "{:?}", stage.received());
}

#[tokio::test]
async fn a_certificate_that_another_authority_signed_signs_nobody_in() {
    let mut stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::Mutually(HOST), ok).await;
    stage.signs_in_by_certificate_of(&Stage::set(RULES, "{}", Reached::Plainly, ok).await);
    let heard = get(&stage, HOST).await;
    assert!(heard.starts_with("HTTP/1.1 502") && !heard.contains("certificate"), "{heard}");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn an_upstream_that_another_authority_vouches_for_gets_no_request() {
    let serving = |listener, _, received| {
        // With a certificate of the right name, of an authority that nobody trusts.
        let impostor = Authority::new().server(HOST, &[b"http/1.1"]);
        tokio::spawn(accept(listener, Some(impostor.into()), ok, received))
    };
    let stage = Stage::serving(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), serving).await;
    let stage = stage.signs_in(None, "hunter2hunter2");
    let heard = get(&stage, HOST).await;
    assert!(heard.starts_with("HTTP/1.1 502") && !heard.contains("certificate"), "{heard}");
    assert!(stage.received().is_empty());
}

/// How the upstream sees the gate's credential, and what the client had of the same kind.
async fn seen(options: &str, own: &str) -> String {
    let stage = Stage::set(RULES, options, Reached::Plainly, ok).await.signs_in(None, "hunter2hunter2");
    let own = format!("{own}\r\nAuthorization: Bearer mine\r\n");
    let heard = stage.told(&stage.request("GET /open/x", &own)).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    stage.received().remove(0)
}

#[tokio::test]
async fn a_session_signs_in_by_a_field_of_its_own_or_a_cookie() {
    let by_header = seen("{sign-in: {header: X-Key}}", "X-Key: mine").await;
    assert!(by_header.contains("x-key: hunter2hunter2\r\n"), "{by_header}");
    let by_cookie = seen("{sign-in: {cookie: sid}}", "Cookie: a=1; sid=mine").await;
    assert!(by_cookie.contains("cookie: sid=hunter2hunter2\r\n"), "{by_cookie}");
    let beside = seen("{sign-in: {cookie: sid}, pass: [cookie]}", "Cookie: a=1; sid=mine").await;
    assert!(beside.contains("cookie: a=1; sid=hunter2hunter2\r\n"), "{beside}");
    for request in [by_header, by_cookie, beside] {
        assert!(!request.contains("mine"), "{request}");
    }
}

/// Answers one request on each connection, and closes it.
async fn one_each(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut read = Vec::new();
        while whole(&read).is_none() && stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {}
        received.lock().unwrap().push(String::from_utf8_lossy(&read).into_owned());
        // Nothing says that it closes.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_is_replaced() {
    let serving = |listener, _, received| tokio::spawn(one_each(listener, received));
    let stage = Stage::serving(RULES, "{}", Reached::Plainly, serving).await;
    let (mut client, _) = stage.connect().await;
    for path in ["/open/1", "/open/2", "/open/3"] {
        let request = stage.request(&format!("GET {path}"), "").replace("Connection: close\r\n", "");
        client.write_all(request.as_bytes()).await.unwrap();
        let heard = answer(&mut client).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{path}: {heard}");
    }
    assert_eq!(stage.received().len(), 3);
}

/// The next response on a connection.
async fn answer(client: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    while whole(&heard).is_none() {
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut heard)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// Answers every stream of HTTP/2 with a head of so many bytes as its path says.
async fn wordy(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let bytes: usize = request.uri().path().trim_start_matches("/open/").parse().unwrap();
                let head = http::Response::builder().header("x-claims", "x".repeat(bytes));
                respond.send_response(head.body(()).unwrap(), true).unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_long_head_is_read_in_either_version() {
    let in_h2 = Stage::serving(RULES, "{h2c: true}", Reached::Plainly, |listener, _, _| {
        tokio::spawn(wordy(listener))
    })
    .await;
    let in_h1 = Stage::set(RULES, "{}", Reached::Plainly, |request| {
        let bytes = request.split(' ').nth(1).unwrap_or_default().trim_start_matches("/open/");
        let claims = "x".repeat(bytes.parse().unwrap());
        format!("HTTP/1.1 200 OK\r\nX-Claims: {claims}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    for (stage, version) in [(in_h1, "HTTP/1.1"), (in_h2, "HTTP/2")] {
        for (bytes, status) in [(60_000, "200"), (200_000, "502")] {
            let heard = stage.told(&stage.request(&format!("GET /open/{bytes}"), "")).await;
            assert!(
                heard.starts_with(&format!("HTTP/1.1 {status}")),
                "{version}, {bytes} bytes: {heard:.99}"
            );
        }
    }
}

/// Answers every stream of HTTP/2 with what it was asked.
async fn h2c(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let received = received.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                received.lock().unwrap().push(format!("{} {:?}", request.uri(), request.version()));
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(bytes::Bytes::from(request.uri().path().to_owned()), true).unwrap();
            }
        });
    }
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_to_whom_knows() {
    let serving = |listener, _, received| tokio::spawn(h2c(listener, received));
    let stage = Stage::serving(RULES, "{h2c: true}", Reached::Plainly, serving).await;
    let (stream, _) = stage.connect().await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let uri = |path: &str| format!("http://127.0.0.1:{}{path}", stage.port);
    for (path, status) in [("/open/a", 200), ("/secret", 403), ("/open/b", 200)] {
        let get = http::Request::get(uri(path)).body(()).unwrap();
        let (response, _) = client.send_request(get, true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{path}");
    }
    let heard = stage.told(&stage.request("GET /open/c", "")).await;
    assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("/open/c\r\n0\r\n\r\n"), "{heard}");
    let expected: Vec<_> =
        ["/open/a", "/open/b", "/open/c"].map(|path| format!("{} HTTP/2.0", uri(path))).into();
    assert_eq!(stage.received(), expected);
}

#[tokio::test]
async fn http_2_begins_at_the_beginning_or_not_at_all() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, ok).await;
    let first = stage.request("GET /open/x", "").replace("Connection: close\r\n", "");
    let heard = stage.told(&(first + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("HTTP/1.1 505"), "{heard}");
}

/// Speaks HTTP/2 alone, and takes nobody for `/open/expired`. What it receives has its connection's number before it.
async fn expiring(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) {
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        let received = received.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let path = request.uri().path();
                received.lock().unwrap().push(format!("{number} {path}"));
                let status = if path == "/open/expired" { 401 } else { 200 };
                let head = http::Response::builder().status(status).body(()).unwrap();
                respond.send_response(head, true).unwrap();
            }
        });
    }
}

#[tokio::test]
async fn after_a_credential_was_refused_nothing_more_is_asked_by_it() {
    let serving = |listener, _, received| tokio::spawn(expiring(listener, received));
    let stage = Stage::serving(RULES, "{h2c: true}", Reached::Plainly, serving).await;
    let open = |path: &str| stage.request(&format!("GET {path}"), "").replace("Connection: close\r\n", "");
    let heard =
        stage.told(&(open("/open/a") + &open("/open/expired") + &stage.request("GET /open/b", ""))).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");
    assert_eq!(stage.received(), ["1 /open/a", "1 /open/expired", "2 /open/b"]);
}
