//! What outlives whoever asked.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_approvals::{Desk, State};
use tidegate_gate::policy::{Approval, Scope};

use crate::common::{Kept, LIMITS, ann, ask, desk, end, held, is_known, question, settled, terms};

pub(crate) async fn a_restart_loses_no_question_and_no_yes(kept: &Kept) {
    let before = desk(&kept.store);
    let holds = vec![held("ask", terms())];
    // Neither withdrawn nor settled: the agent is gone.
    let id = ask(&before, question("s", holds.clone(), (1, 1))).await.id().clone();
    drop(before);
    let after = desk(&kept.again);
    let listed = after.list(&ann(), false, 10).await.unwrap().inquiries;
    assert_eq!(listed.iter().map(|inquiry| &*inquiry.id).collect::<Vec<_>>(), [&*id]);
    after.approve(&ann(), &id, None).await.unwrap();
    assert!(!is_known(&after, question("t", holds.clone(), (2, 1))).await);
    assert!(is_known(&after, question("t", holds.clone(), (1, 1))).await);
    assert!(!is_known(&after, question("t", holds, (1, 1))).await);
}

pub(crate) async fn a_question_left_standing_is_taken_up(kept: &Kept) {
    let before = desk(&kept.store);
    let holds = vec![held("ask", terms())];
    let id = ask(&before, question("s", holds.clone(), (1, 1))).await.id().clone();
    drop(before);
    let after = desk(&kept.again);
    let mut first = ask(&after, question("t", holds.clone(), (1, 1))).await;
    let second = ask(&after, question("u", holds, (1, 1))).await;
    assert_eq!(first.id(), &id);
    assert_ne!(second.id(), &id);
    after.approve(&ann(), &id, None).await.unwrap();
    assert_eq!(end(&mut first).await.unwrap(), "ann");
}

pub(crate) async fn a_withdrawn_question_leaves_no_yes(kept: &Kept) {
    let desk = desk(&kept.store);
    let lasting = Approval { scope: Scope::Shape, grant: Some(Duration::from_secs(60)), ..terms() };
    let holds = vec![held("ask", lasting)];
    let waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    let id = waits.id().clone();
    waits.withdraw("cancelled");
    assert_eq!(settled(&desk, &id).await.state, State::Cancelled);
    assert!(desk.approve(&ann(), &id, None).await.is_err());
    assert!(!is_known(&desk, question("s", holds.clone(), (1, 1))).await);
    // Approved, but whoever asked left before hearing of it.
    let waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    let id = waits.id().clone();
    desk.approve(&ann(), &id, None).await.unwrap();
    let mut changes = desk.changes();
    waits.withdraw("withdrawn");
    changes.changed().await.unwrap();
    assert_eq!(settled(&desk, &id).await.state, State::Withdrawn);
    assert!(!is_known(&desk, question("s", holds, (1, 1))).await);
}

pub(crate) async fn letters_are_kept_until_they_are_taken(kept: &Kept) {
    let desk = Desk::open("host", kept.store.clone(), LIMITS, true);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    let now = Timestamp::now();
    let letters = kept.again.letters(now, 10).await.unwrap();
    let mut events: Vec<_> = letters.iter().map(|letter| letter.body["event"].as_str().unwrap()).collect();
    events.sort_unstable();
    assert_eq!(events, ["approved", "asked"]);
    assert!(letters.iter().all(|letter| letter.question == **waits.id()));
    let later = now + Duration::from_secs(60);
    kept.store.postpone(&letters[0].id, Some(later)).await.unwrap();
    kept.store.postpone(&letters[1].id, None).await.unwrap();
    assert!(kept.again.letters(now, 10).await.unwrap().is_empty());
    let left = kept.again.letters(later, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|letter| (&letter.id, letter.attempts)).collect::<Vec<_>>(),
        [(&letters[0].id, 1)]
    );
}

pub(crate) async fn an_answer_through_another_agent_counts(kept: &Kept) {
    let (here, there) = (desk(&kept.store), desk(&kept.again));
    let mut waits = ask(&here, question("s", vec![held("ask", terms())], (1, 1))).await;
    there.approve(&ann(), waits.id(), None).await.unwrap();
    assert_eq!(end(&mut waits).await.unwrap(), "ann");
}
