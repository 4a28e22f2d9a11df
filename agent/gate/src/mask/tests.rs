use std::{borrow::Cow, sync::Arc};

use proptest::prelude::*;
use tidegate_policy::{Content, ContentMask, Show};

use super::Masker;
use crate::Secret;

fn masker() -> Masker {
    Masker::new(Secret::new(vec![7; 32]))
}

fn mask(contents: impl IntoIterator<Item = Content>) -> ContentMask {
    let show = Arc::new(Show::Redact("***".into()));
    ContentMask { finds: contents.into_iter().map(|content| (content, show.clone())).collect() }
}

fn everything() -> ContentMask {
    use Content::{Card, CloudKey, Email, Iban, Jwt, Phone, PrivateKey, UsSsn};
    mask([Card, Email, Phone, Iban, UsSsn, CloudKey, Jwt, PrivateKey])
}

fn scanned(content: Content, text: &str) -> String {
    String::from_utf8(masker().scan(&mask([content]), text.as_bytes()).into_owned()).unwrap()
}

#[track_caller]
fn finds(content: &Content, text: &str, expected: &str) {
    assert_eq!(scanned(content.clone(), text), expected, "in {text:?}");
}

#[track_caller]
fn leaves(content: &Content, text: &str) {
    assert!(
        matches!(masker().scan(&mask([content.clone()]), text.as_bytes()), Cow::Borrowed(_)),
        "in {text:?}"
    );
}

fn shown(show: &Show, value: &[u8]) -> Option<String> {
    masker().show(show, value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn keep_counts_characters_in_utf8_and_bytes_elsewhere() {
    let keep = |first, last| Show::Keep { first, last };
    assert_eq!(shown(&keep(0, 4), b"4111111111111111").as_deref(), Some("************1111"));
    assert_eq!(shown(&keep(2, 1), "äöüßéñ".as_bytes()).as_deref(), Some("äö***ñ"));
    assert_eq!(masker().show(&keep(1, 1), b"\xff\xfe\xfd").as_deref(), Some(&b"\xff*\xfd"[..]));
    assert_eq!(shown(&keep(0, 0), b"abc").as_deref(), Some("***"));
}

#[test]
fn a_value_not_longer_than_what_is_kept_is_redacted_whole() {
    for value in ["", "a", "abc", "abcd"] {
        assert_eq!(shown(&Show::Keep { first: 2, last: 2 }, value.as_bytes()).as_deref(), Some("***"));
    }
    assert_eq!(shown(&Show::Keep { first: usize::MAX, last: 2 }, b"abcdef").as_deref(), Some("***"));
}

#[test]
fn equal_values_give_equal_tokens_under_one_key_only() {
    let token = shown(&Show::Token, b"alice").unwrap();
    assert_eq!(token.len(), 26);
    assert!(token.starts_with("tok_"));
    assert_eq!(shown(&Show::Token, b"alice").unwrap(), token);
    assert_ne!(shown(&Show::Token, b"alicf").unwrap(), token);
    let other = Masker::new(Secret::new(vec![8; 32]));
    assert_ne!(other.show(&Show::Token, b"alice").unwrap(), token.as_bytes());
}

#[test]
fn null_is_null_as_a_value_and_redacted_within_a_text() {
    assert_eq!(masker().show(&Show::Null, b"x"), None);
    let mask = ContentMask { finds: vec![(Content::Email, Arc::new(Show::Null))] };
    assert_eq!(masker().scan(&mask, b"to a@example.com!").as_ref(), b"to ***!");
}

#[test]
fn card_numbers_are_found_in_any_grouping() {
    let card = Content::Card;
    finds(&card, "4111111111111111", "***");
    finds(&card, "pay 4111 1111 1111 1111 now", "pay *** now");
    finds(&card, "4111-1111-1111-1111,378282246310005", "***,***");
    finds(&card, "3782 822463 10005", "***");
    finds(&card, "card:6304000000000000000.", "card:***.");
    finds(&card, "4111111111111111.00", "***.00");
    finds(&card, "12 4111111111111111 99", "12 *** 99");
    finds(&card, "x4111111111111111x", "x***x");
    finds(&card, "4111\u{a0}1111\u{2011}1111\u{2013}1111", "***");
    finds(&card, "４１１１１１１１１１１１１１１１", "***");
    finds(&card, "4222222222222", "***");
}

#[test]
fn what_only_looks_like_a_card_number_is_left() {
    for text in [
        "4111111111111112",
        "411111111111111141111111111111111",
        "1700000000000",
        "2024-11-22 03:06:00.123456+00",
        "10 11 12 13 14 15 16 17 18 19",
        "0.4111111111111111",
        "123456789012",
        "4111  1111  1111  1111",
        "",
    ] {
        leaves(&Content::Card, text);
    }
}

#[test]
fn email_addresses_are_found_whole() {
    let email = Content::Email;
    finds(&email, "alice@example.com", "***");
    finds(&email, "<bob.o'neil+x@mail.example.co.uk>, next", "<***>, next");
    finds(&email, "Write to 'carol@example.com'.", "Write to '***'.");
    finds(&email, "jörg@bücher.example", "***");
    finds(&email, "a@b.de;c@d.org", "***;***");
    finds(&email, "bounce+user=example.com@list.example", "***");
    for text in ["@", "a@", "@b.com", "a@b", "a@b.c", "a@1.2", "user@localhost", "a @ b.com"] {
        leaves(&email, text);
    }
}

#[test]
fn telephone_numbers_need_a_plus_and_enough_digits() {
    let phone = Content::Phone;
    finds(&phone, "+4930123456", "***");
    finds(&phone, "call +1 (555) 123-4567 today", "call *** today");
    finds(&phone, "tel:+44.20.7946.0958;", "tel:***;");
    finds(&phone, "＋４９３０１２３４５６", "***");
    for text in ["+1234567", "+0123456789", "4930123456", "1+12345678", "+1234567890123456", "+", "12:00+01"]
    {
        leaves(&phone, text);
    }
}

#[test]
fn ibans_need_valid_check_digits() {
    let iban = Content::Iban;
    finds(&iban, "DE89370400440532013000", "***");
    finds(&iban, "to DE89 3704 0044 0532 0130 00 please", "to *** please");
    finds(&iban, "gb82west12345698765432", "***");
    finds(&iban, "NO9386011117947.", "***.");
    finds(&iban, "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "***");
    for text in ["DE89370400440532013001", "DE8937040044053201300", "XDE89370400440532013000", "DE89"] {
        leaves(&iban, text);
    }
}

#[test]
fn social_security_numbers_need_their_grouping_and_an_assigned_number() {
    let ssn = Content::UsSsn;
    finds(&ssn, "ssn 219-09-9999 ok", "ssn *** ok");
    finds(&ssn, "219 09 9999", "***");
    for text in [
        "219099999",
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "1234-56-7890",
    ] {
        leaves(&ssn, text);
    }
}

#[test]
fn cloud_keys_of_known_shape_are_found() {
    let key = Content::CloudKey;
    // Put together here so that no scanner of source code takes them for real.
    for (prefix, rest) in [
        ("AKIA", "IOSFODNN7EXAMPLE".to_owned()),
        ("AIza", "x".repeat(35)),
        ("ghp_", "a1".repeat(18)),
        ("github_pat_", "A".repeat(82)),
        ("glpat-", "z".repeat(20)),
        ("xoxb-", "1234567890-abcdef".to_owned()),
        ("abc8Q~", "d".repeat(34)),
        ("AccountKey=", format!("{}==", "A".repeat(86))),
        ("aws_secret_access_key = ", "k".repeat(40)),
    ] {
        finds(&key, &format!("key: {prefix}{rest}, next"), "key: ***, next");
    }
    for text in ["AKIA", "AKIAIOSFODNN7EXAMPL", "a long harmless sentence without any key"] {
        leaves(&key, text);
    }
}

#[test]
fn tokens_are_found_by_their_header() {
    let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    let token = format!("{header}.eyJzdWIiOiIxIn0.c2lnbmF0dXJl");
    finds(&Content::Jwt, &token, "***");
    finds(&Content::Jwt, &format!("Bearer {token}; x=1"), "Bearer ***; x=1");
    finds(&Content::Jwt, &format!("id_{token}."), "id_***.");
    leaves(&Content::Jwt, header);
    leaves(&Content::Jwt, "eyJub3QiOiJhIGp3dCJ9.eyJzdWIiOiIxIn0.c2ln");
}

#[test]
fn private_keys_are_found_even_when_cut() {
    let key = Content::PrivateKey;
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    finds(&key, &format!("a {begin}\nMIIE\nAB==\n{end} b"), "a *** b");
    finds(&key, &format!("a {begin}\nMIIE"), "a ***");
    finds(&key, &format!("key: MIIE\nAB==\n{end} b"), "key: *** b");
    finds(&key, &format!("{begin}x{end}{begin}y{end}"), "******");
    finds(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\\nAAAA\\n-----END OPENSSH PRIVATE KEY-----", "***");
    leaves(&key, "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----");
}

#[test]
fn own_patterns_see_text_between_invalid_bytes() {
    let pattern = Content::Pattern("staff".into(), regex::Regex::new(r"\bE-\d{4}\b").unwrap());
    let text = b"\xffE-1234\xfe and E-99999 E-0001";
    assert_eq!(masker().scan(&mask([pattern]), text).as_ref(), b"\xff***\xfe and E-99999 ***");
}

#[test]
fn overlapping_finds_are_one_and_shown_the_way_that_hides_most() {
    let digits = Content::Pattern("digits".into(), regex::Regex::new("[0-9]{4} x").unwrap());
    let mask = ContentMask {
        finds: vec![
            (Content::Card, Arc::new(Show::Keep { first: 0, last: 4 })),
            (digits, Arc::new(Show::Redact("#".into()))),
        ],
    };
    assert_eq!(masker().scan(&mask, b"a 4111 1111 1111 1111 x b").as_ref(), b"a # b");
    assert_eq!(masker().scan(&mask, b"4111111111111111").as_ref(), b"************1111");
}

#[test]
fn hostile_texts_take_linear_time() {
    let limit = std::time::Duration::from_secs(10);
    for unit in [
        "eyJ_",
        "1 ",
        "a@",
        "+1 ",
        "-----BEGIN PRIVATE KEY-----",
        "DE89 ",
        "4111 ",
        ".",
        "eyJ.",
        "A1b2",
        "111-11-",
    ] {
        let text = unit.repeat((1 << 20) / unit.len());
        let since = std::time::Instant::now();
        let _ = masker().scan(&everything(), text.as_bytes());
        assert!(since.elapsed() < limit, "{unit:?} took {:?}", since.elapsed());
    }
}

/// A card number of a given length with a valid check digit.
fn card() -> impl Strategy<Value = String> {
    ("(4[0-9]{3}|5[1-5][0-9]{2}|6011|37[0-9]{2}|35[3-8][0-9])[0-9]{8,14}").prop_map(|mut number| {
        let sum: u32 = number
            .bytes()
            .rev()
            .enumerate()
            .map(|(at, digit)| {
                let digit = u32::from(digit - b'0');
                let doubled = digit * 2;
                if at % 2 == 1 { digit } else { doubled / 10 + doubled % 10 }
            })
            .sum();
        number.push(char::from_digit((10 - sum % 10) % 10, 10).unwrap());
        number
    })
}

fn grouped(number: &str, size: usize, separator: &str) -> String {
    number
        .as_bytes()
        .chunks(size)
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect::<Vec<_>>()
        .join(separator)
}

proptest! {
    #[test]
    fn a_valid_card_number_never_stays_visible(
        number in card(), before in "([ -~]{0,20}[^0-9.])?", after in "([^0-9][ -~]{0,20})?",
        size in 3_usize..20, separator in "[ -]",
    ) {
        let number = grouped(&number, size, &separator);
        let text = format!("{before}{number}{after}");
        let shown = masker().scan(&everything(), text.as_bytes()).into_owned();
        prop_assert!(!String::from_utf8_lossy(&shown).contains(&number), "{text:?}");
    }

    #[test]
    fn any_bytes_are_scanned_without_panic_and_the_second_time_finds_nothing(
        text in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let once = masker().scan(&everything(), &text).into_owned();
        prop_assert_eq!(masker().scan(&everything(), &once).into_owned(), once);
    }

    #[test]
    fn texts_made_of_what_detectors_look_for_never_panic(
        text in "(eyJ|\\.|@|\\+|[0-9]{1,20}| |-|-----(BEGIN|END) PRIVATE KEY-----|DE89|AKIA|４|\u{2011}|[a-z]){0,40}",
    ) {
        let mask = everything();
        let masker = masker();
        let finds = masker.finds(&mask, text.as_bytes());
        prop_assert!(finds.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start));
        prop_assert!(finds.iter().all(|find| find.span.end <= text.len()));
        prop_assert_eq!(finds.is_empty(), matches!(masker.scan(&mask, text.as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn keep_shows_no_more_than_it_says(value in "\\PC{0,40}", first in 0_usize..8, last in 0_usize..8) {
        let shown = shown(&Show::Keep { first, last }, value.as_bytes()).unwrap();
        let length = value.chars().count();
        if length <= first + last {
            prop_assert_eq!(shown, "***");
        } else {
            let hidden: String = shown.chars().skip(first).take(length - first - last).collect();
            prop_assert_eq!(hidden, "*".repeat(length - first - last));
            prop_assert_eq!(shown.chars().count(), length);
        }
    }
}
