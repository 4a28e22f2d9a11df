use std::sync::Arc;

use proptest::prelude::*;
use tidegate_gate::{Masker, Secret};
use tidegate_policy::{Content, ContentMask, ResultMasks, Show, Shown};

use super::{CannotShow, CopyFormat, CopyMasker, FIELD_MAX};

const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;

fn redact() -> Arc<Show> {
    Arc::new(Show::Redact("***".into()))
}

/// Plain, masked, scanned.
fn masks() -> ResultMasks {
    let mask = ContentMask { finds: vec![(Content::Card, redact()), (Content::Email, redact())] };
    ResultMasks {
        columns: vec![Shown::Plain, Shown::Masked(redact()), Shown::Scanned(Arc::new(mask))],
        whole: None,
    }
}

fn text() -> CopyFormat {
    CopyFormat::Text { delimiter: b'\t', null: b"\\N".to_vec(), header: false }
}

fn csv() -> CopyFormat {
    CopyFormat::Csv { delimiter: b',', quote: b'"', escape: b'"', null: Vec::new(), header: false }
}

fn copier(format: CopyFormat, types: [u32; 3]) -> CopyMasker {
    let masker = Arc::new(Masker::new(Secret::new(vec![3; 32])));
    CopyMasker::new(&masks(), format, Some(&types), 3, masker).unwrap().unwrap()
}

/// The payload of whole `CopyData` messages.
fn payload(mut messages: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let [b'd', rest @ ..] = messages {
        let length = usize::try_from(u32::from_be_bytes(rest[..4].try_into().unwrap())).unwrap();
        assert!(length > 4, "no empty messages");
        payload.extend_from_slice(&rest[4..length]);
        messages = &rest[length..];
    }
    assert!(messages.is_empty(), "whole messages only");
    payload
}

fn run<'c>(mut copy: CopyMasker, chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<u8>, CannotShow> {
    let mut out = Vec::new();
    for chunk in chunks {
        copy.push(chunk, &mut out)?;
    }
    copy.finish(&mut out)?;
    Ok(payload(&out))
}

/// The same in one piece, cut in two anywhere, and byte by byte.
#[track_caller]
fn shows(format: &CopyFormat, types: [u32; 3], sent: &[u8], expected: &[u8]) {
    let copy = || copier(format.clone(), types);
    let whole = run(copy(), [sent]).unwrap();
    assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(expected));
    assert_eq!(whole, expected);
    for at in 0..=sent.len() {
        let (head, tail) = sent.split_at(at);
        assert_eq!(run(copy(), [head, tail]).unwrap(), expected, "cut at {at}");
    }
    assert_eq!(run(copy(), sent.chunks(1)).unwrap(), expected);
}

#[test]
fn plain_copies_are_not_touched() {
    let masker = Arc::new(Masker::new(Secret::new(vec![3; 32])));
    let masks = ResultMasks { columns: vec![Shown::Plain], whole: None };
    assert!(CopyMasker::new(&masks, text(), None, 1, masker).unwrap().is_none());
}

#[test]
fn text_is_masked_by_column_and_escaped_again() {
    let sent = b"1\tsecret\tpay 4111 1111 1111 1111\n\
        a\\tb\\\\\t\\N\tline\\nto a@example.com\\t\\x41\\101\n\
        \\N\tx\\\ny\t\\N\n";
    let expected = b"1\t***\tpay ***\n\
        a\\tb\\\\\t\\N\tline\\nto ***\\tAA\n\
        \\N\t***\t\\N\n";
    shows(&text(), [TEXT; 3], sent, expected);
}

#[test]
fn an_escaped_character_hides_nothing() {
    shows(&text(), [TEXT; 3], b"1\tx\t\\4111111111111111\n", b"1\t***\t\\4111111111111111\n".as_slice());
    shows(&text(), [TEXT; 3], b"1\tx\t\\x34111111111111111\n", b"1\t***\t***\n");
    shows(&text(), [TEXT; 3], b"1\tx\ta\\@example.com\n", b"1\t***\t***\n");
}

#[test]
fn other_delimiters_and_nulls_are_kept() {
    let format = CopyFormat::Text { delimiter: b'|', null: Vec::new(), header: true };
    let sent = b"id|secret|note\n1||a@example.com\\|x\n2|y|\n";
    shows(&format, [TEXT; 3], sent, b"id|secret|note\n1||***\\|x\n2|***|\n");
    shows(&format, [INT4, INT8, INT8], b"h\n1|5|4111111111111111\n", b"h\n1||\n");
}

#[test]
fn a_null_string_that_a_masked_value_could_equal_is_refused() {
    let copier = |masks: &ResultMasks| {
        let format = CopyFormat::Text { delimiter: b'\t', null: b"secret".to_vec(), header: false };
        let masker = Arc::new(Masker::new(Secret::new(vec![3; 32])));
        CopyMasker::new(masks, format, None, 1, masker)
    };
    let masked = ResultMasks { columns: vec![Shown::Masked(redact())], whole: None };
    assert!(matches!(copier(&masked), Err(CannotShow::NullString)));
    let plain = ResultMasks { columns: vec![Shown::Plain], whole: None };
    assert!(copier(&plain).unwrap().is_none());
}

#[test]
fn csv_is_masked_by_column_and_quoted_again() {
    let sent = b"1,secret,plain\n\
        \"a,b\",\"sec\nret\",\"say \"\"a@example.com\"\"\n4111111111111111\"\n\
        ,,\n\
        3,\"\",a@example.com\n";
    let expected = b"1,***,plain\n\
        \"a,b\",***,\"say \"\"***\"\"\n***\"\n\
        ,,\n\
        3,***,***\n";
    shows(&csv(), [TEXT; 3], sent, expected);
}

#[test]
fn a_csv_header_passes_even_with_newlines_in_quotes() {
    let format = CopyFormat::Csv {
        delimiter: b';',
        quote: b'\'',
        escape: b'\\',
        null: b"NULL".to_vec(),
        header: true,
    };
    let sent = b"'a\nb';secret;a@example.com\n1;'it\\'s;';'x\\\\ a@example.com'\n2;NULL;'NULL'\n";
    let expected = b"'a\nb';secret;a@example.com\n1;***;'x\\\\ ***'\n2;NULL;'NULL'\n";
    shows(&format, [TEXT; 3], sent, expected);
}

#[test]
fn masked_csv_values_are_quoted_where_they_need_it() {
    let show = Arc::new(Show::Redact("a,\"b\"".into()));
    let masks = ResultMasks { columns: vec![Shown::Masked(show)], whole: None };
    let masker = Arc::new(Masker::new(Secret::new(vec![3; 32])));
    let copy = CopyMasker::new(&masks, csv(), None, 1, masker).unwrap().unwrap();
    assert_eq!(run(copy, [&b"x\n"[..]]).unwrap(), b"\"a,\"\"b\"\"\"\n");
}

#[test]
fn arrays_in_csv_keep_both_quotings() {
    let sent = b"1,x,\"{\"\"to a@example.com\"\",b}\"\n";
    shows(&csv(), [TEXT, TEXT, TEXT_ARRAY], sent, b"1,***,\"{\"\"to ***\"\",b}\"\n");
}

fn binary(rows: &[[Option<&[u8]>; 3]]) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xx".to_vec();
    for row in rows {
        data.extend(3_i16.to_be_bytes());
        for value in row {
            data.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
            data.extend(value.unwrap_or_default());
        }
    }
    data.extend((-1_i16).to_be_bytes());
    data
}

#[test]
fn binary_copies_are_masked_by_column() {
    let sent = binary(&[[Some(b"\0\x01"), Some(b"secret"), Some(b"a@example.com")], [None, Some(b""), None]]);
    let expected = binary(&[[Some(b"\0\x01"), Some(b"***"), Some(b"***")], [None, Some(b"***"), None]]);
    shows(&CopyFormat::Binary, [TEXT; 3], &sent, &expected);
    let card = 4_111_111_111_111_111_i64.to_be_bytes();
    let sent = binary(&[[Some(b"x"), Some(&card), Some(&card)]]);
    shows(&CopyFormat::Binary, [INT8; 3], &sent, &binary(&[[Some(b"x"), None, None]]));
}

#[test]
fn a_binary_copy_of_unknown_types_is_not_scanned() {
    let masker = Arc::new(Masker::new(Secret::new(vec![3; 32])));
    let error = CopyMasker::new(&masks(), CopyFormat::Binary, None, 3, masker).unwrap_err();
    assert_eq!(error, CannotShow::Untyped);
}

#[test]
fn rows_with_other_columns_than_decided_on_are_refused() {
    for (format, sent) in [
        (text(), &b"1\t2\n"[..]),
        (text(), b"1\t2\t3\t4\n"),
        (text(), b"\n"),
        (csv(), b"1,2\n"),
        (csv(), b"1,2,3,4"),
        (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02"),
    ] {
        let error = run(copier(format, [TEXT; 3]), [sent]).unwrap_err();
        assert!(matches!(error, CannotShow::Columns { expected: 3, .. }), "{error}");
    }
}

#[test]
fn data_that_ends_within_a_row_is_refused() {
    for (format, sent) in [
        (text(), &b"1\tx"[..]),
        (csv(), b"1,x"),
        (csv(), b"1,x,\"y"),
        (CopyFormat::Binary, b""),
        (CopyFormat::Binary, b"PGCOPY\n"),
        (CopyFormat::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03"),
    ] {
        assert!(run(copier(format, [TEXT; 3]), [sent]).is_err());
    }
}

#[test]
fn a_last_line_without_its_end_is_shown() {
    shows(&text(), [TEXT; 3], b"1\tx\ta@example.com", b"1\t***\t***");
    shows(&csv(), [TEXT; 3], b"1,x,a@example.com", b"1,***,***");
}

#[test]
fn hostile_binary_heads_and_lengths_are_refused() {
    let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    for sent in [
        b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec(),
        b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0".to_vec(),
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\xff\xff\xff\xff".to_vec(),
        [&head[..], b"\xff\xfe"].concat(),
        [&head[..], b"\0\x03\xff\xff\xff\xfe"].concat(),
        [&head[..], b"\xff\xff\0"].concat(),
    ] {
        assert!(copier(CopyFormat::Binary, [TEXT; 3]).push(&sent, &mut Vec::new()).is_err());
    }
}

#[test]
fn a_field_too_long_to_be_held_is_redacted_whole_and_a_plain_one_passes() {
    let long = "x".repeat(FIELD_MAX + 1);
    let sent = format!("{long}\t{long}\t{long}\n");
    let shown = run(copier(text(), [TEXT; 3]), sent.as_bytes().chunks(8192)).unwrap();
    assert_eq!(shown, format!("{long}\t***\t***\n").into_bytes());
    let shown = run(copier(text(), [TEXT, INT8, TEXT_ARRAY]), [sent.as_bytes()]).unwrap();
    assert_eq!(shown, format!("{long}\t\\N\t\\N\n").into_bytes());
}

#[test]
fn plain_fields_are_passed_on_before_they_end() {
    let mut copy = copier(text(), [TEXT; 3]);
    let mut out = Vec::new();
    copy.push(b"begin", &mut out).unwrap();
    assert_eq!(payload(&out), b"begin");
}

proptest! {
    #[test]
    fn no_masked_value_is_in_the_output_however_the_data_is_cut(
        secrets in proptest::collection::vec("[A-Z]{8}[\\PC\n\t\"\\\\,]{0,6}", 1..6), cut in 1_usize..40,
    ) {
        let in_text: String = secrets.iter().map(|secret| {
            let escaped = secret.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
            format!("p\t{escaped}\tq\n")
        }).collect();
        let in_csv: String =
            secrets.iter().map(|secret| format!("p,\"{}\",q\n", secret.replace('"', "\"\""))).collect();
        for (format, sent, row) in [(text(), in_text, "p\t***\tq\n"), (csv(), in_csv, "p,***,q\n")] {
            let shown = run(copier(format, [TEXT; 3]), sent.as_bytes().chunks(cut)).unwrap();
            prop_assert_eq!(String::from_utf8(shown).unwrap(), row.repeat(secrets.len()));
        }
    }

    #[test]
    fn any_bytes_give_the_same_result_however_they_are_cut(
        sent in proptest::collection::vec(
            prop_oneof![proptest::sample::select(b"\t\n\\,\"'N.x0173a@".to_vec()), any::<u8>()], 0..60),
        cut in 1_usize..20,
    ) {
        for format in [text(), csv()] {
            let whole = run(copier(format.clone(), [TEXT; 3]), [&sent[..]]);
            prop_assert_eq!(run(copier(format, [TEXT; 3]), sent.chunks(cut)), whole);
        }
        let data = [&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..], &sent].concat();
        let whole = run(copier(CopyFormat::Binary, [TEXT; 3]), [&data[..]]);
        prop_assert_eq!(run(copier(CopyFormat::Binary, [TEXT; 3]), data.chunks(cut)), whole);
    }
}
