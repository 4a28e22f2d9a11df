//! AWS' published examples, and what clients send.

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_fn;
use http_body_util::BodyExt;

use super::*;
use crate::body::{self, BodyError, Part, Source};

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn scope(service: &str) -> Scope {
    Scope { region: "us-east-1".into(), service: service.into() }
}

fn example() -> Signer {
    Signer::new(&scope("s3"), "AKIAIOSFODNN7EXAMPLE", SECRET, "2013-05-24T00:00:00Z".parse().unwrap())
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn parts(method: &str, target: &str, lines: &[(&str, &str)]) -> http::request::Parts {
    let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
    *request.headers_mut() = headers(lines);
    request.into_parts().0
}

/// Amazon S3 API Reference, "Signature Calculations for the Authorization Header", and the IAM User Guide's example.
#[test]
fn requests_are_signed_as_aws_published_them() {
    let put = signer::digest(b"Welcome to Amazon S3.");
    let dated = [
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("range", "bytes=0-9"),
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    for (method, target, more, digest, expected) in [
        (
            "GET",
            "/test.txt",
            &dated[..3],
            EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            &[dated[0], dated[1], dated[3], dated[4]],
            &*put,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            &dated[..2],
            EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?prefix=J&max-keys=2",
            &dated[..2],
            EMPTY,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        let mut parts = parts(method, target, more);
        parts.headers.insert(DIGEST, digest.parse().unwrap());
        assert_eq!(example().request(&parts, true, digest).1, expected, "{method} {target}");
    }
    let secret = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let iam = Signer::new(&scope("iam"), "AKIDEXAMPLE", secret, "2015-08-30T12:36:00Z".parse().unwrap());
    let lines = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ];
    let parts = parts("GET", "/?Action=ListUsers&Version=2010-05-08", &lines);
    let (authorization, _) = iam.request(&parts, false, EMPTY);
    assert_eq!(
        authorization,
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, \
         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

/// What goes out of a body of 65 KiB, in pieces as they would come.
async fn coded(seed: &str, trailer: Option<(&'static str, &str)>) -> (Bytes, u64) {
    let (sender, plain) = body::parts(Some(66_560));
    let name = trailer.map(|(name, _)| HeaderName::from_static(name));
    let mut signed = Signed::new(plain, Chunks::new(example(), seed.into()), 66_560, name);
    let length = signed.length();
    let last = trailer.map(|(name, value)| headers(&[(name, value)]));
    tokio::spawn(async move {
        for piece in vec![b'a'; 66_560].chunks(7_000) {
            let piece = Bytes::copy_from_slice(piece);
            sender.send(Part::Frame(http_body::Frame::data(piece))).await.unwrap();
        }
        if let Some(last) = last {
            sender.send(Part::Frame(http_body::Frame::trailers(last))).await.unwrap();
        }
        sender.send(Part::End).await.unwrap();
    });
    let mut out = BytesMut::new();
    while let Some(frame) = poll_fn(|context| signed.poll(context)).await {
        out.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    (out.freeze(), length)
}

/// Amazon S3 API Reference, "Transferring Payload in Multiple Chunks", without and with trailing headers.
#[tokio::test]
async fn chunks_are_signed_as_aws_published_them() {
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let (out, length) = coded(seed, None).await;
    assert_eq!((out.len(), length), (66_824, 66_824));
    let text = String::from_utf8(out.to_vec()).unwrap();
    for (size, signature) in [
        ("10000", "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        ("400", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        ("0", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        assert!(text.contains(&format!("{size};chunk-signature={signature}\r\n")), "{size}");
    }
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let (out, length) = coded(seed, Some(("x-amz-checksum-crc32c", "sOO8/Q=="))).await;
    assert_eq!((out.len(), length), (66_946, 66_946));
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert!(
        text.ends_with(
            "\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n\
             x-amz-checksum-crc32c:sOO8/Q==\r\n\
             x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
        ),
        "{}",
        &text[66_000..]
    );
}

#[test]
fn what_the_client_signed_is_taken_off() {
    let mut sent = headers(&[
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("x-amz-security-token", "client"),
        ("content-encoding", "aws-chunked, gzip"),
        ("x-amz-acl", "private"),
    ]);
    let payload = take_off(&scope("s3"), &mut sent, None).unwrap();
    let trailer = Some(HeaderName::from_static("x-amz-checksum-crc32"));
    assert_eq!(payload, Payload::Chunked { length: 5, trailer });
    assert_eq!(sent, headers(&[("content-encoding", "gzip"), ("x-amz-acl", "private")]));
}

#[test]
fn what_cannot_be_signed_anew_is_refused() {
    for lines in [
        &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS")][..],
        &[("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")],
        &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")],
        &[("x-amz-content-sha256", "deadbeef")],
        &[("x-amz-content-sha256", EMPTY), ("content-encoding", "aws-chunked")],
        &[("x-amz-content-sha256", EMPTY), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
        &[
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "+5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ],
        &[
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-acl"),
        ],
        &[
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ],
    ] {
        assert!(take_off(&scope("s3"), &mut headers(lines), None).is_err(), "{lines:?}");
    }
    for query in ["X-Amz-Signature=1", "a=1&x-amz-credential=c", "AWSAccessKeyId=a", "a=1;X-Amz-Algorithm=x"]
    {
        let query = Query::parse(query).unwrap();
        let error = take_off(&scope("s3"), &mut HeaderMap::new(), Some(&query)).unwrap_err();
        assert!(error.contains("presigned"), "{error}");
    }
    let mut chunked = headers(&[
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "5"),
    ]);
    assert!(take_off(&scope("dynamodb"), &mut chunked.clone(), None).is_err());
    assert!(take_off(&scope("s3"), &mut chunked, None).is_ok());
}

#[test]
fn a_target_is_sent_in_the_form_that_is_signed() {
    let (path, query) = target("/a+b/c:d=e%C3%A9/@", Some("b=x+y&flag&a=%7e&&list-type=2/"));
    assert_eq!(path, "/a%2Bb/c%3Ad%3De%C3%A9/%40");
    assert_eq!(query.as_deref(), Some("b=x%20y&flag&a=~&list-type=2%2F"));
    assert_eq!(target("/", Some("&")), ("/".into(), None));
}

/// Gives a body in pieces.
struct Pieces(std::vec::IntoIter<Bytes>);

impl Source for Pieces {
    async fn next(&mut self) -> Option<Result<http_body::Frame<Bytes>, BodyError>> {
        self.0.next().map(|piece| Ok(http_body::Frame::data(piece)))
    }

    async fn gone(&mut self) {}
}

/// The body that this codes, and its trailer.
async fn plain(
    text: &str,
    piece: usize,
    length: u64,
    trailer: Option<&'static str>,
) -> Result<(String, HeaderMap), BodyError> {
    let pieces: Vec<_> = text.as_bytes().chunks(piece).map(Bytes::copy_from_slice).collect();
    let mut pieces = Pieces(pieces.into_iter());
    let mut source = Unchunked::new(&mut pieces, length, trailer.map(HeaderName::from_static));
    let mut whole = String::new();
    while let Some(frame) = source.next().await {
        if let Ok(data) = frame?.into_data() {
            whole.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
    Ok((whole, source.set_aside()))
}

#[tokio::test]
async fn a_client_s_chunks_are_taken_apart_however_they_come() {
    let signature = "a".repeat(64);
    let signed =
        format!("4;chunk-signature={signature}\r\nabcd\r\n1\r\ne\r\n0;chunk-signature={signature}\r\n");
    let unsigned = "5\r\nabcde\r\n0\r\n";
    for piece in [1, 3, 1000] {
        for text in [&*signed, unsigned] {
            let (whole, _) = plain(&format!("{text}\r\n"), piece, 5, None).await.unwrap();
            assert_eq!(whole, "abcde");
            let text =
                format!("{text}x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:{signature}\r\n\r\n");
            let (_, trailers) = plain(&text, piece, 5, Some("x-amz-checksum-crc32")).await.unwrap();
            assert_eq!(trailers, headers(&[("x-amz-checksum-crc32", "AAAAAA==")]));
        }
    }
}

#[tokio::test]
async fn chunks_that_are_not_what_was_announced_are_refused() {
    let crc = Some("x-amz-checksum-crc32");
    for (text, trailer) in [
        ("5\r\nabcde\r\n", None),
        ("4\r\nabcd\r\n0\r\n\r\n", None),
        ("6\r\nabcdef\r\n0\r\n\r\n", None),
        ("5\r\nabcde\r\n0\r\n\r\nGET /", None),
        ("5;a=b\r\nabcde\r\n0\r\n\r\n", None),
        ("5;chunk-signature=short\r\nabcde\r\n0\r\n\r\n", None),
        ("5\nabcde\r\n0\r\n\r\n", None),
        ("5\r\nabcde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", None),
        ("5\r\nabcde\r\n0\r\n\r\n", crc),
        ("5\r\nabcde\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", crc),
        ("5\r\nabcde\r\n0\r\nx-amz-acl:publicxx\r\n\r\n", crc),
        ("5\r\nabcde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-acl:public\r\n\r\n", crc),
    ] {
        assert!(plain(text, 1000, 5, trailer).await.is_err(), "{text:?} was taken");
    }
}

#[tokio::test]
async fn a_request_without_its_access_key_is_not_signed_and_the_key_is_not_told() {
    let whole = |text: &'static str| Outgoing::Whole(Some(Bytes::from_static(text.as_bytes())));
    let key = |user: Option<&str>, token: &str| Credential {
        user: user.map(Into::into),
        password: Some(tidegate_gate::Secret::new(SECRET.to_vec())),
        token: Some(tidegate_gate::Secret::new(token.as_bytes().to_vec())),
        ..Credential::default()
    };
    let signed = |credential: &Credential, body| {
        let request = Request::builder().method("POST").uri("/x").header("host", "h").body(body).unwrap();
        sign(&scope("lambda"), credential, request, &Payload::Plain, true)
    };
    for credential in [Credential::default(), key(None, "t"), key(Some("id"), "hunter2\r\n")] {
        let error = signed(&credential, whole("{}")).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    let request = signed(&key(Some("id"), "hunter2"), whole("{}")).unwrap();
    assert_eq!(request.headers()[DIGEST], signer::digest(b"{}"));
    assert_eq!(request.headers()[TOKEN], "hunter2");
    assert!(!format!("{:?}", request.headers()).contains("hunter2"));
    assert!(request.headers()["authorization"].to_str().unwrap().contains("x-amz-security-token"));
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "{}");
}
