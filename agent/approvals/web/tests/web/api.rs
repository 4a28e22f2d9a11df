//! Questions as programs read and answer them.

use serde_json::{Value, json};

use super::world::*;

/// What is answered to a request of whoever bears this token.
async fn asked(world: &World, method: &str, path: &str, token: Option<&str>, body: &str) -> (Page, Value) {
    let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{bearer}content-length: {length}\r\n");
    let page = world.browser().request(&head, body).await;
    let read = serde_json::from_str(&page.body).unwrap_or_default();
    (page, read)
}

#[tokio::test]
async fn who_bears_an_approvers_token_reads_a_question_and_answers_it() {
    let world = World::start().await;
    let id = world.ask(true).await;
    let path = format!("/api/approvals/{id}");
    let (page, listed) = asked(&world, "GET", "/api/approvals", Some("ann-dba"), "").await;
    assert_eq!((page.status, &listed["inquiries"][0]["id"]), (200, &json!(id)), "{}", page.body);
    let (page, read) = asked(&world, "GET", &path, Some("ann-dba"), "").await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!((&read["question"]["text"], &read["needs_reason"]), (&json!(HOSTILE), &json!(true)));
    assert_eq!(read["answers"], json!(["approve", "deny", "revoke"]));
    let answer =
        |reason: &str| json!({"answer": "approve", "seal": read["seal"], "reason": reason}).to_string();
    let (page, told) = asked(&world, "POST", &path, Some("ann-dba"), &answer("")).await;
    assert_eq!(page.status, 409);
    assert!(told["detail"].as_str().unwrap().contains("needs a reason"), "{told}");
    let (page, _) = asked(&world, "POST", &path, Some("ann-dba"), &answer("ticket 7")).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(world.state(&id).await.last().unwrap().by.as_deref(), Some("ann-dba of people"));
}

#[tokio::test]
async fn nobody_answers_without_a_token_nor_by_a_cookie_nor_for_another_question_than_they_read() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let path = format!("/api/approvals/{id}");
    let (mut browser, shown) = world.logged_in("ann-dba", &id).await;
    let answer = format!("{{\"answer\": \"approve\", \"seal\": \"{}\"}}", shown.field("seal"));
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", answer.len());
    let by_cookie = browser.request(&head, &answer).await;
    assert_eq!(by_cookie.status, 401);
    assert!(by_cookie.headers["www-authenticate"].starts_with("Bearer"));
    for (token, body, status) in [
        (None, &*answer, 401),
        (Some("stolen"), &answer, 401),
        (Some("gone-dba"), &answer, 401),
        (Some("bob-dev"), &answer, 404),
        (Some("ci-dba"), &answer, 409),
        (Some("ann-dba"), r#"{"answer": "approve", "seal": "00"}"#, 409),
        (Some("ann-dba"), r#"{"answer": "approve"}"#, 400),
        (Some("ann-dba"), r#"{"answer": "perhaps", "seal": "00"}"#, 400),
    ] {
        let (page, _) = asked(&world, "POST", &path, token, body).await;
        assert_eq!(page.status, status, "{token:?} {body}: {}", page.body);
    }
    let twice = "authorization: Bearer ann-dba\r\nauthorization: Bearer ann-dba\r\n";
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{twice}content-length: {}\r\n", answer.len());
    assert_eq!(world.browser().request(&head, &answer).await.status, 401);
    assert_eq!(world.state(&id).await.state, State::Waiting);
}

#[tokio::test]
async fn no_other_origin_is_told_that_it_may_ask() {
    let world = World::start().await;
    let id = world.ask(false).await;
    let head = format!(
        "OPTIONS /api/approvals/{id} HTTP/1.1\r\nhost: x\r\norigin: https://evil.example\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n"
    );
    let page = world.browser().request(&head, "").await;
    assert_eq!(page.status, 401);
    assert!(!page.headers.keys().any(|name| name.starts_with("access-control")), "{:?}", page.headers);
}
