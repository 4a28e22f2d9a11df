//! Every parser over any bytes, and what each must keep to: what the fuzzer and the corpus test run.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidegate_gate::{
    Masker, Secret,
    policy::{Item, Policy, Principal, Shape, SourceFile, Value, Verdict},
};

use crate::{
    fields,
    grpc::{self, Call, Descriptors, Frames},
    shown::Masks,
    target::{self, Authority, Query, Tolerated},
    vocabulary::VOCABULARY,
    wire::{Decoded, Decoder, Framing, Head, HeadReader, WireError},
};

/// The HTTP/1.1 of a client: it is read the same in whatever pieces it comes.
pub(crate) fn wire(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 3, 17] {
        assert_eq!(read(bytes, piece), whole, "in pieces of {piece}");
    }
}

/// What was read, in words: heads, bodies, and how it ended.
fn read(bytes: &[u8], piece: usize) -> Vec<String> {
    let (mut told, mut buffer, mut decoder) = (Vec::new(), BytesMut::new(), None);
    let mut reader = HeadReader::default();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match step(&mut reader, &mut decoder, &mut buffer, &mut told) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    told.push(format!("{error:?}"));
                    return told;
                }
            }
        }
    }
    told
}

/// Reads one thing; false if more must come.
fn step(
    reader: &mut HeadReader,
    decoder: &mut Option<Decoder>,
    buffer: &mut BytesMut,
    told: &mut Vec<String>,
) -> Result<bool, WireError> {
    let Some(body) = decoder else {
        let Some(head) = reader.take(buffer)? else { return Ok(false) };
        let framing = head.framing()?;
        check(&head, framing);
        told.push(format!("{} {} {:?} {framing:?}\n", head.method, head.target, head.headers));
        *decoder = Some(Decoder::new(framing));
        return Ok(true);
    };
    match body.take(buffer)? {
        Decoded::More => return Ok(false),
        Decoded::End => *decoder = None,
        Decoded::Trailers(trailers) => told.push(format!("{trailers:?}\n")),
        // Where parts end depends on the pieces.
        Decoded::Data(data) => match told.last_mut().filter(|last| last.starts_with("data ")) {
            Some(last) => *last += &data.escape_ascii().to_string(),
            None => told.push(format!("data {}", data.escape_ascii())),
        },
    }
    Ok(true)
}

/// Nothing that is understood leaves in doubt where it ends.
fn check(head: &Head, framing: Framing) {
    let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().count();
    let is_chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    assert!(lengths + usize::from(is_chunked) <= 1, "{head:?}");
    assert_eq!(framing == Framing::Chunked, is_chunked, "{head:?}");
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()), "{head:?}");
}

/// Targets: what is understood has one form, and that form is understood as itself.
pub(crate) fn targets(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(authority) = Authority::parse(text) {
        assert_eq!(Authority::parse(&authority.to_string()).as_ref(), Ok(&authority), "{text:?}");
    }
    for tolerant in [false, true] {
        let tolerated = Tolerated {
            encoded_slash: tolerant,
            empty_segments: tolerant,
            path_parameters: tolerant,
            method_parameters: tolerant,
        };
        if let Ok(path) = target::path(text, tolerated) {
            assert_eq!(target::path(&path, tolerated).as_ref(), Ok(&path), "{text:?}");
            let is_dot =
                |segment: &str| matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..");
            assert!(!path.split('/').any(is_dot), "{text:?} became {path:?}");
            assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?} became {path:?}");
        }
    }
    if let Ok(query) = Query::parse(text) {
        let again = Query::parse(&query.text);
        assert_eq!(again.as_ref().map(|again| &again.parameters), Ok(&query.parameters), "{text:?}");
    }
}

/// Fields of bodies: what two of the ways to read JSON would differ in is refused.
pub(crate) fn bodies(bytes: &[u8]) {
    let _ = fields::read(Some("application/x-www-form-urlencoded"), bytes);
    if fields::json(bytes).is_ok() {
        let read: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
        assert!(read.is_ok(), "{}", bytes.escape_ascii());
    }
}

/// Masks: shown the same in whatever pieces it comes; JSON stays JSON; and what is masked by name is not shown.
pub(crate) fn masks(bytes: &[u8]) {
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        let whole = shown(kind, bytes, bytes.len().max(1));
        for piece in [1, 5] {
            assert_eq!(shown(kind, bytes, piece), whole, "{kind} in pieces of {piece}");
        }
        let Some(whole) = whole.filter(|_| kind == "application/json") else { continue };
        if let Ok(before) = serde_json::from_slice::<serde_json::Value>(bytes) {
            let after: serde_json::Value = serde_json::from_slice(&whole).unwrap_or_default();
            let hidden = |value: &serde_json::Value| value.is_null() || value == "[masked]";
            if let Some(secret) = before.get("secret").filter(|secret| !secret.is_array()) {
                let shown = after.get("secret");
                assert!(shown.is_some_and(hidden) || secret.is_null(), "{}", whole.escape_ascii());
            }
        }
    }
}

/// Messages of gRPC: the same in whatever pieces they come; what is read at all is shown without what is masked.
pub(crate) fn grpc(bytes: &[u8]) {
    let whole = messages(bytes, bytes.len().max(1));
    for piece in [1, 4] {
        assert_eq!(messages(bytes, piece), whole, "in pieces of {piece}");
    }
    let (verdict, masker) = masks_of_all();
    let Some((call, masks)) = Masks::of(verdict, masker).and_then(|masks| Some((call()?, masks))) else {
        return;
    };
    for message in whole {
        let (read, shown) = (call.fields(&grpc::framed(&message)), call.masked(&message, &masks));
        assert!(read.is_err() || shown.is_ok(), "read and not masked: {}", message.escape_ascii());
        let Ok(shown) = shown else { continue };
        let again = call.masked(&shown, &masks);
        assert_eq!(again.as_ref(), Ok(&shown), "what is masked stays so");
    }
}

/// Whole messages, up to what is none.
fn messages(bytes: &[u8], piece: usize) -> Vec<Bytes> {
    let (mut frames, mut all) = (Frames::new(1 << 16), Vec::new());
    for piece in bytes.chunks(piece) {
        frames.put(piece);
        while let Ok(Some(message)) = frames.next() {
            all.push(message);
        }
    }
    all
}

/// A call whose message holds itself, and whatever else there is.
fn call() -> Option<Call> {
    static CALL: OnceLock<Option<Call>> = OnceLock::new();
    let read =
        || Descriptors::of(include_bytes!("tests/grpc/shop.binpb")).ok()?.call("acme.shop.Orders/Echo");
    CALL.get_or_init(read).clone()
}

/// A body as it is shown; none if it is refused.
fn shown(kind: &'static str, body: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (verdict, masker) = masks_of_all();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut masked = Masks::of(verdict, masker)?.ready(StatusCode::OK, &mut headers, true).ok()??;
    let mut all = Vec::new();
    for piece in body.chunks(piece) {
        all.extend(masked.take(&Bytes::copy_from_slice(piece)).ok()?);
    }
    all.extend(masked.end().ok()?);
    Some(all)
}

fn masks_of_all() -> &'static (Verdict, Masker) {
    static MASKS: OnceLock<(Verdict, Masker)> = OnceLock::new();
    MASKS.get_or_init(|| (verdict(), Masker::new(Secret::new(vec![7; 32]))))
}

fn verdict() -> Verdict {
    const BUNDLE: &str = "{tidegate: 1, name: it, subjects: {tester: {users: ['0']}}, resources: {it: {protocol: http, \
                          addresses: ['it.test:443']}}, rules: [{name: all, subjects: [tester], resources: [it], allow: [{}], \
                          masks: [all]}], masks: {all: {columns: [body.secret, body.customerName], content: [card]}}}";
    let file = SourceFile { path: "it.yaml".into(), text: BUNDLE.into() };
    let principal = Principal { subjects: vec!["tester".into()], ..Principal::default() };
    let items = vec![Item { fields: vec![("action", Value::Word("request"))], must_name: None }];
    let shape = Shape { items, open: true, ..Shape::default() };
    match Policy::load(&[file], &[&VOCABULARY]) {
        Ok(policy) => policy.decide(&principal, "it", &shape),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What the fuzzer has found worth keeping, and the tricks that are known.
    #[test]
    fn the_corpus_is_read_without_a_fault() {
        each("wire", super::wire);
        each("targets", super::targets);
        each("bodies", super::bodies);
        each("masks", super::masks);
        each("grpc", super::grpc);
    }

    fn each(name: &str, tour: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "the corpus of {name} is there");
        for file in files {
            tour(&std::fs::read(&file).unwrap());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_fault(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            super::wire(&bytes);
            super::targets(&bytes);
            super::bodies(&bytes);
            super::masks(&bytes);
            super::grpc(&bytes);
        }

        #[test]
        fn what_looks_like_json_is_shown_the_same_in_any_pieces(text in r#"[\[\]{}:,"a\\u0 1e.-]{0,40}|\{"secret": ?("[a-z\\"]{0,9}"|[0-9.e]{1,5}|\[[0-9,]{0,5}\]|\{"b":1\})\}"#) {
            super::masks(text.as_bytes());
            super::bodies(text.as_bytes());
        }

        #[test]
        fn what_looks_like_a_target_has_one_form(text in r"[/.%2eEfF5cC;?&=a\\\\+:@\[\]-]{0,30}") {
            super::targets(text.as_bytes());
        }

        #[test]
        fn what_looks_like_a_request_is_read_the_same_in_any_pieces(
            fields in proptest::collection::vec(r"(Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked|Host: a|X: [ -~]{0,5})", 0..3),
            body in r"([0-9a-f]{1,2}(;x)?(\r\n)[a-z]{0,4}(\r\n)?){0,3}(0\r\n\r\n)?",
        ) {
            super::wire(format!("POST / HTTP/1.1\r\n{}\r\n\r\n{body}", fields.join("\r\n")).as_bytes());
        }
    }
}
