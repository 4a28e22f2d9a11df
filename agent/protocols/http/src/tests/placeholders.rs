//! Placeholders that the gate fills in, and credentials of the client's own that rules pass.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use tidegate_gate::{
    Action, Decision, Gate, Permit,
    policy::{Fill, Item, Shape, Value},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::stage::{HOST, PATIENCE, Play, Reached, Stage, ok, whole};

const RULES: &str = r#"
rules:
  - name: deploy
    subjects: [tester]
    resources: [it]
    allow: [{method: [GET, POST], path: "/deploy/**"}, {action: websocket, path: /live}]
    fill:
      - placeholder: "@deploy@"
        credential: deploy
        in: [header.x-key, header.authorization, query.key, body.login.secret]
    record: {data: true}
  - name: others
    subjects: [tester]
    resources: [it]
    allow: [{path: "/open/**"}, {action: websocket, path: /other}, {action: message}]
  - {name: no-payroll, subjects: [tester], resources: [it], deny: [{path: /deploy/payroll}]}
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{path: /deploy/production}]
    approve: {by: {users: [ann]}}
"#;
const SECRET: &str = "s3cret/\"+&dragon";

/// Says back all that it was asked.
fn echo(request: &str) -> String {
    let named = |name: &str| {
        let line = request.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().to_owned()
    };
    let body = format!("{request} {:?} {}", request, request.replace('&', "&amp;").replace('"', "&quot;"));
    format!(
        "HTTP/1.1 200 OK\r\nX-Key: {}\r\nX-Other: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        named("x-key: "),
        named("authorization: "),
        body.len()
    )
}

async fn stage(play: Play) -> Stage {
    Stage::set(RULES, "{hosts: [it.test]}", Reached::Plainly, play).await.has("deploy", SECRET)
}

fn post(stage: &Stage, path: &str, more: &str, kind: &str, body: &str) -> String {
    let more = format!("{more}Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    stage.request(&format!("POST {path}"), &more) + body
}

/// Neither the secret, nor what it is within, however it is written.
#[track_caller]
fn tells_nothing(text: &str) {
    let pair = STANDARD.encode(format!("bot:{SECRET}"));
    let [json, html] = [SECRET.replace('"', "\\\""), SECRET.replace('&', "&amp;").replace('"', "&quot;")];
    for told in [SECRET, "s3cret%2F", "s3cret", "dragon", &json, &html, pair.trim_end_matches('=')] {
        assert!(!text.contains(told), "{told} is in {text}");
    }
}

#[tokio::test]
async fn a_placeholder_is_filled_where_the_rule_says() {
    let stage = stage(ok).await;
    let basic =
        |password: &str| format!("authorization: Basic {}\r\n", STANDARD.encode(format!("bot:{password}")));
    for (asked, sent) in [
        (stage.request("GET /deploy/1", "X-Key: @deploy@\r\n"), format!("x-key: {SECRET}\r\n")),
        (
            stage.request("GET /deploy/2", "Authorization: Bearer @deploy@\r\n"),
            format!("authorization: Bearer {SECRET}\r\n"),
        ),
        (stage.request("GET /deploy/3", &basic("@deploy@")), basic(SECRET)),
        (
            stage.request("GET /deploy/4?a=1&key=%40deploy%40", ""),
            "/deploy/4?a=1&key=s3cret%2F%22%2B%26dragon HTTP".into(),
        ),
        (
            post(
                &stage,
                "/deploy/5",
                "Content-MD5: x\r\n",
                "application/json",
                r#"{"login": {"secret": "@deploy@"}}"#,
            ),
            "content-length: 42\r\n\r\n{\"login\": {\"secret\": \"s3cret/\\\"+&dragon\"}}".into(),
        ),
        (
            post(&stage, "/deploy/6", "", "application/x-www-form-urlencoded", "login.secret=@deploy@&a=b"),
            "content-length: 41\r\n\r\nlogin.secret=s3cret%2F%22%2B%26dragon&a=b".into(),
        ),
    ] {
        let heard = stage.told(&asked).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let received = stage.received().pop().unwrap();
        assert!(received.contains(&sent), "{sent} is not in {received}");
        assert!(!received.contains("deploy@") && !received.contains("content-md5"), "{received}");
    }
    let record = format!("{:?}", stage.memory.lines());
    assert_eq!(record.matches("placeholder-filled").count(), 6, "{record}");
    tells_nothing(&record);
}

/// Each is sent as it came, or not at all: the placeholder itself is nobody's secret.
#[tokio::test]
async fn and_nowhere_else() {
    let stage = stage(echo).await;
    let json = "application/json";
    for asked in [
        stage.request("GET /open/1?key=@deploy@", "X-Key: @deploy@\r\nAuthorization: Bearer @deploy@\r\n"),
        stage.request("GET /deploy/2?keys=@deploy@&x=@deploy@", "X-Other: @deploy@\r\nX-Api: @deploy@\r\n"),
        stage.request(
            "GET /deploy/3?key=x@deploy@",
            "X-Key: my @deploy@\r\nAuthorization: Bearer @deploy@.x\r\n",
        ),
        stage.request("GET /deploy/@deploy@", ""),
        post(&stage, "/deploy/5", "", json, r#"{"secret": "@deploy@", "login": {"Secret": "@deploy@"}}"#),
        post(&stage, "/deploy/6", "", "text/plain", r#"{"login": {"secret": "@deploy@"}}"#),
        post(&stage, "/deploy/7", "Content-Encoding: gzip\r\n", json, r#"{"login": {"secret": "@deploy@"}}"#),
        post(&stage, "/deploy/8", "", json, r#"{"login": {"secret": "@deploy@"}"#),
        post(&stage, "/open/9", "", json, r#"{"login": {"secret": "@deploy@"}}"#),
    ] {
        let heard = stage.told(&asked).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let received = stage.received().pop().unwrap();
        tells_nothing(&received);
        assert!(!received.contains("authorization"), "{received}");
    }
    assert!(!format!("{:?}", stage.memory.lines()).contains("placeholder-filled"));
}

#[tokio::test]
async fn what_is_denied_or_for_nobody_here_is_not_filled() {
    let stage = stage(echo).await;
    let heard = stage.told(&stage.request("GET /deploy/payroll?key=@deploy@", "X-Key: @deploy@\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 403") && stage.received().is_empty(), "{heard}");
    let of_others = RULES.replacen("subjects: [tester]", "subjects: [tester]\n    who: {issuer: people}", 1);
    let issuer = "issuers: {people: {url: \"https://people.test\", audience: gate, tokens: [present]}}\n";
    let open = "  - {name: open, subjects: [tester], resources: [it], allow: [{}]}\n";
    stage.reload(&format!("{issuer}{of_others}{open}"));
    let heard = stage.told(&stage.request("GET /deploy/1", "X-Key: @deploy@\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(stage.received()[0].contains("x-key: @deploy@\r\n"), "{:?}", stage.received());
}

#[tokio::test]
async fn what_was_filled_in_does_not_come_back_and_is_in_no_record() {
    let stage = stage(echo).await;
    let pair = STANDARD.encode("bot:@deploy@");
    let more = format!(
        "X-Key: @deploy@\r\nAuthorization: Basic {pair}\r\nAccept-Encoding: gzip\r\nRange: bytes=0-9\r\n"
    );
    let json = r#"{"login": {"secret": "@deploy@"}}"#;
    let heard = stage.told(&post(&stage, "/deploy/1?key=@deploy@", &more, "application/json", json)).await;
    assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("x-key: ***"), "{heard}");
    let received = stage.received().pop().unwrap();
    assert_eq!(received.matches("dragon").count(), 3, "{received}");
    assert!(received.contains("accept-encoding: identity") && !received.contains("range"), "{received}");
    tells_nothing(&heard);
    let lines = stage.memory.lines();
    tells_nothing(&format!("{lines:?}"));
    assert!(lines.iter().any(|line| line["type"] == "sent"), "{lines:?}");
}

#[tokio::test]
async fn nor_does_it_over_http_2() {
    let stage =
        Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), echo).await.has("deploy", SECRET);
    let (mut client, connection) =
        h2::client::handshake(stage.connect_tls(HOST, &[b"h2"]).await).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{HOST}:{}/deploy/1?key=@deploy@", stage.port);
    let request = Request::post(uri)
        .header("authorization", "Bearer @deploy@")
        .header("x-key", "@deploy@")
        .header("content-type", "application/json");
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    for part in [r#"{"login": {"secr"#, r#"et": "@dep"#, r#"loy@"}}"#] {
        body.send_data(Bytes::from_static(part.as_bytes()), part.ends_with('}')).unwrap();
    }
    let (head, mut shown): (_, h2::RecvStream) = Response::into_parts(response.await.unwrap());
    let mut heard = format!("{head:?}");
    while let Some(data) = shown.data().await {
        heard.push_str(std::str::from_utf8(&data.unwrap()).unwrap());
    }
    let received = stage.received().pop().unwrap();
    assert_eq!(received.matches("dragon").count(), 4, "{received}");
    assert!(heard.contains("200") && heard.contains("POST /deploy/1"), "{heard}");
    tells_nothing(&heard);
    tells_nothing(&format!("{:?}", stage.memory.lines()));
}

/// Says back what it was asked, compressed whatever the client takes, with the end in a chunk of its own.
async fn answer_compressed(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).await.unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&asked[..length]).unwrap();
        let body = encoder.finish().unwrap();
        let head = "HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nETag: \"x\"\r\nConnection: close\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (most, end) = body.split_at(body.len() - 9);
        for chunk in [most, end, b""] {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
            stream.write_all(&[chunk, b"\r\n"].concat()).await.unwrap();
        }
    }
}

/// What was asked for is done: told that it failed, the client would have it done twice.
#[tokio::test]
async fn a_response_that_came_compressed_is_decoded_and_does_not_tell_what_was_filled_in() {
    let serving = |listener, _, _| tokio::spawn(answer_compressed(listener));
    let stage = Stage::serving(RULES, "{}", Reached::Plainly, serving).await.has("deploy", SECRET);
    let json = r#"{"login": {"secret": "@deploy@"}}"#;
    let heard = stage.told(&post(&stage, "/deploy/1", "X-Key: @deploy@\r\n", "application/json", json)).await;
    assert!(heard.starts_with("HTTP/1.1 201") && heard.contains("POST /deploy/1"), "{heard}");
    assert!(!heard.contains("content-encoding") && !heard.contains("etag"), "{heard}");
    assert!(heard.contains("x-key: ****************") && heard.ends_with("0\r\n\r\n"), "{heard}");
    tells_nothing(&heard);
    tells_nothing(&format!("{:?}", stage.memory.lines()));
}

#[tokio::test]
async fn a_response_in_which_it_could_not_be_found_is_not_shown() {
    for play in [
        (|_| "HTTP/1.1 200 OK\r\nContent-Encoding: lzw\r\nContent-Length: 3\r\n\r\nxyz".into()) as Play,
        |_| {
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nxyz"
                .into()
        },
    ] {
        let stage = stage(play).await;
        let heard = stage.told(&stage.request("GET /deploy/1", "X-Key: @deploy@\r\n")).await;
        assert!(heard.starts_with("HTTP/1.1 502") && !heard.contains("xyz"), "{heard}");
        let heard = stage.told(&stage.request("GET /deploy/1", "")).await;
        assert!(heard.starts_with("HTTP/1.1 20") && heard.ends_with("xyz"), "{heard}");
    }
}

#[tokio::test]
async fn without_what_it_stands_for_nothing_is_sent() {
    for stage in [
        Stage::set(RULES, "{}", Reached::Plainly, ok).await,
        Stage::set(RULES, "{}", Reached::Plainly, ok).await.has("deploy", "short"),
        Stage::set(RULES, "{}", Reached::Plainly, ok).await.has("deploy", "short==="),
        Stage::set(RULES, "{}", Reached::Plainly, ok).await.has("deploy", "hunter2\r\nX: y"),
    ] {
        let heard = stage.told(&stage.request("GET /deploy/1", "X-Key: @deploy@\r\n")).await;
        assert!(heard.starts_with("HTTP/1.1 502") && heard.contains("credential"), "{heard}");
        assert!(stage.received().is_empty());
        let told = format!("{heard} {:?}", stage.memory.lines());
        assert!(!told.contains("hunter2") && !told.contains("\"short\""), "{told}");
    }
}

/// A permit for this path.
async fn permit(gate: &Gate, path: &str) -> Permit {
    let fields = vec![
        ("action", Value::Word("request")),
        ("method", Value::Word("GET")),
        ("path", Value::Text(path.into())),
    ];
    let shape = Shape { items: vec![Item { fields, must_name: None }], open: true, ..Shape::default() };
    match gate.ask(Action { name: "request", shape: &shape.into(), text: path, count: 1 }).await {
        Decision::Permit(permit) => permit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_gate_tells_what_a_placeholder_stands_for_by_a_permit_of_its_own_that_fills_it_alone() {
    let stage = stage(ok).await;
    let (gate, other) = (stage.gate(), stage.gate());
    let own = permit(&gate, "/deploy/1").await;
    let fill = own.verdict().carried.fills[0].clone();
    assert!(gate.stands_for(&fill, &own).await.is_ok());
    assert!(other.stands_for(&fill, &own).await.is_err(), "by another session's permit");
    let open = permit(&gate, "/open/1").await;
    assert!(gate.stands_for(&fill, &open).await.is_err(), "by a permit of a rule that fills nothing");
    let elsewhere = Fill { credential: "it".into(), ..(*fill).clone() };
    assert!(gate.stands_for(&elsewhere, &own).await.is_err(), "another credential");
}

#[tokio::test]
async fn one_host_s_placeholder_is_not_another_s() {
    let of_one = RULES.replace("method: [GET, POST], path", "host: one.test, path");
    let open = "  - {name: open, subjects: [tester], resources: [it], allow: [{}]}\n";
    let stage =
        Stage::set(&format!("{of_one}{open}"), "{}", Reached::Plainly, ok).await.has("deploy", SECRET);
    for (host, sent) in [("one.test", SECRET), ("two.test", "@deploy@")] {
        let asked = format!(
            "GET /deploy/1 HTTP/1.1\r\nHost: {host}:PORT\r\nConnection: close\r\nX-Key: @deploy@\r\n\r\n"
        );
        let heard = stage.told(&asked).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let received = stage.received().pop().unwrap();
        assert!(received.contains(&format!("x-key: {sent}\r\n")), "{host}: {received}");
    }
}

/// What was let go on when it was asked for may not be when somebody says yes.
#[tokio::test]
async fn a_credential_that_is_passed_no_longer_when_it_could_go_is_not_left_out_either() {
    let hold = "  - name: ask\n    subjects: [tester]\n    resources: [it]\n    hold: [{path: /mine/held}]\n    \
                approve: {by: {users: [ann]}}\n";
    let rules = format!("{PASSING}{hold}");
    let stage = Stage::set(&rules, "{}", Reached::Plainly, ok).await;
    let (mut client, _) = stage.connect().await;
    let asked = stage.request("GET /mine/held", "Authorization: Bearer m1ne-own\r\n");
    client.write_all(asked.as_bytes()).await.unwrap();
    let question = format!("{:?}", stage.people.question(1).await);
    assert!(question.contains("authorization") && !question.contains("m1ne-own"), "{question}");
    stage.reload(&rules.replace(", pass: [authorization, cookie, sudo]", ""));
    stage.people.approve("q1");
    let mut heard = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("send it again"), "{heard}");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_filled_is_refused() {
    let stage = stage(ok).await;
    let long = format!("{{\"x\": \"{}\"}}", "x".repeat(256 * 1024));
    let heard = stage.told(&post(&stage, "/deploy/1", "", "application/json", &long)).await;
    assert!(heard.starts_with("HTTP/1.1 413") && heard.contains("fills placeholders"), "{heard}");
    let heard = stage.told(&post(&stage, "/deploy/1", "", "application/octet-stream", &long)).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}

#[tokio::test]
async fn approvers_see_the_placeholder_and_it_is_filled_behind_their_yes() {
    let stage = stage(echo).await;
    let (mut client, _) = stage.connect().await;
    let json = r#"{"login": {"secret": "@deploy@"}}"#;
    let asked = post(&stage, "/deploy/production", "X-Key: @deploy@\r\n", "application/json", json);
    client.write_all(asked.as_bytes()).await.unwrap();
    let question = format!("{:?}", stage.people.question(1).await);
    assert!(question.contains("@deploy@"), "{question}");
    tells_nothing(&question);
    assert!(stage.received().is_empty());
    stage.people.approve("q1");
    let mut heard = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert_eq!(stage.received()[0].matches("dragon").count(), 2);
    tells_nothing(&heard);
}

/// Says back over a WebSocket what it was asked for with.
async fn echo_over_websocket(stage: &Stage, target: &str) -> (String, Vec<String>) {
    let (stream, _) = stage.connect().await;
    let mut request = format!("ws://127.0.0.1:{}{target}", stage.port).into_client_request().unwrap();
    request.headers_mut().insert("x-key", "@deploy@".parse().unwrap());
    let (mut socket, response) = client_async(request, stream).await.unwrap();
    let mut heard = format!("{response:?}");
    while let Some(Ok(message)) = socket.next().await {
        heard.push_str(&message.to_string());
    }
    (heard, stage.received())
}

#[tokio::test]
async fn a_websocket_s_handshake_is_filled_by_its_own_rule_and_its_messages_do_not_tell() {
    let serving = |listener: TcpListener, _, received: std::sync::Arc<std::sync::Mutex<Vec<String>>>| {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let length = stream.peek(&mut head).await.unwrap();
                let asked = String::from_utf8(head[..whole(&head[..length]).unwrap()].to_vec()).unwrap();
                received.lock().unwrap().push(asked.clone());
                let mut socket = accept_async(stream).await.unwrap();
                socket.send(Message::text(format!("you said {asked}"))).await.unwrap();
                socket.send(Message::binary(asked.clone().into_bytes())).await.unwrap();
                socket.close(None).await.unwrap();
            }
        })
    };
    let stage = Stage::serving(RULES, "{}", Reached::Plainly, serving).await.has("deploy", SECRET);
    let (heard, received) = echo_over_websocket(&stage, "/live?key=@deploy@").await;
    assert_eq!(received[0].matches("dragon").count(), 2, "{received:?}");
    assert!(heard.contains("you said GET /live"), "{heard}");
    tells_nothing(&heard);
    tells_nothing(&format!("{:?}", stage.memory.lines()));
    let (heard, received) = echo_over_websocket(&stage, "/other?key=@deploy@").await;
    assert!(received[1].contains("x-key: @deploy@\r\n") && heard.contains("key=@deploy@"), "{received:?}");
}

const PASSING: &str = r#"
rules:
  - {name: mine, subjects: [tester], resources: [it], allow: [{path: "/mine/**"}], pass: [authorization, cookie, sudo]}
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
"#;

#[tokio::test]
async fn a_client_s_own_credential_goes_up_where_a_rule_passes_it_and_nowhere_else() {
    let answer: Play = |_| "HTTP/1.1 200 OK\r\nSet-Cookie: a=2\r\nContent-Length: 2\r\n\r\nok".into();
    let stage = Stage::set(PASSING, "{}", Reached::Plainly, answer).await;
    let own =
        "Authorization: Bearer m1ne-own\r\nCookie: a=1\r\nCookie: b=2\r\nSudo: root\r\nX-Api-Key: other\r\n";
    let heard = stage.told(&stage.request("GET /mine/1", own)).await;
    assert!(heard.contains("set-cookie: a=2"), "{heard}");
    let received = stage.received().pop().unwrap();
    for field in ["authorization: Bearer m1ne-own\r\n", "cookie: a=1; b=2\r\n", "sudo: root\r\n"] {
        assert!(received.contains(field), "{received}");
    }
    assert!(!received.contains("x-api-key"), "{received}");
    let heard = stage.told(&stage.request("GET /open/1", own)).await;
    assert!(heard.starts_with("HTTP/1.1 400") && heard.contains("pass: [sudo]"), "{heard}");
    let for_itself = own.replace("Sudo: root\r\n", "");
    let heard = stage.told(&stage.request("GET /open/1", &for_itself)).await;
    assert!(heard.starts_with("HTTP/1.1 200") && !heard.contains("set-cookie"), "{heard}");
    let received = stage.received().pop().unwrap();
    for field in ["authorization", "cookie", "x-api-key"] {
        assert!(!received.contains(field), "{received}");
    }
    let record = format!("{:?}", stage.memory.lines());
    assert!(!record.contains("m1ne-own") && record.contains("authorization: (withheld)"), "{record}");
    assert!(record.contains("sudo: root"), "{record}");
    let stage = stage.signs_in(None, "gate-s-own");
    stage.told(&stage.request("GET /mine/1", own)).await;
    let received = stage.received().pop().unwrap();
    assert!(
        received.contains("authorization: Bearer gate-s-own") && !received.contains("m1ne"),
        "{received}"
    );
}
