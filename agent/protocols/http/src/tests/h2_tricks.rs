//! What no sound client of HTTP/2 sends (RFC 9113, 8.2 and 8.3), written byte by byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::stage::{HOST, PATIENCE, Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
"#;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client says on one stream: fields, then parts of a body.
struct Said<'a> {
    fields: Vec<(&'a str, String)>,
    body: &'a [&'a [u8]],
}

type Fields = Vec<(&'static str, String)>;

/// What makes an unsound request of a sound one.
type Change = Box<dyn Fn(&mut Fields)>;

/// A request that is sound, but for what a test changes.
fn sound(stage: &Stage) -> Fields {
    vec![
        (":method", "GET".into()),
        (":scheme", "http".into()),
        (":authority", format!("{HOST}:{}", stage.port)),
        (":path", "/open/a".into()),
    ]
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn integer(mut number: usize, out: &mut Vec<u8>) {
    if number < 127 {
        return out.push(u8::try_from(number).unwrap());
    }
    out.push(127);
    number -= 127;
    while number >= 128 {
        out.push(u8::try_from(number % 128 + 128).unwrap());
        number /= 128;
    }
    out.push(u8::try_from(number).unwrap());
}

/// Fields as literals that nothing is compressed in (RFC 7541, 6.2.2).
fn block(fields: &[(&str, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value.as_bytes()] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

fn written(said: &Said<'_>) -> Vec<u8> {
    let mut out = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
    let ends = if said.body.is_empty() { END_STREAM } else { 0 };
    let block = block(&said.fields);
    let mut parts = block.chunks(16_384).peekable();
    let (mut kind, mut flags) = (HEADERS, ends);
    while let Some(part) = parts.next() {
        flags |= if parts.peek().is_none() { END_HEADERS } else { 0 };
        out.extend(frame(kind, flags, 1, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    for (number, part) in said.body.iter().enumerate() {
        let flags = if number + 1 == said.body.len() { END_STREAM } else { 0 };
        out.extend(frame(DATA, flags, 1, part));
    }
    out
}

/// How the gate answers: with the kind of frame that ends the stream, or begins its response.
async fn answer(stage: &Stage, said: &Said<'_>) -> u8 {
    let (mut client, _) = stage.connect().await;
    client.write_all(&written(said)).await.unwrap();
    let answered = async {
        loop {
            let kind = next_frame(&mut client).await;
            if matches!(kind, HEADERS | RST_STREAM | GOAWAY) {
                return kind;
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("it is answered")
}

async fn next_frame(client: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let [_, _, _, kind, ..] = head;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    client.read_exact(&mut vec![0; length as usize]).await.unwrap();
    kind
}

async fn stage() -> Stage {
    Stage::set(RULES, "{hosts: [it.test]}", Reached::Plainly, ok).await
}

/// Each of these changes of a sound request is refused, and the upstream gets nothing; the sound one arrives.
async fn are_refused(tricks: Vec<(&str, Change)>) {
    let stage = stage().await;
    for (name, change) in tricks {
        let mut fields = sound(&stage);
        change(&mut fields);
        answer(&stage, &Said { fields, body: &[] }).await;
        assert!(stage.received().is_empty(), "{name} arrived: {:?}", stage.received());
    }
    assert_eq!(answer(&stage, &Said { fields: sound(&stage), body: &[] }).await, HEADERS);
    assert!(stage.received()[0].starts_with("GET /open/a HTTP/1.1\r\n"));
}

fn without(name: &'static str) -> Change {
    Box::new(move |fields| fields.retain(|(field, _)| *field != name))
}

fn with(name: &'static str, value: &'static str) -> Change {
    Box::new(move |fields| fields.push((name, value.into())))
}

fn changed(name: &'static str, value: &'static str) -> Change {
    Box::new(move |fields| {
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        field.unwrap().1 = value.into();
    })
}

#[tokio::test]
async fn pseudo_fields_that_are_missing_double_late_or_unknown_make_no_request() {
    are_refused(vec![
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("two paths", with(":path", "/open/b")),
        ("two methods", with(":method", "POST")),
        ("two authorities", with(":authority", "other.test")),
        ("a status", with(":status", "200")),
        ("an unknown one", with(":protocol", "websocket")),
        (
            "one behind a field",
            Box::new(|fields| {
                let path = fields.pop().unwrap();
                fields.extend([("accept", "*/*".into()), path]);
            }),
        ),
        (
            "an extended CONNECT",
            Box::new(|fields| {
                fields[0].1 = "CONNECT".into();
                fields.push((":protocol", "websocket".into()));
            }),
        ),
        ("a CONNECT", changed(":method", "CONNECT")),
    ])
    .await;
}

#[tokio::test]
async fn a_target_that_another_server_could_read_differently_is_none() {
    are_refused(vec![
        ("an empty path", changed(":path", "")),
        ("a path without a slash", changed(":path", "open/a")),
        ("a path with a space", changed(":path", "/open/a HTTP/1.1")),
        ("a path with a line's end", changed(":path", "/open/a HTTP/1.1\r\nX-Admin: 1\r\nX: y")),
        ("a path with a NUL", changed(":path", "/open/a\0")),
        ("a path that leads up", changed(":path", "/open/../secret")),
        ("an asterisk", changed(":path", "*")),
        ("a whole URL", changed(":path", "http://other.test/open/a")),
        ("another scheme", changed(":scheme", "https")),
        ("another authority", changed(":authority", "other.test")),
        ("an authority with a user", changed(":authority", "it.test@other.test")),
        ("a method with a line's end", changed(":method", "GET /open/b HTTP/1.1\r\nX: y")),
        ("a Host that differs", with("host", "other.test")),
    ])
    .await;
}

#[tokio::test]
async fn fields_that_are_the_connection_s_or_no_fields_make_no_request() {
    are_refused(vec![
        ("an upper-case name", with("X-Upper", "1")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "h2c")),
        ("te", with("te", "gzip")),
        ("a name with a space", with("x a", "1")),
        ("a name with a colon", with("x:a", "1")),
        ("a name with a line's end", with("x\r\nx-admin", "1")),
        ("an empty name", with("", "1")),
        ("a value with a line's end", with("x-a", "1\r\nx-admin: 1")),
        ("a value with a bare LF", with("x-a", "1\nx-admin: 1")),
        ("a value with a NUL", with("x-a", "1\0")),
        ("a length that is none", with("content-length", "+0")),
    ])
    .await;
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_many_make_no_request() {
    are_refused(vec![
        ("70 KiB", Box::new(|fields| fields.push(("x-long", "x".repeat(70 * 1024))))),
        ("200 fields", Box::new(|fields| fields.extend((0..200).map(|_| ("x-many", "1".to_owned()))))),
    ])
    .await;
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says_or_does_not_look_whole() {
    let stage = stage().await;
    let post = |lengths: &[&str]| {
        let mut fields = sound(&stage);
        fields[0].1 = "POST".into();
        fields.extend(lengths.iter().map(|length| ("content-length", (*length).to_owned())));
        fields
    };
    for (lengths, body) in [
        (&["4"][..], &[&b"12"[..]][..]),
        (&["4"], &[b"12", b""]),
        (&["4"], &[b"12345678"]),
        (&["4"], &[b"1234", b"5"]),
        (&["4", "5"], &[b"1234"]),
        (&["4", "4"], &[b"1234"]),
    ] {
        answer(&stage, &Said { fields: post(lengths), body }).await;
        assert!(stage.received().is_empty(), "{lengths:?}, {body:?} arrived: {:?}", stage.received());
    }
    assert_eq!(answer(&stage, &Said { fields: post(&["4"]), body: &[b"12", b"34"] }).await, HEADERS);
    assert!(stage.received()[0].ends_with("1234"), "{:?}", stage.received());
}
