//! Rules that look at a request's body.

use super::stage::{Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - name: small-refunds
    subjects: [tester]
    resources: [it]
    allow: [{method: POST, path: /refunds, body: {amount: "<= 100", currency: [EUR, USD], "meta.test": false}}]
  - {name: forms, subjects: [tester], resources: [it], allow: [{method: POST, path: "/forms/**"}]}
  - {name: files, subjects: [tester], resources: [it], allow: [{method: PUT, path: "/files/**"}]}
  - {name: no-admins, subjects: [tester], resources: [it], deny: [{path: "/forms/**", body: {"user.role": admin}}]}
"#;

async fn stage() -> Stage {
    Stage::set(RULES, "{}", Reached::Plainly, ok).await
}

async fn post(stage: &Stage, path: &str, kind: &str, body: &str) -> String {
    let more = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // The blank line of the head is the one in `more`.
    let request = stage.request(&format!("POST {path}"), &more);
    stage.told(request.strip_suffix("\r\n").unwrap_or(&request)).await
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn an_allow_counts_if_the_body_is_as_it_says_and_the_body_arrives_as_it_was() {
    let stage = stage().await;
    let body = r#"{ "amount": 1e2, "currency": "EUR" }"#;
    assert!(post(&stage, "/refunds", JSON, body).await.starts_with("HTTP/1.1 200"));
    assert!(stage.received()[0].ends_with(body), "{:?}", stage.received());
    for refused in [
        r#"{"amount": 101, "currency": "EUR"}"#,
        r#"{"amount": 7, "currency": "GBP"}"#,
        r#"{"amount": 7}"#,
        r#"{"amount": [7, 1000], "currency": "EUR"}"#,
        r#"{"amount": "lots", "currency": "EUR"}"#,
        r#"{"amount": {"amount": 7}, "currency": "EUR"}"#,
        r#"{"amount": 7, "currency": "EUR", "Meta": {"test": true}}"#,
        "7",
        "",
    ] {
        let told = post(&stage, "/refunds", JSON, refused).await;
        assert!(told.starts_with("HTTP/1.1 403"), "{refused}: {told}");
    }
    assert_eq!(stage.received().len(), 1);
}

#[tokio::test]
async fn a_deny_is_not_evaded_by_how_a_body_is_written() {
    let stage = stage().await;
    assert!(post(&stage, "/forms/a", FORM, "user.role=guest").await.starts_with("HTTP/1.1 200"));
    assert!(
        post(&stage, "/forms/a", JSON, r#"{"user": {"role": "guest"}}"#).await.starts_with("HTTP/1.1 200")
    );
    for (kind, body) in [
        (FORM, "user.role=admin"),
        (FORM, "user.role=guest&user%2Erole=adm%69n"),
        (JSON, r#"{"user": {"role": "admin"}}"#),
        (JSON, r#"{"user": {"ROLE": "\u0061dmin"}}"#),
        (JSON, r#"{"user": [{"role": "guest"}, {"role": "admin"}]}"#),
    ] {
        let told = post(&stage, "/forms/a", kind, body).await;
        assert!(told.contains("denied by rule \\\"no-admins\\\""), "{body}: {told}");
    }
    for (kind, body) in [
        (FORM, r#"{"user": {"role": "admin"}}"#),
        ("text/plain", "user.role=admin"),
        ("multipart/form-data; boundary=x", "--x--"),
        ("application/json; charset=ibm037", "{}"),
        ("application/json; charset = \"utf-16\"", "{}"),
        (JSON, r#"{"user": {"role": "guest"}, "user": {"role": "admin"}}"#),
        (JSON, r#"{"user": {"role": "guest"}} {"user": {"role": "admin"}}"#),
    ] {
        let told = post(&stage, "/forms/a", kind, body).await;
        assert!(told.starts_with("HTTP/1.1 422") && told.contains("cannot be looked into"), "{body}: {told}");
    }
    assert_eq!(stage.received().len(), 2);
    assert!(stage.memory.lines().iter().any(|line| line.to_string().contains("cannot be looked into")));
}

#[tokio::test]
async fn a_body_whose_type_is_said_twice_is_refused() {
    let stage = stage().await;
    let more = "Content-Type: text/plain\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
    let told = stage.told(&(stage.request("POST /forms/a", more) + "{}")).await;
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("more than one Content-Type"), "{told}");
}

#[tokio::test]
async fn a_compressed_body_and_a_long_one_are_refused_where_a_rule_looks_at_them() {
    let stage = stage().await;
    let more = format!("Content-Type: {JSON}\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n");
    let told = stage.told(&(stage.request("POST /forms/a", &more) + "{}")).await;
    assert!(told.starts_with("HTTP/1.1 422") && told.contains("compressed"), "{told}");
    let long = format!("[{}1]", " ".repeat(300 * 1024));
    assert!(post(&stage, "/forms/a", JSON, &long).await.starts_with("HTTP/1.1 413"));
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_body_that_no_rule_looks_at_may_be_of_any_kind() {
    let stage = stage().await;
    let body = "x".repeat(300 * 1024);
    let more = format!("Content-Type: image/png\r\nContent-Length: {}\r\n", body.len());
    let told = stage.told(&(stage.request("PUT /files/a", &more) + &body)).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
}

#[tokio::test]
async fn a_hold_may_depend_on_what_a_body_says() {
    let rules = r#"
rules:
  - {name: deploy, subjects: [tester], resources: [it], allow: [{method: POST, path: /deploy}]}
  - name: production
    subjects: [tester]
    resources: [it]
    hold: [{body: {environment: production}}]
    approve: {by: {users: [ann]}}
"#;
    let stage = Stage::set(rules, "{wait: 0}", Reached::Plainly, ok).await;
    assert!(post(&stage, "/deploy", JSON, r#"{"environment": "test"}"#).await.starts_with("HTTP/1.1 200"));
    assert_eq!(stage.people.asked(), 0);
    let told = post(&stage, "/deploy", JSON, r#"{"environment": "production"}"#).await;
    assert!(told.starts_with("HTTP/1.1 403") && told.contains("\"approval\": \"q1\""), "{told}");
    assert_eq!((stage.people.asked(), stage.received().len()), (1, 1));
}

#[tokio::test]
async fn a_chunked_body_is_looked_at_too() {
    let stage = stage().await;
    let more = format!("Content-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n");
    let chunks = "f\r\n{\"user\": {\"role\r\nb\r\n\":\"admin\"}}\r\n0\r\n\r\n";
    let told = stage.told(&(stage.request("POST /forms/a", &more) + chunks)).await;
    assert!(told.contains("no-admins"), "{told}");
}
