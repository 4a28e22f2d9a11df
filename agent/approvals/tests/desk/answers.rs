//! Who may answer, and what an answer does.

use std::{sync::Arc, time::Duration};

use tidegate_approvals::{Failed, Person, Refused, State};
use tidegate_gate::{
    Step,
    policy::{Approval, Identity, People},
};

use crate::common::{
    Kept, Says as _, account, ann, ask, browser, desk, desk_of, end, held, member, next, question, settled,
    terms,
};

fn refused<T: std::fmt::Debug>(result: Result<T, Failed>) -> Refused {
    match result {
        Err(Failed::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) async fn a_yes_lets_it_run_and_a_look_is_told(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let id = waits.id().clone();
    let shown = desk.show(&ann(), &id).await.unwrap();
    assert_eq!((shown.state, &*shown.text), (State::Waiting, "delete from orders where id = 1"));
    assert_eq!(next(&mut waits).await, Step::Seen { by: "ann".into() });
    desk.approve(&ann(), &id, Some("ticket 7")).await.unwrap();
    let approved = Step::Approved { by: "ann".into(), reason: Some("ticket 7".into()), urgent: false };
    assert_eq!(next(&mut waits).await, approved);
    let steps: Vec<String> = settled(&desk, &id).await.trail.into_iter().map(|event| event.step).collect();
    assert_eq!(steps, ["asked", "seen", "approved"]);
}

pub(crate) async fn a_no_refuses_with_its_reason(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let id = waits.id().clone();
    desk.deny(&ann(), &id, Some("not today")).await.unwrap();
    let denied =
        Step::Refused { word: "denied".into(), by: Some("ann".into()), reason: Some("not today".into()) };
    assert_eq!(next(&mut waits).await, denied);
    let late = refused(desk.approve(&ann(), &id, None).await);
    assert_eq!(late.to_string(), format!("question {id} is denied already, by ann"));
}

pub(crate) async fn nobody_answers_their_own_question(kept: &Kept) {
    let desk = desk(&kept.store);
    let mut asked = question("s", vec![held("ask", terms())], (1, 1));
    asked.principal.identities = member(1000, "sub-1", "dba").identities;
    let waits = ask(&desk, asked).await;
    // Of the same account with another login, and of another account with the same login.
    for own in [member(1000, "sub-2", "dba"), member(2000, "sub-1", "dba")] {
        let error = refused(desk.approve(&own, waits.id(), None).await);
        assert!(matches!(error, Refused::OwnQuestion(_)), "{error}");
        assert!(matches!(refused(desk.deny(&own, waits.id(), None).await), Refused::OwnQuestion(_)));
    }
    let mut asked = question("t", vec![held("ask", terms())], (2, 2));
    asked.principal.process.uid = 900_003;
    asked.principal.process.sub_uid_of = Some(1000);
    let waits = ask(&desk, asked).await;
    let owner = member(1000, "sub-3", "dba");
    assert!(matches!(refused(desk.approve(&owner, waits.id(), None).await), Refused::OwnQuestion(_)));
}

pub(crate) async fn a_stranger_neither_sees_nor_answers(kept: &Kept) {
    let desk = desk(&kept.store);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let stranger = account(3000, "bob");
    assert!(desk.list(&stranger, true, 10).await.unwrap().inquiries.is_empty());
    let unknown = refused(desk.show(&stranger, "none-such").await).to_string();
    let hidden = refused(desk.show(&stranger, waits.id()).await).to_string();
    assert_eq!(unknown.replace("none-such", waits.id()), hidden);
    assert!(matches!(refused(desk.approve(&stranger, waits.id(), None).await), Refused::Unknown(_)));
    // Root runs the host and sees it, but was not asked.
    let root = account(0, "root");
    assert_eq!(desk.list(&root, false, 10).await.unwrap().inquiries.len(), 1);
    assert!(matches!(refused(desk.approve(&root, waits.id(), None).await), Refused::NotAsked(_)));
}

pub(crate) async fn accounts_of_another_host_count_for_nothing(kept: &Kept) {
    let desk = desk(&kept.store);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let elsewhere = Person { host: "other".into(), ..ann() };
    assert!(matches!(refused(desk.approve(&elsewhere, waits.id(), None).await), Refused::Unknown(_)));
    let vouched = Person { host: "other".into(), ..member(2000, "sub-9", "dba") };
    desk.approve(&vouched, waits.id(), None).await.unwrap();
}

pub(crate) async fn the_askers_number_on_another_host_is_not_the_asker(kept: &Kept) {
    let (desk, elsewhere) = (desk(&kept.store), desk_of("elsewhere", &kept.again));
    let mut asked = question("s", vec![held("ask", terms())], (1, 1));
    asked.principal.identities = member(1000, "sub-1", "ci").identities;
    let waits = ask(&desk, asked).await;
    let eve = Person { host: "elsewhere".into(), ..account(1000, "eve") };
    assert!(elsewhere.list(&eve, true, 10).await.unwrap().inquiries.is_empty());
    assert!(matches!(refused(elsewhere.revoke(&eve, waits.id(), None).await), Refused::Unknown(_)));
    // Nor is somebody who said yes: whoever has their number there may not take it back.
    desk.approve(&member(2000, "sub-9", "dba"), waits.id(), None).await.unwrap();
    let same_number = Person { host: "elsewhere".into(), ..account(2000, "mallory") };
    assert!(matches!(refused(elsewhere.revoke(&same_number, waits.id(), None).await), Refused::Unknown(_)));
    let glass = People { groups: vec!["oncall".into()], issuer: Some("acme".into()), ..People::default() };
    let urgent = vec![held("glass", Approval { break_glass: Some(glass), ..terms() })];
    let broken = ask(&desk, question("s", urgent, (2, 2))).await;
    desk.break_glass(&member(3000, "sub-5", "oncall"), broken.id(), Some("fire")).await.unwrap();
    let oncall_too = Person { host: "elsewhere".into(), ..member(3000, "sub-6", "oncall") };
    assert!(matches!(refused(elsewhere.revoke(&oncall_too, broken.id(), None).await), Refused::NotAsked(_)));
    // Whoever asked is, from where the issuer knows them.
    let asker = Person { host: "elsewhere".into(), ..member(4000, "sub-1", "ci") };
    assert_eq!(elsewhere.list(&asker, true, 10).await.unwrap().inquiries.len(), 1);
    let home = account(1000, "ci");
    assert_eq!(desk.revoke(&home, waits.id(), None).await.unwrap().state, State::Revoked);
}

pub(crate) async fn as_many_must_agree_as_the_rule_says(kept: &Kept) {
    let desk = desk(&kept.store);
    let two = Approval { approvers: 2, ..terms() };
    let mut waits = ask(&desk, question("s", vec![held("ask", two)], (1, 1))).await;
    let id = waits.id().clone();
    assert_eq!(desk.approve(&ann(), &id, None).await.unwrap().state, State::Waiting);
    assert_eq!(next(&mut waits).await, Step::Agreed { by: "ann".into(), reason: None });
    assert_eq!(refused(desk.approve(&ann(), &id, None).await), Refused::Twice);
    assert_eq!(refused(desk.approve(&member(2000, "sub-1", "dba"), &id, None).await), Refused::Twice);
    assert_eq!(desk.approve(&member(2001, "sub-1", "dba"), &id, None).await.unwrap().state, State::Approved);
    assert_eq!(end(&mut waits).await.unwrap(), "sub-1 (sub-1 of acme)");
}

pub(crate) async fn an_account_and_a_login_count_as_one_approver(kept: &Kept) {
    let desk = desk(&kept.store);
    let two = Approval { approvers: 2, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", two)], (1, 1))).await;
    // Ann on the command line, and then ann on the web page: nothing tells that these are two.
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    let alone = desk.approve(&browser("ann", "dba"), waits.id(), None).await.unwrap();
    assert_eq!((alone.state, alone.agreed.len()), (State::Waiting, 2));
    let approved = desk.approve(&browser("bob", "dba"), waits.id(), None).await.unwrap();
    assert_eq!(approved.state, State::Approved);
}

pub(crate) async fn accounts_are_told_apart_where_a_login_is_not(kept: &Kept) {
    let desk = desk(&kept.store);
    let two = Approval { approvers: 2, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", two)], (1, 1))).await;
    desk.approve(&browser("bob", "dba"), waits.id(), None).await.unwrap();
    let account = desk.approve(&ann(), waits.id(), None).await.unwrap();
    assert_eq!(account.state, State::Waiting);
    let approved = desk.approve(&member(2001, "carol", "dba"), waits.id(), None).await.unwrap();
    assert_eq!(approved.state, State::Approved);
}

/// A login of whom the issuer says whose account it is.
fn named(subject: &str, account: &str) -> Person {
    let mut person = browser(subject, "dba");
    let tied = |identity: &Identity| Identity { account: Some(account.into()), ..identity.clone() };
    person.identities = person.identities.iter().map(tied).collect();
    person
}

pub(crate) async fn an_account_whose_name_cannot_be_told_may_be_that_of_any_login(kept: &Kept) {
    let desk = desk(&kept.store);
    let asked_by = |number: u8, nameless: bool| {
        let mut asked = question("s", vec![held("ask", terms())], (number, number));
        asked.principal.process.uid = 900_003;
        asked.principal.process.user = None;
        asked.principal.process.nameless = nameless;
        asked
    };
    let waits = ask(&desk, asked_by(1, false)).await;
    let own = refused(desk.approve(&named("somebody", "ci"), waits.id(), None).await);
    assert!(matches!(own, Refused::MayBeTheirs(_)), "{own}");
    // Another account of the host is another, unless an issuer says whose it is, too.
    let tied = Person { identities: named("somebody", "ci").identities, ..ann() };
    assert!(matches!(refused(desk.approve(&tied, waits.id(), None).await), Refused::MayBeTheirs(_)));
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    // One that has none, as in a container, is nobody's.
    let waits = ask(&desk, asked_by(2, true)).await;
    desk.approve(&named("somebody", "ci"), waits.id(), None).await.unwrap();
    // Nor do the two count as two approvers.
    let two = Approval { approvers: 2, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", two)], (3, 3))).await;
    let untold = Person { user: None, ..member(2000, "ann", "dba") };
    desk.approve(&untold, waits.id(), None).await.unwrap();
    let again = refused(desk.approve(&named("ann-at-home", "ann"), waits.id(), None).await);
    assert!(matches!(again, Refused::MayBeTheirs(_)), "{again}");
}

pub(crate) async fn who_asks_from_an_account_does_not_answer_by_a_login_that_names_it(kept: &Kept) {
    let desk = desk(&kept.store);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    for account in ["ci", "CI", "1000"] {
        let own = refused(desk.approve(&named("somebody", account), waits.id(), None).await);
        assert!(matches!(own, Refused::OwnQuestion(_)), "{own}");
    }
    let two = Approval { approvers: 2, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", two)], (2, 2))).await;
    desk.approve(&ann(), waits.id(), None).await.unwrap();
    let again = refused(desk.approve(&named("ann-at-home", "ann"), waits.id(), None).await);
    assert!(matches!(again, Refused::Twice), "{again}");
    // Where the issuer says whose account it is, an account and a login are known to be two.
    let approved = desk.approve(&named("bob-at-home", "bob"), waits.id(), None).await.unwrap();
    assert_eq!(approved.state, State::Approved);
}

pub(crate) async fn an_issuer_is_one_by_whatever_name(kept: &Kept) {
    let desk = desk(&kept.store);
    let other = Approval {
        by: People { groups: vec!["dba".into()], issuer: Some("jobs".into()), ..People::default() },
        ..terms()
    };
    let mut asked = question("s", vec![held("ask", other)], (1, 1));
    asked.principal.identities = member(1000, "sub-1", "dev").identities;
    let waits = ask(&desk, asked).await;
    let mut own = browser("sub-1", "dba");
    let renamed = |identity: &Identity| Identity { issuer: "jobs".into(), ..identity.clone() };
    own.identities = own.identities.iter().map(renamed).collect();
    let refused = refused(desk.approve(&own, waits.id(), None).await);
    assert!(matches!(refused, Refused::OwnQuestion(_)), "{refused}");
}

pub(crate) async fn a_question_tells_nobody_what_its_masks_hide(kept: &Kept) {
    let desk = desk(&kept.store);
    let two = Approval { approvers: 2, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", two)], (1, 1))).await;
    let kept = kept.store.load(waits.id()).await.unwrap().unwrap();
    let kept_text = serde_json::to_value(&kept).unwrap();
    let shown = [
        desk.show(&ann(), waits.id()).await.unwrap(),
        desk.approve(&ann(), waits.id(), None).await.unwrap(),
        desk.list(&ann(), true, 10).await.unwrap().inquiries.remove(0),
    ];
    // Digests that such values went into would tell them to whoever tries them all.
    let digests = [&kept_text["exact"], &kept_text["terms"][0]["key"]];
    for (shown, whole) in shown.into_iter().zip([true, true, false]) {
        assert_eq!(
            shown.seal() == kept.seal(),
            whole,
            "an answer counts for the question as it is shown, whole"
        );
        let text = serde_json::to_string(&shown).unwrap();
        for digest in digests {
            assert!(!text.contains(digest.as_str().unwrap()), "{text}");
        }
    }
}

pub(crate) async fn every_rule_that_holds_must_be_met(kept: &Kept) {
    let desk = desk(&kept.store);
    let by_lead = People { groups: vec!["lead".into()], issuer: Some("acme".into()), ..People::default() };
    let lead = Approval { by: by_lead, ..terms() };
    let waits = ask(&desk, question("s", vec![held("a", terms()), held("b", lead)], (1, 1))).await;
    assert_eq!(desk.approve(&ann(), waits.id(), None).await.unwrap().state, State::Waiting);
    let approved = desk.approve(&member(2002, "sub-2", "lead"), waits.id(), None).await.unwrap();
    assert_eq!(approved.state, State::Approved);
}

pub(crate) async fn a_reason_is_asked_for_where_the_rule_says_so(kept: &Kept) {
    let desk = desk(&kept.store);
    let reasoned = Approval { reason: true, ..terms() };
    let waits = ask(&desk, question("s", vec![held("ask", reasoned)], (1, 1))).await;
    for none in [None, Some(""), Some("  ")] {
        assert_eq!(refused(desk.approve(&ann(), waits.id(), none).await), Refused::NoReason);
    }
    let forged = Some("fine\n2026-01-01 approved by root");
    assert_eq!(refused(desk.approve(&ann(), waits.id(), forged).await), Refused::BadReason);
    desk.approve(&ann(), waits.id(), Some("ticket 7")).await.unwrap();
}

pub(crate) async fn an_unanswered_question_expires(kept: &Kept) {
    let desk = desk(&kept.store);
    let brief = Approval { wait: Duration::from_millis(50), ..terms() };
    let mut waits = ask(&desk, question("s", vec![held("ask", brief)], (1, 1))).await;
    assert_eq!(end(&mut waits).await.unwrap_err(), "expired");
    let late = refused(desk.approve(&ann(), waits.id(), None).await).to_string();
    assert!(late.ends_with("is expired already"), "{late}");
    assert!(desk.list(&ann(), false, 10).await.unwrap().inquiries.is_empty());
}

pub(crate) async fn glass_is_broken_with_a_reason_and_reviewed_by_somebody_else(kept: &Kept) {
    let desk = desk(&kept.store);
    let asker = People { users: vec!["ci".into()], ..People::default() };
    let glass = Approval { break_glass: Some(asker), ..terms() };
    let plain = ask(&desk, question("s", vec![held("plain", terms())], (2, 2))).await;
    let ci = account(1000, "ci");
    assert!(matches!(refused(desk.break_glass(&ci, plain.id(), Some("fire")).await), Refused::NoGlass(_)));
    let mut waits = ask(&desk, question("s", vec![held("glass", glass)], (1, 1))).await;
    let id: Arc<str> = waits.id().clone();
    assert!(matches!(refused(desk.break_glass(&ann(), &id, Some("fire")).await), Refused::NoGlass(_)));
    assert_eq!(refused(desk.break_glass(&ci, &id, None).await), Refused::NoReason);
    assert!(desk.break_glass(&ci, &id, Some("fire")).await.unwrap().review_owed);
    let urgent = Step::Approved { by: "ci".into(), reason: Some("fire".into()), urgent: true };
    assert_eq!(next(&mut waits).await, urgent);
    assert!(matches!(refused(desk.review(&ci, &id, Some("fine")).await), Refused::OwnQuestion(_)));
    assert!(!desk.review(&ann(), &id, Some("was needed")).await.unwrap().review_owed);
    assert!(matches!(refused(desk.review(&ann(), &id, Some("again")).await), Refused::NothingOwed(_)));
}
