//! A yes counts for what the same bytes stand for, and so for the session's own settings.

use tidegate_gate::Question;

use super::{
    holding::{DELETE, holding, told},
    stage::*,
};
use crate::wire::backend::TransactionStatus::{self, Failed, Idle, Transaction};

/// A session, and how many questions it has put.
struct Asker {
    stage: Stage,
    asked: usize,
}

impl Asker {
    async fn open() -> Self {
        let bundle = holding().replace("insert, create]", "insert, create, set-role, do]");
        Self { stage: Stage::open_under(&bundle).await, asked: 0 }
    }

    /// It says this, and the server does it.
    async fn says(&mut self, text: &str, tag: &str, status: TransactionStatus) {
        self.stage.say(&query(text)).await;
        self.stage.server_gets(&query(text)).await;
        let answer = [complete(tag), ready_in(status)].concat();
        self.stage.answer(&answer).await;
        self.stage.client_gets(&answer).await;
    }

    /// The server fails this.
    async fn fails(&mut self, text: &str, status: TransactionStatus) {
        self.stage.say(&query(text)).await;
        self.stage.server_gets(&query(text)).await;
        self.stage.answer(&[error("22012"), ready_in(status)].concat()).await;
        self.stage.client_gets(&[error("22012"), ready_in(status)].concat()).await;
    }

    /// What is asked when it would delete.
    async fn deletes(&mut self, status: TransactionStatus) -> Question {
        self.stage.say(&query(DELETE)).await;
        self.asked += 1;
        let question = told(&mut self.stage, self.asked).await;
        self.stage.rig.people.approve(&format!("q{}", self.asked));
        self.stage.server_gets(&query(DELETE)).await;
        let answer = [complete("DELETE 1"), ready_in(status)].concat();
        self.stage.answer(&answer).await;
        self.stage.client_gets(&answer).await;
        question
    }
}

/// What a session is asked after these texts, each of which the server completes by itself.
async fn after(texts: &[&str]) -> Question {
    let mut asker = Asker::open().await;
    for text in texts {
        asker.says(text, "SET", Idle).await;
    }
    asker.deletes(Idle).await
}

fn session(question: &Question) -> Vec<&str> {
    let own = question.particulars.iter().filter(|(name, _)| name == "session");
    own.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn the_same_bytes_under_another_search_path_ask_again() {
    let mut asker = Asker::open().await;
    asker.says("set search_path = scratch", "SET", Idle).await;
    let question = asker.deletes(Idle).await;
    assert_eq!(session(&question), ["set search_path = scratch"]);
    asker.stage.rig.people.grant(&question);
    asker.says("set search_path = store", "SET", Idle).await;
    let other = asker.deletes(Idle).await;
    assert_eq!(session(&other), ["set search_path = store"]);
    assert_ne!(question.exact, other.exact);
}

#[tokio::test]
async fn sessions_that_set_the_same_ask_the_same() {
    let texts = ["set datestyle = 'ISO'", "set role app", "create temp table other (id int)"];
    assert_eq!(after(&texts).await.exact, after(&texts).await.exact);
    let plain = after(&[]).await;
    for text in texts {
        let question = after(&[text]).await;
        assert_eq!(session(&question), [text]);
        assert_ne!(question.exact, plain.exact, "{text}");
    }
}

#[tokio::test]
async fn what_is_set_again_is_the_same() {
    let set = "set search_path = scratch";
    assert_eq!(after(&[set, set]).await.exact, after(&[set]).await.exact);
    let there_and_back = after(&[set, "set search_path = store", set]).await;
    assert_eq!(there_and_back.exact, after(&[set]).await.exact);
}

#[tokio::test]
async fn settings_that_change_nothing_about_what_runs_are_no_part_of_a_question() {
    let texts =
        ["set application_name = 'a'", "set statement_timeout = '5s'", "set client_encoding = 'UTF8'"];
    let question = after(&texts).await;
    assert_eq!(session(&question), [""; 0]);
    assert_eq!(question.exact, after(&[]).await.exact);
}

#[tokio::test]
async fn what_was_set_and_rolled_back_is_not_what_was_set() {
    let set = "set search_path = scratch";
    let committed = after(&[set]).await;
    let mut rolled_back = Asker::open().await;
    rolled_back.says("begin", "BEGIN", Transaction).await;
    rolled_back.says(set, "SET", Transaction).await;
    rolled_back.says("rollback", "ROLLBACK", Idle).await;
    let undone = rolled_back.deletes(Idle).await;
    assert_ne!(undone.exact, committed.exact);
    assert_eq!(session(&undone).len(), 2);
    let mut failed = Asker::open().await;
    failed.says("begin", "BEGIN", Transaction).await;
    failed.says(set, "SET", Transaction).await;
    failed.fails("select 1/0", Failed).await;
    failed.says("commit", "ROLLBACK", Idle).await;
    assert_ne!(failed.deletes(Idle).await.exact, committed.exact);
    let mut at_once = Asker::open().await;
    at_once.fails(&format!("{set}; select 1/0"), Idle).await;
    let at_once = at_once.deletes(Idle).await;
    assert_ne!(at_once.exact, after(&[&format!("{set}; select 1/0")]).await.exact);
}

#[tokio::test]
async fn what_is_set_for_a_transaction_counts_to_its_end() {
    let mut asker = Asker::open().await;
    asker.says("begin", "BEGIN", Transaction).await;
    asker.says("set local search_path = scratch", "SET", Transaction).await;
    let within = asker.deletes(Transaction).await;
    assert_eq!(session(&within), ["set local search_path = scratch"]);
    asker.says("commit", "COMMIT", Idle).await;
    let behind = asker.deletes(Idle).await;
    assert_ne!(within.exact, behind.exact);
    assert_eq!(behind.exact, after(&[]).await.exact);
}

#[tokio::test]
async fn a_temporary_table_of_a_transaction_that_ended_is_not_one_of_an_open_one() {
    let mut asker = Asker::open().await;
    asker.says("begin", "BEGIN", Transaction).await;
    let create = "create temp table other (id int) on commit drop";
    asker.says(create, "CREATE TABLE", Transaction).await;
    let within = asker.deletes(Transaction).await;
    asker.says("commit", "COMMIT", Idle).await;
    assert_ne!(within.exact, asker.deletes(Idle).await.exact);
}

#[tokio::test]
async fn behind_code_that_may_have_changed_settings_the_same_is_asked_again() {
    let mut asker = Asker::open().await;
    let before = asker.deletes(Idle).await;
    asker.says("do 'begin end'", "DO", Idle).await;
    let once = asker.deletes(Idle).await;
    assert_eq!(session(&once).len(), 2);
    asker.says("do 'begin end'", "DO", Idle).await;
    let twice = asker.deletes(Idle).await;
    assert!(before.exact != once.exact && once.exact != twice.exact);
}

/// Whether it is refused after these texts without anybody being asked.
async fn is_refused_after(texts: &[&str]) -> bool {
    let mut asker = Asker::open().await;
    for text in texts {
        asker.says(text, "SET", Idle).await;
    }
    asker.stage.say(&query(DELETE)).await;
    asker.stage.server_gets(&query("refused_by_tidegate")).await;
    asker.stage.answer(&[error("42601"), ready()].concat()).await;
    asker.stage.client_gets_error("54000").await;
    asker.stage.rig.people.asked() == 0
}

#[tokio::test]
async fn of_a_setting_what_it_is_is_shown_however_often_it_was_set() {
    let texts: Vec<String> = (0..400).map(|number| format!("set my.number = {number}")).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.insert(0, "set search_path = store");
    let question = after(&texts).await;
    assert_eq!(session(&question), ["set search_path = store", "set my.number = 399"]);
    assert_eq!(question.exact, after(&[texts[0], texts[400]]).await.exact);
}

#[tokio::test]
async fn nothing_that_a_session_has_set_is_cut_off() {
    let padded = format!("set /* {} */ search_path = store", "tidy ".repeat(200));
    assert_eq!(session(&after(&[&padded]).await), [&padded]);
    let long = format!("set search_path = \"{}\", store", "a".repeat(9_000));
    assert!(is_refused_after(&[&long]).await);
    let many: Vec<String> = (0..64).map(|number| format!("set my.number{number} = 1")).collect();
    let many: Vec<&str> =
        ["set search_path = store"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert!(is_refused_after(&many).await);
    assert!(is_refused_after(&["set search_path = 'store' /* password = 'x' */"]).await);
}

#[tokio::test]
async fn who_discards_all_can_ask_again() {
    let long = format!("set search_path = \"{}\", store", "a".repeat(9_000));
    let question = after(&[&long, "discard all"]).await;
    assert_eq!(session(&question), [""; 0]);
    assert_eq!(question.exact, after(&[]).await.exact);
}

#[tokio::test]
async fn a_setting_that_may_have_been_rolled_back_overtakes_nothing() {
    let mut asker = Asker::open().await;
    asker.says("set search_path = store", "SET", Idle).await;
    asker.says("begin", "BEGIN", Transaction).await;
    asker.says("set search_path = scratch", "SET", Transaction).await;
    asker.says("rollback", "ROLLBACK", Idle).await;
    let question = asker.deletes(Idle).await;
    assert_eq!(session(&question)[..2], ["set search_path = store", "set search_path = scratch"]);
    asker.says("set search_path = other", "SET", Idle).await;
    assert_eq!(session(&asker.deletes(Idle).await)[0], "set search_path = other");
}

#[tokio::test]
async fn an_approver_is_told_which_relation_it_is() {
    let question = after(&[]).await;
    let does = question.particulars.iter().find(|(name, _)| name == "does").unwrap();
    assert!(does.1.contains("delete"), "{does:?}");
}

#[tokio::test]
async fn what_was_bound_before_a_setting_changed_must_be_bound_again() {
    let mut asker = Asker::open().await;
    asker.says("begin", "BEGIN", Transaction).await;
    let stage = &mut asker.stage;
    stage.say(&[parse("d", DELETE), bind("p", "d"), sync()].concat()).await;
    stage.server_gets(&[parse("d", DELETE), bind("p", "d"), sync()].concat()).await;
    let answer = [acknowledged(b'1'), acknowledged(b'2'), ready_in(Transaction)].concat();
    stage.answer(&answer).await;
    stage.client_gets(&answer).await;
    asker.says("set search_path = scratch", "SET", Transaction).await;
    asker.stage.say(&[execute("p"), sync()].concat()).await;
    asker.stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
    asker.stage.answer(&[error("42601"), ready_in(Failed)].concat()).await;
    asker.stage.client_gets_error("42501").await;
    assert_eq!(asker.stage.rig.people.asked(), 0);
}

#[tokio::test]
async fn what_was_prepared_before_a_setting_changed_is_like_nothing_else() {
    let mut exact = Vec::new();
    let set = "set datestyle = 'SQL, DMY'";
    for first in [true, false] {
        let mut asker = Asker::open().await;
        if first {
            asker.says(set, "SET", Idle).await;
        }
        let prepare = [parse("d", DELETE), sync()].concat();
        asker.stage.say(&prepare).await;
        asker.stage.server_gets(&prepare).await;
        asker.stage.answer(&[acknowledged(b'1'), ready()].concat()).await;
        asker.stage.client_gets(&[acknowledged(b'1'), ready()].concat()).await;
        if !first {
            asker.says(set, "SET", Idle).await;
        }
        asker.stage.say(&[bind("", "d"), execute(""), sync()].concat()).await;
        asker.stage.server_gets(&[bind("", "d"), flush()].concat()).await;
        asker.stage.answer(&acknowledged(b'2')).await;
        asker.stage.client_gets(&acknowledged(b'2')).await;
        let question = told(&mut asker.stage, 1).await;
        assert_eq!(question.particulars.iter().any(|(name, _)| name == "prepared"), !first);
        exact.push(question.exact);
    }
    assert_ne!(exact[0], exact[1]);
}
