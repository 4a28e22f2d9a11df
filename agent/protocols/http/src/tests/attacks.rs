//! What an attacker tries.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{HOST, Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - {name: read, subjects: [tester], resources: [it], allow: [{method: [GET, POST], path: "/open/**"}]}
"#;

async fn plain() -> Stage {
    Stage::set(RULES, "{}", Reached::Plainly, ok).await
}

/// A second request hides where the end of the first is in doubt; nothing of either may arrive.
#[tokio::test]
async fn a_request_smuggled_in_another_s_body_never_arrives() {
    let stage = plain().await;
    let hidden = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Content-Length: 44, 0\r\n",
        "Content-Length: +44\r\n",
        "Content_Length: 44\r\n",
    ] {
        let text = format!("POST /open/x HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{fields}\r\n0\r\n\r\n{hidden}");
        let heard = stage.told(&text).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{fields:?}: {heard}");
        assert!(stage.received().is_empty(), "{fields:?}: {:?}", stage.received());
    }
}

/// The bytes behind a body are a request like any other, decided like any other.
#[tokio::test]
async fn what_follows_a_body_is_decided_by_itself() {
    let stage = plain().await;
    let text = "POST /open/x HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 2\r\n\r\nabGET /secret HTTP/1.1\r\n\
                Host: 127.0.0.1:PORT\r\nConnection: close\r\n\r\n";
    let heard = stage.told(text).await;
    assert!(heard.contains("HTTP/1.1 200") && heard.contains("HTTP/1.1 403"), "{heard}");
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn a_path_in_disguise_is_refused() {
    let stage = plain().await;
    for path in [
        "/open/../secret",
        "/open/%2e%2e/secret",
        "/open/..%2fsecret",
        "/open/%2e%2e%2fsecret",
        "/open/..\\secret",
        "/open/..%5csecret",
        "/open/..;/secret",
        "/open//secret",
        "/open/%00/secret",
        "/open/%252e%252e/secret",
        "/open/\u{ff0e}\u{ff0e}/secret",
        "/open/%c0%ae%c0%ae/secret",
        "/open/x#/secret",
        "open/x",
        "*",
    ] {
        let heard = stage.told(&stage.request(&format!("GET {path}"), "")).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{path}: {heard}");
    }
    assert!(stage.received().is_empty());
    let refused = stage.memory.lines().iter().filter(|line| line["decision"] == "deny").count();
    assert_eq!(refused, 15, "each attempt is in the record");
}

/// A rule for one of a resource's names is not for the server that has another of them.
#[tokio::test]
async fn a_name_is_asked_for_where_it_was_told_to_be() {
    let mut stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::Plainly, ok).await;
    for (told, host, status) in [
        (None, "one.test", "200"),
        (None, "two.test", "200"),
        (Some("one.test"), "one.test", "200"),
        (Some("one.test"), "two.test", "421"),
        (None, "127.0.0.1", "200"),
        (Some("one.test"), "127.0.0.1", "421"),
        (Some("one.test"), "it.test", "200"),
    ] {
        stage.names = told.map(|name| [name.into()].into());
        let heard = stage.told(&stage.request("GET /open/x", "").replace("127.0.0.1", host)).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{told:?} {host}: {heard}");
    }
}

/// One name's permission is not for another name's server.
#[tokio::test]
async fn a_request_to_another_host_than_the_connection_s_is_refused() {
    let stage = plain().await;
    let heard = |target: &'static str, hosts: &'static str| {
        let text = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let stage = &stage;
        async move { stage.told(&text).await }
    };
    for (target, hosts, status) in [
        ("/open/x", "Host: other.test\r\n", "421"),
        ("/open/x", "Host: 127.0.0.1\r\n", "421"),
        ("/open/x", "Host: 127.0.0.1:1\r\n", "421"),
        ("/open/x", "Host: 127.0.0.2:PORT\r\n", "421"),
        ("/open/x", "", "400"),
        ("/open/x", "Host: 127.0.0.1:PORT\r\nHost: other.test\r\n", "400"),
        ("/open/x", "Host: 127.0.0.1:PORT, other.test\r\n", "400"),
        ("/open/x", "Host: user@127.0.0.1:PORT\r\n", "400"),
        ("/open/x", "Host: 127.1:PORT\r\n", "400"),
        ("http://other.test/open/x", "Host: 127.0.0.1:PORT\r\n", "400"),
        ("http://other.test/open/x", "Host: other.test\r\n", "421"),
        ("https://127.0.0.1:PORT/open/x", "Host: 127.0.0.1:PORT\r\n", "400"),
        ("http://127.0.0.1:PORT/open/x", "Host: 127.0.0.1:PORT\r\n", "200"),
    ] {
        let answer = heard(target, hosts).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target} {hosts:?}: {answer}");
    }
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn the_name_in_tls_and_the_host_must_be_the_same() {
    let stage = Stage::set(RULES, "{hosts: [it.test, twin.test]}", Reached::AsNamed(HOST), ok).await;
    for (host, status) in [("twin.test", "421"), (HOST, "200")] {
        let mut client = stage.connect_tls(HOST, &[]).await;
        let request = stage.request("GET /open/x", "").replace("127.0.0.1", host);
        client.write_all(request.as_bytes()).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {heard}");
    }
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn what_would_be_no_request_any_more_is_refused() {
    let stage = plain().await;
    for (line, more, status) in [
        ("CONNECT /open/x", "", "501"),
        ("TRACE /open/x", "", "501"),
        ("get /open/x", "", "501"),
        ("GET /open/x", "Connection: upgrade\r\nUpgrade: websocket\r\n", "400"),
        ("GET /open/x", "Connection: upgrade\r\nUpgrade: tls/1.2\r\n", "501"),
        ("GET /open/x", "X-HTTP-Method-Override: DELETE\r\n", "400"),
        ("GET /open/x", "X-Original-URL: /secret\r\n", "400"),
        ("POST /open/x", "Content-Length: 1\r\nExpect: tea\r\n", "417"),
    ] {
        let heard = stage.told(&stage.request(line, more)).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{line} {more}: {heard}");
    }
    assert!(stage.received().is_empty());
}

/// Who asks for less than the gate may do gets that, or nothing.
#[tokio::test]
async fn a_request_for_somebody_else_is_not_made_for_the_gate_itself() {
    for (options, status) in [("{}", "400"), ("{pass: [impersonate-user]}", "200")] {
        let stage = Stage::set(RULES, options, Reached::Plainly, ok).await;
        let heard = stage.told(&stage.request("GET /open/x", "Impersonate-User: viewer\r\n")).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{options}: {heard}");
        let received = stage.received();
        assert!(received.iter().all(|request| request.contains("impersonate-user: viewer")), "{received:?}");
        let refused = stage.memory.lines().iter().filter(|line| line["decision"] == "deny").count();
        assert_eq!(refused, usize::from(status == "400"), "it is in the record");
    }
    let stage = plain().await;
    let heard = stage.told(&stage.request("GET /secret", "Sudo: 1\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 403"), "what is denied is denied: {heard}");
}

#[tokio::test]
async fn a_client_that_speaks_the_wrong_one_of_plain_and_tls_is_told() {
    let stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), ok).await;
    let heard = stage.told("GET /open/x HTTP/1.1\r\nHost: it.test\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 400") && heard.contains("https://"), "{heard}");
    let stage = plain().await;
    let (mut client, session) = stage.connect().await;
    client.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    assert!(session.await.unwrap().unwrap_err().to_string().contains("it speaks TLS"));
}

/// A client whose body stops half-way sends nothing that looks whole.
#[tokio::test]
async fn half_a_body_does_not_become_a_whole_one() {
    let stage = plain().await;
    for fields in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let (mut client, session) = stage.connect().await;
        let text = format!("POST /open/x HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{fields}", stage.port);
        client.write_all(text.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(session.await.unwrap().is_err());
        assert!(stage.received().is_empty(), "{fields}: {:?}", stage.received());
    }
}
