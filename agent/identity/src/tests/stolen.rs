//! Tokens that are presented again by others, in whatever form.

use std::time::Duration;

use serde_json::json;
use tidegate_policy::TokenSource;

use super::{
    bindings::World,
    processes::{Told, UID, id},
};
use crate::Defect;

/// A process of another runner, whose endpoint hands out what the thief has.
fn be_thief(world: &World, stolen: &str) -> u32 {
    let answer = json!({"value": stolen}).to_string();
    world.stub.on("/echo", move |_| (200, answer.clone()));
    if !world.told.lives(50) {
        world.told.fork(1, 40);
        world.told.fork(40, 50);
    }
    let mut environment = world.github_environment();
    environment[0].1 = format!("{}/echo", world.stub.url);
    environment[1].1 = "of-the-thief".into();
    world.give(50, &environment);
    50
}

/// A job of the runner's with this token, for an account.
fn job(told: &Told, pid: u32, uid: u32, token: &str) {
    told.fork(10, pid);
    told.set_uid(pid, uid);
    told.set_environment(pid, &[("CI_TOKEN", token)]);
}

async fn world_of_siblings() -> World {
    World::with(|issuer| {
        issuer.tokens = vec![TokenSource::Variable { name: "CI_TOKEN".into(), siblings: true }]
    })
    .await
}

#[tokio::test]
async fn a_stolen_request_token_with_blanks_around_it_is_never_sent() {
    let world = World::new().await;
    world.be_github(300);
    world.give(30, &world.github_environment());
    assert_eq!(world.subjects(30).await, ["repo:acme/shop"]);
    world.told.fork(1, 40);
    for (pid, copy) in
        [(50, "of-the-job "), (51, "of-the-job\t"), (52, " of-the-job"), (53, "of-the-job\r\n")]
    {
        world.told.fork(40, pid);
        let mut environment = world.github_environment();
        environment[1].1 = copy.into();
        world.give(pid, &environment);
        let why = world.unproven(pid).await;
        assert!(why.contains("ACTIONS_ID_TOKEN_REQUEST_TOKEN is not a bearer token"), "{why}");
    }
    assert_eq!(world.stub.asked("/token").len(), 1);
}

#[tokio::test]
async fn an_id_token_of_a_job_does_not_count_again_from_an_endpoint_that_echoes_it() {
    let world = World::new().await;
    let issued = world.be_github(300);
    world.give(30, &world.github_environment());
    assert_eq!(world.subjects(30).await, ["repo:acme/shop"]);
    let thief = be_thief(&world, &issued.lock().unwrap()[0]);
    assert_eq!(world.unproven(thief).await, Defect::Elsewhere.to_string());
    world.told.end(30);
    assert_eq!(world.unproven(thief).await, Defect::Replayed.to_string());
}

#[tokio::test]
async fn a_presented_token_does_not_count_again_from_an_endpoint_that_echoes_it() {
    let world = World::new().await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    assert_eq!(world.unproven(be_thief(&world, &token)).await, Defect::Elsewhere.to_string());
}

#[tokio::test]
async fn an_id_token_that_renewed_a_job_does_not_count_again_and_the_job_goes_on() {
    let mut world = World::with(|issuer| issuer.clock_skew = Duration::ZERO).await;
    let issued = world.be_github(8);
    world.give(30, &world.github_environment());
    let mut session = world.registry.identify(id(30), UID).await.now;
    let first = session.borrow_and_update()[0].expires;
    let renewed = session.wait_for(|now| now.first().is_some_and(|identity| identity.expires > first));
    tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap().unwrap();
    let thief = be_thief(&world, issued.lock().unwrap().last().unwrap());
    assert_eq!(world.unproven(thief).await, Defect::Elsewhere.to_string());
    assert_eq!(world.subjects(30).await, ["repo:acme/shop"]);
    world.told.end(30);
    world.restart();
    assert_eq!(world.unproven(thief).await, Defect::Replayed.to_string());
}

#[tokio::test]
async fn a_sibling_of_the_same_account_may_use_a_token_again_and_one_of_another_may_not() {
    let mut world = world_of_siblings().await;
    let token = world.token("job-1");
    job(&world.told, 21, UID, &token);
    assert_eq!(world.subjects(21).await, ["job-1"]);
    world.told.end(21);
    job(&world.told, 22, UID + 1, &token);
    assert_eq!(world.unproven(22).await, Defect::Replayed.to_string());
    world.restart();
    assert_eq!(world.unproven(22).await, Defect::Replayed.to_string());
    job(&world.told, 23, UID, &token);
    assert_eq!(world.subjects(23).await, ["job-1"]);
}

#[tokio::test]
async fn siblings_under_roots_that_a_daemon_keeps_for_itself_share_nothing() {
    let world = world_of_siblings().await;
    let token = world.token("job-1");
    for (root, pid, uid) in [(21, 31, UID), (22, 32, UID + 1)] {
        job(&world.told, root, 0, &token);
        world.told.fork(root, pid);
        world.told.set_uid(pid, uid);
    }
    assert_eq!(world.subjects(31).await, ["job-1"]);
    world.told.end(31);
    world.told.end(21);
    assert_eq!(world.unproven(32).await, Defect::Replayed.to_string());
}
