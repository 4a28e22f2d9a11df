//! Messages that arrive in parts: the network may cut them anywhere.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stage::*;
use crate::wire::frontend::Kind;

const READ: &str = "select card from customers";
const SHOWN: &str = "************1111";

/// What one side says, and what the other gets of it.
enum Step {
    Client(Vec<u8>, Vec<u8>),
    Server(Vec<u8>, Vec<u8>),
}

/// A masked query, a masked row by the extended flow, a copy and a refusal.
fn exchange() -> Vec<Step> {
    let extended =
        |described: &[u8]| [parse("", READ), bind("", ""), described.to_vec(), execute(""), sync()].concat();
    let portal = describe(Kind::Portal, "");
    let answer = |card: &str| [rows("card", &[card]), complete("SELECT 1"), ready()].concat();
    let bound = |described: &[u8], card: &str| {
        let begun = [acknowledged(b'1'), acknowledged(b'2'), described.to_vec()].concat();
        [begun, row(card), complete("SELECT 1"), ready()].concat()
    };
    let card = "4111111111111111";
    let copy = [copy_data("7\t4111111111111111\n"), copy_done()].concat();
    let same = |said: Vec<u8>| (said.clone(), said);
    let client = |(said, got)| Step::Client(said, got);
    let server = |(said, got)| Step::Server(said, got);
    vec![
        client(same(query(READ))),
        server((answer(card), answer(SHOWN))),
        client((extended(b""), extended(&portal))),
        server((bound(&described("card"), card), bound(b"", SHOWN))),
        client(same(query("copy customers from stdin"))),
        server(same(copies_in())),
        client(same(copy)),
        server(same([complete("COPY 1"), ready()].concat())),
        client((query("drop table customers"), query("refused_by_tidegate"))),
    ]
}

/// Says it in two parts, the second when the first has been read.
async fn say_cut(from: &mut TcpStream, said: &[u8], at: usize) {
    let (first, rest) = said.split_at(at);
    if !first.is_empty() {
        from.write_all(first).await.unwrap();
        // With nothing else to do the runtime comes to the session before this is over.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    from.write_all(rest).await.unwrap();
}

async fn get(who: &str, to: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    within(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(got.escape_ascii().to_string(), wanted.escape_ascii().to_string(), "{who}");
}

/// Runs the exchange; the step of this number is cut there.
async fn runs(stage: &mut Stage, cut: Option<(usize, usize)>) {
    for (number, step) in exchange().into_iter().enumerate() {
        let at = cut.filter(|(of, _)| *of == number).map_or(0, |(_, at)| at);
        let who = format!("step {number}, cut at {at}");
        match step {
            Step::Client(said, got) => {
                say_cut(&mut stage.rig.client, &said, at).await;
                get(&who, &mut stage.server, &got).await;
            }
            Step::Server(said, got) => {
                say_cut(&mut stage.server, &said, at).await;
                get(&who, &mut stage.rig.client, &got).await;
            }
        }
    }
    stage.answer(&[error("42601"), ready()].concat()).await;
    stage.client_gets_error("42501").await;
    stage.client_gets(&ready()).await;
}

/// What the record says, without what is another number or time each time.
fn recorded(stage: &Stage, from: usize) -> Vec<(String, String, String, u64)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lines = stage.rig.memory.lines();
    let lines = lines.iter().skip(from);
    lines
        .map(|line| {
            (
                text(&line["text"]),
                text(&line["decision"]),
                text(&line["outcome"]),
                line["rows"].as_u64().unwrap_or(0),
            )
        })
        .collect()
}

#[tokio::test]
async fn messages_cut_anywhere_come_through_and_are_recorded_as_if_they_were_whole() {
    let mut stage = Stage::open().await;
    stage.rig.client.set_nodelay(true).unwrap();
    stage.server.set_nodelay(true).unwrap();
    let begun = stage.rig.memory.lines().len();
    runs(&mut stage, None).await;
    let whole = recorded(&stage, begun);
    assert_eq!(whole.iter().filter(|(_, decision, ..)| !decision.is_empty()).count(), 4, "{whole:?}");
    for (number, step) in exchange().iter().enumerate() {
        let (Step::Client(said, _) | Step::Server(said, _)) = step;
        for at in 1..said.len() {
            let begun = stage.rig.memory.lines().len();
            runs(&mut stage, Some((number, at))).await;
            assert_eq!(recorded(&stage, begun), whole, "step {number}, cut at {at}");
        }
    }
    stage.leaves().await;
}
