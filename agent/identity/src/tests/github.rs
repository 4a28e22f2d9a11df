//! Jobs of GitHub Actions, which are asked for at their own endpoint.

use std::time::Duration;

use super::{
    bindings::{PATIENCE, World, subjects},
    issuer::Stub,
    processes::{UID, id},
};
use crate::Defect;

#[tokio::test]
async fn a_job_of_github_s_is_asked_for_a_token_that_is_for_us_once() {
    let world = World::new().await;
    let issued = world.be_github(300);
    world.give(20, &world.github_environment());
    world.give(30, &world.github_environment());
    let asking = (0..6).map(|_| {
        let registry = world.registry.clone();
        tokio::spawn(async move { subjects(&registry.identify(id(30), UID).await.now.borrow()) })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), ["repo:acme/shop"]);
    }
    assert_eq!(issued.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_next_step_of_a_job_is_known_and_another_runner_s_is_not() {
    let world = World::new().await;
    world.be_github(300);
    world.give(20, &world.github_environment());
    world.give(30, &world.github_environment());
    assert_eq!(world.subjects(30).await, ["repo:acme/shop"]);
    world.told.fork(1, 11);
    world.told.fork(11, 22);
    world.give(22, &world.github_environment());
    assert_eq!(world.unproven(22).await, Defect::Elsewhere.to_string());
    world.told.end(20);
    world.told.fork(10, 21);
    world.give(21, &world.github_environment());
    assert_eq!(world.subjects(21).await, ["repo:acme/shop"]);
    world.told.end(21);
    assert_eq!(world.unproven(22).await, Defect::Replayed.to_string());
}

#[tokio::test]
async fn a_job_that_outlives_its_token_is_renewed() {
    let world = World::with(|issuer| issuer.clock_skew = Duration::ZERO).await;
    let issued = world.be_github(8);
    world.give(30, &world.github_environment());
    let mut session = world.registry.identify(id(30), UID).await.now;
    let first = session.borrow_and_update()[0].expires;
    let renewed = session.wait_for(|now| now.first().is_some_and(|identity| identity.expires > first));
    tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
    assert!(issued.lock().unwrap().len() >= 2);
}

#[tokio::test]
async fn a_request_url_that_leads_elsewhere_is_told_and_never_asked() {
    let world = World::new().await;
    let other = Stub::start(&[&world.signer]).await;
    let mut environment = world.github_environment();
    environment[0].1 = format!("{}/token", other.url);
    world.give(30, &environment);
    assert!(world.unproven(30).await.contains("leads to a host that the bundle does not name"));
    assert!(other.asked("/token").is_empty());
}

#[tokio::test]
async fn an_endpoint_that_gives_nothing_is_left_alone_for_a_while() {
    let world = World::new().await;
    world.be_github(300);
    let mut environment = world.github_environment();
    environment[1].1 = "of-another".into();
    world.give(30, &environment);
    for _ in 0..4 {
        assert!(world.unproven(30).await.contains("answered 401"));
    }
    assert_eq!(world.stub.asked("/token").len(), 1);
}
