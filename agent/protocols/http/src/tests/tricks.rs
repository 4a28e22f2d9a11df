//! Requests that servers read otherwise than they look, and what they were to get around.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Reached, Stage, ok};

/// Everything is allowed that no rule stops.
const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{}]}
  - name: stopped
    subjects: [tester]
    resources: [it]
    deny:
      - {path: "/v1/**:delete"}
      - {path: "/@acme/**"}
      - {path: "/upload", size: "> 10000"}
      - {path: "/deploy", body: {environment: production}}
      - {path: "/typed", type: application/json}
"#;

async fn stage(options: &str) -> Stage {
    Stage::set(RULES, options, Reached::Plainly, ok).await
}

/// A request with a body, whole.
fn with_body(stage: &Stage, line: &str, fields: &str, body: &str) -> String {
    let head = stage.request(line, fields);
    format!("{head}{body}")
}

#[tokio::test]
async fn a_deny_by_path_holds_for_every_spelling_of_it() {
    let stage = stage("{}").await;
    for path in ["/v1/p:delete", "/v1/p%3Adelete", "/v1/p%3adelet%65", "/@acme/x", "/%40acme/x"] {
        let heard = stage.told(&stage.request(&format!("POST {path}"), "Content-Length: 0\r\n")).await;
        assert!(heard.starts_with("HTTP/1.1 403"), "{path}: {heard}");
    }
    let heard = stage.told(&stage.request("GET /%40other/a%2Bb", "")).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    // What is sent is as the client wrote it: some servers read a plus as a space.
    assert!(stage.received()[0].starts_with("GET /%40other/a%2Bb HTTP/1.1"), "{:?}", stage.received());
}

#[tokio::test]
async fn a_size_that_is_not_told_beforehand_is_counted_before_it_is_decided() {
    let stage = stage("{}").await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let long = format!("4e20\r\n{}\r\n0\r\n\r\n", "x".repeat(20_000));
    let heard = stage.told(&with_body(&stage, "POST /upload", chunked, &long)).await;
    assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("stopped"), "{heard}");
    let endless = format!("50000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x50000));
    let heard = stage.told(&with_body(&stage, "POST /upload", chunked, &endless)).await;
    assert!(heard.starts_with("HTTP/1.1 411") && heard.contains("Content-Length"), "{heard}");
    assert!(stage.received().is_empty());
    let heard = stage.told(&with_body(&stage, "POST /upload", chunked, "2\r\nab\r\n0\r\n\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(stage.received()[0].ends_with("content-length: 2\r\n\r\nab"), "{:?}", stage.received());
}

#[tokio::test]
async fn a_character_set_said_twice_hides_nothing_from_a_rule() {
    let stage = stage("{}").await;
    for kind in [
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; a=\"; charset=utf-8\"; charset=ibm037",
    ] {
        let body = r#"{"environment": "+AHA-roduction"}"#;
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        let heard = stage.told(&with_body(&stage, "POST /deploy", &fields, body)).await;
        assert!(heard.starts_with("HTTP/1.1 422"), "{kind}: {heard}");
    }
    for kind in ["application/json; x=\u{ff}", "application/json, text/plain"] {
        let fields = format!("Content-Type: {kind}\r\nContent-Length: 2\r\n");
        let heard = stage.told(&with_body(&stage, "POST /typed", &fields, "{}")).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{kind}: {heard}");
    }
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn what_is_tolerated_of_slashes_is_not_tolerated_of_dots() {
    for (options, path) in [
        ("{tolerate: [encoded-slash]}", "/projects/acme%2Fshop%2F..%2F..%2Fusers"),
        ("{tolerate: [path-parameters]}", "/open/..;x/secret"),
    ] {
        let stage = stage(options).await;
        let heard = stage.told(&stage.request(&format!("GET {path}"), "")).await;
        assert!(heard.starts_with("HTTP/1.1 400") && heard.contains("dot segment"), "{path}: {heard}");
        assert!(stage.received().is_empty());
    }
}

/// What an upstream is to be asked is what somebody can read.
#[tokio::test]
async fn people_are_asked_about_what_they_can_read() {
    const HELD: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{}]}
  - {name: ask, subjects: [tester], resources: [it], hold: [{method: DELETE}], approve: {by: {users: [ann]}}}
"#;
    let stage = Stage::set(HELD, "{pass: [authorization]}", Reached::Plainly, ok).await;
    let fields = "Content-Encoding: gzip\r\nContent-Length: 2\r\n";
    let heard = stage.told(&with_body(&stage, "DELETE /thing", fields, "ab")).await;
    assert!(heard.starts_with("HTTP/1.1 415") && heard.contains("compressed"), "{heard}");
    let (mut client, _) = stage.connect().await;
    let request = stage.request("DELETE /kv?key=prod/", "Authorization: Bearer hunter2\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let question = stage.people.question(1).await;
    assert!(question.text.contains("/kv?key=prod/"), "{}", question.text);
    let shown = format!("{:?} {}", question.particulars, question.text);
    assert!(!shown.contains("hunter2"), "{shown}");
    stage.people.approve("q1");
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}

#[tokio::test]
async fn a_parameter_that_changes_the_method_is_refused_unless_it_is_tolerated() {
    for (options, status) in [("{}", "400"), ("{tolerate: [method-parameters]}", "200")] {
        let stage = stage(options).await;
        for query in ["_method=DELETE", ".method=DELETE", "_HttpMethod=DELETE", "[_method]=DELETE"] {
            let line = format!("POST /x?{query}");
            let heard = stage.told(&stage.request(&line, "Content-Length: 0\r\n")).await;
            assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{options} {query}: {heard}");
        }
    }
    let stage = stage("{tolerate: [method-parameters]}").await;
    let heard = stage.told(&stage.request("POST /x?+_method=DELETE", "Content-Length: 0\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
}

/// A form's name that a server reads as another has that other for rules, too.
#[tokio::test]
async fn a_deny_by_a_form_s_field_holds_for_every_spelling_of_its_name() {
    const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{}]}
  - {name: no-override, subjects: [tester], resources: [it], deny: [{body: {_method: "*"}}, {body: {user_id: "1"}}]}
"#;
    let stage = Stage::set(RULES, "{}", Reached::Plainly, ok).await;
    for form in [
        "_method=DELETE",
        ".method=DELETE",
        "+_method=DELETE",
        "x=1&[_method]=DELETE",
        "user.id=1",
        "user+id=1",
        "user[id=1",
    ] {
        let fields =
            format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", form.len());
        let heard = stage.told(&with_body(&stage, "POST /x", &fields, form)).await;
        assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("no-override"), "{form}: {heard}");
    }
    assert!(stage.received().is_empty());
}

/// A registry takes over a blob of another repository by the gate's credential.
#[tokio::test]
async fn a_blob_that_is_mounted_is_read_where_it_comes_from() {
    const MINE: &str = r#"
rules:
  - {name: mine, subjects: [tester], resources: [it], allow: [{method: [GET, POST, PUT], path: "/v2/mine/**"}]}
"#;
    let stage = Stage::set(MINE, "{}", Reached::Plainly, ok).await;
    for (query, status) in [
        ("", "200"),
        ("?mount=sha256:00&from=mine/base", "200"),
        ("?mount=sha256:00&from=payroll/db", "403"),
        ("?%6dount=sha256%3A00&from=payroll%2Fdb", "403"),
        ("?mount=sha256:00&from=mine/../payroll", "400"),
        ("?mount=sha256:00", "400"),
        ("?mount=sha256:00&from=mine/base&from=payroll/db", "400"),
    ] {
        for slash in ["/", ""] {
            let line = format!("POST /v2/mine/app/blobs/uploads{slash}{query}");
            let heard = stage.told(&stage.request(&line, "Content-Length: 0\r\n")).await;
            assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {heard}");
        }
    }
    assert_eq!(stage.received().len(), 4);
}

/// What is copied to or from is decided like what is asked for.
#[tokio::test]
async fn a_second_target_in_a_header_field_is_decided_too() {
    const MINE: &str = r#"
rules:
  - {name: mine, subjects: [tester], resources: [it], allow: [{method: [GET, PUT, COPY, MOVE], path: "/mine/**"}]}
"#;
    let stage = Stage::set(MINE, "{}", Reached::Plainly, ok).await;
    for (line, field, status) in [
        ("MOVE /mine/a", "Destination: /mine/b", "200"),
        ("COPY /mine/a", "Destination: http://127.0.0.1:PORT/mine/b", "200"),
        ("MOVE /mine/a", "Destination: /other/b", "403"),
        ("MOVE /mine/a", "Destination: /mine/%2e%2e/other", "400"),
        ("MOVE /mine/a", "Destination: http://other.test/mine/b", "400"),
        ("MOVE /mine/a", "Destination: https://127.0.0.1/mine/b", "400"),
        ("MOVE /mine/a", "Destination: /mine/b\r\nDestination: /other/b", "400"),
        ("PUT /mine/a", "x-amz-copy-source: payroll/dump", "403"),
        ("PUT /mine/a", "X-Amz-Copy-Source: mine/dump?versionId=1", "200"),
        ("PUT /mine/a", "x-ms-copy-source: https://elsewhere.test/mine/x?sig=1", "400"),
        ("PUT /mine/a", "x-oss-copy-source: /payroll/dump", "403"),
        ("PUT /mine/a", "x-ms-rename-source: /payroll/dump", "403"),
        ("PUT /mine/a", "x-amz-rename-source: mine/dump", "403"),
        ("PUT /mine/a", "X-Copy-From: /payroll/dump", "400"),
        ("PUT /mine/a", "X-Symlink-Target: payroll/dump", "400"),
        ("PUT /mine/a", "X-Object-Manifest: payroll/dump", "400"),
        ("COPY /mine/a", "Destination: mine/b", "400"),
        ("COPY /mine/a", "Destination: /mine/b\r\nDestination-Account: AUTH_other", "400"),
    ] {
        let head = stage.request(line, &format!("{field}\r\nContent-Length: 0\r\n"));
        let heard = stage.told(&head).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{line} {field}: {heard}");
    }
    assert_eq!(stage.received().len(), 3);
    let removing = MINE.replace("[GET, PUT, ", "[GET, PUT, DELETE, ");
    let stage = Stage::set(&removing, "{}", Reached::Plainly, ok).await;
    let more = "x-amz-rename-source: mine/dump\r\nContent-Length: 0\r\n";
    let heard = stage.told(&stage.request("PUT /mine/a", more)).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "what it removes may be removed: {heard}");
    let stage = Stage::set(MINE, "{pass: [destination]}", Reached::Plainly, ok).await;
    let heard = stage.told(&stage.request("MOVE /mine/a", "Destination: http://other.test/x\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}
