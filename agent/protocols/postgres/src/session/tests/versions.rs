//! Servers that are older than the gate's reading of statements.

use tokio::io::AsyncReadExt;

use super::stage::*;

/// What a server of this version says when it lets the gate in.
fn greeting_of(version: &str) -> Vec<u8> {
    greeting_with("server_version", version)
}

/// What a server says that reports this of itself.
fn greeting_with(name: &str, value: &str) -> Vec<u8> {
    let reported = message(b'S', format!("{name}\0{value}\0").as_bytes());
    [&greeting()[..9], &reported, &greeting()[9..]].concat()
}

/// What is refused of a server with such a greeting.
async fn is_refused(stage: &mut Stage, text: &str) {
    stage.say(&query(text)).await;
    stage.server_gets(&query("refused_by_tidegate")).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("0A000").await;
    stage.client_gets(&ready()).await;
}

#[tokio::test]
async fn a_reload_that_masks_columns_counts_for_who_is_in_an_old_server_already() {
    let (rig, listener) = Stage::arrive(&by_content()).await;
    let mut stage = Stage::sign_in_to(rig, listener, &greeting_of("14.9")).await;
    stage.still_works().await;
    stage.rig.reload(BUNDLE);
    is_refused(&mut stage, "select id from customers").await;
    stage.rig.reload(&by_content());
    stage.still_works().await;
}

#[tokio::test]
async fn names_beyond_ascii_are_refused_where_the_server_may_read_others_and_columns_are_masked() {
    let (rig, listener) = Stage::arrive(BUNDLE).await;
    let mut stage = Stage::sign_in_to(rig, listener, &greeting_with("server_encoding", "LATIN1")).await;
    stage.still_works().await;
    for text in ["select id as é from customers", r#"select id as U&"\00e9" from customers"#] {
        is_refused(&mut stage, text).await;
    }
    let values = query("select id from customers where name = 'Zoë' -- é");
    stage.say(&values).await;
    stage.server_gets(&values).await;
    stage.answer(&[complete("SELECT 0"), ready()].concat()).await;
    stage.client_gets(&[complete("SELECT 0"), ready()].concat()).await;
    stage.say(&[parse("é", "select 1"), sync()].concat()).await;
    stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("0A000").await;
    let (rig, listener) = Stage::arrive(&by_content()).await;
    let mut stage = Stage::sign_in_to(rig, listener, &greeting_with("server_encoding", "LATIN1")).await;
    let named = query("select 1 as é");
    stage.say(&named).await;
    stage.server_gets(&named).await;
}

#[tokio::test]
async fn nobody_for_whom_columns_are_masked_is_let_into_an_old_server() {
    let (mut rig, listener) = Stage::arrive(BUNDLE).await;
    Stage::greet(&listener, &greeting_of("14.9 (Debian 14.9-1)")).await;
    let mut said = Vec::new();
    within(rig.client.read_to_end(&mut said)).await.unwrap();
    assert!(contains(&said, b"0A000") && contains(&said, b"PostgreSQL 14.9"), "{}", said.escape_ascii());
    assert_eq!(outcomes(&rig.memory), ["failed"]);
}

#[tokio::test]
async fn others_are_and_everybody_into_a_later_one() {
    for (bundle, version) in [(&*by_content(), "13.2"), (BUNDLE, "15.4"), (BUNDLE, "18beta1")] {
        let (rig, listener) = Stage::arrive(bundle).await;
        Stage::sign_in_to(rig, listener, &greeting_of(version)).await.still_works().await;
    }
}
