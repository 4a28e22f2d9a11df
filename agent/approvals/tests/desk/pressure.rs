//! Much at once.

use std::time::Duration;

use tidegate_approvals::{Audience, Desk, Limits, State};
use tidegate_gate::{
    Answer, Approvals,
    policy::{Approval, Scope},
};
use tokio::task::JoinSet;

use crate::common::{Kept, Says as _, ann, ask, desk, end, held, is_known, member, question, settled, terms};

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
    let before = desk(&kept.store);
    let holds = vec![held("ask", terms())];
    let id = ask(&before, question("s", holds.clone(), (1, 1))).await.id().clone();
    drop(before);
    let after = desk(&kept.again);
    after.approve(&ann(), &id, None).await.unwrap();
    let mut retries = JoinSet::new();
    for session in ["t", "u", "v", "w"] {
        let (desk, asked) = (after.clone(), question(session, holds.clone(), (1, 1)));
        retries.spawn(async move { matches!(desk.put(asked).await.unwrap(), Answer::Known(_)) });
    }
    assert_eq!(retries.join_all().await.into_iter().filter(|known| *known).count(), 1);
}

pub(crate) async fn revoking_at_once_with_use_lets_it_run_or_not(kept: &Kept) {
    let desk = desk(&kept.store);
    let lasting = Approval { scope: Scope::Resource, grant: Some(Duration::from_secs(60)), ..terms() };
    let holds = vec![held("ask", lasting)];
    let mut waits = ask(&desk, question("s", holds.clone(), (1, 1))).await;
    let id = waits.id().clone();
    desk.approve(&ann(), &id, None).await.unwrap();
    end(&mut waits).await.unwrap();
    let mut uses = JoinSet::new();
    for number in 0..20 {
        let (desk, asked) = (desk.clone(), question("t", holds.clone(), (number, 1)));
        uses.spawn(async move { matches!(desk.put(asked).await.unwrap(), Answer::Known(_)) });
    }
    desk.revoke(&ann(), &id, None).await.unwrap();
    uses.join_all().await;
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

pub(crate) async fn no_more_wait_than_may(kept: &Kept) {
    let limits = Limits { all: 3, of_principal: 2 };
    let desk = Desk::open("host", kept.store.clone(), limits, Audience::default());
    let asked = |uid: u32, number: u8| {
        let mut asked = question("s", vec![held("ask", terms())], (number, 1));
        asked.principal.process.uid = uid;
        asked
    };
    let first = ask(&desk, asked(1000, 1)).await;
    let _second = ask(&desk, asked(1000, 2)).await;
    let error = desk.put(asked(1000, 3)).await.err().unwrap().to_string();
    assert!(error.contains("2 of your questions wait already"), "{error}");
    let _other = ask(&desk, asked(1001, 4)).await;
    let error = desk.put(asked(1002, 5)).await.err().unwrap().to_string();
    assert!(error.contains("3 questions wait already"), "{error}");
    let id = first.id().clone();
    first.withdraw("withdrawn");
    settled(&desk, &id).await;
    ask(&desk, asked(1000, 3)).await;
}
