//! What many questions leave of room for letters and answers.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_approvals::{Audience, Desk, Letter, Limits, Told};
use tidegate_gate::policy::Approval;

use crate::common::{Kept, LIMITS, Says as _, Wound, ann, ask, held, is_known, question, settled, terms};

/// Questions of another account than the one that all others of these tests are of.
pub(crate) fn of_other(number: u8, approval: Approval) -> tidegate_gate::Question {
    let mut asked = question("o", vec![held("ask", approval)], (number, 1));
    asked.principal.process.uid = 1001;
    asked
}

fn telling(kept: &Kept) -> Desk {
    let audience = Audience { hooks: vec![("ops".into(), Told::ALL.to_vec())], page: None };
    let limits = Limits { of_account: 600, ..LIMITS };
    Desk::open("host", kept.store.clone(), limits, audience)
}

async fn letters(kept: &Kept, limit: u32) -> Vec<Letter> {
    kept.store.letters("host", "ops", Timestamp::now(), limit).await.unwrap()
}

pub(crate) async fn letters_about_one_asker_hold_up_neither_alerts_nor_the_others(kept: &Kept) {
    let desk = telling(kept);
    let mut standing = Vec::new();
    for (number, kind) in (0..=255).flat_map(|number| [(number, 1), (number, 2)]) {
        standing.push(ask(&desk, question("s", vec![held("ask", terms())], (number, kind))).await);
    }
    assert!(!is_known(&desk, question("s", vec![held("ask", terms())], (0, 3))).await);
    let glass = Approval { break_glass: Some(terms().by), ..terms() };
    let other = ask(&desk, of_other(1, glass)).await;
    desk.break_glass(&ann(), other.id(), Some("fire")).await.unwrap();
    assert_eq!(letters(kept, 9_999).await.len(), 512 + 2);
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

pub(crate) async fn a_clock_that_is_ahead_forgets_nothing(kept: &Kept) {
    let desk = telling(kept);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let ahead = Timestamp::now() + Duration::from_secs(100 * 24 * 3600);
    let before = ahead - Duration::from_secs(30 * 24 * 3600);
    kept.store.forget("ahead", ahead, before, 0).await.unwrap();
    assert!(kept.store.load(waits.id()).await.unwrap().is_some());
    assert_eq!(letters(kept, 9).await.len(), 1);
}
