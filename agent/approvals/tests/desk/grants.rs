//! How long a yes counts, and for what.

use std::time::Duration;

use tidegate_approvals::State;
use tidegate_gate::{
    Approvals as _,
    policy::{Approval, Held, Scope, Sessions},
};

use crate::common::{Kept, Says as _, Wound, account, ann, ask, desk, end, held, is_known, question, terms};

fn lasting(scope: Scope) -> Vec<Held> {
    let sessions = if scope == Scope::Action { Sessions::One } else { Sessions::Any };
    vec![held("ask", Approval { scope, sessions, grant: Some(Duration::from_secs(60)), ..terms() })]
}

fn of_one_session(scope: Scope) -> Vec<Held> {
    vec![held("ask", Approval { scope, grant: Some(Duration::from_secs(60)), ..terms() })]
}

pub(crate) async fn a_yes_counts_once_and_for_these_bytes_alone(kept: &Kept) {
    let desk = desk(&kept.store);
    let holds = vec![held("ask", terms())];
    let mut waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    // The same shape, other bytes.
    assert!(!is_known(&desk, question("s", holds.clone(), (2, 1))).await);
    end(&mut waits).await.unwrap();
    drop(waits);
    assert!(!is_known(&desk, question("s", holds, (1, 1))).await);
}

pub(crate) async fn a_yes_for_an_action_ends_with_its_session(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", lasting(Scope::Action), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    drop(waits);
    assert!(is_known(&desk, question("s", lasting(Scope::Action), (1, 1))).await);
    assert!(is_known(&desk, question("s", lasting(Scope::Action), (1, 1))).await);
    assert!(!is_known(&desk, question("s", lasting(Scope::Action), (2, 1))).await);
    // The same bytes, which definitions of now make mean something else.
    assert!(!is_known(&desk, question("s", lasting(Scope::Action), (1, 2))).await);
    assert!(!is_known(&desk, question("t", lasting(Scope::Action), (1, 1))).await);
}

pub(crate) async fn a_yes_ends_with_its_session_unless_its_rule_says_more(kept: &Kept) {
    let desk = desk(&kept.store);
    for (scope, number) in [(Scope::Shape, 1), (Scope::Resource, 2)] {
        let mut waits = ask(&desk, question("s", of_one_session(scope), (number, number))).await;
        desk.approve(&ann(), waits.id(), None).await.unwrap();
        end(&mut waits).await.unwrap();
        assert!(is_known(&desk, question("s", of_one_session(scope), (9, number))).await);
        assert!(!is_known(&desk, question("t", of_one_session(scope), (9, number))).await);
    }
}

pub(crate) async fn a_yes_that_nobody_has_goes_to_the_very_same_alone(kept: &Kept) {
    let before = desk(&kept.store);
    let mut ids = Vec::new();
    for (scope, number) in [(Scope::Shape, 1), (Scope::Resource, 2)] {
        ids.push(ask(&before, question("s", lasting(scope), (number, number))).await.id().clone());
    }
    // As at the agent's end: who asked is gone, and the questions stand.
    drop(before);
    let after = desk(&kept.again);
    for (id, (scope, number)) in ids.iter().zip([(Scope::Shape, 1), (Scope::Resource, 2)]) {
        after.approve(&ann(), id, None).await.unwrap();
        assert!(!is_known(&after, question("t", lasting(scope), (9, number))).await);
        assert!(is_known(&after, question("t", lasting(scope), (number, number))).await);
        assert!(is_known(&after, question("u", lasting(scope), (9, number))).await);
    }
}

pub(crate) async fn a_rule_that_came_to_hold_something_else_asks_again(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", lasting(Scope::Resource), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    let wider = |held: Held| Held { what: "{statement: \"*\"}".into(), ..held };
    let holds: Vec<Held> = lasting(Scope::Resource).into_iter().map(wider).collect();
    assert!(!is_known(&desk, question("s", holds, (1, 1))).await);
}

pub(crate) async fn a_yes_for_a_shape_counts_until_it_is_revoked(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", lasting(Scope::Shape), (1, 1))).await;
    let id = waits.id().clone();
    desk.approve(&ann(), &id, None).await.unwrap();
    end(&mut waits).await.unwrap();
    assert!(is_known(&desk, question("t", lasting(Scope::Shape), (2, 1))).await);
    assert!(!is_known(&desk, question("t", lasting(Scope::Shape), (2, 2))).await);
    assert!(desk.revoke(&account(3000, "bob"), &id, None).await.is_err());
    assert_eq!(desk.revoke(&ann(), &id, Some("enough")).await.unwrap().state, State::Revoked);
    assert!(!is_known(&desk, question("t", lasting(Scope::Shape), (2, 1))).await);
}

pub(crate) async fn whoever_relies_on_a_yes_is_told_that_it_was_taken_back(kept: &Kept) {
    // Another agent of the fleet, where the store is shared.
    let desk = desk(&kept.store);
    let elsewhere = if kept.store.is_shared() { crate::common::desk(&kept.again) } else { desk.clone() };
    let mut ids = Vec::new();
    for exact in [1, 2] {
        let mut waits = ask(&desk, question("s", lasting(Scope::Action), (exact, exact))).await;
        ids.push(waits.id().clone());
        desk.approve(&ann(), waits.id(), None).await.unwrap();
        end(&mut waits).await.unwrap();
    }
    let (relied, other) = (&ids[..1], &ids[1]);
    let relies = async {
        let revocation = desk.revoked(relied).await;
        let inquiry = kept.store.load(&ids[0]).await.unwrap().unwrap();
        assert_eq!(inquiry.state, State::Revoked, "told before it was so");
        revocation
    };
    let takes_back = async {
        elsewhere.revoke(&ann(), other, None).await.unwrap();
        elsewhere.revoke(&ann(), &ids[0], Some("enough")).await.unwrap();
    };
    let (revocation, ()) = tokio::join!(relies, takes_back);
    assert_eq!((&revocation.question, revocation.reason.as_deref()), (&ids[0], Some("enough")));
    assert!(revocation.by.unwrap().contains("ann"));
    // One who comes to rely on it too late is told at once.
    assert_eq!(desk.revoked(relied).await.question, ids[0]);
}

pub(crate) async fn what_ended_a_yes_is_told_to_whoever_has_not_used_it_yet(kept: &Kept) {
    let clock = Wound::default();
    let desk = clock.desk(&kept.store);
    let mut ids = Vec::new();
    for exact in [1, 2] {
        let mut waits = ask(&desk, question("s", lasting(Scope::Action), (exact, exact))).await;
        ids.push(waits.id().clone());
        desk.approve(&ann(), waits.id(), None).await.unwrap();
        end(&mut waits).await.unwrap();
    }
    clock.wind(Duration::from_secs(59));
    assert_eq!(desk.ended(&ids).await.unwrap(), None);
    desk.revoke(&ann(), &ids[1], Some("enough")).await.unwrap();
    let revoked = desk.ended(&ids).await.unwrap().unwrap();
    assert_eq!((&revoked.question, revoked.reason.as_deref()), (&ids[1], Some("enough")));
    assert_eq!(desk.ended(&ids[..1]).await.unwrap(), None);
    clock.wind(Duration::from_secs(1));
    let over = desk.ended(&ids[..1]).await.unwrap().unwrap();
    assert_eq!((over.by, over.reason.as_deref()), (None, Some("its time is over")));
}

pub(crate) async fn a_yes_for_a_resource_ends_with_its_time(kept: &Kept) {
    let clock = Wound::default();
    let desk = clock.desk(&kept.store);
    let holds = lasting(Scope::Resource);
    let mut waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    clock.wind(Duration::from_secs(59));
    assert!(is_known(&desk, question("t", holds.clone(), (9, 9))).await);
    let mut other = question("t", holds.clone(), (9, 9));
    other.resource = "payroll".into();
    assert!(!is_known(&desk, other).await);
    clock.wind(Duration::from_secs(1));
    assert!(!is_known(&desk, question("t", holds, (9, 9))).await);
}

pub(crate) async fn a_rule_that_changed_asks_again(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", lasting(Scope::Resource), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    let stricter = |held: &Held| Held {
        approval: Approval { approvers: 2, ..Approval::clone(&held.approval) }.into(),
        ..held.clone()
    };
    let holds: Vec<Held> = lasting(Scope::Resource).iter().map(stricter).collect();
    assert!(!is_known(&desk, question("s", holds, (1, 1))).await);
    // Another rule that holds it, too, is not met.
    let mut both = lasting(Scope::Resource);
    both.push(held("other", terms()));
    assert!(!is_known(&desk, question("s", both, (1, 1))).await);
}

pub(crate) async fn a_yes_is_no_other_principals(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", lasting(Scope::Resource), (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    let mut other = question("s", lasting(Scope::Resource), (1, 1));
    other.principal.process.uid = 1001;
    assert!(!is_known(&desk, other).await);
    let mut vouched = question("s", lasting(Scope::Resource), (1, 1));
    vouched.principal.identities = crate::common::member(1000, "sub-1", "ci").identities;
    assert!(!is_known(&desk, vouched).await);
}
