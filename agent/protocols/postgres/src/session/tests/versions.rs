//! Servers that are older than the gate's reading of statements.

use tokio::io::AsyncReadExt;

use super::stage::*;

/// What a server of this version says when it lets the gate in.
fn greeting_of(version: &str) -> Vec<u8> {
    let reported = message(b'S', format!("server_version\0{version}\0").as_bytes());
    [&greeting()[..9], &reported, &greeting()[9..]].concat()
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
    let by_content = BUNDLE
        .replace("columns: [\"public.customers.card\"]", "content: [card]")
        .replace("    derived: mask\n", "");
    for (bundle, version) in [(&*by_content, "13.2"), (BUNDLE, "15.4"), (BUNDLE, "18beta1")] {
        let (rig, listener) = Stage::arrive(bundle).await;
        Stage::sign_in_to(rig, listener, &greeting_of(version)).await.still_works().await;
    }
}
