//! What an upstream says of the gate, and of what is not shown.

use super::stage::{Play, Reached, Stage};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{}, {action: websocket}]}
  - {name: people, subjects: [tester], resources: [it], allow: [{path: /people}], masks: [mail]}
masks:
  mail: {columns: [body.mail]}
"#;

/// A redirect, a link and a page that bear the query they were asked with, and cookies.
fn repeats(request: &str) -> String {
    let query = request.split([' ', '?']).nth(2).unwrap_or_default();
    let body = format!(r#"{{"next": "https://it.test/items?page=2&{query}"}}"#);
    format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: https://it.test/items/?{query}\r\nLink: <https://it.test/?{query}>; \
         rel=next\r\nSet-Cookie: JSESSIONID=of-the-gate\r\nSet-Cookie: sid=hunter2hunter2; Path=/\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn the_gate_s_credential_is_in_no_redirect_link_or_page_and_in_no_record() {
    let stage = Stage::set(RULES, "{sign-in: {query: key}}", Reached::Plainly, repeats).await;
    let stage = stage.signs_in(None, "hunter2hunter2");
    let heard =
        stage.told(&stage.request("GET /items?", "Accept-Encoding: gzip\r\nRange: bytes=0-60\r\n")).await;
    assert!(stage.received()[0].contains("?key=hunter2hunter2"), "{:?}", stage.received());
    assert!(stage.received()[0].contains("accept-encoding: identity"), "{:?}", stage.received());
    assert!(!stage.received()[0].contains("range:"), "{:?}", stage.received());
    assert!(heard.contains("location: https://it.test/items/?key=***\r\n"), "{heard}");
    assert!(heard.ends_with("page=2&key=**************\"}"), "{heard}");
    let record = format!("{:?}", stage.memory.lines());
    assert!(!heard.contains("hunter2") && !record.contains("hunter2"), "{heard} {record}");
}

#[tokio::test]
async fn a_session_that_the_gate_was_given_is_not_the_client_s() {
    for (options, seen) in [
        ("{sign-in: {cookie: sid}}", &[][..]),
        ("{sign-in: {cookie: sid}, pass: [cookie]}", &["JSESSIONID"]),
        ("{pass: [cookie]}", &["JSESSIONID", "sid"]),
    ] {
        let stage =
            Stage::set(RULES, options, Reached::Plainly, repeats).await.signs_in(None, "other-password");
        let heard = stage.told(&stage.request("GET /items?a=1", "")).await;
        let cookies: Vec<_> = heard.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
        let names: Vec<_> = cookies.iter().filter_map(|cookie| cookie.split('=').next()).collect();
        assert_eq!(names, seen, "{options}: {heard}");
    }
}

#[tokio::test]
async fn a_websocket_that_the_upstream_does_not_open_is_no_way_to_read() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| {
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 5\r\n\r\nusers".into()
    })
    .await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                   AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let request = stage.request("GET /api/users", upgrade).replace("Connection: close\r\n", "");
    let heard = stage.told(&(request + &stage.request("GET /ok", ""))).await;
    let (first, second) = heard.split_once("HTTP/1.1 200 OK").expect("the connection goes on");
    assert!(first.starts_with("HTTP/1.1 502") && first.contains("it answered 200"), "{first}");
    assert!(!first.contains("users") && !first.contains("ada"), "{first}");
    assert!(second.ends_with("users"), "{second}");
    assert_eq!(stage.memory.lines().iter().filter(|line| line["type"] == "outcome").count(), 2);
}

/// Some four hundred tags fit into one head, and a 304 says that one of them is right.
#[tokio::test]
async fn what_a_mask_hides_is_not_confirmed_by_conditions() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| {
        "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            .into()
    })
    .await;
    let conditions = "If-None-Match: W/\"1\", W/\"2\"\r\nIf-Range: \"1\"\r\nWant-Repr-Digest: sha-256=1\r\n";
    let heard = stage.told(&stage.request("GET /people", conditions)).await;
    assert!(heard.starts_with("HTTP/1.1 200") && !heard.contains("etag"), "{heard}");
    assert!(
        !stage.received()[0].contains("if-") && !stage.received()[0].contains("want-"),
        "{:?}",
        stage.received()
    );
    stage.told(&stage.request("PUT /people", "If-None-Match: *\r\nContent-Length: 0\r\n")).await;
    assert!(stage.received()[1].contains("if-none-match: *"), "{:?}", stage.received());
    let heard = stage.told(&stage.request("PUT /people", "If-Match: \"1\"\r\nContent-Length: 0\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 412") && heard.contains("entity tags"), "{heard}");
    assert_eq!(stage.received().len(), 2);
    let heard = stage.told(&stage.request("HEAD /people", "")).await;
    assert!(heard.starts_with("HTTP/1.1 200") && !heard.contains("content-length"), "{heard}");
    stage.told(&stage.request("GET /others", conditions)).await;
    assert!(
        stage.received()[3].contains("if-none-match: w/\"1\"")
            || stage.received()[3].contains("if-none-match: W/\"1\"")
    );
}

/// Beside `Transfer-Encoding` a length means nothing, and must not reach a client that believes it.
#[tokio::test]
async fn a_length_beside_chunks_neither_splits_a_response_nor_hides_it_from_a_mask() {
    for length in ["5", "0"] {
        let play = match length {
            "5" => |_: &str| {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: \
                 chunked\r\n\r\n1a\r\n{\"mail\": \"ada@b.example\"} \r\n0\r\n\r\n"
                    .to_owned()
            },
            _ => |_: &str| {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\nTransfer-Encoding: \
                 chunked\r\n\r\n1a\r\n{\"mail\": \"ada@b.example\"} \r\n0\r\n\r\n"
                    .to_owned()
            },
        };
        let stage = Stage::set(RULES, "{}", Reached::Plainly, play).await;
        let heard = stage.told(&stage.request("GET /open", "")).await;
        assert!(!heard.contains("content-length"), "{heard}");
        assert!(
            heard.contains("transfer-encoding: chunked") && heard.ends_with("} \r\n0\r\n\r\n"),
            "{heard}"
        );
        let heard = stage.told(&stage.request("GET /people", "")).await;
        assert!(heard.contains("[masked]") && !heard.contains("ada@"), "{heard}");
    }
}

/// A status of the gate's own would have clients ask on and on.
#[tokio::test]
async fn what_an_upstream_refuses_keeps_its_status_where_its_page_cannot_be_masked() {
    for (status, told) in [("404 Not Found", "404"), ("401 Unauthorized", "401"), ("200 OK", "502")] {
        let answer: Play = match status {
            "404 Not Found" => |_| page("404 Not Found"),
            "401 Unauthorized" => |_| page("401 Unauthorized"),
            _ => |_| page("200 OK"),
        };
        let stage = Stage::set(RULES, "{}", Reached::Plainly, answer).await;
        let heard = stage.told(&stage.request("GET /people", "")).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {told} ")), "{heard}");
        assert!(heard.contains("cannot be masked") && !heard.contains("ada@x.example"), "{heard}");
    }
}

fn page(status: &str) -> String {
    let page = "<p>no page for ada@x.example</p>";
    let length = page.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}")
}
