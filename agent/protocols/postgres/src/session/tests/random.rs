//! Any mixture of messages from both sides, whole and damaged.

use proptest::{collection::vec, prelude::*, sample::select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::*;
use crate::wire::{self, frontend::Kind};

fn asked() -> Vec<Vec<u8>> {
    vec![
        query("select 1"),
        query("select card from customers"),
        query("drop table customers"),
        query("copy customers from stdin"),
        query("copy customers (card) to stdout"),
        query("prepare s as select card from customers; select 1/0"),
        query("execute s"),
        query(""),
        parse("s", "select card from customers"),
        parse("", "select 1"),
        bind("", "s"),
        bind("p", ""),
        execute(""),
        execute("p"),
        describe(Kind::Portal, ""),
        describe(Kind::Statement, "s"),
        close(Kind::Statement, "s"),
        sync(),
        flush(),
        copy_data("x"),
        copy_done(),
        copy_fail(),
        message(b'F', &[0; 10]),
        message(b'!', b"?"),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let mut answers: Vec<_> = b"123nsIc".iter().map(|tag| acknowledged(*tag)).collect();
    answers.extend([
        ready(),
        complete("SELECT 1"),
        complete("COPY 1"),
        error("22012"),
        fatal("57P01"),
        described("card"),
        [described("card"), row("x"), complete("SELECT 1"), ready()].concat(),
        row("x"),
        copies_in(),
        message(b'H', b"\0\0\x01\0\0"),
        message(b't', b"\0\0"),
        message(b'A', b"\0\0\0\x07news\0today\0"),
        message(b'S', b"DateStyle\0ISO\0"),
    ]);
    answers
}

/// Now and then a byte of a message is another one, or its end is missing.
fn damaged(messages: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (select(messages), any::<u8>(), any::<prop::sample::Index>(), 0..20u8).prop_map(
        |(mut message, byte, at, how)| {
            let at = at.index(message.len());
            match how {
                0 => message[at] = byte,
                1 => message.truncate(at),
                _ => {}
            }
            message
        },
    )
}

fn either() -> impl Strategy<Value = (bool, Vec<u8>)> {
    prop_oneof![
        damaged(asked()).prop_map(|bytes| (true, bytes)),
        damaged(answers()).prop_map(|bytes| (false, bytes)),
    ]
}

/// Both sides say what they say, then leave. The session ends without a panic, its record is closed once and says of
/// every permitted action how it ended, and the server never got a statement that is not allowed.
async fn ends_in_order(script: Vec<(bool, Vec<u8>)>) {
    let mut stage = Stage::open().await;
    let (client_reads, client) = stage.rig.client.split();
    let (server_reads, server) = stage.server.split();
    let (mut shown, mut got) = (Vec::new(), Vec::new());
    let talking = async move {
        let (mut client, mut server) = (client, server);
        for (from_client, bytes) in script {
            // The session may be over by now: that is for the end to judge.
            let _ = match from_client {
                true => client.write_all(&bytes).await,
                false => server.write_all(&bytes).await,
            };
            tokio::task::yield_now().await;
        }
        let _ = tokio::join!(client.shutdown(), server.shutdown());
    };
    let (mut client_reads, mut server_reads) = (client_reads, server_reads);
    let everything = async {
        tokio::join!(talking, client_reads.read_to_end(&mut shown), server_reads.read_to_end(&mut got))
    };
    drop(within(everything).await);
    let statements = messages(&got).filter(|message| matches!(message.first(), Some(b'Q' | b'P')));
    assert_eq!(statements.filter(|message| contains(message, b"drop table")).count(), 0);
    let lines = stage.ends().await.memory.lines();
    let permitted = lines.iter().filter(|line| line["type"] == "action" && line["decision"] == "allow");
    let outcomes = lines.iter().filter(|line| line["type"] == "outcome");
    assert_eq!(permitted.count(), outcomes.count());
}

/// The messages one after the other; the last may be cut off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = wire::header(bytes).ok()??;
        let (message, rest) = bytes.split_at(header.size().min(bytes.len()));
        bytes = rest;
        Some(message)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_talk_ends_in_order(script in vec(either(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ends_in_order(script));
    }
}
