//! What happens at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_approvals::State;
use tidegate_gate::{
    Answer, Approvals, Question,
    policy::{Approval, Scope, Sessions},
};
use tokio::task::JoinSet;

use crate::common::{
    Kept, PATIENCE, Says as _, ann, ask, desk, end, held, is_known, member, question, settled, terms,
};

pub(crate) async fn of_a_yes_and_a_cancel_at_once_one_comes_first(kept: &Kept) {
    let desk = desk(&kept.store);
    for round in 0..20 {
        let waits = ask(&desk, question("s", vec![held("ask", terms())], (round, 1))).await;
        let id = waits.id().clone();
        let (answering, named) = (desk.clone(), id.clone());
        let answer = tokio::spawn(async move { answering.approve(&ann(), &named, None).await });
        waits.withdraw("cancelled");
        let approved = answer.await.unwrap().is_ok();
        // Whichever came first, nothing is left to run on: who asked is gone.
        let mut changes = desk.changes();
        let after = loop {
            let after = settled(&desk, &id).await;
            if after.state != State::Approved {
                break after;
            }
            changes.changed().await.unwrap();
        };
        assert_eq!(after.state, State::Cancelled);
        assert_eq!(after.trail.iter().any(|event| event.step == "approved"), approved);
        assert!(!is_known(&desk, question("s", vec![held("ask", terms())], (round, 1))).await);
    }
}

pub(crate) async fn two_who_answer_at_once_are_counted_each(kept: &Kept) {
    let desk = desk(&kept.store);
    for (round, approvers) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 2)] {
        let both = Approval { approvers, ..terms() };
        let waits = ask(&desk, question("s", vec![held("ask", both)], (round, 1))).await;
        let people = [ann(), member(2001, "sub-1", "dba")];
        let mut answers = JoinSet::new();
        for person in people {
            let (desk, id) = (desk.clone(), waits.id().clone());
            answers.spawn(async move { desk.approve(&person, &id, None).await.is_ok() });
        }
        let counted = answers.join_all().await.into_iter().filter(|counted| *counted).count();
        assert_eq!(counted, approvers as usize);
        let after = settled(&desk, waits.id()).await;
        assert_eq!((after.state, after.agreed.len()), (State::Approved, approvers as usize));
    }
}

pub(crate) async fn a_yes_that_counts_once_goes_to_one_of_two(kept: &Kept) {
    for sessions in [["t", "u", "v", "w"], ["t"; 4]] {
        for round in 0..20 {
            let question = |session| question(session, vec![held("ask", terms())], (round, 1));
            assert_eq!(let_in_at_once(kept, sessions, question).await, 1, "of {sessions:?}");
        }
    }
}

pub(crate) async fn a_yes_that_lasts_is_all_its_sessions_however_much_comes_at_once(kept: &Kept) {
    let lasting = Approval { grant: Some(Duration::from_secs(60)), ..terms() };
    // Two rules that one yes covers.
    let holds = vec![held("ask", lasting.clone()), held("ask-too", lasting)];
    for round in 0..20 {
        let question = |session| question(session, holds.clone(), (round, 1));
        assert_eq!(let_in_at_once(kept, ["t"; 4], question).await, 4);
    }
}

/// Asks, says yes after whoever asked is gone, and puts the same again from all these sessions at once: how many a yes let in.
async fn let_in_at_once(
    kept: &Kept,
    sessions: [&'static str; 4],
    question: impl Fn(&'static str) -> Question,
) -> usize {
    let before = desk(&kept.store);
    let id = ask(&before, question("s")).await.id().clone();
    drop(before);
    let after = desk(&kept.again);
    after.approve(&ann(), &id, None).await.unwrap();
    let mut retries = JoinSet::new();
    for session in sessions {
        let (desk, asked) = (after.clone(), question(session));
        retries.spawn(async move { matches!(desk.put(asked).await.unwrap(), Answer::Known(_)) });
    }
    retries.join_all().await.into_iter().filter(|known| *known).count()
}

pub(crate) async fn revoking_at_once_with_use_lets_it_run_or_not(kept: &Kept) {
    let desk = desk(&kept.store);
    let (scope, sessions) = (Scope::Resource, Sessions::Any);
    let lasting = Approval { scope, sessions, grant: Some(Duration::from_secs(60)), ..terms() };
    let holds = vec![held("ask", lasting)];
    let mut waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    let id = waits.id().clone();
    desk.approve(&ann(), &id, None).await.unwrap();
    end(&mut waits).await.unwrap();
    // Each notes whether the yes was taken back before it began.
    let taken_back = Arc::new(AtomicBool::new(false));
    let mut uses = JoinSet::new();
    for number in 0..40 {
        if number == 20 {
            desk.revoke(&ann(), &id, None).await.unwrap();
            taken_back.store(true, Ordering::SeqCst);
        }
        let (desk, asked) = (desk.clone(), question("t", holds.clone(), (number, 1)));
        let taken_back = taken_back.clone();
        uses.spawn(async move {
            let too_late = taken_back.load(Ordering::SeqCst);
            match desk.put(asked).await.unwrap() {
                Answer::Known(yeses) => {
                    assert!(!too_late, "it ran by a yes that was taken back");
                    yeses.into_iter().map(|yes| yes.id).collect()
                }
                Answer::Waits(_) => Vec::new(),
            }
        });
    }
    for used in uses.join_all().await {
        // Whoever was let in at the last moment is told.
        if !used.is_empty() {
            let told = tokio::time::timeout(PATIENCE, desk.revoked(&used)).await.expect("it is told");
            assert_eq!(told.question, id);
        }
    }
    assert!(!is_known(&desk, question("t", holds, (50, 1))).await);
}

pub(crate) async fn hundreds_wait_at_once(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waiting = JoinSet::new();
    for number in 0..300u32 {
        let desk = desk.clone();
        waiting.spawn(async move {
            let mut asked = question("s", vec![held("ask", terms())], (0, 0));
            asked.exact[..4].copy_from_slice(&number.to_le_bytes());
            let mut waits = ask(&desk, asked).await;
            end(&mut waits).await
        });
    }
    let mut changes = desk.changes();
    let mut answered = 0;
    while answered < 300 {
        let listed = desk.list(&ann(), false, 500).await.unwrap().inquiries;
        let mut answers = JoinSet::new();
        for inquiry in listed.into_iter().filter(|inquiry| inquiry.state == State::Waiting) {
            let (desk, number) = (desk.clone(), answered);
            answered += 1;
            answers.spawn(async move {
                let (ann, id) = (ann(), &inquiry.id);
                if number % 2 == 0 {
                    desk.approve(&ann, id, None).await.unwrap();
                } else {
                    desk.deny(&ann, id, None).await.unwrap();
                }
            });
        }
        if answers.join_all().await.is_empty() {
            changes.changed().await.unwrap();
        }
    }
    let ends = waiting.join_all().await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 150);
    assert_eq!(ends.iter().filter(|end| end.as_ref().is_err_and(|word| word == "denied")).count(), 150);
}

pub(crate) async fn who_asks_while_another_cancels_the_same_is_not_cancelled(kept: &Kept) {
    let desk = desk(&kept.store);
    for round in 0..100 {
        let asked = || question("s", vec![held("ask", terms())], (round, 1));
        let first = ask(&desk, asked()).await;
        let (other, question) = (desk.clone(), asked());
        let asking = tokio::spawn(async move { ask(&other, question).await });
        first.withdraw("cancelled");
        let mut second = asking.await.unwrap();
        desk.approve(&ann(), second.id(), None).await.unwrap();
        end(&mut second).await.unwrap();
    }
}
