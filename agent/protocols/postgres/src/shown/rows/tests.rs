use std::sync::Arc;

use proptest::prelude::*;
use tidegate_gate::{Masker, Secret};
use tidegate_policy::{Content, ContentMask, ResultMasks, Show, Shown};

use super::{CannotShow, ColumnType, Format, RowMasker};

const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const BYTEA: u32 = 17;
const JSON: u32 = 114;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const TIMESTAMP: u32 = 1114;
const NUMERIC: u32 = 1700;
const RECORD: u32 = 2249;
const UUID: u32 = 2950;
const TSVECTOR: u32 = 3614;
const JSONB: u32 = 3802;
const INT8RANGE: u32 = 3926;
const INT8MULTIRANGE: u32 = 4536;
const TEXT_ARRAY: u32 = 1009;
const INT4_ARRAY: u32 = 1007;
const JSONB_ARRAY: u32 = 3807;
const RECORD_ARRAY: u32 = 2287;
/// The first that isn't the catalog's.
const EXTENSION: u32 = 16384;

const CARD: &str = "4111111111111111";

fn masker() -> Arc<Masker> {
    Arc::new(Masker::new(Secret::new(vec![3; 32])))
}

fn redact() -> Arc<Show> {
    Arc::new(Show::Redact("***".into()))
}

fn masked() -> Shown {
    Shown::Masked(redact())
}

fn scanned() -> Shown {
    let finds = vec![(Content::Card, redact()), (Content::Email, redact())];
    Shown::Scanned(Arc::new(ContentMask { finds }))
}

fn rows(columns: &[(u32, Format, Shown)]) -> Result<Option<RowMasker>, CannotShow> {
    let masks =
        ResultMasks { columns: columns.iter().map(|(_, _, shown)| shown.clone()).collect(), whole: None };
    let types: Vec<_> =
        columns.iter().map(|(oid, format, _)| ColumnType { oid: *oid, format: *format }).collect();
    RowMasker::new(&masks, &types, masker())
}

fn field(value: Option<&[u8]>) -> Vec<u8> {
    let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
    [&length.to_be_bytes()[..], value.unwrap_or_default()].concat()
}

fn body(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    body.extend(values.iter().flat_map(|value| field(*value)));
    body
}

fn message(values: &[Option<&[u8]>]) -> Vec<u8> {
    let body = body(values);
    let length = i32::try_from(body.len() + 4).unwrap();
    [&b"D"[..], &length.to_be_bytes(), &body].concat()
}

/// How one value is shown, by way of a whole row.
fn look(oid: u32, format: Format, shown: Shown, value: &[u8]) -> Result<Option<Vec<u8>>, CannotShow> {
    let rows = rows(&[(oid, format, shown)])?.unwrap();
    let mut out = b"before".to_vec();
    let result = rows.data_row(&body(&[Some(value)]), &mut out);
    if let Err(error) = result {
        assert_eq!(out, b"before", "nothing is appended on an error");
        return Err(error);
    }
    let row = out.strip_prefix(b"before").unwrap();
    let value = row[11..].to_vec();
    let is_null = row[7..11] == (-1_i32).to_be_bytes();
    let shown = (!is_null).then_some(value);
    assert_eq!(row, message(&[shown.as_deref()]));
    Ok(shown)
}

#[track_caller]
fn shows(oid: u32, shown: Shown, value: &str, expected: &str) {
    let text = look(oid, Format::Text, shown, value.as_bytes()).unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

#[track_caller]
fn nulls(oid: u32, shown: Shown, value: &str) {
    assert_eq!(look(oid, Format::Text, shown, value.as_bytes()), Ok(None));
}

#[test]
fn rows_of_plain_columns_are_not_touched() {
    assert!(
        rows(&[(TEXT, Format::Text, Shown::Plain), (EXTENSION, Format::Binary, Shown::Plain)])
            .unwrap()
            .is_none()
    );
}

#[test]
fn only_masked_columns_differ_from_what_was_sent() {
    let columns = [
        (INT4, Format::Text, Shown::Plain),
        (TEXT, Format::Text, masked()),
        (EXTENSION, Format::Binary, Shown::Plain),
        (TEXT, Format::Text, scanned()),
        (TEXT, Format::Text, masked()),
        (TIMESTAMP, Format::Text, Shown::Plain),
    ];
    let rows = rows(&columns).unwrap().unwrap();
    let scan = format!("pay {CARD} to a@example.com");
    let sent: [Option<&[u8]>; 6] =
        [Some(b"7"), Some(b"secret"), Some(b"\0\xff"), Some(scan.as_bytes()), None, Some(b"2024-11-22")];
    let expected: [Option<&[u8]>; 6] =
        [Some(b"7"), Some(b"***"), Some(b"\0\xff"), Some(b"pay *** to ***"), None, Some(b"2024-11-22")];
    let mut out = Vec::new();
    rows.data_row(&body(&sent), &mut out).unwrap();
    assert_eq!(out, message(&expected));
}

#[test]
fn a_result_that_was_not_traced_is_masked_whole_whatever_its_columns() {
    let masks = ResultMasks { columns: Vec::new(), whole: Some(masked()) };
    let types = [TEXT, INT8, EXTENSION].map(|oid| ColumnType { oid, format: Format::Text });
    let rows = RowMasker::new(&masks, &types, masker()).unwrap().unwrap();
    let mut out = Vec::new();
    rows.data_row(&body(&[Some(b"a"), Some(b"1"), Some(b"b")]), &mut out).unwrap();
    assert_eq!(out, message(&[Some(b"***"), None, Some(b"***")]));
}

#[test]
fn a_result_with_other_columns_than_decided_on_is_refused() {
    let masks = ResultMasks { columns: vec![masked()], whole: None };
    let types = [ColumnType { oid: TEXT, format: Format::Text }; 2];
    let error = RowMasker::new(&masks, &types, masker()).unwrap_err();
    assert_eq!(error, CannotShow::Columns { expected: 1, found: 2 });

    let rows = rows(&[(TEXT, Format::Text, masked())]).unwrap().unwrap();
    for count in [0, 2] {
        let error = rows.data_row(&body(&vec![Some(&b"x"[..]); count]), &mut Vec::new()).unwrap_err();
        assert_eq!(error, CannotShow::Columns { expected: 1, found: count });
    }
}

#[test]
fn what_cannot_be_scanned_is_refused_before_any_row() {
    for oid in [EXTENSION, TSVECTOR, 3643] {
        let columns = [(TEXT, Format::Text, Shown::Plain), (oid, Format::Binary, scanned())];
        let error = rows(&columns).unwrap_err();
        assert_eq!(error, CannotShow::Unscannable { column: 2, oid });
        assert_eq!(
            error.to_string(),
            format!("column 2 (type {oid} in binary) cannot be scanned for content; cast it to text")
        );
    }
}

#[test]
fn a_masked_value_of_another_type_than_text_is_null() {
    let shows =
        [redact(), Arc::new(Show::Token), Arc::new(Show::Keep { first: 1, last: 1 }), Arc::new(Show::Null)];
    for show in shows {
        for oid in
            [INT8, NUMERIC, FLOAT8, BYTEA, TIMESTAMP, UUID, RECORD, INT8RANGE, TSVECTOR, INT4_ARRAY, 16, 869]
        {
            nulls(oid, Shown::Masked(show.clone()), "{123456}");
        }
        for oid in [EXTENSION, RECORD, INT8, BYTEA] {
            assert_eq!(look(oid, Format::Binary, Shown::Masked(show.clone()), b"12345678"), Ok(None));
        }
    }
}

#[test]
fn masked_text_is_the_same_in_both_formats() {
    let keep = Shown::Masked(Arc::new(Show::Keep { first: 0, last: 4 }));
    for format in [Format::Text, Format::Binary] {
        let shown = look(TEXT, format, keep.clone(), CARD.as_bytes()).unwrap().unwrap();
        assert_eq!(shown, b"************1111");
    }
    shows(BPCHAR, keep, "4111111111111111   ", "************1111");
    shows(EXTENSION, masked(), "open", "***");
    nulls(EXTENSION, masked(), "(a,b)");
    nulls(EXTENSION, masked(), "{a,b}");
    nulls(EXTENSION, masked(), r#""a"=>"b""#);
}

#[test]
fn masked_json_is_a_json_string() {
    let keep = Shown::Masked(Arc::new(Show::Keep { first: 0, last: 4 }));
    shows(JSON, masked(), r#"{"a": 1}"#, r#""***""#);
    shows(JSONB, keep, r#""4111111111111111""#, r#""************1111""#);
    let shown = look(JSONB, Format::Binary, masked(), b"\x01[1]").unwrap().unwrap();
    assert_eq!(shown, b"\x01\"***\"");
    nulls(JSON, Shown::Masked(Arc::new(Show::Null)), "{}");
}

#[test]
fn json_leaves_are_scanned_and_everything_else_stays() {
    let sent = r#"{ "a" : [4111111111111111, "x \u0034111111111111111 y", 1.50e3, null], "e@example.com":"q\"uote" }"#;
    let expected = r#"{ "a" : ["***", "x *** y", 1.50e3, null], "***":"q\"uote" }"#;
    for oid in [JSON, JSONB] {
        shows(oid, scanned(), sent, expected);
    }
    let binary = look(JSONB, Format::Binary, scanned(), format!("\u{1}{sent}").as_bytes()).unwrap().unwrap();
    assert_eq!(String::from_utf8(binary).unwrap(), format!("\u{1}{expected}"));
    shows(JSON, scanned(), r#"["\ud800", "a@example.com"]"#, r#"["\ud800", "***"]"#);
    let error = look(JSON, Format::Text, scanned(), br#"{"a"#).unwrap_err();
    assert_eq!(error, CannotShow::Malformed("JSON that cannot be read"));
    assert!(look(JSONB, Format::Binary, scanned(), b"\x02{}").is_err());
}

#[test]
fn what_replaces_a_json_leaf_is_quoted_for_json() {
    let show = Arc::new(Show::Redact("\"\\\n".into()));
    let mask = Arc::new(ContentMask { finds: vec![(Content::Email, show)] });
    shows(JSON, Shown::Scanned(mask), r#"["a@example.com"]"#, r#"["\"\\\n"]"#);
}

#[test]
fn arrays_are_shown_by_element() {
    shows(TEXT_ARRAY, masked(), r#"{a,"b,\"c",NULL,"NULL"}"#, r#"{"***","***",NULL,"***"}"#);
    shows(TEXT_ARRAY, masked(), "[2:3][0:1]={{a,b},{c,NULL}}", r#"[2:3][0:1]={{"***","***"},{"***",NULL}}"#);
    shows(TEXT_ARRAY, scanned(), "{a@example.com,plain,\"to b@example.com\"}", r#"{"***",plain,"to ***"}"#);
    shows(TEXT_ARRAY, masked(), "{}", "{}");
    shows(
        JSONB_ARRAY,
        scanned(),
        r#"{"{\"card\": 4111111111111111}",null}"#,
        r#"{"{\"card\": \"***\"}",null}"#,
    );
    shows(INT8 - 20 + 1016, scanned(), "{1,4111111111111111,3}", "{1,NULL,3}");
    nulls(INT4_ARRAY, masked(), "{1,2}");
    for broken in ["{", "{a", "}", "{a}}", "a", "{\"a}", "{a\\", "[1:1]", "{\"a\"b}", ""] {
        assert!(look(TEXT_ARRAY, Format::Text, masked(), broken.as_bytes()).is_err(), "{broken:?}");
    }
}

fn array(element: u32, has_null: i32, values: &[Option<&[u8]>]) -> Vec<u8> {
    let count = i32::try_from(values.len()).unwrap();
    let head = [1, has_null, i32::try_from(element).unwrap(), count, 1];
    let mut array: Vec<u8> = head.iter().flat_map(|number| number.to_be_bytes()).collect();
    array.extend(values.iter().flat_map(|value| field(*value)));
    array
}

#[test]
fn binary_arrays_are_shown_by_element() {
    let sent = array(TEXT, 1, &[Some(b"a@example.com"), None, Some(b"x")]);
    let shown = look(TEXT_ARRAY, Format::Binary, masked(), &sent).unwrap().unwrap();
    assert_eq!(shown, array(TEXT, 1, &[Some(b"***"), None, Some(b"***")]));
    let shown = look(TEXT_ARRAY, Format::Binary, scanned(), &sent).unwrap().unwrap();
    assert_eq!(shown, array(TEXT, 1, &[Some(b"***"), None, Some(b"x")]));
}

#[test]
fn a_binary_array_says_so_when_an_element_became_null() {
    let card = 4_111_111_111_111_111_i64.to_be_bytes();
    let sent = array(INT8, 0, &[Some(&card), Some(&[0; 8])]);
    let shown = look(1016, Format::Binary, scanned(), &sent).unwrap().unwrap();
    assert_eq!(shown, array(INT8, 1, &[None, Some(&[0; 8])]));
    let shown = look(1016, Format::Binary, masked(), &sent).unwrap().unwrap();
    assert_eq!(shown, array(INT8, 1, &[None, None]));
}

#[test]
fn an_array_of_a_type_that_cannot_be_scanned_is_refused() {
    let sent = array(EXTENSION, 0, &[Some(b"x")]);
    let error = look(2277, Format::Binary, scanned(), &sent).unwrap_err();
    assert_eq!(error, CannotShow::Unscannable { column: 1, oid: EXTENSION });
}

#[test]
fn records_are_scanned_by_field_and_quoted_again() {
    shows(RECORD, scanned(), r#"(1,"to ""a@example.com"", ok",,x)"#, r#"(1,"to ""***"", ok",,x)"#);
    shows(RECORD, scanned(), "(4111111111111111,\"4111 1111 1111 1111\")", r#"(,"***")"#);
    let sent = format!(r#"("{{""c"": 4111111111111111}}","\\x{}")"#, hex::encode("a@example.com"));
    let expected = format!(r#"("{{""c"": ""***""}}","\\x{}")"#, hex::encode("***"));
    shows(RECORD, scanned(), &sent, &expected);
    shows(RECORD, scanned(), r#"("{a@example.com,b}",2)"#, r#"("{""***"",b}",2)"#);
    shows(RECORD, scanned(), r#"("(x,a@example.com)")"#, r#"("(x,""***"")")"#);
    shows(RECORD_ARRAY, scanned(), r#"{"(1,a@example.com)"}"#, r#"{"(1,\"***\")"}"#);
    for broken in ["", "(", "(a", "(a)b", "(\"a)", "a"] {
        assert!(look(RECORD, Format::Text, scanned(), broken.as_bytes()).is_err(), "{broken:?}");
    }
}

fn record(fields: &[(u32, Option<&[u8]>)]) -> Vec<u8> {
    let mut record = i32::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    record
        .extend(fields.iter().flat_map(|(oid, value)| [oid.to_be_bytes().to_vec(), field(*value)].concat()));
    record
}

#[test]
fn binary_records_are_scanned_by_field() {
    let inner = |value| record(&[(TEXT, Some(value)), (INT4, Some(&[0, 0, 0, 1]))]);
    let sent =
        record(&[(TEXT, Some(CARD.as_bytes())), (RECORD, Some(&inner(b"a@example.com"))), (INT4, None)]);
    let shown = look(RECORD, Format::Binary, scanned(), &sent).unwrap().unwrap();
    assert_eq!(shown, record(&[(TEXT, Some(b"***")), (RECORD, Some(&inner(b"***"))), (INT4, None)]));
    let error = look(RECORD, Format::Binary, scanned(), &record(&[(EXTENSION, Some(b""))])).unwrap_err();
    assert_eq!(error, CannotShow::Unscannable { column: 1, oid: EXTENSION });
}

#[test]
fn values_nested_too_deeply_are_refused() {
    let mut nested = record(&[(TEXT, Some(b"x"))]);
    for _ in 0..10_000 {
        nested = record(&[(RECORD, Some(&nested))]);
    }
    let error = look(RECORD, Format::Binary, scanned(), &nested).unwrap_err();
    assert_eq!(error, CannotShow::Malformed("values nested too deeply"));
}

#[test]
fn numbers_that_are_card_numbers_are_null() {
    for card in ["6304000000000000000", CARD] {
        nulls(INT8, scanned(), card);
        nulls(NUMERIC, scanned(), card);
        let number: i64 = card.parse().unwrap();
        assert_eq!(look(INT8, Format::Binary, scanned(), &number.to_be_bytes()), Ok(None));
    }
    nulls(NUMERIC, scanned(), "4111111111111111.00");
    nulls(FLOAT8, scanned(), "4.111111111111111e+15");
    assert_eq!(look(FLOAT8, Format::Binary, scanned(), &4_111_111_111_111_111_f64.to_be_bytes()), Ok(None));
    // 4111111111111111.25 and 42.
    let numeric = |weight: i16, scale: u16, digits: &[i16]| {
        let mut number = i16::try_from(digits.len()).unwrap().to_be_bytes().to_vec();
        number.extend(weight.to_be_bytes());
        number.extend([0, 0]);
        number.extend(scale.to_be_bytes());
        number.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        number
    };
    let card = numeric(3, 2, &[4111, 1111, 1111, 1111, 2500]);
    assert_eq!(look(NUMERIC, Format::Binary, scanned(), &card), Ok(None));
    let small = numeric(0, 0, &[42]);
    assert_eq!(look(NUMERIC, Format::Binary, scanned(), &small), Ok(Some(small)));
    shows(INT8, scanned(), "4111111111111112", "4111111111111112");
    let plain = 42_i64.to_be_bytes();
    assert_eq!(look(INT8, Format::Binary, scanned(), &plain), Ok(Some(plain.to_vec())));
    assert!(look(INT8, Format::Binary, scanned(), b"123").is_err());
}

#[test]
fn ranges_with_a_card_number_for_a_bound_are_null() {
    nulls(INT8RANGE, scanned(), "[1,4111111111111111)");
    shows(INT8RANGE, scanned(), "[1,5)", "[1,5)");
    let range = |bound: i64| [&[0x02 | 0x10][..], &field(Some(&bound.to_be_bytes()))].concat();
    let multirange = |bound| [&1_i32.to_be_bytes()[..], &field(Some(&range(bound)))].concat();
    let card = 4_111_111_111_111_111;
    assert_eq!(look(INT8RANGE, Format::Binary, scanned(), &range(card)), Ok(None));
    assert_eq!(look(INT8RANGE, Format::Binary, scanned(), &range(5)), Ok(Some(range(5))));
    assert_eq!(look(INT8MULTIRANGE, Format::Binary, scanned(), &multirange(card)), Ok(None));
    assert_eq!(look(INT8MULTIRANGE, Format::Binary, scanned(), &multirange(5)), Ok(Some(multirange(5))));
    assert_eq!(look(INT8RANGE, Format::Binary, scanned(), &[1]), Ok(Some(vec![1])));
}

#[test]
fn bytea_is_scanned_as_what_it_encodes() {
    let hex = |text: &str| format!("\\x{}", hex::encode(text));
    shows(BYTEA, scanned(), &hex("a@example.com\0"), &hex("***\0"));
    shows(BYTEA, scanned(), &hex("\u{1}binary"), &hex("\u{1}binary"));
    shows(BYTEA, scanned(), r"\001a@example.com\\", &hex("\u{1}***\\"));
    let shown = look(BYTEA, Format::Binary, scanned(), b"\xffa@example.com\x00").unwrap().unwrap();
    // Bytes from 0x80 may be letters of an internationalised address.
    assert_eq!(shown, b"***\x00");
    for broken in [r"\xabc", r"\9", r"\"] {
        assert!(look(BYTEA, Format::Text, scanned(), broken.as_bytes()).is_err());
    }
}

#[test]
fn values_of_other_types_are_scanned_without_breaking_their_syntax() {
    shows(EXTENSION, scanned(), r#""k"=>"4111111111111111", "e"=>NULL"#, r#""k"=>"***", "e"=>NULL"#);
    shows(EXTENSION, scanned(), "mail a@example.com", "mail ***");
    shows(EXTENSION, scanned(), "{a@example.com,b}", r#"{"***",b}"#);
    shows(EXTENSION, scanned(), "(1,a@example.com)", r#"(1,"***")"#);
    shows(EXTENSION, scanned(), "(write to a@example.com)", "(write to ***)");
    shows(EXTENSION, scanned(), CARD, "***");
    nulls(EXTENSION, scanned(), "[1,4111111111111111)");
    nulls(EXTENSION, scanned(), "[1,4111111111111111]");
    nulls(TSVECTOR, scanned(), "'a@example.com':1");
    shows(TSVECTOR, scanned(), "'plain':1", "'plain':1");
    shows(UUID, scanned(), "41111111-1111-1111-1111-111111111111", "41111111-1111-1111-1111-111111111111");
    let quoting = Arc::new(ContentMask { finds: vec![(Content::Card, Arc::new(Show::Redact("\"".into())))] });
    nulls(EXTENSION, Shown::Scanned(quoting), r#""k"=>"4111111111111111""#);
}

/// Every type and format that is read, with a mask of each kind.
fn any_column() -> impl Strategy<Value = (u32, Format, Shown)> {
    let oids = vec![
        INT8,
        INT4,
        TEXT,
        BYTEA,
        JSON,
        FLOAT8,
        BPCHAR,
        NUMERIC,
        RECORD,
        JSONB,
        INT8RANGE,
        INT8MULTIRANGE,
        TEXT_ARRAY,
        INT4_ARRAY,
        JSONB_ARRAY,
        RECORD_ARRAY,
        EXTENSION,
        TSVECTOR,
        2277,
    ];
    let format = prop_oneof![Just(Format::Text), Just(Format::Binary)];
    (proptest::sample::select(oids), format, prop_oneof![Just(masked()), Just(scanned())])
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_a_well_formed_row_and_never_a_panic(
        (oid, format, shown) in any_column(),
        body in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..80),
        framed in any::<bool>(),
    ) {
        if let Ok(Some(rows)) = rows(&[(oid, format, shown)]) {
            let body = if framed { self::body(&[Some(&body)]) } else { body };
            let mut out = Vec::new();
            match rows.data_row(&body, &mut out) {
                Ok(()) => {
                    let length = i32::from_be_bytes(out[1..5].try_into().unwrap());
                    prop_assert_eq!(usize::try_from(length).unwrap() + 1, out.len());
                }
                Err(_) => prop_assert!(out.is_empty()),
            }
        }
    }

    #[test]
    fn text_that_looks_like_values_never_panics(
        (oid, _, shown) in any_column(),
        value in "[{}()\\[\\]\",:\\\\=<>ab0-9@. ]{0,40}",
    ) {
        let _ = look(oid, Format::Text, shown, value.as_bytes());
    }

    #[test]
    fn no_value_of_a_masked_column_is_in_the_output(
        (oid, format, _) in any_column(), secret in "[A-Z]{12}", plain in "[a-z]{0,30}",
        token in any::<bool>(),
    ) {
        let show = if token { Show::Token } else { Show::Redact("***".into()) };
        let columns = [(TEXT, Format::Text, Shown::Plain), (oid, format, Shown::Masked(Arc::new(show)))];
        let rows = rows(&columns).unwrap().unwrap();
        let values = [
            secret.clone().into_bytes(), format!("{{{secret}}}").into_bytes(), format!("\u{1}\"{secret}\"").into_bytes(),
            format!("({secret},1)").into_bytes(), array(TEXT, 0, &[Some(secret.as_bytes())]),
        ];
        for value in values {
            let mut out = Vec::new();
            let _ = rows.data_row(&body(&[Some(plain.as_bytes()), Some(&value)]), &mut out);
            let has_secret = out.windows(secret.len()).any(|window| window == secret.as_bytes());
            prop_assert!(!has_secret);
        }
    }
}

/// Prints nanoseconds a row: `cargo test --release -p tidegate-postgres -- --ignored --nocapture a_row_of_ten`.
#[test]
#[ignore = "a measurement"]
fn a_row_of_ten_columns_with_one_masked_is_cheap() {
    let values: Vec<_> = (0..10).map(|at| format!("value number {at} of the row")).collect();
    let body = body(&values.iter().map(|value| Some(value.as_bytes())).collect::<Vec<_>>());
    for (name, shown) in [("masked", masked()), ("scanned", scanned())] {
        let mut columns = vec![(TEXT, Format::Text, Shown::Plain); 9];
        columns.insert(4, (TEXT, Format::Text, shown));
        let rows = rows(&columns).unwrap().unwrap();
        let mut out = Vec::new();
        let since = std::time::Instant::now();
        for _ in 0..1_000_000 {
            out.clear();
            rows.data_row(std::hint::black_box(&body), &mut out).unwrap();
        }
        println!("{name}: {} ns a row", since.elapsed().as_nanos() / 1_000_000);
    }
}
