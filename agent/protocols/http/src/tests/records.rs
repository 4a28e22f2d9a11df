//! What records have of requests and responses, and what an archive makes of it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidegate_gate::{Entry, Protocol, Recorded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::stage::{Reached, Stage, ok};
use crate::Http;

const KEPT: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}, {action: websocket}, {action: message}], record: {data: true}}
  - {name: cards, subjects: [tester], resources: [it], allow: [{path: "/masked/**"}], masks: [cards], record: {data: true}}
masks:
  cards: {content: [card], show: {keep-last: 4}}
"#;

async fn kept(play: fn(&str) -> String) -> Stage {
    Stage::set(KEPT, "{}", Reached::Plainly, play).await
}

fn of_type<'l>(lines: &'l [Value], kind: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// All that the record has under this type, in one text.
fn data(lines: &[Value], kind: &str) -> String {
    of_type(lines, kind).iter().filter_map(|line| line["data"].as_str()).collect()
}

async fn post(stage: &Stage, path: &str, kind: &str, body: &str) -> String {
    let more = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    stage.told(&(stage.request(&format!("POST {path}"), &more) + body)).await
}

#[tokio::test]
async fn bodies_are_kept_both_ways_and_their_credentials_are_not() {
    let stage = kept(|_| {
        let half = "{\"access_token\": \"hunter2\", ";
        let rest = "\"name\": \"Ada\"}";
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n{:x}\r\n\
             {rest}\r\n0\r\n\r\n",
            half.len(),
            rest.len()
        )
    })
    .await;
    let body = r#"{"user": "ada", "login": {"clientSecret": "hunter2"}, "password": ["hunter2"]}"#;
    let heard = post(&stage, "/open/x", "application/json", body).await;
    assert!(heard.contains("hunter2"), "the client gets it all: {heard}");
    assert!(stage.received()[0].ends_with(body), "and so does the server: {:?}", stage.received());
    let lines = stage.memory.lines();
    let withheld = r#"{"user": "ada", "login": {"clientSecret": "(withheld)"}, "password": ["(withheld)"]}"#;
    assert_eq!(data(&lines, "sent"), withheld);
    assert_eq!(data(&lines, "shown"), r#"{"access_token": "(withheld)", "name": "Ada"}"#);
    assert!(!format!("{lines:?}").contains("hunter2"), "{lines:?}");
    let outcome = of_type(&lines, "outcome")[0];
    assert_eq!((&outcome["sent"], &outcome["outcome"]), (&body.len().into(), &"done".into()));
    assert!(outcome["waited"].as_u64() <= outcome["microseconds"].as_u64(), "{outcome}");
}

#[tokio::test]
async fn forms_and_queries_are_kept_without_credentials() {
    let stage = Stage::set(KEPT, "{sign-in: {query: k}}", Reached::Plainly, ok).await;
    let body = "grant_type=client_credentials&client_secret=hunter2&user%5Bpassword%5D=hunter2&n=1";
    post(&stage, "/open/x?k=hunter2&page=2", "application/x-www-form-urlencoded", body).await;
    let lines = stage.memory.lines();
    let kept = data(&lines, "sent");
    assert!(
        kept.starts_with("grant_type=client_credentials&client_secret=") && kept.ends_with("&n=1"),
        "{kept}"
    );
    let text = of_type(&lines, "action")[0]["text"].as_str().unwrap_or_default();
    assert!(
        text.lines().next().unwrap_or_default().ends_with("/open/x?k=(withheld)&page=2 HTTP/1.1"),
        "{text}"
    );
    assert!(!format!("{lines:?}").contains("hunter2"), "{lines:?}");
}

#[tokio::test]
async fn a_client_s_own_key_in_the_gate_s_header_field_is_withheld() {
    let stage = Stage::set(KEPT, "{sign-in: {header: x-door}}", Reached::Plainly, ok).await;
    stage.told(&stage.request("GET /open/x", "X-Door: hunter2\r\n")).await;
    let lines = stage.memory.lines();
    assert!(format!("{lines:?}").contains("x-door: (withheld)"), "{lines:?}");
}

/// A presigned URL is a credential, whoever bears it and wherever it stands.
#[tokio::test]
async fn urls_in_header_fields_are_kept_without_what_opens_them() {
    let stage = kept(|_| {
        "HTTP/1.1 302 Found\r\nLocation: https://store.test/k?X-Amz-Expires=300&X-Amz-Signature=hunter2\r\n\
         Link: </next?page=2&token=hunter2>; rel=\"next\"\r\nContent-Length: 0\r\n\r\n"
            .into()
    })
    .await;
    let more = "Referer: https://ann:hunter2@x.test/cb?code=hunter2\r\nX-Nomad-Token: hunter2\r\n";
    let heard = stage.told(&stage.request("GET /open/x", more)).await;
    assert!(heard.contains("X-Amz-Signature=hunter2"), "the client gets it whole: {heard}");
    assert!(stage.received()[0].contains("code=hunter2"), "and so does the server: {:?}", stage.received());
    assert!(!stage.received()[0].contains("nomad"), "{:?}", stage.received());
    let archive = archive(&stage);
    let redirect = archive["log"]["entries"][0]["response"]["redirectURL"].as_str().unwrap_or_default();
    assert_eq!(redirect, "https://store.test/k?X-Amz-Expires=300&X-Amz-Signature=(withheld)");
    let refused = stage.request("GET http://ann:hunter2@x.test/open/x", "");
    assert!(stage.told(&refused).await.starts_with("HTTP/1.1 400"));
    let all = format!("{:?} {archive}", stage.memory.lines());
    assert!(!all.contains("hunter2") && all.contains("/next?page=2"), "{all}");
}

#[tokio::test]
async fn what_masks_hide_of_responses_is_not_kept_of_requests() {
    let stage = kept(ok).await;
    post(&stage, "/masked/x", "text/plain", "pay with 4111111111111111 today").await;
    assert_eq!(data(&stage.memory.lines(), "sent"), "pay with ************1111 today");
    let stage = kept(ok).await;
    post(&stage, "/masked/x", "image/png", "4111111111111111").await;
    let lines = stage.memory.lines();
    assert_eq!(data(&lines, "sent"), "");
    let why = of_type(&lines, "data-ends")[0]["reason"].as_str().unwrap_or_default();
    assert!(why.contains("image/png"), "{why}");
}

#[tokio::test]
async fn what_says_it_is_json_and_is_not_is_not_kept() {
    let stage = kept(ok).await;
    let heard = post(&stage, "/open/x", "application/json", "{\"password\": hunter2}").await;
    assert!(heard.starts_with("HTTP/1.1 200"), "it goes on as it came: {heard}");
    let lines = stage.memory.lines();
    assert!(!format!("{lines:?}").contains("hunter2"), "{lines:?}");
    assert_eq!(of_type(&lines, "data-ends").len(), 1);
}

#[tokio::test]
async fn a_rule_that_does_not_say_so_keeps_no_body() {
    const RULES: &str =
        "\nrules:\n  - {name: all, subjects: [tester], resources: [it], allow: [{path: \"/**\"}]}\n";
    let stage = Stage::set(RULES, "{}", Reached::Plainly, ok).await;
    post(&stage, "/open/x", "text/plain", "hunter2").await;
    let lines = stage.memory.lines();
    assert!(of_type(&lines, "sent").is_empty() && of_type(&lines, "shown").is_empty(), "{lines:?}");
    assert_eq!(of_type(&lines, "outcome")[0]["sent"], 7);
}

#[tokio::test]
async fn a_response_that_the_client_does_not_wait_for_is_recorded_as_far_as_it_went() {
    let stage =
        kept(|_| "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nabc".into())
            .await;
    let (mut client, session) = stage.connect().await;
    client.write_all(stage.request("GET /open/x", "").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"abc") {
        assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0, "{}", heard.escape_ascii());
    }
    drop(client);
    // Either way it is over.
    let _ = session.await.unwrap();
    let lines = stage.memory.lines();
    let outcome = of_type(&lines, "outcome")[0];
    assert_eq!((&outcome["outcome"], &outcome["bytes"]), (&"aborted".into(), &3.into()));
    assert!(outcome["answer"].as_str().unwrap_or_default().starts_with("200 OK\n"), "{outcome}");
    assert_eq!(data(&lines, "shown"), "abc");
}

/// The archive of what one session recorded so far.
fn archive(stage: &Stage) -> Value {
    let begun: jiff::Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
    let mut recorded = stage.memory.lines().into_iter().enumerate().map(|(number, line)| {
        let time = begun + jiff::SignedDuration::from_millis(i64::try_from(number).unwrap());
        let entry: Entry<'static> = serde_json::from_value(line).map_err(std::io::Error::other)?;
        Ok(Recorded { session: "s1".into(), time, entry })
    });
    let mut out = Vec::new();
    (Http::default().exports()[0].write)(&mut recorded, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// What HAR 1.2 requires of each entry, by JSON pointer.
const REQUIRED: [&str; 26] = [
    "/startedDateTime",
    "/time",
    "/cache",
    "/request/method",
    "/request/url",
    "/request/httpVersion",
    "/request/cookies",
    "/request/headers",
    "/request/queryString",
    "/request/headersSize",
    "/request/bodySize",
    "/response/status",
    "/response/statusText",
    "/response/httpVersion",
    "/response/cookies",
    "/response/headers",
    "/response/content/size",
    "/response/content/mimeType",
    "/response/redirectURL",
    "/response/headersSize",
    "/response/bodySize",
    "/timings/send",
    "/timings/wait",
    "/timings/receive",
    "/connection",
    "/_tidegate/decision",
];

#[tokio::test]
async fn an_archive_has_each_request_with_what_came_of_it() {
    let stage = kept(|request| match request.starts_with("GET") {
        true => "HTTP/1.1 302 Found\r\nLocation: /open/y\r\nContent-Length: 0\r\n\r\n".into(),
        false => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok".into(),
    })
    .await;
    let open = |line: &str, more: &str| stage.request(line, more).replace("Connection: close\r\n", "");
    let get = open("GET /open/x?q=a%20b&n", "Accept: */*\r\n");
    let refused = open("DELETE /closed", "");
    let post = stage.request("POST /open/x", "Content-Type: text/csv\r\nContent-Length: 3\r\n") + "a,b";
    stage.told(&(get + &refused + &post)).await;
    let archive = archive(&stage);
    assert_eq!(
        (&archive["log"]["version"], &archive["log"]["creator"]["name"]),
        (&json!("1.2"), &json!("tidegate"))
    );
    let entries = archive["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    for (entry, required) in entries.iter().flat_map(|entry| REQUIRED.map(|required| (entry, required))) {
        assert!(entry.pointer(required).is_some_and(|value| !value.is_null()), "{required} of {entry}");
    }
    let [get, refused, post] = [&entries[0], &entries[1], &entries[2]];
    let query = json!([{"name": "q", "value": "a b"}, {"name": "n", "value": ""}]);
    assert_eq!(get["request"]["queryString"], query);
    assert_eq!(get["request"]["headers"], json!([{"name": "accept", "value": "*/*"}]));
    assert_eq!(get["request"]["httpVersion"], "HTTP/1.1");
    assert_eq!(
        (&get["response"]["status"], &get["response"]["redirectURL"]),
        (&json!(302), &json!("/open/y"))
    );
    assert_eq!(
        (&refused["response"]["status"], &refused["_tidegate"]["decision"]),
        (&json!(0), &json!("refused"))
    );
    assert!(refused["comment"].as_str().unwrap_or_default().contains("no rule allows"), "{refused}");
    let posted = json!({"mimeType": "text/csv", "text": "a,b"});
    assert_eq!((&post["request"]["postData"], &post["request"]["bodySize"]), (&posted, &json!(3)));
    let content = json!({"size": 2, "mimeType": "text/plain", "text": "ok"});
    assert_eq!((&post["response"]["content"], &post["_tidegate"]["rule"]), (&content, &json!("all")));
}

#[tokio::test]
async fn an_archive_has_a_websocket_s_messages() {
    let stage = Stage::serving(KEPT, "{}", Reached::Plainly, |listener, _, _| {
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(Message::binary(b"\xff\x00".as_slice())).await.unwrap();
                }
            }
        })
    })
    .await;
    let (stream, session) = stage.connect().await;
    let (mut socket, _) = client_async(format!("ws://127.0.0.1:{}/live", stage.port), stream).await.unwrap();
    socket.send(Message::text(r#"{"op": "look", "token": "hunter2"}"#)).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_binary());
    socket.close(None).await.unwrap();
    session.await.unwrap().unwrap();
    let archive = archive(&stage);
    let entries = archive["log"]["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["response"]["status"]), (1, &json!(101)));
    let told: Vec<_> = entries[0]["_webSocketMessages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (message["type"].clone(), message["opcode"].clone(), message["data"].clone()))
        .collect();
    let sent = r#"{"op": "look", "token": "(withheld)"}"#;
    assert_eq!(told, [(json!("send"), json!(1), json!(sent)), (json!("receive"), json!(2), json!("/wA="))]);
}
