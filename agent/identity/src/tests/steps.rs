//! Tokens that say of which step they are, as Buildkite's do: `job_id` is of one run of one step.

use serde_json::json;
use tidegate_policy::TokenSource;

use super::{bindings::World, minted::claims};
use crate::registry::now;

/// A world of such an issuer: its tokens are in a variable of a step's processes, or presented.
async fn world() -> World {
    World::with(|issuer| {
        issuer.tokens =
            vec![TokenSource::Variable { name: "STEP_TOKEN".into(), siblings: false }, TokenSource::Present];
        issuer.step = Some("job_id".into());
        issuer.kept = ["job_id".into(), "step_key".into()].into();
    })
    .await
}

/// A token of a step; `number` tells it from others of the same.
fn token(world: &World, step: &str, number: u32) -> String {
    let mut claims = claims(&world.issuer, "organization:acme:pipeline:shop:ref:refs/heads/main");
    claims["job_id"] = format!("0184990a-{step}").into();
    claims["step_key"] = step.into();
    claims["jti"] = json!(number);
    world.signer.sign(&claims)
}

/// A step as the runner begins it: a process with this token in its environment.
fn begin(world: &World, pid: u32, token: &str) {
    world.told.begin(10, pid);
    world.give(pid, &[("STEP_TOKEN", token.to_owned())]);
}

async fn step_of(world: &World, pid: u32) -> Option<String> {
    let known = world.registry.identify(super::processes::id(pid), super::processes::UID).await;
    let now = known.now.borrow();
    now.first().and_then(|identity| Some(identity.claims.get("step_key")?.as_str()?.to_owned()))
}

#[tokio::test]
async fn every_token_of_a_step_counts_for_its_tree_alone() {
    let world = world().await;
    begin(&world, 40, &token(&world, "deploy", 1));
    world.told.fork(40, 41);
    assert_eq!(step_of(&world, 41).await.as_deref(), Some("deploy"));
    // Another step has got hold of a token that nobody has used.
    begin(&world, 50, &token(&world, "deploy", 2));
    assert!(world.unproven(50).await.contains("same step"));
    begin(&world, 60, &token(&world, "test", 3));
    assert_eq!(step_of(&world, 60).await.as_deref(), Some("test"));
    assert_eq!(world.registry.stolen(), 1);
    // The step itself may take a new one.
    world.present(41, &token(&world, "deploy", 4)).await.unwrap();
}

#[tokio::test]
async fn a_step_ends_with_its_tree_and_no_later_one_is_it_again() {
    let mut world = world().await;
    begin(&world, 40, &token(&world, "deploy", 1));
    assert_eq!(step_of(&world, 40).await.as_deref(), Some("deploy"));
    world.told.end(40);
    for (pid, number) in [(50, 1), (51, 2)] {
        begin(&world, pid, &token(&world, "deploy", number));
        assert_eq!(step_of(&world, pid).await, None, "{number}");
    }
    world.restart();
    begin(&world, 52, &token(&world, "deploy", 3));
    assert!(world.unproven(52).await.contains("has ended"));
}

#[tokio::test]
async fn a_step_is_remembered_as_long_as_ever_though_the_next_agent_took_it_up() {
    let mut world = world().await;
    begin(&world, 40, &token(&world, "deploy", 1));
    assert_eq!(step_of(&world, 40).await.as_deref(), Some("deploy"));
    let kept = world.registry.kept().unwrap();
    world.restart();
    assert_eq!(world.registry.take_up(&[kept]).unwrap().counting, 1);
    assert_eq!(step_of(&world, 40).await.as_deref(), Some("deploy"));
    begin(&world, 50, &token(&world, "deploy", 2));
    assert!(world.unproven(50).await.contains("still lives"));
    // It ends, and so would its token have.
    world.told.end(40);
    assert_eq!(step_of(&world, 40).await, None);
    assert!(world.unproven(50).await.contains("has ended"));
    world.registry.inner.trees.sweep(now() + 3_600);
    assert!(world.unproven(50).await.contains("has ended"));
}

#[tokio::test]
async fn a_step_cannot_be_another_one_within_its_tree() {
    let world = world().await;
    begin(&world, 40, &token(&world, "test", 1));
    assert_eq!(step_of(&world, 40).await.as_deref(), Some("test"));
    world.told.fork(40, 41);
    let refused = world.present(41, &token(&world, "deploy", 2)).await.unwrap_err();
    assert!(refused.to_string().contains("somebody else"), "{refused}");
    assert_eq!(step_of(&world, 40).await.as_deref(), Some("test"));
}

#[tokio::test]
async fn a_token_that_says_no_step_counts_for_none() {
    let world = world().await;
    for step in [json!(null), json!(""), json!(["a"]), json!({"a": 1})] {
        let mut claims = claims(&world.issuer, "x");
        claims["job_id"] = step.clone();
        let refused = world.present(30, &world.signer.sign(&claims)).await.unwrap_err();
        assert!(refused.to_string().contains("job_id"), "{step}: {refused}");
    }
    let refused = world.present(30, &world.token("x")).await.unwrap_err();
    assert!(refused.to_string().contains("job_id"), "{refused}");
}
