//! Tokens that are shown in the names of whom they count for.

use std::time::Duration;

use tidegate_gate::Proof;

use super::{
    bindings::{PATIENCE, World, until},
    processes::{UID, id},
};

/// What a session could show of issuer `ci`.
async fn proof(world: &World, pid: u32) -> Option<Proof> {
    world.registry.identify(id(pid), UID).await.proofs.proof("ci")
}

#[tokio::test]
async fn a_token_is_kept_to_be_shown_for_whom_it_counts_and_only_as_long_as_it_does() {
    let world = World::with(|issuer| issuer.shown = true).await;
    let token = world.token("job-1");
    world.present(30, &format!("{token}\n")).await.unwrap();
    let session = world.registry.identify(id(30), UID).await;
    let shown = session.proofs.proof("ci").unwrap();
    assert_eq!((shown.token.expose(), &*shown.subject), (token.as_bytes(), "job-1"));
    assert_eq!(shown.expires, session.now.borrow()[0].expires);
    assert!(session.proofs.proof("other").is_none());
    assert!(!format!("{session:?} {shown:?}").contains(&token), "{session:?}");
    for stranger in [1, 10] {
        assert!(proof(&world, stranger).await.is_none(), "{stranger}");
    }
    let again = world.token("job-1");
    world.present(30, &again).await.unwrap();
    assert_eq!(session.proofs.proof("ci").unwrap().token.expose(), again.as_bytes());
    world.registry.logout(id(30), None).await.unwrap();
    assert!(session.proofs.proof("ci").is_none() && proof(&world, 30).await.is_none());
}

#[tokio::test]
async fn a_renewed_token_is_shown_in_place_of_the_one_before_and_none_behind_its_tree() {
    let world = World::with(|issuer| (issuer.clock_skew, issuer.shown) = (Duration::ZERO, true)).await;
    let issued = world.be_github(8);
    world.give(30, &world.github_environment());
    let mut session = world.registry.identify(id(30), UID).await;
    let first = session.now.borrow_and_update()[0].expires;
    let renewed = session.now.wait_for(|now| now.first().is_some_and(|identity| identity.expires > first));
    tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
    let last = issued.lock().unwrap().last().unwrap().clone();
    assert_eq!(session.proofs.proof("ci").unwrap().token.expose(), last.as_bytes());
    world.told.end(30);
    until(&mut session.now, &[]).await;
    assert!(session.proofs.proof("ci").is_none());
}

#[tokio::test]
async fn no_token_is_kept_where_no_resource_is_shown_it() {
    let world = World::new().await;
    world.present(30, &world.token("job-1")).await.unwrap();
    assert_eq!(world.subjects(30).await, ["job-1"]);
    assert!(proof(&world, 30).await.is_none());
}
