//! What goes through, what is refused, and what is made of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{HOST, Reached, Stage, ok, whole};

const RULES: &str = r#"
rules:
  - {name: read, subjects: [tester], resources: [it], allow: [{method: [GET, HEAD], path: "/open/**"}]}
  - {name: write, subjects: [tester], resources: [it], allow: [{method: POST, path: /open/box, size: "<= 10"}]}
  - {name: seldom, subjects: [tester], resources: [it], allow: [{path: "/seldom"}], rate: 2/m}
  - {name: no-admin, subjects: ["*"], resources: [it], deny: [{query: "admin=*"}, {header: "x-admin: *"}], hint: ask ops}
"#;

async fn plain(options: &str) -> Stage {
    Stage::set(RULES, options, Reached::Plainly, ok).await
}

#[tokio::test]
async fn a_request_is_made_anew_from_what_was_understood() {
    let stage = plain("{}").await.signs_in(None, "s3cret");
    let more = "Accept: */*\r\nAuthorization: Bearer mine\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nX-Hop: 1\r\n";
    let request =
        stage.request("GET /open/%7ea?q=%41", more).replace("Connection: close", "Connection: close, X-Hop");
    let heard = stage.told(&request).await;
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("\r\n\r\nok"), "{heard}");
    let received = stage.received().remove(0);
    let mut lines: Vec<_> = received.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /open/~a?q=%41 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: 127.0.0.1:{}", stage.port);
    assert_eq!(lines, ["accept: */*", "authorization: Bearer s3cret", host.as_str()]);
}

#[tokio::test]
async fn a_refusal_names_the_rule_and_how_to_ask_and_the_connection_stays() {
    let stage = plain("{}").await;
    let refused = stage.request("GET /open/x?admin=1", "").replace("Connection: close\r\n", "");
    let heard = stage.told(&(refused + &stage.request("GET /open/x", ""))).await;
    let (first, second) = heard.split_once("HTTP/1.1 200 OK").expect("the second is answered");
    assert!(first.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{first}");
    assert!(first.contains("content-type: application/problem+json"), "{first}");
    assert!(
        first.contains("denied by rule \\\"no-admin\\\"") && first.contains("\"hint\": \"ask ops\""),
        "{first}"
    );
    assert!(second.ends_with("ok"), "{second}");
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn who_asks_too_often_is_told_the_rule_and_when_to_come_again() {
    let stage = plain("{}").await;
    for _ in 0..2 {
        let heard = stage.told(&stage.request("GET /seldom", "")).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    }
    let heard = stage.told(&stage.request("GET /seldom", "")).await;
    assert!(heard.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{heard}");
    assert!(heard.contains("rule \\\"seldom\\\" lets through 2 a minute, and no more for now"), "{heard}");
    let again = heard.split_once("retry-after: ").and_then(|(_, rest)| rest.split_once("\r\n"));
    assert!(again.is_some_and(|(seconds, _)| (55..=63).contains(&seconds.parse().unwrap())), "{heard}");
    let grpc = "Content-Type: application/grpc\r\nTE: trailers\r\n";
    let heard = stage.told(&stage.request("GET /seldom", grpc)).await;
    assert!(heard.contains("grpc-status: 8\r\n") && heard.contains("retry-after: "), "{heard}");
    assert_eq!(stage.received().len(), 2);
}

#[tokio::test]
async fn a_refusal_of_git_s_is_the_text_that_git_shows() {
    let stage = plain("{}").await;
    let heard = stage.told(&stage.request("GET /open/x?admin=1", "User-Agent: git/2.39.5\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("content-type: text/plain\r\n"), "{heard}");
    assert!(heard.contains("\r\n\r\ndenied by rule \"no-admin\"\nask ops\n"), "{heard}");
}

#[tokio::test]
async fn rules_see_methods_paths_parameters_fields_and_sizes() {
    let stage = plain("{}").await;
    for (line, more, allowed) in [
        ("GET /open/a/b", "", true),
        ("HEAD /open/a", "", true),
        ("GET /other", "", false),
        ("DELETE /open/a", "", false),
        ("POST /open/box", "Content-Length: 2\r\n\r\nab", true),
        ("POST /open/box", "Content-Length: 11\r\n\r\n12345678901", false),
        ("POST /open/box", "Transfer-Encoding: chunked\r\n\r\n0\r\n", true),
        ("POST /open/box", "Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n", false),
        ("GET /open/a?x=1&a%64min=2", "", false),
        ("GET /open/a?x=1;admin=2", "", false),
        ("GET /open/a", "X-Admin: yes\r\n", false),
    ] {
        let heard = stage.told(&stage.request(line, more)).await;
        assert_eq!(heard.starts_with("HTTP/1.1 200"), allowed, "{line} {more}: {heard}");
        assert_eq!(heard.starts_with("HTTP/1.1 403"), !allowed, "{line} {more}: {heard}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = plain("{}").await;
    let open = |path: &str| stage.request(&format!("GET {path}"), "").replace("Connection: close\r\n", "");
    let heard = stage.told(&(open("/open/1") + &open("/closed") + &stage.request("GET /open/2", ""))).await;
    let statuses: Vec<_> =
        heard.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.lines().next()).collect();
    assert_eq!(statuses, ["200 OK", "403 Forbidden", "200 OK"]);
    let lines: Vec<String> =
        stage.received().iter().map(|got| got.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["GET /open/1 HTTP/1.1", "GET /open/2 HTTP/1.1"]);
}

#[tokio::test]
async fn a_client_that_waits_to_go_on_is_told_only_when_it_may() {
    let stage = plain("{}").await;
    for (path, expected) in
        [("/open/box", "HTTP/1.1 100 Continue\r\n\r\n"), ("/closed", "HTTP/1.1 403 Forbidden")]
    {
        let (mut client, _) = stage.connect().await;
        let head = stage.request(&format!("POST {path}"), "Content-Length: 2\r\nExpect: 100-continue\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut heard = vec![0; expected.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }
}

#[tokio::test]
async fn chunks_trailers_and_heads_arrive_as_they_were_meant() {
    let stage = Stage::set(
        "\nrules:\n  - {name: all, subjects: [tester], resources: [it], allow: [{}]}\n",
        "{}",
        Reached::Plainly,
        |request| match request.starts_with("HEAD") {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".into(),
            false => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                    .into()
            }
        },
    )
    .await;
    let body = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let heard = stage.told(&stage.request("POST /a", body)).await;
    assert!(
        heard.contains("transfer-encoding: chunked\r\n") && heard.ends_with("3\r\nabc\r\n0\r\n\r\n"),
        "{heard}"
    );
    assert!(stage.received()[0].ends_with("5\r\nhello\r\n0\r\n\r\n"), "{}", stage.received()[0]);
    let heard = stage.told(&stage.request("HEAD /a", "")).await;
    assert!(heard.contains("content-length: 1234\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn the_record_has_request_and_response_without_credentials() {
    let stage = Stage::set(RULES, "{pass: [cookie]}", Reached::Plainly, |_| {
        "HTTP/1.1 404 Not Found\r\nSet-Cookie: s=hunter2\r\nETag: x\r\nContent-Length: 4\r\n\r\nnone".into()
    })
    .await
    .signs_in(None, "hunter2");
    let request = stage.request("GET /open/x?token=hunter2&page=2", "X-CSRF-Token: hunter2\r\n");
    assert!(stage.told(&request).await.starts_with("HTTP/1.1 404"));
    let lines = stage.memory.lines();
    let text: String = lines.iter().map(ToString::to_string).collect();
    assert!(!text.contains("hunter2"), "{text}");
    let action = lines.iter().find(|line| line["type"] == "action").unwrap();
    let recorded = action["text"].as_str().unwrap();
    assert!(
        recorded.contains("/open/x?token=(withheld)&page=2 HTTP/1.1\nx-csrf-token: (withheld)"),
        "{recorded}"
    );
    let outcome = lines.iter().find(|line| line["type"] == "outcome").unwrap();
    assert_eq!((&outcome["outcome"], &outcome["error"]), (&"failed".into(), &"404".into()));
    assert_eq!(outcome["bytes"], 4);
    assert_eq!(outcome["answer"], "404 Not Found\nset-cookie: (withheld)\netag: x");
}

#[tokio::test]
async fn an_upstream_with_another_name_is_not_spoken_to() {
    let stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed("other.test"), ok).await;
    let mut client = stage.connect_tls(HOST, &[]).await;
    let request = stage.request("GET /open/x", "").replace("127.0.0.1", HOST);
    client.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
    assert!(stage.received().is_empty());
    let events: Vec<_> = stage.memory.lines().into_iter().filter(|line| line["type"] == "event").collect();
    assert!(events[0]["detail"].as_str().unwrap().contains("not valid for name"), "{events:?}");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_not_made_whole() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n".into()
    })
    .await;
    let heard = stage.told(&stage.request("GET /open/x", "")).await;
    assert!(heard.contains("abc") && !heard.ends_with("0\r\n\r\n"), "{heard}");
}

#[tokio::test]
async fn a_stopping_agent_ends_what_is_idle() {
    let stage = plain("{}").await;
    let (mut client, session) = stage.connect().await;
    let request = stage.request("GET /open/x", "").replace("Connection: close\r\n", "");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while whole(&heard).is_none() {
        client.read_buf(&mut heard).await.unwrap();
    }
    stage.stop();
    assert!(session.await.unwrap().unwrap_err().to_string().contains("the gate is stopping"));
}

#[tokio::test]
async fn what_is_no_longer_allowed_is_cut_off() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| String::new()).await;
    let (mut client, _) = stage.connect().await;
    client.write_all(stage.request("GET /open/x", "").as_bytes()).await.unwrap();
    while stage.received().is_empty() {
        tokio::task::yield_now().await;
    }
    stage.reload("\nrules:\n  - {name: none, subjects: [tester], resources: [it], deny: [{}]}\n");
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("no longer allowed"), "{heard}");
}

#[tokio::test]
async fn a_mask_is_on_what_its_rule_matches() {
    const MASKED: &str = r#"
rules:
  - {name: files, subjects: [tester], resources: [it], allow: [{path: "/files/**"}]}
  - {name: people, subjects: [tester], resources: [it], allow: [{path: /people}], masks: [mail]}
masks:
  mail: {columns: [body.mail]}
"#;
    let stage = Stage::set(MASKED, "{}", Reached::Plainly, |_| {
        let body = r#"{"mail": "ada@example.com"}"#;
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
    })
    .await;
    let open = stage.told(&stage.request("GET /files/x", "Range: bytes=0-\r\n")).await;
    assert!(open.contains("ada@example.com"), "{open}");
    let masked =
        stage.told(&stage.request("GET /people", "Range: bytes=0-\r\nAccept-Encoding: gzip\r\n")).await;
    assert!(masked.ends_with("{\"mail\": \"[masked]\"}\r\n0\r\n\r\n"), "{masked}");
    let asked = stage.received();
    assert!(asked[0].contains("range: ") && !asked[1].contains("range: "), "{asked:?}");
    assert!(asked[1].contains("accept-encoding: identity"), "{asked:?}");
}
