//! Clients that ask for much and take nothing of it.

use std::{collections::HashMap, future::poll_fn, sync::LazyLock};

use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use super::stage::{PATIENCE, Reached, Stage};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
"#;

const MIB: usize = 1024 * 1024;
static ZEROS: [u8; 4 * MIB] = [0; 4 * MIB];

/// Sends everybody as much as it may, and tells over which connection, and how much that was.
async fn generous(listener: TcpListener, sent: mpsc::UnboundedSender<(usize, usize)>) {
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let sent = sent.clone();
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_send_buffer_size(ZEROS.len());
            let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                let sent = sent.clone();
                tokio::spawn(async move {
                    body.reserve_capacity(ZEROS.len());
                    while let Some(Ok(count)) = poll_fn(|context| body.poll_capacity(context)).await {
                        let count = count.min(ZEROS.len());
                        body.send_data(Bytes::from_static(&ZEROS[..count]), false).unwrap();
                        body.reserve_capacity(ZEROS.len());
                        let _ = sent.send((number, count));
                    }
                });
            }
        });
    }
}

#[tokio::test]
async fn what_no_client_takes_of_responses_is_a_bounded_part_of_them() {
    const CLIENTS: usize = 80;
    // As many as have ample windows, each with one response of their size; and what is left for each of the others.
    const LEAST: usize = 64 * 1024;
    const MOST: usize = 64 * MIB + (CLIENTS - 64) * LEAST;
    let (sent, mut counts) = mpsc::unbounded_channel();
    let stage = Stage::serving(RULES, "{h2c: true}", Reached::Plainly, |listener, _, _| {
        tokio::spawn(generous(listener, sent))
    })
    .await;
    let mut asked = Vec::new();
    for _ in 0..CLIENTS {
        let (stream, _) = stage.connect().await;
        let mut builder = h2::client::Builder::new();
        let (client, connection) =
            builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://127.0.0.1:{}/open/a", stage.port);
        let (response, _) =
            client.ready().await.unwrap().send_request(Request::get(uri).body(()).unwrap(), true).unwrap();
        asked.push(timeout(PATIENCE, response).await.unwrap().unwrap());
    }
    let mut of_each = HashMap::<usize, usize>::new();
    while of_each.len() < CLIENTS || of_each.values().any(|count| *count < LEAST) {
        let (number, count) = timeout(PATIENCE, counts.recv()).await.expect("each may send").unwrap();
        *of_each.entry(number).or_default() += count;
    }
    // What the gate itself holds of each on its way to the client opens the windows anew.
    let all: usize = of_each.values().sum();
    assert!(all <= MOST + CLIENTS * LEAST, "{all} bytes are on their way to nobody");
}

/// 15 MiB of text, a few bytes long.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut packed = Vec::new();
    let lines = "a line of a text\n".repeat(15 * MIB / 17);
    brotli::BrotliCompress(&mut lines.as_bytes(), &mut packed, &Default::default()).unwrap();
    packed
});

/// Answers each with that.
async fn terse(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked).await.unwrap();
        let length = TEXT.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: br\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), &TEXT].concat()).await.unwrap();
    }
}

#[tokio::test]
async fn what_compressed_responses_grow_to_is_bounded_for_all_that_an_account_does_not_take() {
    let rules = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}], masks: [cards]}
masks: {cards: {content: [card], show: {keep-last: 4}}}
"#;
    let serving = |listener, _, _| tokio::spawn(terse(listener));
    let stage = Stage::serving(rules, "{}", Reached::Plainly, serving).await;
    let asked = stage.request("GET /open/a", "");
    let mut untaken = Vec::new();
    // As many as there is room for.
    for _ in 0..4 {
        let (mut client, _) = stage.connect().await;
        client.write_all(asked.as_bytes()).await.unwrap();
        timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap();
        untaken.push(client);
    }
    let heard = stage.told(&asked).await;
    assert!(heard.len() < MIB && !heard.ends_with("0\r\n\r\n"), "{} bytes came", heard.len());
    drop(untaken);
    let whole = async {
        while !stage.told(&asked).await.ends_with("0\r\n\r\n") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, whole).await.expect("there is room again");
}
