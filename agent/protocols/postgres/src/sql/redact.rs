//! Statement texts as they are recorded: without the secrets written in them.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use pg_query::protobuf::Token;
use regex::Regex;

use super::parse::undisturbed;

/// What a secret is shown as.
const HIDDEN: &str = "'***'";

/// Words of which a text with string constants may hold a secret: role passwords, user mappings, servers,
/// subscriptions and connection strings.
#[expect(clippy::expect_used, reason = "a constant pattern, compiled in every test")]
static SUSPECT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i-u)passw(or)?d|identified|user\s+mapping|connection|dblink|conninfo|secret")
        .expect("it compiles")
});

/// Whether a secret may be written in the text.
pub(super) fn is_suspect(text: &str) -> bool {
    SUSPECT.is_match(text)
}

/// A statement's text for the record. Where it may hold a secret, every string constant is hidden; where it can't even be
/// cut into tokens, all of it from the first quote on.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    if !is_suspect(text) {
        return Cow::Borrowed(text);
    }
    match strings(text) {
        Some(found) => Cow::Owned(hide(text, &found)),
        None => {
            let quote = text.find(['\'', '$']).unwrap_or(0);
            Cow::Owned(format!("{}{HIDDEN}", text.get(..quote).unwrap_or_default()))
        }
    }
}

/// Where the string constants and comments of a text stand.
fn strings(text: &str) -> Option<Vec<Range<usize>>> {
    let tokens = undisturbed(|| pg_query::scan(text)).ok()?.tokens;
    let hidden =
        [Token::Sconst, Token::Usconst, Token::Bconst, Token::Xconst, Token::SqlComment, Token::CComment];
    tokens
        .into_iter()
        .filter(|token| hidden.iter().any(|kind| *kind as i32 == token.token))
        .map(|token| Some(usize::try_from(token.start).ok()?..usize::try_from(token.end).ok()?))
        .collect()
}

fn hide(text: &str, found: &[Range<usize>]) -> String {
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for range in found {
        shown.push_str(text.get(at..range.start).unwrap_or_default());
        shown.push_str(HIDDEN);
        at = range.end;
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_recorded() {
        for text in [
            "create role a login password 'hunter2'",
            "ALTER USER a\n PassWord E'hunter2'",
            "alter role a with encrypted password $$hunter2$$",
            "create user mapping for a server s options (user 'a', password 'hunter2')",
            "create subscription s connection 'host=h password=hunter2' publication p",
            "alter subscription s connection 'host=h password=hunter2'",
            "select * from dblink('host=h password=hunter2', 'select 1')",
            "create role a password U&'hunter2'",
            "create role a passwrod 'x' password 'hunter2' oops",
            "create role a password 'hunter2",
            "create role a /* password hunter2 */ login",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("'***'"), "{shown}");
        }
    }

    #[test]
    fn a_text_without_secrets_is_recorded_as_it_is() {
        assert!(matches!(redact("select 'a' from t where b = 'c'"), Cow::Borrowed(_)));
    }
}
