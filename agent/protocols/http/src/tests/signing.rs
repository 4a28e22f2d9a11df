//! Requests that the gate signs with an access key.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Reached, Stage, ok};
use crate::sign_in::KEPT;

const RULES: &str = r#"
rules:
  - {name: store, subjects: [tester], resources: [it], allow: [{method: [GET, PUT], path: "/bucket/**", size: "<= 100"}]}
  - {name: no-secrets, subjects: [tester], resources: [it], deny: [{path: /bucket/fields, body: {kind: secret}}]}
"#;
const S3: &str = "{sign-in: {sigv4: {region: us-east-1, service: s3}}}";
const OWN: &str = "Authorization: AWS4-HMAC-SHA256 Credential=CLIENT/20130524/us-east-1/s3/aws4_request, \
                   SignedHeaders=host, Signature=00\r\nx-amz-date: 20130524T000000Z\r\n\
                   x-amz-security-token: CLIENT\r\n";

async fn stage(options: &str) -> Stage {
    Stage::set(RULES, options, Reached::Plainly, ok).await.signs_in(Some("GATE"), "hunter2")
}

async fn put(stage: &Stage, path: &str, more: &str, body: &str) -> String {
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: close\r\n{OWN}{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stage.told(&request).await
}

/// How a client announces a body of 11 bytes in the coding, with a checksum behind it.
const CHUNKED: &str = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nContent-Encoding: aws-chunked\r\n\
                       x-amz-decoded-content-length: 11\r\nx-amz-trailer: x-amz-checksum-crc32\r\n";

#[tokio::test]
async fn a_body_in_chunks_is_signed_anew_chunk_by_chunk_with_its_checksum() {
    let stage = stage(S3).await;
    let body = "4\r\nhell\r\n7\r\no world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
    let told = put(&stage, "/bucket/a+b", CHUNKED, body).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    let sent = &stage.received()[0];
    for part in [
        "PUT /bucket/a%2Bb HTTP/1.1",
        "Credential=GATE/",
        "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "content-encoding: aws-chunked",
        "x-amz-decoded-content-length: 11",
        "\r\n\r\nb;chunk-signature=",
        "\r\nhello world\r\n0;chunk-signature=",
        "\r\nx-amz-checksum-crc32:DUoRhQ==\r\nx-amz-trailer-signature:",
    ] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
    assert!(!sent.contains("CLIENT") && !sent.contains("20130524"), "{sent}");
}

#[tokio::test]
async fn a_body_without_tls_is_signed_in_chunks_or_with_the_digest_that_the_client_gave() {
    let stage = stage(S3).await;
    assert!(put(&stage, "/bucket/a", "", "hello").await.starts_with("HTTP/1.1 200"));
    assert!(stage.received()[0].contains("\r\n\r\n5;chunk-signature="), "{:?}", stage.received());
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let told = put(&stage, "/bucket/a", &format!("x-amz-content-sha256: {digest}\r\n"), "hello").await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    let sent = &stage.received()[1];
    assert!(sent.contains(digest) && sent.ends_with("\r\n\r\nhello"), "{sent}");
}

#[tokio::test]
async fn rules_see_the_body_without_its_coding() {
    let stage = stage(S3).await;
    let more = format!("{CHUNKED}Content-Type: application/json\r\n").replace(": 11", ": 18");
    let coded = |json: &str| {
        format!("2\r\n{}\r\n10\r\n{}\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", &json[..2], &json[2..])
    };
    let told = put(&stage, "/bucket/fields", &more, &coded(r#"{"kind": "secret"}"#)).await;
    assert!(told.starts_with("HTTP/1.1 403"), "{told}");
    let told = put(&stage, "/bucket/fields", &more, &coded(r#"{"kind": "public"}"#)).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    let sent = stage.received();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].ends_with("\r\n\r\n{\"kind\": \"public\"}"), "it was whole: {}", sent[0]);
    assert!(
        sent[0].contains("x-amz-checksum-crc32: AAAAAA==") && !sent[0].contains("aws-chunked"),
        "{sent:?}"
    );
}

#[tokio::test]
async fn what_is_longer_than_it_said_does_not_pass_for_what_was_allowed() {
    let stage = stage(S3).await;
    let body = "c\r\nhello world!\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
    let told = put(&stage, "/bucket/a", CHUNKED, body).await;
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");
    let more = CHUNKED.replace(": 11", ": 101");
    let told = put(&stage, "/bucket/a", &more, "65\r\n").await;
    assert!(told.starts_with("HTTP/1.1 403"), "{told}");
    assert!(stage.received().is_empty());
}

#[tokio::test]
async fn a_presigned_request_is_refused_and_what_signs_it_is_not_recorded() {
    let stage = stage(S3).await;
    let told =
        stage.told(&stage.request("GET /bucket/a?X-Amz-Signature=5eaf00d&X-Amz-Credential=x", "")).await;
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("presigned"), "{told}");
    assert!(stage.received().is_empty());
    assert!(!format!("{:?}", stage.memory.lines()).contains("5eaf00d"));
}

#[tokio::test]
async fn a_service_that_is_not_s3_gets_the_digest_of_the_whole_body() {
    let stage = stage("{sign-in: {sigv4: {region: eu-central-1, service: dynamodb}}}").await;
    assert!(put(&stage, "/bucket/a:b", "", "hello").await.starts_with("HTTP/1.1 200"));
    let sent = &stage.received()[0];
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert!(sent.contains(digest) && sent.contains("/eu-central-1/dynamodb/aws4_request"), "{sent}");
    assert!(sent.starts_with("PUT /bucket/a%3Ab ") && !sent.contains("hunter2"), "{sent}");
}

#[tokio::test]
async fn an_access_key_is_as_good_as_none_without_its_id() {
    let stage = Stage::set(RULES, S3, Reached::Plainly, ok).await.signs_in(None, "hunter2");
    let told = put(&stage, "/bucket/a", "", "hello").await;
    assert!(told.starts_with("HTTP/1.1 502") && !told.contains("hunter2"), "{told}");
    assert!(stage.received().is_empty());
}

/// Bodies that are announced and stay away take the room of whoever announced them, and nobody else's.
#[tokio::test]
async fn an_account_that_keeps_many_bodies_waiting_shuts_no_other_out() {
    const RULES: &str = "\nrules:\n  - {name: all, subjects: [tester], resources: [it], allow: [{}]}\n";
    let options = "{sign-in: {sigv4: {region: eu-central-1, service: dynamodb}}}";
    let mut stage = Stage::set(RULES, options, Reached::Plainly, ok).await.signs_in(Some("GATE"), "hunter2");
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (mut client, _) = stage.connect().await;
        let announced = format!("Expect: 100-continue\r\nContent-Length: {KEPT}\r\n");
        client.write_all(stage.request("POST /", &announced).as_bytes()).await.unwrap();
        let mut heard = [0; 12];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 100", "its room is taken");
        waiting.push(client);
    }
    let one_more = stage.request("POST /", "Content-Length: 1\r\n") + "x";
    let heard = stage.told(&one_more).await;
    assert!(heard.starts_with("HTTP/1.1 503") && heard.contains("this account has"), "{heard}");
    stage.account = 1;
    let heard = stage.told(&one_more).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}
