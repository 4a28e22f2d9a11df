//! Who asks much, and what is left of room for others.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_approvals::{Audience, Desk, Limits, State};
use tidegate_gate::{
    Approvals,
    policy::{Approval, Process, Scope},
};

use crate::common::{
    Kept, LIMITS, Says as _, Wound, account, ann, ask, desk, desk_of, held, is_known, member, question,
    settled, terms,
};
use crate::told::of_other;

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
