//! Texts that differ only in literals, under one key.

/// Stands for a number in a key; no such byte is in any text that has a key.
const NUMBER: u8 = 1;

/// Stands for a string constant.
const STRING: u8 = 2;

/// The text with its plain numbers and string constants replaced, written over `key`. False if the text holds anything
/// that would need PostgreSQL's own lexer to be sure of: then it has none.
///
/// Replaced are decimal numbers without sign, exponent or separators, and `'...'` without a backslash or prefix. Two
/// texts with one key have the same tokens but for the values of constants of the same kind.
pub(super) fn key(text: &[u8], key: &mut Vec<u8>) -> bool {
    key.clear();
    key.reserve(text.len());
    let mut rest = text;
    let mut before = b' ';
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'\'' => {
                let Some(after) = string(tail, before) else { return false };
                key.push(STRING);
                rest = after;
                before = b'\'';
            }
            b'0'..=b'9' if !is_word(before) => {
                let Some(after) = number(rest, before) else { return false };
                key.push(NUMBER);
                rest = after;
                before = b'0';
            }
            b'"' => {
                let Some(length) = tail.iter().position(|&b| b == b'"' || !is_plain(b)) else { return false };
                let Some((name, after)) = rest.split_at_checked(length + 2) else { return false };
                if name.last() != Some(&b'"') || before == b'&' {
                    return false;
                }
                key.extend_from_slice(name);
                rest = after;
                before = b'"';
            }
            b'$' => {
                let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
                let Some((parameter, after)) = rest.split_at_checked(digits + 1) else { return false };
                if digits == 0 || is_word(before) || after.first().is_some_and(|&next| is_word(next)) {
                    return false;
                }
                key.extend_from_slice(parameter);
                rest = after;
                before = b'$';
            }
            b'-' if tail.first() == Some(&b'-') => return false,
            b'/' if tail.first() == Some(&b'*') => return false,
            _ if !is_plain(byte) => return false,
            _ => {
                key.push(byte);
                rest = tail;
                before = byte;
            }
        }
    }
    true
}

/// What follows a string constant whose opening quote stood after `before`.
fn string(tail: &[u8], before: u8) -> Option<&[u8]> {
    if is_word(before) || matches!(before, b'&' | b'\'' | b'"') {
        return None;
    }
    let mut rest = tail;
    loop {
        let end = rest.iter().position(|&b| matches!(b, b'\'' | b'\\' | 0) || b >= 0x80)?;
        let (_, from_end) = rest.split_at_checked(end)?;
        match from_end {
            [b'\'', b'\'', after @ ..] => rest = after,
            [b'\'', after @ ..] => return Some(after),
            _ => return None,
        }
    }
}

/// What follows a number that stood after `before`.
fn number(text: &[u8], before: u8) -> Option<&[u8]> {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (_, mut after) = text.split_at_checked(digits(text))?;
    if let [b'.', fraction @ ..] = after {
        let count = digits(fraction);
        if count == 0 {
            return None;
        }
        after = fraction.split_at_checked(count)?.1;
    }
    let next = after.first().copied().unwrap_or(b' ');
    let joined = |b: u8| is_word(b) || matches!(b, b'.' | b'\'' | b'"');
    (!joined(next) && !matches!(before, b'.' | b'\'' | b'"')).then_some(after)
}

/// Part of an identifier, keyword, number or parameter.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

/// Printable ASCII and white space; `\` is left to PostgreSQL's lexer.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t') && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use crate::sql::parse::undisturbed;
    use pg_query::protobuf::Token;
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Vec<u8>> {
        let mut found = Vec::new();
        key(text.as_bytes(), &mut found).then_some(found)
    }

    /// PostgreSQL's own tokens: kinds and texts, the texts of plain constants left out.
    fn tokens(text: &str) -> Option<Vec<(i32, String)>> {
        let constant =
            |kind: i32| [Token::Iconst, Token::Fconst, Token::Sconst].iter().any(|k| *k as i32 == kind);
        let shown = |token: pg_query::protobuf::ScanToken| {
            let whole = &text[token.start as usize..token.end as usize];
            match token.token {
                kind if kind == Token::Fconst as i32 => (Token::Iconst as i32, String::new()),
                kind if constant(kind) => (kind, String::new()),
                kind => (kind, whole.to_owned()),
            }
        };
        Some(undisturbed(|| pg_query::scan(text)).ok()?.tokens.into_iter().map(shown).collect())
    }

    #[test]
    fn literals_make_no_difference() {
        assert_eq!(of("select a from t where b = 1"), of("select a from t where b = 23.5"));
        assert_eq!(of("select a from t where b = 'x'"), of("select a from t where b = 'it''s'"));
        assert_ne!(of("select a from t where b = 'x'"), of("select a from t where b = 1"));
        assert_ne!(of("select a1 from t"), of("select a2 from t"));
        assert_ne!(of("select \"1\" from t"), of("select \"2\" from t"));
        assert_ne!(of("select $1"), of("select $2"));
    }

    #[test]
    fn unusual_texts_have_no_key() {
        for text in [
            "select 1 -- x",
            "select /* */ 1",
            "select e'a'",
            "select E'a\\''",
            "select u&'a'",
            "select 'a\\b'",
            "select x'1f'",
            "select $$a$$",
            "select 1e5",
            "select 0x1f",
            "select 1_000",
            "select 1.",
            "select é",
            "select 'é'",
            "select 'open",
            "select \"open",
            "select 1a",
            "select a.1",
            "select $a$b$a$",
            "select U&\"a\"",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        let fixed = prop::sample::select(vec![
            "select", " ", " ", "a", "b1", "E", "e", "U&", "N", "b", "x", "1", "23", "0", ".", "1.5", "'",
            "''", "'a'", "'it''s'", "\"", "\"c\"", "\\", "$", "$1", "$$", "--", "/*", "*/", "\n", ",", "(",
            ")", "+", "-", "::", "_", "=", "é", "&", "1e5",
        ]);
        fixed.prop_map(str::to_owned)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn texts_of_one_key_have_the_same_tokens(
            pieces in prop::collection::vec(piece(), 1..14),
            numbers in prop::collection::vec(prop::sample::select(vec!["0", "7", "42", "3.25", "99999999999"]), 14),
            strings in prop::collection::vec(prop::sample::select(vec!["''", "'z'", "'a''b'", "'--'", "'/*'", "'$$'", "'1'"]), 14),
        ) {
            let text = pieces.concat();
            if let Some(found) = of(&text) {
                let (mut numbers, mut strings) = (numbers.iter(), strings.iter());
                let mut other = String::new();
                for &byte in &found {
                    match byte {
                        NUMBER => other.push_str(numbers.next().unwrap()),
                        STRING => other.push_str(strings.next().unwrap()),
                        byte => other.push(byte as char),
                    }
                }
                prop_assert_eq!(tokens(&text), tokens(&other), "{:?} against {:?}", text, other);
            }
        }
    }
}
