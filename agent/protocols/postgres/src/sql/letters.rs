//! Letters that not every server reads alike.

use pg_query::protobuf::Token;

use super::parse::undisturbed;

/// Whether a text names anything by letters beyond ASCII. In values and comments they make no difference.
pub(crate) fn names_beyond_ascii(text: &str) -> bool {
    // A name that is written by its letters' numbers: U&"\\00e9".
    if text.is_ascii() && !text.contains("&\"") {
        return false;
    }
    let Ok(scanned) = undisturbed(|| pg_query::scan(text)) else { return true };
    scanned.tokens.iter().any(|token| match Token::try_from(token.token) {
        Ok(
            Token::Sconst
            | Token::Usconst
            | Token::Bconst
            | Token::Xconst
            | Token::SqlComment
            | Token::CComment,
        ) => false,
        Ok(Token::Uident) => true,
        _ => {
            let place = usize::try_from(token.start).ok().zip(usize::try_from(token.end).ok());
            let written = place.and_then(|(start, end)| text.get(start..end));
            written.is_none_or(|written| !written.is_ascii())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_beyond_ascii_count_in_names_alone() {
        for text in [
            "select café from t",
            "select \"É\" from t",
            "select id as é",
            r#"select U&"\00e9" from t"#,
            r#"select u&"a" from t"#,
            "prepare é as select 1",
            "select 'a' é",
            "select 'é",
        ] {
            assert!(names_beyond_ascii(text), "{text}");
        }
        for text in [
            "select 'é', $$é$$, e'é', U&'\\00e9' -- é",
            "select 1 /* é */ from t where a = 'Zoë' and b & \"c\" > 0",
            "select id from t",
        ] {
            assert!(!names_beyond_ascii(text), "{text}");
        }
    }
}
