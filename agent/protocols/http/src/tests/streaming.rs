//! Bodies that flow: in every combination of versions, as they come, and no further than they may.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    server::conn as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use super::stage::{PATIENCE, Reached, Stage};
use crate::body::{self, Outgoing, Part};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
  - {name: masked, subjects: [tester], resources: [it], allow: [{path: "/masked/**"}], masks: [cards]}
masks:
  cards: {content: [card], show: {keep-last: 4}}
"#;

/// Answers every request with its own body, trailers too, as it comes.
async fn echo(listener: TcpListener, is_h2: bool) {
    let answer = |request: Request<Incoming>| async move {
        let mut response = Response::new(request.into_body());
        response.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        Ok::<_, hyper::Error>(response)
    };
    while let Ok((stream, _)) = listener.accept().await {
        let io = TokioIo::new(stream);
        tokio::spawn(async move {
            match is_h2 {
                true => {
                    server::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service_fn(answer))
                        .await
                }
                false => server::http1::Builder::new().serve_connection(io, service_fn(answer)).await,
            }
        });
    }
}

async fn stage(upstream_is_h2: bool) -> Stage {
    let options = if upstream_is_h2 { "{h2c: true}" } else { "{}" };
    Stage::serving(RULES, options, Reached::Plainly, |listener, _, _| {
        tokio::spawn(echo(listener, upstream_is_h2))
    })
    .await
}

/// Asks with a body whose parts are still to come.
async fn ask(stage: &Stage, method: Method, is_h2: bool) -> (mpsc::Sender<Part>, Response<Incoming>) {
    let (sender, outgoing) = body::parts(None);
    let (stream, _) = stage.connect().await;
    let io = TokioIo::new(stream);
    let request = |version: Version| {
        let path = "/open/x";
        let authority = format!("127.0.0.1:{}", stage.port);
        let builder = Request::builder().method(method);
        let builder = match version {
            Version::HTTP_2 => builder.uri(format!("http://{authority}{path}")),
            _ => builder.uri(path).header("host", authority).header("transfer-encoding", "chunked"),
        };
        builder.version(version).header("te", "trailers").header("trailer", "x-sum").body(outgoing).unwrap()
    };
    let response = match is_h2 {
        true => {
            let (mut asking, connection) =
                http2::handshake::<_, _, Outgoing>(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            asking.send_request(request(Version::HTTP_2)).await
        }
        false => {
            let (mut asking, connection) = http1::handshake::<_, Outgoing>(io).await.unwrap();
            tokio::spawn(connection);
            asking.send_request(request(Version::HTTP_11)).await
        }
    };
    (sender, response.unwrap())
}

async fn next(body: &mut Incoming) -> Option<Frame<Bytes>> {
    timeout(PATIENCE, body.frame()).await.expect("it comes before more is sent").map(Result::unwrap)
}

#[tokio::test]
async fn parts_flow_both_ways_as_they_come_whatever_the_versions_and_trailers_follow() {
    let versions = [(false, false), (false, true), (true, false), (true, true)];
    let both = versions.into_iter().flat_map(|versions| [(Method::POST, versions), (Method::GET, versions)]);
    for (method, (client_is_h2, upstream_is_h2)) in both {
        let told = format!("{method}, client h2: {client_is_h2}, upstream h2: {upstream_is_h2}");
        let stage = stage(upstream_is_h2).await;
        let (sender, response) = ask(&stage, method, client_is_h2).await;
        assert_eq!(response.status(), 200, "{told}");
        let mut answer = response.into_body();
        for part in ["one", "two", "three"] {
            sender.send(Part::Frame(Frame::data(part.into()))).await.unwrap();
            let echoed = next(&mut answer).await.expect(&told).into_data().unwrap();
            assert_eq!(echoed, part, "{told}");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "11".parse().unwrap());
        sender.send(Part::Frame(Frame::trailers(trailers.clone()))).await.unwrap();
        // Whoever has had trailers expects nothing more.
        let _ = sender.send(Part::End).await;
        let echoed = next(&mut answer).await.expect(&told).into_trailers().expect(&told);
        assert_eq!(echoed, trailers, "{told}");
        assert!(next(&mut answer).await.is_none(), "{told}");
    }
}

/// Answers with one event, and the next when it is told to.
async fn events(listener: TcpListener, mut go_on: mpsc::Receiver<()>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    while super::stage::whole(&read).is_none() {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    loop {
        stream.write_all(b"data: 4111111111111111\n\n").await.unwrap();
        if go_on.recv().await.is_none() {
            return;
        }
    }
}

#[tokio::test]
async fn an_event_is_shown_masked_before_the_next_is_sent() {
    let (next, go_on) = mpsc::channel(1);
    let stage =
        Stage::serving(RULES, "{}", Reached::Plainly, |listener, _, _| tokio::spawn(events(listener, go_on)))
            .await;
    let (mut client, _) = stage.connect().await;
    client.write_all(stage.request("GET /masked/events", "").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    for number in 1..=3 {
        let shown =
            |heard: &[u8]| String::from_utf8_lossy(heard).matches("data: ************1111\n\n").count();
        while shown(&heard) < number {
            let read = timeout(PATIENCE, client.read_buf(&mut heard)).await.expect("an event comes").unwrap();
            assert_ne!(read, 0, "{}", heard.escape_ascii());
        }
        next.send(()).await.unwrap();
    }
    assert!(!String::from_utf8_lossy(&heard).contains("4111111111111111"));
}

#[tokio::test]
async fn a_part_of_something_is_not_shown_under_a_mask() {
    let stage = Stage::set(RULES, "{}", Reached::Plainly, |_| {
        "HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-7/16\r\nContent-Length: 8\r\n\r\n\
         41111111"
            .into()
    })
    .await;
    let heard = stage.told(&stage.request("GET /masked/x", "Range: bytes=0-7\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 502") && heard.contains("a part of something"), "{heard}");
    assert!(!heard.contains("41111111"), "{heard}");
    let heard = stage.told(&stage.request("GET /open/x", "Range: bytes=0-7\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 206") && heard.ends_with("41111111"), "{heard}");
}

/// Takes a head and nothing more.
async fn deaf(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = [0; 64];
    let count = stream.read(&mut read).await.unwrap();
    received.lock().unwrap().push(String::from_utf8_lossy(&read[..count]).into_owned());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_client_is_not_read_faster_than_the_upstream_takes() {
    let stage = Stage::serving(RULES, "{}", Reached::Plainly, |listener, _, received| {
        tokio::spawn(deaf(listener, received))
    })
    .await;
    let (mut client, _) = stage.connect().await;
    let most = 64 * 1024 * 1024;
    let head = stage.request("POST /open/x", &format!("Content-Length: {most}\r\n"));
    client.write_all(head.as_bytes()).await.unwrap();
    let part = vec![b'x'; 1024 * 1024];
    let mut sent = 0;
    // What is in between takes some megabytes at most: buffers of sockets, and little of the gate's.
    while timeout(std::time::Duration::from_millis(500), client.write_all(&part)).await.is_ok() {
        sent += part.len();
        assert!(sent < most / 2, "{sent} bytes were taken that nobody reads");
    }
}
