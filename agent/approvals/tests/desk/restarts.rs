//! What outlives whoever asked.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_approvals::{Answered, Audience, Desk, Say, State, Told};
use tidegate_gate::{
    Question,
    policy::{Approval, Scope},
};

use crate::common::{
    Kept, LIMITS, PATIENCE, Says as _, ann, ask, desk, end, held, is_known, member, question, settled, terms,
};

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

pub(crate) async fn nothing_but_the_very_same_takes_a_question_up(kept: &Kept) {
    for scope in [Scope::Shape, Scope::Resource] {
        let holds = vec![held("ask", Approval { scope, ..terms() })];
        let before = desk(&kept.store);
        let asked = question("s", holds.clone(), (1, 1));
        let id = ask(&before, asked.clone()).await.id().clone();
        drop(before);
        let after = desk(&kept.again);
        // Other bytes that the masks show alike, and the same bytes shown in another way.
        let masked_alike = Question { exact: [2; 32], ..asked.clone() };
        let other_particulars = Question { particulars: vec![("$1".into(), "4711".into())], ..asked.clone() };
        for other in [masked_alike, other_particulars] {
            let other = ask(&after, other).await;
            assert_ne!(other.id(), &id, "an answer to the one would let the other run");
        }
        assert_eq!(ask(&after, asked).await.id(), &id);
    }
}

pub(crate) async fn who_takes_a_question_up_is_shown(kept: &Kept) {
    let asked = question("s", vec![held("ask", terms())], (1, 1));
    let id = ask(&desk(&kept.store), asked.clone()).await.id().clone();
    let after = desk(&kept.again);
    let first = after.show(&ann(), &id).await.unwrap();
    let mut again = Question { session: "t".into(), ..asked };
    again.principal.process.pid = 8;
    drop(ask(&after, again.clone()).await);
    let second = after.show(&ann(), &id).await.unwrap();
    assert_eq!((&*second.session, second.principal.process.pid), ("t", 8));
    let last = second.trail.last().unwrap();
    assert_eq!((&*last.step, last.by.as_deref()), ("asked-again", Some("ci")));
    // A retry is no other question to whoever has it before them; another program is.
    assert_eq!(second.seal(), first.seal());
    again.principal.process.executable = Some("/tmp/psql".into());
    drop(ask(&after, again).await);
    let seal = first.seal();
    let answered = Answered { say: Say::Approve, reason: None, shown: Some(&seal) };
    let refused = after.answer(&ann(), &id, answered).await.unwrap_err().to_string();
    assert!(refused.contains("is not what you were shown"), "{refused}");
    // Nor does it at the command line, which shows it and takes the answer one after the other; until they look again.
    let refused = after.approve(&ann(), &id, None).await.unwrap_err().to_string();
    assert!(refused.contains("look at it again"), "{refused}");
    let looked = after.show(&ann(), &id).await.unwrap();
    assert_eq!(looked.principal.process.executable.as_deref(), Some("/tmp/psql"));
    assert!(
        !serde_json::to_string(&looked).unwrap().contains(&looked.seal()),
        "the trail is full of digests"
    );
    after.approve(&ann(), &id, None).await.unwrap();
}

pub(crate) async fn who_agreed_to_what_another_program_asks_now_agrees_anew(kept: &Kept) {
    let two = Approval { approvers: 2, ..terms() };
    let asked = question("s", vec![held("ask", two)], (1, 1));
    let waits = ask(&desk(&kept.store), asked.clone()).await;
    let id = waits.id().clone();
    desk(&kept.store).approve(&ann(), &id, None).await.unwrap();
    drop(waits);
    let (after, bob) = (desk(&kept.again), member(2001, "bob", "dba"));
    // A retry of the same program is what ann agreed to.
    let mut again = Question { session: "t".into(), ..asked };
    again.principal.process.pid = 8;
    drop(ask(&after, again.clone()).await);
    assert_eq!(after.show(&bob, &id).await.unwrap().agreed.len(), 1);
    again.principal.process.executable = Some("/tmp/psql".into());
    let mut waits = ask(&after, again).await;
    let shown = after.show(&bob, &id).await.unwrap();
    let last = &shown.trail[shown.trail.len() - 2];
    assert_eq!((&*last.step, shown.agreed.len()), ("asked-again", 0));
    assert!(last.reason.as_deref().unwrap().contains("agree anew"), "{last:?}");
    assert_eq!(after.approve(&bob, &id, None).await.unwrap().state, State::Waiting);
    after.show(&ann(), &id).await.unwrap();
    assert_eq!(after.approve(&ann(), &id, None).await.unwrap().state, State::Approved);
    assert_eq!(end(&mut waits).await.unwrap(), "ann");
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
    let hooks = vec![("ops".into(), Told::ALL.to_vec()), ("alerts".into(), vec![Told::BreakGlass])];
    let audience = Audience { hooks, page: Some("https://tidegate.example/approvals/".into()) };
    let desk = Desk::open("host", kept.store.clone(), LIMITS, audience);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    desk.show(&ann(), waits.id()).await.unwrap();
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    let letters = kept.again.letters("host", "ops", Timestamp::now(), 10).await.unwrap();
    let events: Vec<_> = letters.iter().map(|letter| letter.body["type"].as_str().unwrap()).collect();
    assert_eq!(events, ["approval.asked", "approval.approved"]);
    for letter in &letters {
        assert_eq!((&letter.question, letter.body["id"].as_str()), (waits.id(), Some(&*letter.id)));
        let link = letter.body["data"]["question"]["link"].as_str().unwrap();
        assert_eq!(link, format!("https://tidegate.example/approvals/{}", waits.id()));
    }
    for (host, hook) in [("host", "alerts"), ("other", "ops")] {
        assert!(kept.again.letters(host, hook, Timestamp::now(), 10).await.unwrap().is_empty());
    }
    let later = Timestamp::now() + Duration::from_secs(60);
    assert!(kept.store.attempt(&letters[0].id).await.unwrap());
    kept.store.postpone(&letters[0].id, Some(later)).await.unwrap();
    kept.store.postpone(&letters[1].id, None).await.unwrap();
    let left = kept.again.letters("host", "ops", Timestamp::now(), 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|letter| (&letter.id, letter.attempts, letter.due)).collect();
    assert_eq!(left, [(&letters[0].id, 1, later.as_millisecond())]);
    assert!(!kept.store.attempt(&letters[1].id).await.unwrap(), "there is no such letter any more");
}

pub(crate) async fn an_answer_through_another_agent_counts(kept: &Kept) {
    let (here, there) = (desk(&kept.store), desk(&kept.again));
    let (mut told_here, mut told_there) = (here.briefs(), there.briefs());
    let mut waits = ask(&here, question("s", vec![held("ask", terms())], (1, 1))).await;
    there.approve(&ann(), waits.id(), None).await.unwrap();
    assert_eq!(end(&mut waits).await.unwrap(), "ann");
    // Whoever watches hears of it, too, wherever they do.
    for told in [&mut told_here, &mut told_there] {
        let approved =
            async { while told.recv().await.unwrap().last().is_none_or(|event| event.step != "approved") {} };
        tokio::time::timeout(PATIENCE, approved).await.expect("it is told");
    }
}
