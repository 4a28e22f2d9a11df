//! What one account can make of looking at its processes.

use std::future;

use super::{
    bindings::{World, subjects},
    processes::{UID, id},
};
use crate::environment::MOST;

async fn by_now<T>(doing: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! { biased; done = doing => Some(done), () = future::ready(()) => None }
}

#[tokio::test]
async fn environments_that_are_too_large_together_are_not_searched() {
    let world = World::new().await;
    let padding = "x".repeat(usize::try_from(MOST / 2).unwrap());
    for pid in [10, 20] {
        world.told.set_environment(pid, &[("PADDING", &padding)]);
    }
    world.told.set_environment(30, &[("CI_TOKEN", &world.token("job-1"))]);
    let why = world.unproven(30).await;
    assert!(why.contains("larger than 32 MiB together"), "{why}");
    world.told.set_environment(10, &[]);
    assert_eq!(world.subjects(30).await, ["job-1"]);
}

#[tokio::test]
async fn who_asks_for_many_looks_holds_up_no_other_account() {
    let world = World::new().await;
    let stuck = world.told.stick(30);
    let mut many: Vec<_> = (0..100).map(|_| Box::pin(world.registry.identify(id(30), UID))).collect();
    for look in &mut many {
        assert!(by_now(look).await.is_none());
    }
    world.told.fork(1, 60);
    world.told.set_uid(60, UID + 1);
    world.told.set_environment(60, &[("CI_TOKEN", &world.token("of-another"))]);
    let other = world.registry.identify(id(60), UID + 1).await;
    assert_eq!(subjects(&other.now.borrow()), ["of-another"]);
    assert_eq!(world.told.reading(30), 2, "no more of one account at a time");
    drop(stuck);
    for look in many {
        assert!(look.await.now.borrow().is_empty());
    }
}
