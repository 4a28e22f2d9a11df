//! Golden bytes, every offset, round trips, the corpus.

use std::{borrow::Cow, path::Path};

use proptest::prelude::*;

use super::{
    ErrorFields, Format, HEADER_BYTES, Header, Startup, WireError,
    backend::{
        self, Authentication, BackendKeyData, CommandComplete, CopyResponse, DataRow, TransactionStatus,
    },
    fields::code,
    frontend::{self, Bind, BindNames, Execute, FunctionCall, Kind, Parse, SaslInitialResponse, Target},
    header, startup,
    tour::tour,
    write,
};

/// A message as the documentation lays it out: its tag, its length word, its body.
fn golden(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), &body].concat()
}

fn body(message: &[u8]) -> &[u8] {
    &message[HEADER_BYTES..]
}

/// Every message that clients send, with the bytes that the documentation gives it.
fn frontend_messages() -> Vec<Vec<u8>> {
    vec![
        golden(b'Q', &[b"select 1\0"]),
        golden(b'P', &[b"s1\0", b"select $1, $2\0", &[0, 2, 0, 0, 0, 23, 0, 0, 0, 25]]),
        golden(
            b'B',
            &[
                b"p1\0",
                b"s1\0",
                &[0, 2, 0, 0, 0, 1],
                &[0, 2, 0, 0, 0, 1, b'7', 0xff, 0xff, 0xff, 0xff],
                &[0, 1, 0, 1],
            ],
        ),
        golden(b'D', &[b"Ss1\0"]),
        golden(b'C', &[b"Pp1\0"]),
        golden(b'E', &[b"p1\0", &[0, 0, 0, 50]]),
        golden(b'S', &[]),
        golden(b'H', &[]),
        golden(b'X', &[]),
        golden(b'c', &[]),
        golden(b'f', &[b"no more\0"]),
        golden(b'F', &[&[0, 0, 4, 210], &[0, 1, 0, 1], &[0, 1, 0, 0, 0, 2, 9, 9], &[0, 0]]),
        golden(b'p', &[b"secret\0"]),
    ]
}

/// Every message that servers send.
fn backend_messages() -> Vec<Vec<u8>> {
    vec![
        golden(b'R', &[&[0, 0, 0, 0]]),
        golden(b'R', &[&[0, 0, 0, 3]]),
        golden(b'R', &[&[0, 0, 0, 5], &[1, 2, 3, 4]]),
        golden(b'R', &[&[0, 0, 0, 10], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"]),
        golden(b'S', &[b"server_version\0", b"15.4\0"]),
        golden(b'K', &[&[0, 0, 0x30, 0x39], &[9, 8, 7, 6]]),
        golden(b'Z', &[b"I"]),
        golden(
            b'T',
            &[&[0, 1], b"id\0", &[0, 0, 0x40, 1, 0, 2, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0]],
        ),
        golden(b't', &[&[0, 1, 0, 0, 0, 25]]),
        golden(b'D', &[&[0, 2], &[0, 0, 0, 2], b"42", &[255, 255, 255, 255]]),
        golden(b'C', &[b"INSERT 0 5\0"]),
        golden(b'E', &[b"SERROR\0VERROR\0C42501\0Mrefused\0\0"]),
        golden(b'N', &[b"SNOTICE\0C00000\0Mhello\0\0"]),
        golden(b'H', &[&[0, 0, 2, 0, 0, 0, 0]]),
        golden(b'G', &[&[1, 0, 1, 0, 1]]),
        golden(b'A', &[&[0, 0, 0, 7], b"jobs\0", b"42\0"]),
        golden(b'v', &[&[0, 3, 0, 2, 0, 0, 0, 1], b"_pq_.a\0"]),
        golden(b'V', &[&[0, 0, 0, 1], b"x"]),
    ]
}

/// Whether a message of a client can be understood.
fn understood_frontend(tag: u8, body: &[u8]) -> bool {
    match tag {
        b'Q' => frontend::query(body).is_ok(),
        b'P' => Parse::parse(body).is_ok(),
        b'B' => Bind::parse(body).is_ok(),
        b'D' | b'C' => Target::parse(body).is_ok(),
        b'E' => Execute::parse(body).is_ok(),
        b'f' => frontend::copy_fail(body).is_ok(),
        b'F' => FunctionCall::parse(body).is_ok(),
        b'p' => frontend::password(body).is_ok(),
        _ => frontend::empty(body).is_ok(),
    }
}

/// Whether a message of a server can be understood.
fn understood_backend(tag: u8, body: &[u8]) -> bool {
    match tag {
        b'R' => Authentication::parse(body).is_ok(),
        b'S' => backend::ParameterStatus::parse(body).is_ok(),
        b'K' => BackendKeyData::parse(body).is_ok(),
        b'Z' => TransactionStatus::parse(body).is_ok(),
        b'T' => backend::row_description(body).is_ok(),
        b't' => backend::parameter_description(body).is_ok(),
        b'D' => DataRow::parse(body).is_ok_and(|row| row.collect::<Result<Vec<_>, _>>().is_ok()),
        b'C' => CommandComplete::parse(body).is_ok(),
        b'E' | b'N' => ErrorFields::parse(body).is_ok(),
        b'H' | b'G' => CopyResponse::parse(body).is_ok(),
        b'A' => backend::Notification::parse(body).is_ok(),
        b'v' => backend::NegotiateProtocolVersion::parse(body).is_ok(),
        b'V' => backend::function_call_response(body).is_ok(),
        other => panic!("{other} is no message of a server"),
    }
}

fn written(writer: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    writer(&mut out);
    out
}

#[test]
fn a_header_is_read_once_five_bytes_are_there() {
    let message = golden(b'Q', &[b"x\0"]);
    for end in 0..HEADER_BYTES {
        assert_eq!(header(&message[..end]), Ok(None), "{end} bytes");
    }
    assert_eq!(header(&message[..5]), Ok(Some(Header { tag: b'Q', length: 2 })));
    assert_eq!(header(&message), Ok(Some(Header { tag: b'Q', length: 2 })));
}

#[test]
fn an_impossible_length_is_an_error() {
    for length in [0_u32, 3, 0x4000_0000, u32::MAX] {
        let bytes = [&b"Q"[..], &length.to_be_bytes()].concat();
        assert_eq!(header(&bytes), Err(WireError::Length { tag: b'Q', length }));
    }
    let largest = [&b"Q"[..], &0x3fff_ffff_u32.to_be_bytes()].concat();
    assert!(header(&largest).is_ok());
}

#[test]
fn every_message_is_understood_whole_and_in_no_other_length() {
    type Understood = fn(u8, &[u8]) -> bool;
    let clients = (frontend_messages(), understood_frontend as Understood);
    let servers = (backend_messages(), understood_backend as Understood);
    for (messages, understood) in [clients, servers] {
        for message in messages {
            let (tag, whole) = (message[0], body(&message));
            assert!(understood(tag, whole), "{:?}", message.escape_ascii().to_string());
            for end in 0..whole.len() {
                assert!(!understood(tag, &whole[..end]), "{} cut at {end}", message.escape_ascii());
            }
            // A secret has no length of its own.
            let open_ended = tag == backend::tag::BACKEND_KEY_DATA;
            let longer = [whole, b"!"].concat();
            assert_eq!(understood(tag, &longer), open_ended, "{} with more", message.escape_ascii());
        }
    }
}

#[test]
fn clients_messages_are_written_as_the_documentation_has_them() {
    let (binary, text) = (Format::Binary, Format::Text);
    let parameters = [Some(&b"7"[..]), None];
    let all = [
        written(|out| write::query(out, b"select 1")),
        written(|out| write::parse(out, b"s1", b"select $1, $2", &[23, 25])),
        written(|out| write::bind(out, b"p1", b"s1", &[text, binary], &parameters, &[binary])),
        written(|out| write::describe(out, Kind::Statement, b"s1")),
        written(|out| write::close(out, Kind::Portal, b"p1")),
        written(|out| write::execute(out, b"p1", Some(50))),
        written(write::sync),
        written(write::flush),
        written(write::terminate),
        written(|out| write::bare(out, frontend::tag::COPY_DONE)),
        written(|out| write::copy_fail(out, "no more")),
    ];
    assert_eq!(all[..], frontend_messages()[..all.len()]);
    assert_eq!(written(|out| write::password(out, b"secret")), *frontend_messages().last().unwrap());
    assert_eq!(
        written(|out| write::sasl_initial_response(out, "SCRAM-SHA-256", b"n,,")),
        golden(b'p', &[b"SCRAM-SHA-256\0", &[0, 0, 0, 3], b"n,,"])
    );
    assert_eq!(written(|out| write::sasl_response(out, b"c=biws")), golden(b'p', &[b"c=biws"]));
}

#[test]
fn servers_messages_are_written_as_the_documentation_has_them() {
    let messages = backend_messages();
    let message = |tag| messages.iter().find(|message| message[0] == tag).unwrap().clone();
    let error = ErrorFields::new("ERROR", "42501", "refused");
    let row = message(b'T');
    let columns = backend::row_description(body(&row)).unwrap();
    for expected_and_written in [
        (message(b'R'), written(write::authentication_ok)),
        (message(b'S'), written(|out| write::parameter_status(out, b"server_version", b"15.4"))),
        (message(b'K'), written(|out| write::backend_key_data(out, 12345, &[9, 8, 7, 6]))),
        (message(b'Z'), written(|out| write::ready_for_query(out, TransactionStatus::Idle))),
        (row.clone(), written(|out| write::row_description(out, &columns))),
        (message(b't'), written(|out| write::parameter_description(out, &[25]))),
        (message(b'D'), written(|out| write::data_row(out, &[Some(b"42"), None]))),
        (message(b'C'), written(|out| write::command_complete(out, b"INSERT 0 5"))),
        (message(b'E'), written(|out| write::error_response(out, &error))),
        (message(b'A'), written(|out| write::notification_response(out, 7, b"jobs", b"42"))),
        (message(b'v'), written(|out| write::negotiate_protocol_version(out, 2, &["_pq_.a"]))),
    ] {
        assert_eq!(expected_and_written.0, expected_and_written.1);
    }
}

#[test]
fn a_message_is_appended_and_leaves_what_was_there() {
    let mut out = bytes::BytesMut::from(&b"before"[..]);
    write::sync(&mut out);
    write::query(&mut out, b"x");
    assert_eq!(&out[..], b"beforeS\0\0\0\x04Q\0\0\0\x06x\0");
}

#[test]
fn a_zero_byte_in_a_string_ends_the_string_and_not_the_message() {
    let smuggled = written(|out| write::startup(out, 0, [("user", "bob\0database\0secrets"), ("a", "b")]));
    let (request, _) = startup(&smuggled).unwrap().unwrap();
    let Startup::Start { parameters, .. } = request else { panic!("{request:?}") };
    let names: Vec<_> = parameters.iter().map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(names, ["user", "a"]);
    let error = written(|out| write::error_response(out, &ErrorFields::new("ERROR", "42501", "no\0Hhint")));
    assert_eq!(ErrorFields::parse(body(&error)).unwrap().get(code::HINT), None);
}

#[test]
fn startup_packets_are_read_at_every_offset() {
    let start = written(|out| write::startup(out, 2, [("user", "bob"), ("database", "shop")]));
    let cancel = written(|out| write::cancel_request(out, 77, &[1, 2, 3, 4]));
    let ssl = written(write::ssl_request);
    let gss = [0, 0, 0, 8, 4, 210, 22, 48].to_vec();
    assert_eq!(ssl, [0, 0, 0, 8, 4, 210, 22, 47]);
    for packet in [&start, &cancel, &ssl, &gss] {
        for end in 0..packet.len() {
            assert_eq!(startup(&packet[..end]), Ok(None), "{end} of {}", packet.len());
        }
        let more = [packet, &b"more"[..]].concat();
        let (request, used) = startup(&more).unwrap().unwrap();
        assert_eq!(used, packet.len());
        match request {
            Startup::Ssl => assert_eq!(packet, &ssl),
            Startup::GssEncryption => assert_eq!(packet, &gss),
            Startup::Cancel { process_id, secret } => {
                assert_eq!((process_id, secret), (77, &[1, 2, 3, 4][..]))
            }
            Startup::Start { major, minor, parameters } => {
                assert_eq!((major, minor, parameters.len()), (3, 2, 2));
            }
        }
    }
}

#[test]
fn startup_packets_have_the_servers_limits() {
    for length in [0_u32, 7, 10_005, u32::MAX] {
        assert_eq!(startup(&length.to_be_bytes()), Err(WireError::StartupLength(length)));
    }
    assert_eq!(startup(&10_004_u32.to_be_bytes()), Ok(None));
    let no_end = [&[0, 0, 0, 14, 0, 3, 0, 0][..], b"user\0b"].concat();
    assert_eq!(startup(&no_end), Err(WireError::Unterminated("parameter value")));
    let after_end = [&[0, 0, 0, 10, 0, 3, 0, 0, 0][..], b"x"].concat();
    assert_eq!(startup(&after_end), Err(WireError::Trailing(1)));
}

#[test]
fn cancel_secrets_are_4_to_256_bytes_long() {
    for (length, fits) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        let packet = written(|out| write::cancel_request(out, 1, &vec![7; length]));
        assert_eq!(startup(&packet).is_ok(), fits, "{length}");
    }
}

#[test]
fn a_bind_shows_its_names_before_it_is_whole() {
    let bind = written(|out| write::bind(out, b"portal", b"statement", &[], &[Some(&[0; 5000])], &[]));
    let whole = body(&bind);
    let names = "portal\0statement\0".len();
    for end in 0..names {
        assert_eq!(BindNames::parse(&whole[..end]), None, "{end}");
    }
    let found = BindNames::parse(&whole[..names]).unwrap();
    assert_eq!((found.portal.as_bytes(), found.statement.as_bytes()), (&b"portal"[..], &b"statement"[..]));
    assert_eq!(Bind::parse(whole).unwrap().names, found);
}

#[test]
fn one_format_code_counts_for_all_values_and_none_means_text() {
    let formats = |codes: &[Format]| {
        let bind = written(|out| write::bind(out, b"", b"", codes, &[], &[]));
        let formats = Bind::parse(body(&bind)).unwrap().parameter_formats;
        [formats.of(0), formats.of(1), formats.of(2)]
    };
    let (text, binary) = (Some(Format::Text), Some(Format::Binary));
    assert_eq!(formats(&[]), [text, text, text]);
    assert_eq!(formats(&[Format::Binary]), [binary, binary, binary]);
    assert_eq!(formats(&[Format::Binary, Format::Text]), [binary, text, None]);
}

#[test]
fn false_counts_are_errors_and_cost_no_memory() {
    let many = [0xff, 0xff];
    assert_eq!(backend::row_description(&many), Err(WireError::Ends("column")));
    assert!(Parse::parse(&[&b"\0\0"[..], &many].concat()).is_err());
    assert!(Bind::parse(&[&b"\0\0"[..], &[0, 0], &many, &[0, 0, 0, 0]].concat()).is_err());
    let options = [&[0, 3, 0, 0][..], &u32::MAX.to_be_bytes()].concat();
    assert!(backend::NegotiateProtocolVersion::parse(&options).is_err());
    let long_value = [&[0, 1][..], &i32::MAX.to_be_bytes()].concat();
    assert_eq!(DataRow::parse(&long_value).unwrap().next(), Some(Err(WireError::Ends("column value"))));
}

#[test]
fn a_row_that_is_framed_badly_ends_with_one_error() {
    let negative = [&[0, 2][..], &(-2_i32).to_be_bytes(), &[0; 8]].concat();
    let read: Vec<_> = DataRow::parse(&negative).unwrap().collect();
    assert_eq!(read, [Err(WireError::Value { what: "value length", value: -2 })]);
    let trailing = [0, 0, 1];
    assert_eq!(DataRow::parse(&trailing).unwrap().collect::<Vec<_>>(), [Err(WireError::Trailing(1))]);
}

#[test]
fn command_tags_tell_their_rows() {
    let rows = |tag: &str| CommandComplete::parse(format!("{tag}\0").as_bytes()).unwrap().rows();
    assert_eq!(rows("SELECT 3"), Some(3));
    assert_eq!(rows("INSERT 0 5"), Some(5));
    assert_eq!(rows("COPY 18446744073709551615"), Some(u64::MAX));
    assert_eq!(rows("CREATE TABLE"), None);
    assert_eq!(rows("BEGIN"), None);
    assert_eq!(rows("SELECT "), None);
    assert_eq!(rows("SELECT +3"), None);
}

#[test]
fn no_row_limit_is_written_as_zero_and_negative_ones_are_none() {
    let execute = |limit: [u8; 4]| Execute::parse(&[&b"\0"[..], &limit].concat()).unwrap().max_rows;
    assert_eq!(execute([0; 4]), None);
    assert_eq!(execute([255; 4]), None);
    assert_eq!(execute([0, 0, 0, 9]), Some(9));
}

#[test]
fn error_fields_keep_their_order_and_can_be_changed() {
    let mut fields = ErrorFields::new("ERROR", "23505", "duplicate").with(code::DETAIL, "Key (a)=(7)");
    fields.set(code::MESSAGE, Cow::Borrowed(b"withheld"));
    fields.retain(|field| field != code::DETAIL);
    let codes: Vec<_> = fields.iter().map(|(code, _)| code).collect();
    assert_eq!(codes, b"SVCM");
    assert_eq!(fields.summary(), "23505 withheld");
    let upper = fields.map(|_, value| value.to_ascii_uppercase().into());
    assert_eq!(upper.get(code::MESSAGE), Some(&b"WITHHELD"[..]));
}

#[test]
fn text_that_is_not_utf8_is_shown_and_not_guessed() {
    let query = frontend::query(b"caf\xe9\0").unwrap();
    assert_eq!(query.as_bytes(), b"caf\xe9");
    assert_eq!(query.to_str(), Err(WireError::NotUtf8));
    assert_eq!(format!("{query:?}"), r#""caf\xe9""#);
}

#[test]
fn a_message_type_has_the_servers_limit() {
    assert_eq!(frontend::largest_body(b'B'), Ok(0x3fff_fffa));
    assert_eq!(frontend::largest_body(b'E'), Ok(9_996));
    assert_eq!(frontend::largest_body(b'p'), Ok(65_531));
    assert_eq!(frontend::largest_body(b'!'), Err(WireError::Tag(b'!')));
}

/// What the fuzzer has found worth keeping, and one of each message.
#[test]
fn the_corpus_is_read_without_a_fault() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wire");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 30, "the corpus is there");
    for file in files {
        tour(&std::fs::read(&file).unwrap());
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8.., 0..20)
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..6)
}

fn formats() -> impl Strategy<Value = Vec<Format>> {
    prop::collection::vec(prop_oneof![Just(Format::Text), Just(Format::Binary)], 0..6)
}

fn borrowed(values: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    values.iter().map(|value| value.as_deref()).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        tour(&bytes);
    }

    #[test]
    fn any_body_of_any_type_is_read_without_a_fault(
        tag in any::<u8>(),
        body in prop::collection::vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..120),
    ) {
        tour(&written(|out| write::raw(out, tag, &body)));
    }

    #[test]
    fn a_parse_is_read_as_it_was_written(
        name in text(), query in text(), types in prop::collection::vec(any::<u32>(), 0..6),
    ) {
        let message = written(|out| write::parse(out, &name, &query, &types));
        let read = Parse::parse(body(&message)).unwrap();
        prop_assert_eq!(read.name.as_bytes(), name);
        prop_assert_eq!(read.query.as_bytes(), query);
        prop_assert_eq!(read.parameter_types.len(), types.len());
        prop_assert_eq!(read.parameter_types.iter().collect::<Vec<_>>(), types);
    }

    #[test]
    fn a_bind_is_read_as_it_was_written(
        portal in text(), statement in text(), given in formats(), parameters in values(), results in formats(),
    ) {
        let parameters = borrowed(&parameters);
        let message = written(|out| write::bind(out, &portal, &statement, &given, &parameters, &results));
        let read = Bind::parse(body(&message)).unwrap();
        prop_assert_eq!(read.names.portal.as_bytes(), portal);
        prop_assert_eq!(read.names.statement.as_bytes(), statement);
        prop_assert_eq!(read.parameter_formats.iter().collect::<Vec<_>>(), given);
        prop_assert_eq!(read.parameters.iter().collect::<Vec<_>>(), parameters);
        prop_assert_eq!(read.result_formats.len(), results.len());
        prop_assert_eq!(read.result_formats.iter().collect::<Vec<_>>(), results);
    }

    #[test]
    fn a_row_is_read_as_it_was_written(row in values()) {
        let row = borrowed(&row);
        let message = written(|out| write::data_row(out, &row));
        let read = DataRow::parse(body(&message)).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(read, row);
    }

    #[test]
    fn an_error_is_read_as_it_was_written(given in prop::collection::vec((1_u8.., text()), 0..6)) {
        let mut fields = ErrorFields::default();
        for (code, value) in given {
            fields.set(code, Cow::Owned(value));
        }
        let message = written(|out| write::error_response(out, &fields));
        prop_assert_eq!(ErrorFields::parse(body(&message)).unwrap().into_owned(), fields);
    }

    #[test]
    fn a_startup_message_is_read_as_it_was_written(
        minor in any::<u16>(),
        given in prop::collection::vec(("[^\0]{1,10}", "[^\0]{0,10}"), 0..6),
    ) {
        let pairs = given.iter().map(|(name, value)| (&**name, &**value));
        let packet = written(|out| write::startup(out, minor, pairs));
        let (read, used) = startup(&packet).unwrap().unwrap();
        prop_assert_eq!(used, packet.len());
        let Startup::Start { major, minor: read_minor, parameters } = read else { panic!("{read:?}") };
        let read: Vec<_> = parameters
            .iter()
            .map(|(name, value)| (name.to_str().unwrap().to_owned(), value.to_str().unwrap().to_owned()))
            .collect();
        prop_assert_eq!((major, read_minor, read), (3, minor, given));
    }
}

#[test]
fn an_initial_response_may_be_empty_or_absent() {
    let absent = [&b"X\0"[..], &[255; 4]].concat();
    assert_eq!(SaslInitialResponse::parse(&absent).unwrap().response, None);
    let empty = [&b"X\0"[..], &[0; 4]].concat();
    assert_eq!(SaslInitialResponse::parse(&empty).unwrap().response, Some(&[][..]));
}
