//! Much at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tidegate_approvals::{Audience, Desk, Letter, Limits, State, Told};
use tidegate_gate::{
    Answer, Approvals, Question,
    policy::{Approval, Process, Scope, Sessions},
};
use tokio::task::JoinSet;

use crate::common::{
    Kept, LIMITS, PATIENCE, Says as _, Wound, account, ann, ask, desk, desk_of, end, held, is_known, member,
    question, settled, terms,
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

pub(crate) async fn no_more_wait_than_may(kept: &Kept) {
    let limits = Limits { all: 3, of_account: 2, a_minute: 1000 };
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

pub(crate) async fn root_in_a_container_takes_nobody_s_places_with_many_user_ids(kept: &Kept) {
    let limits = Limits { all: 10, of_account: 2, a_minute: 1000 };
    let desk = Desk::open("host", kept.store.clone(), limits, Audience::default());
    let contained = |uid: u8| {
        let mut asked = question("s", vec![held("ask", terms())], (uid, 1));
        asked.principal.process.uid = uid.into();
        asked.principal.process.container = Some("c".repeat(64).into());
        asked
    };
    let _standing = [ask(&desk, contained(1)).await, ask(&desk, contained(2)).await];
    let error = desk.put(contained(3)).await.err().unwrap().to_string();
    assert!(error.contains("2 of your questions wait already"), "{error}");
    ask(&desk, of_other(4, terms())).await;
}

pub(crate) async fn nobody_asks_more_within_a_minute_than_may(kept: &Kept) {
    let (clock, limits) = (Wound::default(), Limits { a_minute: 3, ..LIMITS });
    let desk = clock.desk_with(&kept.store, limits);
    let asked = |uid: u32, number: u8| {
        let mut asked = question("s", vec![held("ask", terms())], (number, 1));
        asked.principal.process.uid = uid;
        asked
    };
    for number in 0..3 {
        assert!(!is_known(&desk, asked(1000, number)).await);
        clock.wind(Duration::from_secs(1));
    }
    let error = desk.put(asked(1000, 4)).await.err().unwrap().to_string();
    assert!(error.contains("3 questions within a minute"), "{error}");
    ask(&desk, asked(1001, 4)).await;
    clock.wind(Duration::from_secs(58));
    ask(&desk, asked(1000, 4)).await;
}

pub(crate) async fn who_asks_and_cancels_hides_nobody_elses_question(kept: &Kept) {
    let (clock, limit) = (Wound::default(), 5);
    let desk = clock.desk(&kept.store);
    let mut of_other = question("o", vec![held("ask", terms())], (0, 0));
    of_other.principal.process.uid = 1001;
    let waits = ask(&desk, of_other).await;
    for number in 1..=limit + 2 {
        clock.wind(Duration::from_millis(10));
        assert!(!is_known(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    for all in [false, true] {
        let listed = desk.list(&ann(), all, u32::from(limit)).await.unwrap().inquiries;
        assert!(listed.iter().any(|inquiry| inquiry.id == *waits.id()), "all: {all}");
        assert_eq!(listed.len(), if all { usize::from(limit) } else { 1 });
    }
}

pub(crate) async fn who_asks_much_is_not_all_that_is_listed(kept: &Kept) {
    let clock = Wound::default();
    let desk = clock.desk(&kept.store);
    let mut of_other = question("o", vec![held("ask", terms())], (0, 0));
    of_other.principal.process.uid = 1001;
    let other = ask(&desk, of_other).await;
    let mut waiting = Vec::new();
    for number in 1..=5 {
        clock.wind(Duration::from_millis(10));
        waiting.push(ask(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    let listed = desk.list(&ann(), false, 2).await.unwrap().inquiries;
    let ids: Vec<_> = listed.iter().map(|inquiry| &inquiry.id).collect();
    assert_eq!(ids, [waiting[4].id(), other.id()]);
}

pub(crate) async fn a_question_is_listed_in_short_and_shown_whole(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut asked = question("s", vec![held("ask", terms())], (1, 1));
    asked.text = format!("DELETE {}", "é".repeat(10_000));
    asked.principal.process.command_line = vec!["psql".into(); 64];
    let waits = ask(&desk, asked.clone()).await;
    let listed = desk.list(&ann(), false, 9).await.unwrap().inquiries.pop().unwrap();
    assert!(serde_json::to_string(&listed).unwrap().len() < 2_000, "{listed:?}");
    assert!(listed.text.starts_with("DELETE é") && listed.text.ends_with('…'));
    let shown = desk.show(&ann(), waits.id()).await.unwrap();
    assert_eq!((shown.text, shown.particulars), (asked.text, asked.particulars));
    assert_eq!(shown.principal, asked.principal);
}

pub(crate) async fn what_is_too_long_to_be_shown_is_not_asked(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut asked = question("s", vec![held("ask", terms())], (1, 1));
    asked.particulars = vec![("body".into(), "x".repeat(256 << 10))];
    let error = desk.put(asked).await.err().unwrap().to_string();
    assert!(error.contains("longer than anybody can be shown"), "{error}");
    assert!(desk.list(&ann(), true, 9).await.unwrap().inquiries.is_empty());
}

pub(crate) async fn old_questions_are_forgotten_and_what_counts_is_kept(kept: &Kept) {
    let (clock, day) = (Wound::default(), Duration::from_secs(24 * 3600));
    let desk = clock.desk(&kept.store);
    let glass = Approval { break_glass: Some(terms().by), ..terms() };
    let lasting = Approval { scope: Scope::Resource, grant: Some(3 * day), ..terms() };
    let mut kinds = Vec::new();
    for (number, terms) in [(1, terms()), (2, terms()), (3, glass), (4, lasting)] {
        clock.wind(Duration::from_millis(10));
        kinds
            .push((ask(&desk, question("s", vec![held("ask", terms)], (number, number))).await).id().clone());
    }
    for id in &kinds[..2] {
        let unanswered = kept.store.load(id).await.unwrap().unwrap();
        assert_eq!(unanswered.state, State::Waiting, "it expires");
    }
    desk.break_glass(&ann(), &kinds[2], Some("fire")).await.unwrap();
    desk.approve(&ann(), &kinds[3], None).await.unwrap();
    let left = async |since: Timestamp, of_account: u32| {
        let now = Timestamp::now() + day;
        kept.store.forget("host", now, since, of_account).await.unwrap();
        let mut left = Vec::new();
        for (number, id) in kinds.iter().enumerate() {
            left.extend(kept.store.load(id).await.unwrap().map(|_| number));
        }
        left
    };
    assert_eq!(left(Timestamp::MIN, 2).await, [0, 1, 2, 3]);
    assert_eq!(left(Timestamp::MIN, 1).await, [1, 2, 3]);
    assert_eq!(left(Timestamp::now() + day, 9).await, [2, 3]);
    // What is over for the store's other hosts is theirs to forget.
    let elsewhere = desk_of("other", &kept.store);
    let over = ask(&elsewhere, question("s", vec![held("ask", terms())], (5, 5))).await.id().clone();
    drop(elsewhere);
    assert_eq!(left(Timestamp::now() + day, 0).await, [2, 3]);
    assert!(kept.store.load(&over).await.unwrap().is_some());
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

/// Questions of another account than the one that all others of these tests are of.
fn of_other(number: u8, approval: Approval) -> tidegate_gate::Question {
    let mut asked = question("o", vec![held("ask", approval)], (number, 1));
    asked.principal.process.uid = 1001;
    asked
}

fn telling(kept: &Kept) -> Desk {
    let audience = Audience { hooks: vec![("ops".into(), Told::ALL.to_vec())], page: None };
    Desk::open("host", kept.store.clone(), LIMITS, audience)
}

async fn letters(kept: &Kept, limit: u32) -> Vec<Letter> {
    kept.store.letters("host", "ops", Timestamp::now(), limit).await.unwrap()
}

pub(crate) async fn letters_about_one_asker_hold_up_neither_alerts_nor_the_others(kept: &Kept) {
    let desk = telling(kept);
    let mut standing = Vec::new();
    for number in 0..=255 {
        standing.push(ask(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    assert!(!is_known(&desk, question("s", vec![held("ask", terms())], (0, 2))).await);
    let glass = Approval { break_glass: Some(terms().by), ..terms() };
    let other = ask(&desk, of_other(1, glass)).await;
    desk.break_glass(&ann(), other.id(), Some("fire")).await.unwrap();
    assert_eq!(letters(kept, 9_999).await.len(), 256 + 2);
    let first: Vec<_> = letters(kept, 3).await.iter().map(|letter| letter.body["type"].clone()).collect();
    assert_eq!(first[0], "approval.break-glass");
    let about_other = letters(kept, 3).await.iter().filter(|letter| letter.question == *other.id()).count();
    assert_eq!(about_other, 2);
}

pub(crate) async fn what_an_asker_has_written_takes_no_room_of_what_people_answer(kept: &Kept) {
    let desk = telling(kept);
    let mut standing = Vec::new();
    for number in 0..=255 {
        standing.push(ask(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    let (yes, no) = (standing.pop().unwrap(), standing.pop().unwrap());
    desk.approve(&ann(), yes.id(), None).await.unwrap();
    desk.revoke(&ann(), yes.id(), None).await.unwrap();
    desk.deny(&ann(), no.id(), None).await.unwrap();
    let written = letters(kept, 9_999).await;
    let mut answers: Vec<_> =
        written.iter().filter(|letter| letter.answered).map(|letter| &*letter.event).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["approved", "denied", "revoked"]);
}

/// `insert into` this table what is there, so often, each under an id of its own.
fn repeated(table: &str, columns: &str, what: &str, times: u32) -> String {
    format!(
        "with recursive numbers(number) as (select 1 union all select number + 1 from numbers where number < {times}) \
         insert into {table} (id, {columns}) select 'again-' || number, {columns} from numbers, {table} where {what}"
    )
}

pub(crate) async fn who_asks_and_one_who_answers_take_no_room_of_others_answers(kept: &Kept) {
    let desk = telling(kept);
    let mut waits = Vec::new();
    for number in 0..2 {
        waits.push(ask(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    let other = ask(&desk, of_other(1, terms())).await;
    desk.deny(&ann(), waits[0].id(), None).await.unwrap();
    let columns = "host, hook, question, principal, urgent, answered, event, body, written, due, attempts";
    kept.run(&repeated("tidegate_letters", columns, "event = 'denied'", 999)).await;
    desk.deny(&ann(), waits[1].id(), None).await.unwrap();
    desk.deny(&ann(), other.id(), None).await.unwrap();
    let answers = letters(kept, 9_999).await.into_iter().filter(|letter| letter.answered);
    let of_other = answers.filter(|letter| letter.question == *other.id()).count();
    assert_eq!(of_other, 1, "there is no room for it");
    let of_account =
        letters(kept, 9_999).await.into_iter().filter(|letter| letter.answered).count() - of_other;
    assert_eq!(of_account, 1_000);
}

pub(crate) async fn of_what_people_answered_an_accounts_newest_are_kept(kept: &Kept) {
    let clock = Wound::default();
    let desk = clock.desk(&kept.store);
    let (mut oldest, mut others) = (Vec::new(), Vec::new());
    for asked in [question("s", vec![held("ask", terms())], (1, 1)), of_other(2, terms())] {
        let waits = ask(&desk, asked).await;
        desk.deny(&ann(), waits.id(), None).await.unwrap();
        if oldest.is_empty() { &mut oldest } else { &mut others }.push(waits.id().clone());
    }
    let columns = "version, host, principal, waiting, owed, answered, asked, alive, brief, body";
    let what = format!("id = '{}'", oldest[0]);
    kept.run(&repeated("tidegate_questions", columns, &what, 10_000)).await;
    let newer = "update tidegate_questions set asked = asked + 1 where id like 'again-%'";
    kept.run(newer).await;
    let later = Timestamp::now() + Duration::from_secs(3600);
    kept.store.forget("host", later, Timestamp::MIN, 9).await.unwrap();
    assert!(kept.store.load(&oldest[0]).await.unwrap().is_none(), "the oldest is kept");
    assert!(kept.store.load("again-1").await.unwrap().is_some());
    assert!(kept.store.load(&others[0]).await.unwrap().is_some(), "another account's is gone");
}

pub(crate) async fn what_was_cancelled_before_it_was_told_is_not_told(kept: &Kept) {
    let desk = telling(kept);
    for number in 0..=255 {
        assert!(!is_known(&desk, question("s", vec![held("ask", terms())], (number, 1))).await);
    }
    assert!(letters(kept, 9).await.is_empty(), "nobody is told of what was asked and is asked no more");
    // A receiver that was told, or is being told, that it is asked hears that it no longer is.
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (0, 2))).await;
    assert!(kept.store.attempt(&letters(kept, 1).await[0].id).await.unwrap());
    let id = waits.id().clone();
    waits.withdraw("cancelled");
    settled(&desk, &id).await;
    let events: Vec<_> = letters(kept, 9).await.into_iter().map(|letter| letter.event).collect();
    assert_eq!(events, ["asked", "cancelled"]);
}

pub(crate) async fn who_does_not_hear_of_cancels_is_not_told_of_what_was_cancelled_either(kept: &Kept) {
    let hooks = vec![("ops".into(), vec![Told::Asked]), ("more".into(), vec![Told::Asked, Told::Cancelled])];
    let desk = Desk::open("host", kept.store.clone(), LIMITS, Audience { hooks, page: None });
    let cancelled = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let standing = ask(&desk, question("s", vec![held("ask", terms())], (2, 1))).await;
    let id = cancelled.id().clone();
    cancelled.withdraw("cancelled");
    settled(&desk, &id).await;
    for hook in ["ops", "more"] {
        let letters = kept.store.letters("host", hook, Timestamp::now(), 9).await.unwrap();
        let told: Vec<_> = letters.iter().map(|letter| &letter.question).collect();
        assert_eq!(told, [standing.id()], "{hook}");
    }
}

pub(crate) async fn a_clock_that_is_set_back_keeps_nobody_from_asking(kept: &Kept) {
    let limits = Limits { a_minute: 2, ..LIMITS };
    let asked = |number| question("s", vec![held("ask", terms())], (number, 1));
    let later = Wound::default();
    let desk = later.desk_with(&kept.store, limits);
    later.wind(Duration::from_secs(3600));
    let _standing = [ask(&desk, asked(0)).await, ask(&desk, asked(1)).await];
    assert!(desk.put(asked(2)).await.is_err());
    // By the store, which a restart does not empty.
    let again = Wound::default().desk_with(&kept.again, limits);
    let _more = [ask(&again, asked(3)).await, ask(&again, asked(4)).await];
    assert!(again.put(asked(5)).await.is_err());
}

pub(crate) async fn a_clock_that_is_ahead_forgets_nothing(kept: &Kept) {
    let desk = telling(kept);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let ahead = Timestamp::now() + Duration::from_secs(100 * 24 * 3600);
    let before = ahead - Duration::from_secs(30 * 24 * 3600);
    kept.store.forget("ahead", ahead, before, 0).await.unwrap();
    assert!(kept.store.load(waits.id()).await.unwrap().is_some());
    assert_eq!(letters(kept, 9).await.len(), 1);
}

pub(crate) async fn who_has_identities_has_no_more_room_than_others(kept: &Kept) {
    let limits = Limits { of_account: 3, ..LIMITS };
    let desk = Desk::open("host", kept.store.clone(), limits, Audience::default());
    let mut standing = Vec::new();
    for (number, subject) in [(0, "job-1"), (1, "job-2"), (2, "job-3")] {
        let mut asked = question("s", vec![held("ask", terms())], (number, 1));
        asked.principal.identities = member(1000, subject, "ci").identities;
        asked.principal.subjects = vec![subject.into()];
        standing.push(ask(&desk, asked).await);
    }
    let error = desk.put(question("s", vec![held("ask", terms())], (3, 1))).await.err().unwrap().to_string();
    assert!(error.contains("3 of your questions wait already"), "{error}");
    ask(&desk, of_other(4, terms())).await;
}

pub(crate) async fn who_asks_and_cancels_makes_nobody_forget_what_was_answered(kept: &Kept) {
    let clock = Wound::default();
    let desk = clock.desk(&kept.store);
    let (mut answered, mut cancelled) = (Vec::new(), Vec::new());
    for number in 0..6 {
        clock.wind(Duration::from_millis(10));
        let waits = ask(&desk, question("s", vec![held("ask", terms())], (number, 1))).await;
        let id = waits.id().clone();
        match number {
            0 => drop(desk.approve(&ann(), &id, None).await.unwrap()),
            1 => drop(desk.deny(&ann(), &id, None).await.unwrap()),
            _ => waits.withdraw("cancelled"),
        }
        settled(&desk, &id).await;
        if number < 2 { &mut answered } else { &mut cancelled }.push(id);
    }
    let later = Timestamp::now() + Duration::from_secs(3600);
    kept.store.forget("host", later, Timestamp::MIN, 1).await.unwrap();
    for id in &answered {
        assert!(kept.store.load(id).await.unwrap().is_some(), "an answer is gone");
    }
    let mut left = Vec::new();
    for id in &cancelled {
        left.extend(kept.store.load(id).await.unwrap().map(|inquiry| inquiry.id));
    }
    assert_eq!(left, cancelled[3..]);
    // Whoever relies on a yes that nothing shows any more relies on nothing.
    kept.store.forget("host", later, later, 9).await.unwrap();
    let gone = desk.revoked(&answered[..1]).await;
    assert_eq!((gone.question, gone.by), (answered[0].clone(), None));
}

pub(crate) async fn a_brief_is_small_however_large_its_asker_makes_it(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut briefs = desk.briefs();
    let mut asked = question("s", vec![held("ask", terms())], (1, 1));
    let path: Arc<str> = "\u{1}é/".repeat(1_300).into();
    asked.name = "é".repeat(4_000).into();
    asked.text = "\u{1}".repeat(100_000);
    asked.principal.process = Process {
        command: "\u{1}".repeat(16).into(),
        executable: Some(path.clone()),
        executable_sha256: Some("0".repeat(64).into()),
        command_line: vec![path.clone(); 64],
        cgroup: Some(path.clone()),
        unit: Some("u".repeat(255).into()),
        container: Some("c".repeat(64).into()),
        claimed_container: Some("c".repeat(64).into()),
        groups: (0..65_536).collect(),
        ancestry: vec![path; 16],
        ..asked.principal.process
    };
    let mut job = member(1000, &"é".repeat(255), "group").identities[0].clone();
    job.groups = vec!["g".repeat(200).into(); 1_000];
    job.account = Some("a".repeat(9_000).into());
    job.claims.insert("ref".into(), "r".repeat(9_000).into());
    asked.principal.identities = [job].into();
    let waits = ask(&desk, asked).await;
    let told = briefs.recv().await.unwrap();
    let listed = desk.list(&ann(), false, 9).await.unwrap().inquiries.pop().unwrap();
    for brief in [&*told, &listed] {
        let length = serde_json::to_string(brief).unwrap().len();
        assert!(length < 4_096, "{length} bytes");
        assert_eq!((&brief.id, brief.asker().subjects.len()), (waits.id(), 1));
        assert!(brief.is_visible_to(&ann()) && brief.is_visible_to(&account(1000, "ci")));
    }
}

pub(crate) async fn who_comes_back_all_the_time_is_told_to_wait(kept: &Kept) {
    let (clock, limits) = (Wound::default(), Limits { a_minute: 2, ..LIMITS });
    let desk = clock.desk_with(&kept.store, limits);
    let holds = vec![held("ask", terms())];
    // Left standing, as by a client that was told to come back, and taken up each time.
    for _ in 0..20 {
        drop(ask(&desk, question("s", holds.clone(), (1, 1))).await);
    }
    let error = desk.put(question("s", holds.clone(), (1, 1))).await.err().unwrap().to_string();
    assert!(error.contains("within a minute"), "{error}");
    clock.wind(Duration::from_secs(60));
    ask(&desk, question("s", holds, (2, 1))).await;
}
