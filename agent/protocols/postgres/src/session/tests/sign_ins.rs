//! Sign-ins that wait for a person.

use tidegate_gate::{
    Question,
    contract::{Memory, Rig},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::stage::*;
use crate::{Postgres, wire::write};

/// Signing in is allowed, but for some other role, or replication, somebody is asked.
const BUNDLE: &str = r#"
tidegate: 1
name: sign-ins
subjects:
  tester: {users: ["0"]}
resources:
  it:
    protocol: postgres
    addresses: ["127.0.0.1:{port}"]
    tls: {mode: disable}
    credential: any
rules:
  - name: sign-in
    subjects: [tester]
    resources: [it]
    allow: [{action: login, database: shop}]
  - name: ask
    subjects: [tester]
    resources: [it]
    hold: [{statement: [set-role, replication]}]
    approve: {by: {users: [ann]}, grant: 10m, sessions: any}
"#;

async fn asks(parameters: &[(&str, &str)]) -> (Rig, TcpListener, Question) {
    let (mut rig, listener) = Rig::set(&Postgres::new(), BUNDLE, Memory::default()).await;
    rig.client.write_all(&beginning(parameters)).await.unwrap();
    let question = rig.people.question(1).await;
    (rig, listener, question)
}

fn beginning(parameters: &[(&str, &str)]) -> Vec<u8> {
    let all = [("user", "anyone"), ("database", "shop")].iter().chain(parameters).copied();
    said(|out| write::startup(out, 0, all))
}

fn shown(question: &Question) -> Vec<(&str, &str)> {
    question.particulars.iter().skip(1).map(|(name, value)| (&**name, &**value)).collect()
}

#[tokio::test]
async fn a_yes_to_one_role_is_none_to_another_and_approvers_see_which() {
    let (mut rig, listener, first) = asks(&[("options", "-c role=reader -c search_path=shop")]).await;
    assert_eq!(shown(&first), [("session", "role = reader"), ("session", "search_path = shop")]);
    rig.people.grant(&first);
    rig.people.approve("q1");
    Stage::greet(&listener, &greeting()).await;
    read_until_ready(&mut rig.client).await;
    for (number, parameters) in
        [(2, [("options", "-crole=dba -c search_path=shop")]), (3, [("ROLE", "reader")])].into_iter()
    {
        let (mut client, _session) = rig.connect().await;
        client.write_all(&beginning(&parameters)).await.unwrap();
        let again = rig.people.question(number).await;
        assert_ne!(again.exact, first.exact);
    }
    assert_eq!(shown(&rig.people.question(2).await)[0], ("session", "role = dba"));
    // The very same needs nobody, whatever changes nothing about what statements do.
    let (mut client, _session) = rig.connect().await;
    let same = [("statement_timeout", "5s"), ("options", "-c role=reader -c search_path=shop")];
    client.write_all(&beginning(&same)).await.unwrap();
    Stage::greet(&listener, &greeting()).await;
    read_until_ready(&mut client).await;
    assert_eq!(rig.people.asked(), 3);
}

#[tokio::test]
async fn approvers_see_which_replication_is_asked_for() {
    let (_rig, _listener, whole) = asks(&[("replication", "true")]).await;
    let (_rig, _listener, database) = asks(&[("replication", "database")]).await;
    assert_eq!(shown(&whole), [("session", "replication = true")]);
    assert_eq!(shown(&database), [("session", "replication = database")]);
    assert_ne!(whole.exact, database.exact);
}

#[tokio::test]
async fn what_a_session_begins_with_is_recorded_without_what_may_be_a_secret() {
    let options = r"-c role=o'neil -c x.passage=north -c app.password=hunter2 -c lock_timeout=1s";
    let (rig, _listener, question) = asks(&[("options", options)]).await;
    let recorded =
        "user=anyone database=shop application_name= role='o''neil' x.passage='north' app.password='***'";
    let lines = rig.memory.lines();
    let login = lines.iter().find(|line| line["action"] == "login").unwrap();
    assert_eq!(login["text"], recorded);
    assert_eq!(question.text, recorded);
}
