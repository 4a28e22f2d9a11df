//! Sessions that end because policy or the agent says so, and cancel requests.

use tidegate_gate::ServeError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::*;

/// The same bundle, in which nobody may sign in.
fn revoked() -> String {
    BUNDLE.replace("action: [login, cancel]", "action: cancel")
}

#[tokio::test]
async fn a_session_whose_sign_in_is_no_longer_allowed_ends_at_once() {
    for before in [Vec::new(), query("select 1"), parse("", "select 1")] {
        let mut stage = Stage::open().await;
        stage.say(&before).await;
        stage.server_gets(&before).await;
        stage.rig.reload(&revoked());
        let ended = stage.ends().await;
        ended.with("57P01");
        assert!(matches!(ended.result, Err(ServeError::Policy(_))));
    }
}

#[tokio::test]
async fn a_revoked_session_ends_even_if_the_client_reads_nothing() {
    let mut stage = Stage::open().await;
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    let flood = [described("one"), row(&"x".repeat(1000)).repeat(1000)].concat();
    // As much as fits: from here on the session can write nothing more.
    while tokio::time::timeout(std::time::Duration::from_millis(500), stage.server.write_all(&flood))
        .await
        .is_ok()
    {}
    stage.rig.reload(&revoked());
    let result = within(&mut stage.rig.session).await.unwrap();
    assert!(matches!(result, Err(ServeError::Policy(_))), "{result:?}");
    assert_eq!(stage.rig.memory.closes(), 1);
}

/// Signed in by a yes.
async fn approved() -> Stage {
    let bundle = format!(
        "{BUNDLE}
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{{action: login}}]
    approve: {{by: {{users: [ann]}}, grant: 1h, for: resource}}
"
    );
    let (rig, listener) = Stage::arrive(&bundle).await;
    rig.people.question(1).await;
    rig.people.approve("q1");
    Stage::sign_in(rig, listener).await
}

#[tokio::test]
async fn a_session_whose_approval_is_taken_back_ends_and_says_so() {
    for before in [Vec::new(), query("select 1"), parse("", "select 1")] {
        let mut stage = approved().await;
        stage.say(&before).await;
        stage.server_gets(&before).await;
        stage.rig.people.revoke("q1");
        let ended = stage.ends().await;
        ended.with("57P01");
        let says: &[u8] = b"approval q1 was revoked by ann: enough";
        assert!(contains(&ended.client, says), "{}", ended.client.escape_ascii());
        assert!(matches!(ended.result, Err(ServeError::Policy(_))));
        let revoked: Vec<_> =
            ended.memory.lines().into_iter().filter(|line| line["step"] == "revoked").collect();
        assert_eq!(revoked.len(), 1);
        assert_eq!((&revoked[0]["question"], &revoked[0]["by"]), (&"q1".into(), &"ann".into()));
        assert_eq!(ended.memory.closes(), 1);
    }
}

#[tokio::test]
async fn a_session_goes_on_when_another_approval_is_taken_back() {
    let mut stage = approved().await;
    stage.rig.people.revoke("q2");
    stage.still_works().await;
    stage.leaves().await;
}

#[tokio::test]
async fn an_idle_session_ends_when_the_agent_stops() {
    let stage = Stage::open().await;
    stage.rig.stop();
    let ended = stage.ends().await;
    ended.told("57P01");
    assert!(ended.result.is_ok());
}

#[tokio::test]
async fn a_session_that_copied_in_before_is_idle_when_the_agent_stops() {
    let mut stage = Stage::open().await;
    let copy = [query("copy customers from stdin"), copy_done()].concat();
    stage.say(&copy).await;
    stage.server_gets(&query("copy customers from stdin")).await;
    stage.server_gets(&flush()).await;
    stage.answer(&copies_in()).await;
    stage.server_gets(&copy_done()).await;
    stage.answer(&[complete("COPY 0"), ready()].concat()).await;
    stage.client_gets(&[copies_in(), complete("COPY 0"), ready()].concat()).await;
    stage.rig.stop();
    stage.ends().await.told("57P01");
}

#[tokio::test]
async fn a_running_statement_is_finished_when_the_agent_stops_and_no_other_is_begun() {
    for sent in [query("select 1"), run("select 1")] {
        let mut stage = Stage::open().await;
        stage.say(&sent).await;
        stage.server_gets(&sent).await;
        stage.rig.stop();
        stage.server_gets(&flush()).await;
        stage.say(&query("select 'too late'")).await;
        let answer = match sent[0] {
            b'Q' => [rows("one", &["1"]), complete("SELECT 1"), ready()].concat(),
            _ => [acknowledged(b'1'), acknowledged(b'2'), row("1"), complete("SELECT 1")].concat(),
        };
        stage.answer(&answer).await;
        stage.client_gets(&answer).await;
        let ended = stage.ends().await;
        ended.with("57P01");
        assert_eq!(outcomes(&ended.memory), ["done", "done"]);
    }
}

#[tokio::test]
async fn what_still_runs_when_the_grace_is_over_is_cancelled_and_the_client_told() {
    for sent in [query("select 60"), run("select 60")] {
        let mut stage = Stage::open().await;
        stage.say(&sent).await;
        stage.server_gets(&sent).await;
        stage.rig.stop();
        stage.server_gets(&flush()).await;
        stage.rig.grace_ends();
        assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
        if sent[0] == b'P' {
            let begun = [acknowledged(b'1'), acknowledged(b'2')].concat();
            stage.answer(&begun).await;
            stage.client_gets(&begun).await;
        }
        stage.answer(&error("57014")).await;
        let ended = stage.ends().await;
        ended.with("57P01");
        assert_eq!(outcomes(&ended.memory), ["done", "failed"]);
        let events = ended.memory.lines().into_iter().filter(|line| line["event"] == "broken-off");
        assert_eq!(events.count(), 1);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_a_cancel_request_holds_nobody_up() {
    let mut stage = Stage::open().await;
    let sent = query("select 60");
    stage.say(&sent).await;
    stage.server_gets(&sent).await;
    stage.rig.stop();
    stage.server_gets(&flush()).await;
    stage.rig.grace_ends();
    let ended = stage.ends().await;
    ended.with("57P01");
    assert_eq!(outcomes(&ended.memory), ["done", "aborted"]);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_cancel_request_is_not_lost() {
    let mut stage = Stage::open().await;
    let sent = query("select 1");
    stage.say(&sent).await;
    stage.server_gets(&sent).await;
    stage.rig.stop();
    stage.server_gets(&flush()).await;
    stage.rig.grace_ends();
    stage.cancelled().await;
    let answer = [rows("one", &["1"]), complete("SELECT 1"), ready()].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    let ended = stage.ends().await;
    ended.with("57P01");
    assert_eq!(outcomes(&ended.memory), ["done", "done"]);
}

#[tokio::test]
async fn a_copy_from_the_client_is_finished_when_the_agent_stops() {
    for copy in [query("copy customers from stdin"), run("copy customers from stdin")] {
        let mut stage = Stage::open().await;
        stage.say(&copy).await;
        stage.server_gets(&copy).await;
        let is_simple = copy[0] == b'Q';
        let first = if is_simple { Vec::new() } else { [acknowledged(b'1'), acknowledged(b'2')].concat() };
        stage.answer(&[first.clone(), copies_in()].concat()).await;
        stage.client_gets(&[first, copies_in()].concat()).await;
        stage.rig.stop();
        stage.server_gets(&flush()).await;
        stage.say(&copy_data("1\t4111\n")).await;
        stage.server_gets(&copy_data("1\t4111\n")).await;
        stage.say(&copy_done()).await;
        stage.server_gets(&[copy_done(), flush()].concat()).await;
        let last = if is_simple { ready() } else { Vec::new() };
        stage.answer(&[complete("COPY 1"), last.clone()].concat()).await;
        stage.client_gets(&[complete("COPY 1"), last].concat()).await;
        stage.ends().await.with("57P01");
    }
}

#[tokio::test]
async fn a_cancel_request_that_no_rule_allows_reaches_nobody() {
    let mut stage = Stage::open_under(&BUNDLE.replace("[login, cancel]", "[login]")).await;
    let (mut client, session) = stage.rig.connect().await;
    client.write_all(&cancel_request(&stage.key)).await.unwrap();
    within(session).await.unwrap().unwrap();
    let denied =
        stage.rig.memory.lines().iter().any(|line| line["action"] == "cancel" && line["decision"] == "deny");
    assert!(denied);
    stage.still_works().await;
}

#[tokio::test]
async fn a_cancel_request_reaches_the_server_with_the_servers_own_key() {
    let mut stage = Stage::open().await;
    assert_ne!(stage.key.1, [1, 2, 3, 4], "the server's own secret is never given away");
    let (mut wrong, _) = stage.rig.connect().await;
    wrong.write_all(&cancel_request(&(stage.key.0, vec![0; 4]))).await.unwrap();
    let mut nothing = Vec::new();
    within(wrong.read_to_end(&mut nothing)).await.unwrap();
    let (mut client, session) = stage.rig.connect().await;
    client.write_all(&cancel_request(&stage.key)).await.unwrap();
    within(session).await.unwrap().unwrap();
    assert_eq!(stage.cancelled().await, cancel_request(&(42, vec![1, 2, 3, 4])));
    let lines = stage.rig.memory.lines();
    assert!(lines.iter().any(|line| line["event"] == "cancel-unknown"));
    let decided: Vec<_> = lines.iter().filter(|line| line["action"] == "cancel").collect();
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0]["decision"], "allow");
    stage.still_works().await;
}
