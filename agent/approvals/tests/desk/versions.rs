//! Stores that another version of the agent made.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_approvals::{Audience, Desk, State, Told};
use tidegate_gate::policy::{Approval, Scope, Sessions};

use crate::common::{Kept, LIMITS, Says as _, ann, ask, end, held, is_known, question, settled, terms};

/// What makes a store of version 1 of one of version 2, but for what only a fleet's has.
const BACK: &str = "\
    drop table tidegate_schema;
    delete from tidegate_question_keys where key not in (select key from tidegate_question_keys as keys
        join tidegate_questions as questions on questions.id = keys.inquiry
        where questions.body like '%' || keys.key || '%');
    update tidegate_questions set principal = 'of the account and its identities';
    update tidegate_letters set principal = 'of the account and its identities';
    alter table tidegate_questions drop column answered;
    alter table tidegate_letters drop column answered;
    alter table tidegate_letters drop column event;
    drop table tidegate_renewal;";
const BACK_OF_A_FLEET: &str = "\
    drop trigger tidegate_question_changed on tidegate_questions;
    drop function tidegate_question_changed;
    alter table tidegate_questions drop column changed;";

async fn go_back(kept: &Kept) {
    kept.run(BACK).await;
    if kept.is_shared() {
        kept.run(BACK_OF_A_FLEET).await;
    }
}

fn telling(store: &std::sync::Arc<dyn tidegate_approvals::store::Store>) -> Desk {
    let audience = Audience { hooks: vec![("ops".into(), Told::ALL.to_vec())], page: None };
    Desk::open("host", store.clone(), LIMITS, audience)
}

pub(crate) async fn an_upgrade_loses_no_question_no_yes_and_no_letter(kept: &Kept) {
    let before = telling(&kept.store);
    let asked = |number: u8| question("s", vec![held("ask", terms())], (number, number));
    let sessions = Sessions::Any;
    let lasting =
        Approval { scope: Scope::Shape, grant: Some(Duration::from_secs(600)), sessions, ..terms() };
    let granted = || question("s", vec![held("grant", lasting.clone())], (9, 9));
    let standing = ask(&before, asked(1)).await.id().clone();
    let denied = ask(&before, asked(2)).await.id().clone();
    before.deny(&ann(), &denied, Some("not today")).await.unwrap();
    let mut waits = ask(&before, granted()).await;
    before.approve(&ann(), waits.id(), None).await.unwrap();
    end(&mut waits).await.unwrap();
    drop((before, waits));
    go_back(kept).await;

    let store = kept.open().await.unwrap();
    let after = telling(&store);
    let listed = after.list(&ann(), true, 9).await.unwrap().inquiries;
    assert_eq!(listed.len(), 3);
    assert!(is_known(&after, granted()).await, "the yes counts no more");
    let waits = ask(&after, asked(1)).await;
    assert_eq!(*waits.id(), standing, "what was left standing is asked anew");
    // As if it had been of this version from the beginning: what people answered stays, and what was not told is taken back.
    let later = Timestamp::now() + Duration::from_secs(3600);
    store.forget("host", later, Timestamp::MIN, 0).await.unwrap();
    assert_eq!(store.load(&denied).await.unwrap().unwrap().state, State::Denied);
    let told = async || {
        let letters = store.letters("host", "ops", Timestamp::now(), 99).await.unwrap();
        let mut told: Vec<_> = letters.into_iter().map(|letter| (letter.event, letter.answered)).collect();
        told.sort_unstable();
        told
    };
    let event = |event: &str, answered| (event.to_owned(), answered);
    let asked_thrice = [event("asked", false), event("asked", false), event("asked", false)];
    let answers = [event("approved", true), event("denied", true)];
    assert_eq!(told().await, [&answers[..1], &asked_thrice, &answers[1..]].concat());
    // The store forgot what nobody answered.
    assert!(store.load(&standing).await.unwrap().is_none());
    drop(waits);
}

pub(crate) async fn an_upgrade_of_many_questions_goes_on_where_it_was_cut_off(kept: &Kept) {
    let before = telling(&kept.store);
    let asked = |number: u32| {
        let mut asked = question("s", vec![held("ask", terms())], (0, 0));
        asked.exact[..4].copy_from_slice(&number.to_le_bytes());
        asked
    };
    let mut ids = Vec::new();
    for number in 0..210 {
        ids.push(ask(&before, asked(number)).await.id().clone());
    }
    drop(before);
    go_back(kept).await;
    let damaged = ids.pop().unwrap();
    kept.run(&format!("update tidegate_questions set body = '{{' where id = '{damaged}'")).await;
    drop(kept.open().await.unwrap());
    // As if the agent had ended after the first.
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let (first, last) = (&sorted[0], &sorted[sorted.len() - 1]);
    kept.run(&format!(
        "insert into tidegate_renewal (what, after) values ('questions', '{first}');
         update tidegate_questions set principal = 'of before' where id in ('{first}', '{last}')"
    ))
    .await;
    let after = telling(&kept.open().await.unwrap());
    for (number, id) in (0..).zip(&ids) {
        assert_eq!(ask(&after, asked(number)).await.id(), id, "what was left standing is asked anew");
    }
    kept.run(&format!(
        "create table as_expected as select 1 as one from tidegate_questions where id = '{first}' and principal = 'of before';
         insert into as_expected select 1 from tidegate_questions where id = '{last}' and principal <> 'of before';
         create table two (id integer primary key, twice integer not null);
         insert into two select 1, case when count(*) = 2 then 2 end from as_expected"
    ))
    .await;
}

pub(crate) async fn a_store_of_this_version_is_opened_again_as_it_is(kept: &Kept) {
    let desk = telling(&kept.store);
    let waits = ask(&desk, question("s", vec![held("ask", terms())], (1, 1))).await;
    let id = waits.id().clone();
    let again = kept.open().await.unwrap();
    assert_eq!(again.load(&id).await.unwrap(), kept.store.load(&id).await.unwrap());
    waits.withdraw("cancelled");
    settled(&desk, &id).await;
}

pub(crate) async fn a_store_of_a_later_agent_is_left_alone(kept: &Kept) {
    kept.run("update tidegate_schema set version = 3").await;
    let refused = kept.open().await.err().unwrap().to_string();
    assert!(refused.contains("version 3, and this agent knows 2: run the agent that made them"), "{refused}");
}
