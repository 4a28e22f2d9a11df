//! Requests that wait for people.

use tidegate_gate::contract::PATIENCE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::stage::{Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{}]}
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{method: DELETE}]
    approve: {by: {users: [ann]}}
"#;

async fn stage(options: &str) -> Stage {
    Stage::set(RULES, options, Reached::Plainly, ok).await
}

async fn ask(stage: &Stage, more: &str) -> TcpStream {
    let (mut client, _) = stage.connect().await;
    client.write_all(stage.request("DELETE /thing", more).as_bytes()).await.unwrap();
    client
}

async fn heard(client: &mut TcpStream) -> String {
    let mut heard = String::new();
    timeout(PATIENCE, client.read_to_string(&mut heard)).await.expect("it ends").unwrap();
    heard
}

#[tokio::test]
async fn a_held_request_goes_on_when_somebody_says_yes_to_what_they_saw() {
    let stage = stage("{}").await;
    let mut client = ask(&stage, "X-Why: tidy\r\nContent-Length: 4\r\n\r\nbody").await;
    let question = stage.people.question(1).await;
    assert!(question.text.contains("/thing"), "{}", question.text);
    let shown: Vec<_> = question.particulars.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert!(shown.contains(&"x-why=tidy".to_owned()) && shown.contains(&"body=body".to_owned()), "{shown:?}");
    assert!(stage.received().is_empty());
    stage.people.approve("q1");
    assert!(heard(&mut client).await.starts_with("HTTP/1.1 200"));
    assert!(stage.received()[0].ends_with("body"));
}

/// The server that a question is for, and what a yes counts for, of a request to `host` at an address of these names.
async fn asked_of(host: &str, names: &[&str]) -> (String, [u8; 32]) {
    let mut stage = stage(r#"{"hosts": ["other.test"]}"#).await;
    stage.names = Some(names.iter().map(|name| (*name).into()).collect());
    let (mut client, _) = stage.connect().await;
    let request = format!("DELETE /thing HTTP/1.1\r\nHost: {host}:{}\r\n\r\n", stage.port);
    client.write_all(request.as_bytes()).await.unwrap();
    let question = stage.people.question(1).await;
    let (label, server) = question.particulars[0].clone();
    assert_eq!(label, "at");
    (server.replace(&stage.port.to_string(), "PORT"), question.shape)
}

#[tokio::test]
async fn the_server_is_the_one_that_is_asked_whatever_else_its_address_was_told_for() {
    let (server, shape) = asked_of("two.test", &["two.test"]).await;
    assert_eq!(server, "two.test:PORT");
    let (alike, _) = asked_of("two.test", &["one.test", "two.test"]).await;
    assert_eq!(alike, server);
    // A name of the options' own may be any server's of the resource.
    let (other, other_shape) = asked_of("other.test", &["two.test"]).await;
    assert_ne!((&other, other_shape), (&server, shape));
    assert!(other.starts_with("127.0.0.1"), "{other}");
}

#[tokio::test]
async fn approvers_see_nothing_that_is_masked_for_anybody() {
    const CARD: &str = "4111111111111111";
    let rules = format!(
        "{RULES}  - {{name: theirs, subjects: [tester], resources: [it], allow: [{{method: PUT}}], masks: [cards]}}\n\
         masks:\n  cards: {{content: [card], show: {{keep-last: 4}}}}\n"
    );
    let stage = Stage::set(&rules, "{}", Reached::Plainly, ok).await;
    let _client = ask(&stage, &format!("X-Card: {CARD}\r\nContent-Length: 16\r\n\r\n{CARD}")).await;
    let question = stage.people.question(1).await;
    assert!(!format!("{question:?}").contains(CARD), "{question:?}");
    let shown: Vec<_> = question.particulars.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for part in ["x-card=************1111", "body=************1111"] {
        assert!(shown.contains(&part.to_owned()), "{shown:?}");
    }
}

#[tokio::test]
async fn what_runs_by_a_yes_is_cut_off_when_the_yes_is_taken_back() {
    // The upstream answers never.
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| String::new()).await;
    let mut client = ask(&stage, "\r\n").await;
    stage.people.question(1).await;
    stage.people.approve("q1");
    stage.people.revoke("q1");
    let heard = heard(&mut client).await;
    assert!(heard.starts_with("HTTP/1.1 403"), "{heard}");
    assert!(heard.contains("approval q1 was revoked by ann: enough"), "{heard}");
}

#[tokio::test]
async fn a_client_that_waited_long_enough_is_told_to_ask_again_and_then_gets_through() {
    let stage = stage("{wait: 0}").await;
    let answer = heard(&mut ask(&stage, "").await).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("retry-after: 5"), "{answer}");
    assert!(answer.contains("\"approval\": \"q1\""), "{answer}");
    let question = stage.people.question(1).await;
    stage.people.grant(&question);
    assert!(heard(&mut ask(&stage, "").await).await.starts_with("HTTP/1.1 200"));
    // A yes is for these very bytes.
    assert!(heard(&mut ask(&stage, "X-Other: 1\r\n").await).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn what_waits_uses_no_rate_up_before_it_is_let_through() {
    let rules = RULES.replace("approve:", "rate: 2/h\n    approve:");
    let stage = Stage::set(&rules, "{wait: 0}", Reached::Plainly, ok).await;
    for _ in 0..3 {
        assert!(heard(&mut ask(&stage, "").await).await.contains("\"approval\": \"q"));
    }
    let question = stage.people.question(1).await;
    stage.people.grant(&question);
    for _ in 0..2 {
        assert!(heard(&mut ask(&stage, "").await).await.starts_with("HTTP/1.1 200"));
    }
    let over = heard(&mut ask(&stage, "").await).await;
    assert!(over.starts_with("HTTP/1.1 429") && over.contains("lets through 2 an hour"), "{over}");
    assert_eq!(stage.received().len(), 2);
}

#[tokio::test]
async fn a_client_that_waits_is_told_so_where_its_resource_says_that_it_may_be() {
    let stage = stage("{interim: true}").await;
    let mut client = ask(&stage, "").await;
    let mut told = vec![0; b"HTTP/1.1 102 Processing\r\ntidegate-approval: q1\r\n\r\n".len()];
    timeout(PATIENCE, client.read_exact(&mut told)).await.expect("it is told").unwrap();
    assert_eq!(told, b"HTTP/1.1 102 Processing\r\ntidegate-approval: q1\r\n\r\n");
    stage.people.approve("q1");
    assert!(heard(&mut client).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_question_back() {
    let stage = stage("{}").await;
    let client = ask(&stage, "").await;
    stage.people.question(1).await;
    drop(client);
    assert_eq!(stage.people.withdrawn(1).await, [("q1".to_owned(), "withdrawn".to_owned())]);
}

#[tokio::test]
async fn a_body_that_nobody_could_be_shown_is_not_asked_about() {
    let stage = stage("{}").await;
    let body = "x".repeat(64 * 1024 + 1);
    let mut client = ask(&stage, &format!("Content-Length: {}\r\n\r\n{body}", body.len())).await;
    assert!(heard(&mut client).await.starts_with("HTTP/1.1 413"));
    assert_eq!(stage.people.asked(), 0);
}

#[tokio::test]
async fn a_call_of_grpc_that_waits_may_be_made_again_and_one_that_is_denied_may_not() {
    let rules = RULES.replace("{method: DELETE}", "{path: \"/pkg.Service/Wait\"}")
        + "  - {name: no, subjects: [tester], resources: [it], deny: [{path: \"/pkg.Service/No\"}]}\n";
    let stage = Stage::set(&rules, "{wait: 0}", Reached::Plainly, ok).await;
    let call = |path: &str| {
        let more = "Content-Type: application/grpc\r\nContent-Length: 0\r\n";
        stage.request(&format!("POST {path}"), more)
    };
    let waits = stage.told(&call("/pkg.Service/Wait")).await;
    assert!(waits.contains("grpc-status: 14\r\ngrpc-retry-pushback-ms: 5000\r\n"), "{waits}");
    assert!(waits.contains("grpc-message: waits%20for%20approval%20q1"), "{waits}");
    let denied = stage.told(&call("/pkg.Service/No")).await;
    assert!(denied.contains("grpc-status: 7\r\n") && !denied.contains("pushback"), "{denied}");
    assert!(stage.received().is_empty());
}
