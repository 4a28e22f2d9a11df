use std::io::Write;

use tidegate_gate::{
    Secret,
    policy::{Policy, Principal, SourceFile},
};

use super::*;
use crate::{request::shape, vocabulary::VOCABULARY};

/// Masks of a bundle: `fields` and `content`, each shown by its first four characters.
fn verdict(fields: &str, content: &str) -> Verdict {
    let mut masks = String::new();
    if !fields.is_empty() {
        masks += &format!("  fields: {{columns: [{fields}]}}\n");
    }
    if !content.is_empty() {
        masks += &format!("  content: {{content: [{content}], show: {{keep-last: 4}}}}\n");
    }
    let names = if fields.is_empty() {
        "content"
    } else if content.is_empty() {
        "fields"
    } else {
        "fields, content"
    };
    let text = format!(
        "tidegate: 1\nname: it\nsubjects: {{tester: {{users: [\"0\"]}}}}\nresources: {{it: {{protocol: http, addresses: \
         [\"it.test:443\"]}}}}\nrules:\n  - {{name: all, subjects: [tester], resources: [it], allow: [{{}}], masks: \
         [{names}]}}\nmasks:\n{masks}"
    );
    let policy = Policy::load(&[SourceFile { path: "it.yaml".into(), text }], &[&VOCABULARY]).unwrap();
    let principal = Principal { subjects: vec!["tester".into()], ..Principal::default() };
    let shape = shape(("request", "GET"), &"it.test".into(), "/", None, &HeaderMap::new(), Some(0), None);
    policy.decide(&principal, "it", &shape)
}

fn masker() -> Masker {
    Masker::new(Secret::new(vec![7; 32]))
}

fn headers(kind: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    headers
}

/// A body as it is shown, fed in pieces of this size.
fn shown(verdict: &Verdict, headers: &mut HeaderMap, body: &[u8], piece: usize) -> Result<String, String> {
    let masker = masker();
    let masks = Masks::of(verdict, &masker).unwrap();
    let mut masked = masks.ready(StatusCode::OK, headers, true)?.unwrap();
    let mut all = Vec::new();
    for piece in body.chunks(piece) {
        all.extend(masked.take(&Bytes::copy_from_slice(piece))?);
    }
    all.extend(masked.end()?);
    Ok(String::from_utf8(all).unwrap())
}

const PEOPLE: &str = r#"{"people": [ {"name": "Ada", "card": 4111111111111111, "email": "ada@example.com",
  "home": {"street": "High St", "tags": ["a"]}, "mails": ["x@y.example", null]}, {"name": "B\u0065n"} ], "n": 1.50}"#;

#[test]
fn fields_of_json_are_masked_wherever_its_body_is_cut() {
    let verdict = verdict("body.people.email, body.people.home, body.people.mails", "card");
    let expected = r#"{"people": [ {"name": "Ada", "card": "************1111", "email": "[masked]",
  "home": "[masked]", "mails": ["[masked]", null]}, {"name": "B\u0065n"} ], "n": 1.50}"#;
    for piece in 1..80 {
        let body = shown(&verdict, &mut headers("application/json"), PEOPLE.as_bytes(), piece);
        assert_eq!(body.as_deref(), Ok(expected), "in pieces of {piece}");
    }
}

#[test]
fn a_name_in_escapes_is_the_same_name() {
    let verdict = verdict("body.email", "");
    let body = r#"{"\u0065mail": "ada@example.com", "email2": 1}"#;
    let got = shown(&verdict, &mut headers("application/vnd.acme+json; charset=utf-8"), body.as_bytes(), 100);
    assert_eq!(got.unwrap(), r#"{"\u0065mail": "[masked]", "email2": 1}"#);
}

#[test]
fn one_value_after_another_is_masked_in_each() {
    let verdict = verdict("body.k", "");
    let got = shown(&verdict, &mut headers("application/x-ndjson"), b"{\"k\":1}\n{\"k\":true}\n7\n", 3);
    assert_eq!(got.unwrap(), "{\"k\":\"[masked]\"}\n{\"k\":\"[masked]\"}\n7\n");
}

#[test]
fn what_is_not_the_json_that_it_says_is_not_shown() {
    let verdict = verdict("body.k", "");
    for body in [
        "{\"k\" 1}",
        "{\"k\":1",
        "[1,]",
        "{,}",
        "{\"k\":1]",
        "]",
        "{\"k\":nul}",
        "{'k':1}",
        "{\"k\":01}",
        "[1 2]",
        "{\"a\":1 \"k\":2}",
        "\u{feff}{}",
        "{k:1}",
        "\"open",
        "// x\n{}",
        "1,2",
        "<html>",
    ] {
        assert!(
            shown(&verdict, &mut headers("application/json"), body.as_bytes(), 4).is_err(),
            "{body} was shown"
        );
    }
    let deep = "[".repeat(300);
    assert!(shown(&verdict, &mut headers("application/json"), deep.as_bytes(), 4).is_err());
}

#[test]
fn text_is_masked_wherever_its_body_is_cut() {
    let verdict = verdict("", "card, email, private-key");
    let text = "id;card\n7;4111111111111111\nmail to ada@example.com now\n-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n\
                AgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\nthe end, without a line's end: 4111111111111111";
    let whole = shown(&verdict, &mut headers("text/csv"), text.as_bytes(), text.len()).unwrap();
    assert!(!whole.contains("411111111111") && !whole.contains("ada@") && !whole.contains("MIGH"), "{whole}");
    assert!(whole.contains("id;card\n") && whole.contains("the end"), "{whole}");
    for piece in 1..60 {
        assert_eq!(
            shown(&verdict, &mut headers("text/csv"), text.as_bytes(), piece).unwrap(),
            whole,
            "in pieces of {piece}"
        );
    }
}

#[test]
fn of_a_page_what_can_be_read_as_it_stands_is_masked() {
    let page = "<p>card <b>4111111111111111</b>, <a href=\"mailto:ada@example.com\">mail</a></p>\n";
    let whole =
        shown(&verdict("", "card, email"), &mut headers("text/html; charset=utf-8"), page.as_bytes(), 7);
    let whole = whole.unwrap();
    assert!(!whole.contains("411111111111") && !whole.contains("ada@"), "{whole}");
    assert!(whole.starts_with("<p>card <b>") && whole.ends_with("\">mail</a></p>\n"), "{whole}");
}

#[test]
fn what_a_page_writes_in_character_references_is_masked_wherever_it_is_cut() {
    let verdict = verdict("", "card, email");
    let value = "&#52;111 1111&nbsp;&#x31;11&#0049; 11&#49;1";
    let page = format!(
        "<p title='{value}'>a&lt;b {value} &amp; ada&commat;example&period;com &eacute;</p>\n<i>&#52;</i>"
    );
    for kind in ["text/html", "application/xhtml+xml", "text/xml; charset=utf-8", "text/markdown"] {
        for piece in [1, 3, 7, page.len()] {
            let shown = shown(&verdict, &mut headers(kind), page.as_bytes(), piece).unwrap();
            assert!(
                !shown.contains("11 1") && !shown.contains("&#x31;") && !shown.contains("ada"),
                "{kind} in pieces of {piece}: {shown}"
            );
            assert!(
                shown.starts_with("<p title='***") && shown.ends_with(" &eacute;</p>\n<i>&#52;</i>"),
                "{shown}"
            );
            assert!(shown.contains(">a&lt;b ***") && shown.contains(" &amp; ***"), "{shown}");
        }
    }
    let plain = shown(&verdict, &mut headers("text/plain"), b"&#52;111 1111 1111 1111", 5).unwrap();
    assert_eq!(plain, "&#52;111 1111 1111 1111", "there it says what it says");
}

#[test]
fn a_long_line_of_a_page_is_not_cut_in_the_midst_of_a_value() {
    let page =
        format!("<p>{} &#52;111&#49;111&#49;111&#49;111 {}</p>", "a, ".repeat(21_840), "b, ".repeat(40_000));
    let shown = shown(&verdict("", "card"), &mut headers("text/html"), page.as_bytes(), 1).unwrap();
    assert!(shown.contains("***1111 ") && !shown.contains("&#49;"), "a value was cut");
}

#[test]
fn a_document_with_entities_of_its_own_is_refused() {
    let document = br#"<!DOCTYPE a [<!ENTITY four "4">]><a>&four;111111111111111</a>"#;
    for piece in [1, document.len()] {
        let shown = shown(&verdict("", "card"), &mut headers("application/xml"), document, piece);
        assert!(shown.as_ref().is_err_and(|why| why.contains("entities of its own")), "{shown:?}");
    }
}

#[test]
fn an_event_is_shown_when_it_is_whole_and_not_later() {
    let (verdict, masker) = (verdict("", "email"), masker());
    let masks = Masks::of(&verdict, &masker).unwrap();
    let mut masked = masks.ready(StatusCode::OK, &mut headers("text/event-stream"), true).unwrap().unwrap();
    assert_eq!(masked.take(&Bytes::from_static(b"data: ada@exam")).unwrap(), "");
    let event = masked.take(&Bytes::from_static(b"ple.com\n\n")).unwrap();
    assert!(
        event.starts_with(b"data: ") && event.ends_with(b"\n\n") && !event.starts_with(b"data: ada@"),
        "{event:?}"
    );
}

#[test]
fn header_fields_are_masked_by_name_and_content_and_digests_go() {
    let (verdict, masker) = (verdict("header.x-owner", "email"), masker());
    let mut all = headers("text/plain");
    for (name, value) in [
        ("x-owner", "Ada"),
        ("link", "<mailto:ada@example.com>"),
        ("digest", "sha-256=x"),
        ("etag", "1"),
        ("age", "2"),
    ] {
        all.insert(name, value.parse().unwrap());
    }
    Masks::of(&verdict, &masker).unwrap().ready(StatusCode::OK, &mut all, false).unwrap();
    assert_eq!(all["x-owner"], "[masked]");
    assert!(!all["link"].to_str().unwrap().contains("ada@"), "{all:?}");
    assert_eq!((all.get("digest"), all.get("etag"), &all["age"]), (None, None, &"2".parse().unwrap()));
}

#[test]
fn what_cannot_be_looked_into_is_refused() {
    let fields = verdict("body.email", "");
    let content = verdict("", "card");
    for (verdict, kind, coding) in [
        (&content, "application/octet-stream", ""),
        (&content, "image/png", ""),
        (&content, "multipart/form-data; boundary=x", ""),
        (&content, "text/plain; charset=utf-16", ""),
        (&content, "text/plain", "compress"),
        (&content, "application/json", "gzip, gzip"),
        (&fields, "text/html", ""),
    ] {
        let mut headers = headers(kind);
        if !coding.is_empty() {
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
        }
        assert!(shown(verdict, &mut headers, b"x", 1).is_err(), "{kind} {coding} was shown");
    }
    assert!(shown(&content, &mut HeaderMap::new(), b"x", 1).is_err());
    assert_eq!(shown(&content, &mut HeaderMap::new(), b"", 1).as_deref(), Ok(""));
}

/// A body in each coding.
fn encoded(body: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let level = flate2::Compression::best();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(body).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), level);
    deflate.write_all(body).unwrap();
    let mut br = Vec::new();
    brotli::BrotliCompress(&mut &*body, &mut br, &Default::default()).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest);
    [("gzip", gzip.finish().unwrap()), ("deflate", deflate.finish().unwrap()), ("br", br), ("zstd", zstd)]
}

/// As it is shown that comes in this coding.
fn shown_of(coding: &str, body: &[u8], piece: usize) -> Result<String, String> {
    let mut headers = headers("application/json");
    headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
    let got = shown(&verdict("body.people.email", "card"), &mut headers, body, piece);
    assert_eq!(headers.get(header::CONTENT_ENCODING), None);
    got
}

#[test]
fn a_compressed_body_is_looked_into_and_comes_plain() {
    for (coding, body) in encoded(PEOPLE.as_bytes()) {
        for piece in [1, 7, 1000] {
            let got = shown_of(coding, &body, piece).unwrap();
            assert!(
                got.contains("Ada") && !got.contains("4111111111111111") && !got.contains("ada@"),
                "{got}"
            );
        }
        assert!(shown_of(coding, &body[..body.len() - 9], 7).is_err(), "{coding} that is cut off");
        assert!(shown_of(coding, b"what is none of it at all", 7).is_err(), "{coding} that is none");
    }
}

#[test]
fn a_body_of_more_than_one_frame_is_looked_into_whole() {
    let [.., (_, one)] = encoded(b"[1] ");
    assert_eq!(shown_of("zstd", &[one.as_slice(), &one].concat(), 5).unwrap(), "[1] [1] ");
}

#[test]
fn a_frame_that_asks_for_more_memory_than_a_coding_may_is_refused() {
    // A window of 128 MiB (RFC 8878, 3.1.1.1.2).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
    assert!(shown_of("zstd", &[&frame[..], &[0; 32]].concat(), 5).is_err());
}

#[test]
fn a_body_that_decompresses_without_end_is_cut_off() {
    let verdict = verdict("", "card");
    for (coding, body) in encoded(&b"\n".repeat(64 << 20)) {
        let mut headers = headers("text/plain");
        headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
        let error = shown(&verdict, &mut headers, &body, 4096).unwrap_err();
        assert!(error.contains("200 times"), "{coding}: {error}");
    }
}

#[test]
fn forms_are_masked_wherever_their_body_is_cut() {
    let verdict = verdict("body.access_token", "card");
    let body = "access_token=s3cr%65t&scope=a+b&&card=4111%31111+11111111&n=4111111111111111&flag";
    let stars = "%2A".repeat(13);
    let expected = &format!(
        "access_token=%5Bmasked%5D&scope=a+b&&card={stars}1111&n=%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A1111&flag"
    );
    for piece in 1..40 {
        let got = shown(&verdict, &mut headers("application/x-www-form-urlencoded"), body.as_bytes(), piece);
        assert_eq!(got.as_ref(), Ok(expected), "in pieces of {piece}");
    }
    for body in ["a=%zz", "a=%ff", "%00=a"] {
        let got = shown(&verdict, &mut headers("application/x-www-form-urlencoded"), body.as_bytes(), 3);
        assert!(got.is_err(), "{body} was shown");
    }
}

#[test]
fn a_compressed_body_is_recorded_as_what_it_says() {
    let (masker, mut gzip) =
        (masker(), flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    gzip.write_all(br#"{"token": "hunter2", "n": 1}"#).unwrap();
    let body = gzip.finish().unwrap();
    let mut told = headers("application/json");
    told.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    for piece in [1, body.len()] {
        let mut recorded = Masks::none(&masker).for_the_record(&told).unwrap();
        let mut kept = Vec::new();
        for piece in body.chunks(piece) {
            kept.extend(recorded.take(&Bytes::copy_from_slice(piece)).unwrap());
        }
        kept.extend(recorded.end().unwrap());
        assert_eq!(String::from_utf8_lossy(&kept), r#"{"token": "(withheld)", "n": 1}"#);
    }
    told.insert(header::CONTENT_ENCODING, "aes128gcm".parse().unwrap());
    assert!(Masks::none(&masker).for_the_record(&told).is_err(), "nobody knows what is in it");
}

#[test]
fn what_is_labelled_as_something_that_it_is_not_is_not_shown() {
    let fields = verdict("body.card", "");
    for body in [r#"{"card":"4111111111111111"}"#, "\n [1]", "\"x\"", "<card>4</card>"] {
        let shown = shown(&fields, &mut headers("application/x-www-form-urlencoded"), body.as_bytes(), 3);
        assert!(shown.is_err(), "{body} was shown");
    }
    let content = verdict("", "card");
    let utf16: Vec<u8> = "card,4111111111111111".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(shown(&content, &mut headers("text/csv"), &utf16, 8).is_err());
    for kinds in [&["text/plain; charset=utf-8; charset=utf-16"][..], &["text/plain", "image/png"]] {
        let mut headers = HeaderMap::new();
        kinds.iter().for_each(|kind| _ = headers.append(header::CONTENT_TYPE, kind.parse().unwrap()));
        assert!(shown(&content, &mut headers, b"x", 8).is_err(), "{kinds:?}");
    }
    let mut twice = headers("text/plain");
    twice.append(header::CONTENT_ENCODING, "identity".parse().unwrap());
    twice.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert!(shown(&content, &mut twice, b"x", 8).is_err());
}

/// Each piece is looked at once: otherwise this takes minutes.
#[test]
fn a_long_value_in_small_pieces_takes_no_longer_than_in_large_ones() {
    let verdict = verdict("body.k", "");
    let begun = std::time::Instant::now();
    for body in [format!("{{\"x\": \"{}\"}}", "\\n".repeat(1 << 20)), "7".repeat(1 << 20)] {
        let expected = shown(&verdict, &mut headers("application/json"), body.as_bytes(), 1 << 16);
        assert_eq!(shown(&verdict, &mut headers("application/json"), body.as_bytes(), 31), expected);
    }
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn values_are_masked_each_time_however_many_names_there_were_before() {
    let verdict = verdict("body.people.email", "card");
    let person = |number| {
        format!(
            r#"{{"email": "ada@example.com", "n{number}": {number}, "4111111111111111": "4111 1111 1111 1111", "x{number}": 1}}"#
        )
    };
    let people: Vec<String> = (0..400).map(person).collect();
    let body = format!(r#"{{"people": [{}]}}"#, people.join(", "));
    for piece in [37, body.len()] {
        let shown = shown(&verdict, &mut headers("application/json"), body.as_bytes(), piece).unwrap();
        assert_eq!(shown.matches("[masked]").count(), 400, "in pieces of {piece}");
        assert!(!shown.contains("ada@") && !shown.contains("4111111111111111") && !shown.contains("4111 1"));
        assert!(shown.contains("\"n399\": 399"), "what isn't masked is as it was");
    }
}
