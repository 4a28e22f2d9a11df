//! What outlives the agent.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidegate_policy::Elsewhere;
use zeroize::Zeroizing;

use super::{
    bindings::World as Jobs,
    issuer::issuer,
    logins::{World, begin},
    processes::id,
};
use crate::{Defect, Registry, TakenUp, registry::now};

const PATIENCE: Duration = Duration::from_secs(20);
const COUNTS: TakenUp = TakenUp { which: 0, counting: 1, ended: 0 };
const ENDED: TakenUp = TakenUp { which: 0, counting: 0, ended: 1 };

impl World {
    /// Alice has logged in at her shell.
    async fn of_alice() -> Self {
        let world = Self::new().await;
        world.answer(vec![world.tokens("alice", 300)]);
        world.log_in(30).await;
        world
    }

    /// What the agent has kept, changed in some way.
    fn kept(&self, change: impl FnOnce(&mut Value)) -> Zeroizing<Vec<u8>> {
        let mut kept = serde_json::from_slice(&self.registry.kept().unwrap()).unwrap();
        change(&mut kept);
        Zeroizing::new(serde_json::to_vec(&kept).unwrap())
    }

    /// The next agent, which is given this. The one before goes on: only what it does by itself must be told apart.
    fn restart(&mut self, kept: &[Zeroizing<Vec<u8>>]) -> TakenUp {
        self.registry = begin(&self.told, &issuer(&self.url, Some(&self.stub)));
        self.registry.take_up(kept).unwrap()
    }

    /// Refresh tokens that the issuer was told to forget.
    fn revoked(&self) -> Vec<String> {
        self.stub.asked("/revoke")
    }
}

async fn eventually(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn who_was_known_is_known_to_the_next_agent_for_the_same_tree_alone() {
    let mut world = World::of_alice().await;
    let kept = world.kept(|_| ());
    assert_eq!(world.restart(&[kept]), COUNTS);
    world.told.fork(20, 31);
    assert_eq!(world.subjects(31).await, ["alice"]);
    assert!(world.subjects(10).await.is_empty());
    let mut session = world.registry.identify(id(31), super::processes::UID).await.now;
    world.told.end(20);
    let ended = session.wait_for(|now| now.is_empty());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_orphan_of_a_tree_is_still_its_member() {
    let mut world = World::of_alice().await;
    for (parent, pid) in [(20, 40), (40, 41)] {
        world.told.fork(parent, pid);
    }
    world.told.begin(40, 41);
    assert_eq!(world.subjects(41).await, ["alice"]);
    world.told.end(40);
    let kept = world.kept(|_| ());
    world.restart(&[kept]);
    assert_eq!(world.subjects(41).await, ["alice"]);
}

#[tokio::test]
async fn a_process_that_ended_meanwhile_or_is_another_now_is_not_bound() {
    let mut world = World::of_alice().await;
    let another = world.kept(|all| all["bindings"][0]["root"][1] = json!(7));
    assert_eq!(world.restart(&[another]), ENDED);
    assert!(world.subjects(30).await.is_empty());
    let mut world = World::of_alice().await;
    let kept = world.kept(|_| ());
    world.told.end(20);
    assert_eq!(world.restart(&[kept]), ENDED);
    assert!(world.subjects(30).await.is_empty());
}

#[tokio::test]
async fn what_a_changed_issuer_said_counts_no_more() {
    let mut world = World::of_alice().await;
    let kept = world.kept(|_| ());
    let mut other = issuer(&world.url, Some(&world.stub));
    Arc::make_mut(&mut other).account = Some("preferred_username".into());
    world.registry = begin(&world.told, &other);
    assert_eq!(world.registry.take_up(&[kept]).unwrap(), ENDED);
    assert!(world.subjects(30).await.is_empty());
}

#[tokio::test]
async fn another_form_or_another_boot_is_refused_and_says_so() {
    let world = World::of_alice().await;
    let forms: [(&str, Zeroizing<Vec<u8>>); 4] = [
        ("form 2", world.kept(|all| all["form"] = json!(2))),
        ("another boot", world.kept(|all| all["boot"] = json!("before"))),
        ("cannot be read", world.kept(|all| all["bindings"][0]["login"] = json!("alice"))),
        ("cannot be read", Zeroizing::new(b"{".to_vec())),
    ];
    let next: Registry = begin(&world.told, &issuer(&world.url, Some(&world.stub)));
    for (says, kept) in forms {
        let error = next.take_up(&[kept]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("alice") && !error.contains("refresh"), "{error}");
    }
    assert!(next.identify(id(30), super::processes::UID).await.now.borrow().is_empty());
}

#[tokio::test]
async fn of_two_the_latest_counts() {
    let mut world = World::of_alice().await;
    let before = world.kept(|_| ());
    assert_eq!(world.registry.logout(id(30), None).await.unwrap(), 1);
    let after = world.kept(|_| ());
    let taken = world.restart(&[after, before]);
    assert_eq!(taken, TakenUp::default());
    assert!(world.subjects(30).await.is_empty(), "who logged out is logged in again");
}

#[tokio::test]
async fn a_login_goes_on_to_be_renewed_and_is_revoked_when_its_session_ends() {
    let mut world = World::of_alice().await;
    let (_, mut renewed) = world.tokens("alice", 300);
    renewed["refresh_token"] = json!("refresh-next");
    world.answer(vec![(200, renewed)]);
    // Its token expired while no agent was there.
    let kept = world.kept(|all| all["bindings"][0]["identity"]["expires"] = json!(now() - 3600));
    assert_eq!(world.restart(&[kept]), COUNTS);
    let known = async {
        while world.subjects(30).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
    assert_eq!(world.subjects(30).await, ["alice"]);
    let asked = world.stub.asked("/token");
    assert!(asked.last().unwrap().contains("refresh_token=refresh-alice"), "{asked:?}");
    // The next but one is given what the issuer gave since.
    let kept = world.kept(|_| ());
    assert!(String::from_utf8_lossy(&kept).contains("refresh-next"));
    world.told.end(20);
    eventually(|| world.revoked().iter().any(|asked| asked.contains("token=refresh-next"))).await;
}

#[tokio::test]
async fn a_login_that_expired_and_is_renewed_no_more_is_over() {
    let mut world = World::of_alice().await;
    world.answer(vec![(400, json!({"error": "invalid_grant"}))]);
    let kept = world.kept(|all| all["bindings"][0]["identity"]["expires"] = json!(now() - 3600));
    world.restart(&[kept]);
    eventually(|| world.stub.asked("/token").len() == 2).await;
    assert!(world.subjects(30).await.is_empty());
    let without = |all: &mut Value| {
        all["bindings"][0]["identity"]["expires"] = json!(now() - 3600);
        all["bindings"][0]["renewal"] = Value::Null;
    };
    let mut world = World::of_alice().await;
    let kept = world.kept(without);
    assert_eq!(world.restart(&[kept]), ENDED);
}

#[tokio::test]
async fn who_logs_out_before_the_next_agent_has_renewed_them_is_out() {
    let mut world = World::of_alice().await;
    let kept = world.kept(|all| all["bindings"][0]["identity"]["expires"] = json!(now() - 3600));
    world.answer(vec![(503, json!({}))]);
    assert_eq!(world.restart(&[kept]), COUNTS);
    eventually(|| world.stub.asked("/token").len() > 1).await;
    // An agent that ends now has the next one go on.
    let again = world.kept(|_| ());
    assert!(String::from_utf8_lossy(&again).contains("refresh-alice"));
    world.told.fork(20, 31);
    assert_eq!(world.registry.logout(id(31), None).await.unwrap(), 1);
    eventually(|| world.revoked().iter().any(|asked| asked.contains("token=refresh-alice"))).await;
    assert!(world.registry.is_idle());
}

#[tokio::test]
async fn who_is_yet_to_be_renewed_is_lost_with_their_issuer() {
    let mut world = World::of_alice().await;
    let kept = world.kept(|all| all["bindings"][0]["identity"]["expires"] = json!(now() - 3600));
    world.answer(vec![(503, json!({}))]);
    assert_eq!(world.restart(&[kept]), COUNTS);
    world.registry.adopt(world.registry.prepare(&[]).unwrap());
    assert!(world.registry.is_idle());
}

#[tokio::test]
async fn a_token_that_may_count_elsewhere_counts_on_for_each_tree_and_nobody_is_a_thief() {
    let mut world = Jobs::with(|issuer| issuer.elsewhere = Elsewhere::Allow).await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    world.present(50, &token).await.unwrap();
    let kept = world.registry.kept().unwrap();
    world.told.end(40);
    world.restart();
    assert_eq!(world.registry.take_up(&[kept]).unwrap(), TakenUp { counting: 1, ended: 1, ..COUNTS });
    assert_eq!(world.subjects(30).await, ["job-1"]);
    assert_eq!(world.registry.stolen(), 0);
}

#[tokio::test]
async fn what_was_not_yet_written_down_is_when_it_is_taken_up() {
    let mut world = Jobs::new().await;
    let token = world.token("job-1");
    world.present(30, &token).await.unwrap();
    let kept = world.registry.kept().unwrap();
    std::fs::remove_file(world.directory.path().join("used-tokens")).unwrap();
    world.restart();
    assert_eq!(world.registry.take_up(&[kept]).unwrap(), COUNTS);
    world.told.end(20);
    world.restart();
    world.told.begin(10, 40);
    world.told.fork(40, 50);
    assert_eq!(world.present(50, &token).await.unwrap_err(), Defect::Replayed);
}

#[tokio::test]
async fn each_change_is_told_to_whoever_keeps_them() {
    let world = World::new().await;
    assert!(world.registry.is_idle());
    let mut changes = world.registry.changes();
    world.answer(vec![world.tokens("alice", 300)]);
    world.log_in(30).await;
    assert!(changes.has_changed().unwrap() && !world.registry.is_idle());
    changes.mark_unchanged();
    world.told.fork(20, 31);
    world.subjects(31).await;
    assert!(changes.has_changed().unwrap(), "a member of the tree is new");
    changes.mark_unchanged();
    world.registry.logout(id(30), None).await.unwrap();
    assert!(changes.has_changed().unwrap() && world.registry.is_idle());
}
