//! Clients that break the protocol, in every state.

use tidegate_gate::ServeError;

use super::stage::*;
use crate::wire::frontend::Kind;

/// Where a session is when the client misbehaves.
#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    InPipeline,
    CopyingIn,
    Waiting,
}

const STATES: [State; 4] = [State::Idle, State::InPipeline, State::CopyingIn, State::Waiting];

async fn stage_in(state: State) -> Stage {
    let mut stage = Stage::open().await;
    match state {
        State::Idle => {}
        State::InPipeline => {
            stage.say(&parse("s", "select 1")).await;
            stage.server_gets(&parse("s", "select 1")).await;
        }
        State::CopyingIn => {
            stage.say(&query("copy customers from stdin")).await;
            stage.server_gets(&query("copy customers from stdin")).await;
            stage.answer(&copies_in()).await;
            stage.client_gets(&copies_in()).await;
        }
        State::Waiting => {
            stage.say(&query("select 1")).await;
            stage.server_gets(&query("select 1")).await;
        }
    }
    stage
}

#[tokio::test]
async fn messages_that_cannot_be_end_the_session_in_any_state() {
    let garbage: [&[u8]; 7] = [
        b"\0\0\0\0\0\0\0\0",
        b"Q\0\0\0\x03",
        b"S\xff\xff\xff\xff",
        b"Z\0\0\0\x05I",
        b"\x16\x03\x01\x02\0\x01",
        b"p\0\0\0\x08abc\0",
        b"D\0\0\x80\0",
    ];
    for state in STATES {
        for bytes in garbage {
            let mut stage = stage_in(state).await;
            stage.say(bytes).await;
            let ended = stage.ends().await;
            ended.with("08P01");
            assert!(matches!(ended.result, Err(ServeError::Client(_))), "{state:?} {}", bytes.escape_ascii());
        }
    }
}

#[tokio::test]
async fn malformed_bodies_end_the_session_and_never_reach_the_server() {
    for bytes in [
        message(b'Q', b"select 1"),
        message(b'Q', b"select 1\0; drop table t\0"),
        message(b'P', b"s\0select 1\0"),
        message(b'P', b"s\0select 1\0\0\x05"),
        message(b'E', b"\0\0\0"),
        message(b'D', b"X\0"),
        message(b'C', b"Sname"),
        message(b'S', b"x"),
        message(b'H', b"x"),
        message(b'B', b"no end"),
        message(b'F', b"\0\0"),
    ] {
        let mut stage = Stage::open().await;
        stage.say(&bytes).await;
        stage.ends().await.with("08P01");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing_of_it() {
    for part in [&query("select 1")[..4], &query("select 1")[..9], b"Q\x3f\xff\xff\xff", b"X\0\0\x20\0"] {
        let mut stage = Stage::open().await;
        stage.say(part).await;
        tokio::io::AsyncWriteExt::shutdown(&mut stage.rig.client).await.unwrap();
        let ended = stage.ends().await;
        assert_eq!(
            ended.server,
            if part[0] == b'Q' && part[1] == 0x3f { refused_query() } else { terminate() }
        );
    }
}

/// What a server gets of a query that is too long: a stand-in, fetched and left.
fn refused_query() -> Vec<u8> {
    [query("refused_by_tidegate"), terminate()].concat()
}

#[tokio::test]
async fn a_terminate_of_any_length_is_a_goodbye() {
    for goodbye in [terminate(), message(b'X', b"and more"), b"X\x3f\xff\xff\xff".to_vec()] {
        let mut stage = Stage::open().await;
        stage.say(&goodbye).await;
        let ended = stage.ends().await;
        assert!(ended.result.is_ok());
        assert_eq!(ended.server, terminate());
    }
}

#[tokio::test]
async fn a_statement_longer_than_is_read_is_refused_and_its_bytes_are_dropped() {
    let long = "x".repeat(100_000);
    for (sent, standin) in [
        (query(&long), query("refused_by_tidegate")),
        (message(b'F', long.as_bytes()), query("refused_by_tidegate")),
        (
            [parse("", &long), sync()].concat(),
            [parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat(),
        ),
    ] {
        let mut stage = Stage::open().await;
        stage.say(&sent).await;
        stage.server_gets(&standin).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error("54000").await;
        stage.client_gets(&ready()).await;
        stage.still_works().await;
    }
}

#[tokio::test]
async fn copy_messages_outside_of_a_copy_are_dropped() {
    let mut stage = Stage::open().await;
    stage.say(&[copy_data("4111"), copy_done(), copy_fail()].concat()).await;
    stage.still_works().await;
    stage.leaves().await;
}

#[tokio::test]
async fn names_that_nothing_bears_are_refused_without_being_sent() {
    for (sent, sqlstate) in [(bind("", "none"), "26000"), (execute("none"), "34000")] {
        let mut stage = Stage::open().await;
        stage.say(&[sent, execute(""), query("select 1"), sync()].concat()).await;
        stage.server_gets(&[parse("refused_by_tidegate", "refused_by_tidegate"), sync()].concat()).await;
        stage.answer(&[error("42601"), ready()].concat()).await;
        stage.client_gets_error(sqlstate).await;
        stage.client_gets(&ready()).await;
        stage.still_works().await;
    }
}

#[tokio::test]
async fn after_an_error_the_rest_of_a_pipeline_is_dropped_whenever_it_comes() {
    let mut stage = Stage::open().await;
    stage.say(&[parse("", "select nothing"), flush()].concat()).await;
    stage.server_gets(&[parse("", "select nothing"), flush()].concat()).await;
    stage.answer(&error("42703")).await;
    stage.client_gets_error("42703").await;
    let rest = [bind("", ""), describe(Kind::Portal, ""), execute(""), query("drop table t"), copy_data("x")]
        .concat();
    stage.say(&[rest, sync()].concat()).await;
    stage.server_gets(&sync()).await;
    stage.answer(&ready()).await;
    stage.client_gets(&ready()).await;
    stage.still_works().await;
    stage.leaves().await;
}
