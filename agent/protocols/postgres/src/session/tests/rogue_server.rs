//! Servers that break the protocol, in every state.

use tidegate_gate::ServeError;
use tokio::io::AsyncWriteExt;

use super::stage::*;
use crate::wire::{ErrorFields, HEADER_BYTES, frontend::Kind, write};

async fn stage_after(sent: &[u8]) -> Stage {
    let mut stage = Stage::open().await;
    stage.say(sent).await;
    stage.server_gets(sent).await;
    stage
}

async fn ends_the_session(mut stage: Stage, answer: &[u8]) {
    stage.answer(answer).await;
    let ended = stage.ends().await;
    ended.with("08006");
    assert!(matches!(ended.result, Err(ServeError::Upstream(_))), "{:?}", ended.result);
}

#[tokio::test]
async fn readiness_for_a_query_that_was_not_answered_ends_the_session() {
    ends_the_session(stage_after(&query("select 1")).await, &ready()).await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_session() {
    for answer in [
        ready(),
        error("42601"),
        complete("SELECT 1"),
        described("one"),
        row("1"),
        copies_in(),
        acknowledged(b'1'),
        acknowledged(b'2'),
        acknowledged(b'3'),
        acknowledged(b'n'),
        acknowledged(b's'),
        acknowledged(b'I'),
        acknowledged(b'c'),
        message(b't', b"\0\0"),
        message(b'V', b"\xff\xff\xff\xff"),
        message(b'H', b"\0\0\0"),
        message(b'W', b"\0\0\0"),
        message(b'd', b"1"),
        message(b'K', b"\0\0\0\0\0\0\0\0"),
        message(b'R', b"\0\0\0\0"),
        message(b'!', b""),
    ] {
        ends_the_session(Stage::open().await, &answer).await;
    }
}

#[tokio::test]
async fn an_answer_out_of_order_ends_the_session() {
    for (sent, answer) in [
        (query("select 1"), acknowledged(b'1')),
        (query("select 1"), copies_in()),
        (query("select 1"), message(b'V', b"\xff\xff\xff\xff")),
        (parse("", "select 1"), acknowledged(b'2')),
        (parse("", "select 1"), ready()),
        (parse("", "select 1"), message(b't', b"\0\0")),
        (sync(), complete("SELECT 1")),
        (sync(), row("1")),
        (query("select 1"), message(b'Z', b"?")),
        (query("select 1"), message(b'Z', b"")),
        (query("select 1"), message(b'C', b"unterminated")),
        (query("select 1"), message(b'E', b"garbage")),
        (query("select 1"), message(b'S', b"name")),
        (query("select 1"), message(b'A', b"")),
        (query("select 1"), b"C\0\0\0\0".to_vec()),
        (query("select 1"), b"D\xff\xff\xff\xff".to_vec()),
        (query("select card from customers"), message(b'T', b"\xff\xff")),
        (query("select card from customers"), [described("card"), message(b'D', b"\0\x02\0\0")].concat()),
    ] {
        ends_the_session_saying(stage_after(&sent).await, &answer).await;
    }
}

/// The same, where the client may have heard something of the answer before.
async fn ends_the_session_saying(mut stage: Stage, answer: &[u8]) {
    stage.answer(answer).await;
    let ended = stage.ends().await;
    assert!(
        contains(&ended.client, b"C08006\0"),
        "{}: {}",
        answer.escape_ascii(),
        ended.client.escape_ascii()
    );
    assert!(matches!(ended.result, Err(ServeError::Upstream(_))), "{:?}", ended.result);
    assert_eq!(ended.server, terminate());
}

#[tokio::test]
async fn ready_twice_ends_the_session_on_the_second() {
    let mut stage = stage_after(&query("")).await;
    stage.answer(&[acknowledged(b'I'), ready()].concat()).await;
    stage.client_gets(&[acknowledged(b'I'), ready()].concat()).await;
    ends_the_session(stage, &ready()).await;
}

#[tokio::test]
async fn an_answer_cut_off_by_the_servers_end_is_followed_by_nothing_it_could_be_taken_for() {
    let mut stage = stage_after(&query("select 1")).await;
    stage.answer(&[described("one"), row("a long value")[..9].to_vec()].concat()).await;
    stage.server.shutdown().await.unwrap();
    let ended = stage.ends().await;
    let shown = [described("one"), row("a long value")[..9].to_vec()].concat();
    assert_eq!(ended.client.escape_ascii().to_string(), shown.escape_ascii().to_string());
    assert_eq!(outcomes(&ended.memory), ["done", "aborted"]);
}

#[tokio::test]
async fn a_server_that_resets_in_mid_result_is_explained_to_the_client_and_leaves_the_action_aborted() {
    let mut stage = stage_after(&query("select 1")).await;
    let shown = [described("one"), row("first"), row("second")].concat();
    stage.answer(&shown).await;
    stage.client_gets(&shown).await;
    stage.reset().await;
    let ended = stage.ends().await;
    ended.told("08006");
    assert_eq!(outcomes(&ended.memory), ["done", "aborted"]);
}

#[tokio::test]
async fn a_server_that_closes_without_a_word_is_explained_to_the_client() {
    let mut stage = stage_after(&query("select 1")).await;
    stage.server.shutdown().await.unwrap();
    stage.ends().await.with("08006");
}

#[tokio::test]
async fn a_servers_own_last_words_are_the_last_that_the_client_hears() {
    for sent in [sync(), query("select 1"), run("select 1")] {
        let mut stage = stage_after(&sent).await;
        stage.answer(&fatal("57P01")).await;
        stage.server.shutdown().await.unwrap();
        let ended = stage.ends().await;
        ended.with("57P01");
        assert!(matches!(ended.result, Err(ServeError::Upstream(_))));
    }
}

#[tokio::test]
async fn a_setting_that_changes_how_statements_are_read_ends_the_session() {
    let stage = stage_after(&query("select 1")).await;
    ends_the_session(stage, &message(b'S', b"standard_conforming_strings\0off\0")).await;
    let stage = stage_after(&query("select 1")).await;
    ends_the_session(stage, &message(b'S', b"client_encoding\0SJIS\0")).await;
}

#[tokio::test]
async fn notices_notifications_and_settings_pass_in_any_state() {
    let mut stage = Stage::open_under(&by_content()).await;
    let news = [message(b'A', b"\0\0\0\x07news\0today\0"), message(b'S', b"DateStyle\0ISO\0")].concat();
    stage.answer(&news).await;
    stage.client_gets(&news).await;
    stage.say(&query("select 1")).await;
    stage.server_gets(&query("select 1")).await;
    stage.answer(&news).await;
    stage.client_gets(&news).await;
    stage.answer(&[complete("SELECT 0"), ready()].concat()).await;
    stage.client_gets(&[complete("SELECT 0"), ready()].concat()).await;
    stage.leaves().await;
}

/// What the server tells of on its own: a notification with this payload.
fn notified(payload: &str) -> Vec<u8> {
    message(b'A', format!("\0\0\0\x07news\0{payload}\0").as_bytes())
}

#[tokio::test]
async fn a_notification_shows_nothing_of_its_payload_where_columns_are_masked() {
    let mut stage = Stage::open().await;
    stage.answer(&notified(r#"{"id":1,"card":"4111111111111111"}"#)).await;
    stage.client_gets(&notified("***")).await;
    stage.say(&query("listen news")).await;
    stage.server_gets(&query("listen news")).await;
    stage.answer(&[complete("LISTEN"), notified("one"), notified(""), ready()].concat()).await;
    stage.client_gets(&[complete("LISTEN"), notified("***"), notified(""), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_the_server_says_during_the_sign_in_is_shown_under_the_masks() {
    let raised = message(b'N', b"SNOTICE\0C00000\0Mada@example.com was here\0Rexec_stmt_raise\0\0");
    for (bundle, shown) in [(by_content(), "[masked] was here"), (BUNDLE.to_owned(), "is withheld")] {
        let (mut rig, listener) = Stage::arrive(&bundle).await;
        let _server = Stage::greet(&listener, &[raised.clone(), greeting()].concat()).await;
        let heard = read_until_ready(&mut rig.client).await;
        let notice = &heard.iter().find(|(kind, _)| *kind == b'N').unwrap().1;
        let text = String::from_utf8_lossy(notice);
        assert!(text.contains(shown) && !text.contains("ada@"), "{text}");

        let (mut rig, listener) = Stage::arrive(&bundle).await;
        let error = message(b'E', &[b"VFATAL\0", &raised[HEADER_BYTES..]].concat());
        let _server = Stage::greet(&listener, &error).await;
        let (_, error) = next_message(&mut rig.client).await;
        let text = String::from_utf8_lossy(&error);
        assert!(text.contains(shown) && !text.contains("ada@"), "{text}");
    }
}

#[tokio::test]
async fn content_masks_of_any_rule_apply_to_a_notification_whatever_ran_last() {
    let rules = r#"
  - name: read
    subjects: [tester]
    resources: [it]
    allow: [{statement: select, access: read}]
    masks: [cards]
"#;
    let bundle = by_content().replace("    masks: [cards]\n", "");
    let mut stage = Stage::open_under(&(bundle + rules)).await;
    stage.answer(&notified("write to ann@example.com")).await;
    stage.client_gets(&notified("write to [masked]")).await;
    stage.say(&query("listen news")).await;
    stage.server_gets(&query("listen news")).await;
    stage.answer(&[complete("LISTEN"), notified("ann@example.com"), ready()].concat()).await;
    stage.client_gets(&[complete("LISTEN"), notified("[masked]"), ready()].concat()).await;
    stage.leaves().await;
}

#[tokio::test]
async fn what_is_said_while_a_statement_is_planned_is_shown_under_every_mask() {
    const NUMBER: &str = "4111111111111111";
    let raised = |severity: &'static str| {
        ErrorFields::new(severity, "P0001", NUMBER)
            .with(b'W', "PL/pgSQL function tell(integer) line 1 at RAISE")
            .with(b'F', "pl_exec.c")
            .with(b'R', "exec_stmt_raise")
    };
    let notice = said(|out| write::notice_response(out, &raised("NOTICE")));
    let error = said(|out| write::error_response(out, &raised("ERROR")));
    let parsed = acknowledged(b'1');
    for (asked, before) in [
        (parse("", "select 1"), Vec::new()),
        ([parse("", "select 1"), bind("", "")].concat(), parsed.clone()),
        ([parse("", "select 1"), describe(Kind::Statement, "")].concat(), parsed),
    ] {
        let mut stage = stage_after(&[asked, sync()].concat()).await;
        stage.answer(&[before.clone(), notice.clone(), error.clone(), ready()].concat()).await;
        let heard = read_until_ready(&mut stage.rig.client).await;
        let told: Vec<_> = heard.iter().filter(|(kind, _)| matches!(kind, b'N' | b'E')).collect();
        assert!(
            told.len() == 2 && told.iter().all(|(_, body)| !contains(body, NUMBER.as_bytes())),
            "{heard:?}"
        );
    }
}
