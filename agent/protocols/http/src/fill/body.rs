//! Placeholders in JSON and forms. All else stays as it was written.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{Find, pair_filled};
use crate::{
    fields,
    media::Media,
    request::Understood,
    shown::json::{quote, string_end, unquoted},
};

/// How a body has fields that can be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Urlencoded,
}

/// The form of a request's body; none where no placeholder would be found.
pub(super) fn form(understood: &Understood) -> Option<Form> {
    let kind = Media::of(&understood.headers).ok().flatten()?;
    match &*kind.essence {
        _ if understood.is_compressed() => None,
        essence if fields::is_json(essence) => Some(Form::Json),
        "application/x-www-form-urlencoded" => Some(Form::Urlencoded),
        _ => None,
    }
}

impl Form {
    /// The body with what was found put in; none where it stays as it is.
    pub(super) fn filled(self, body: &Bytes, find: &Find<'_, '_>) -> Option<Bytes> {
        match self {
            Self::Json => json(body, find),
            Self::Urlencoded => urlencoded(std::str::from_utf8(body).ok()?, find),
        }
        .map(Bytes::from)
    }
}

fn urlencoded(body: &str, find: &Find<'_, '_>) -> Option<Vec<u8>> {
    let mut is_any = false;
    let pairs = body.split('&').map(|pair| match pair_filled("body", pair, find) {
        Some(filled) => {
            is_any = true;
            filled
        }
        None => pair.to_owned(),
    });
    let pairs = pairs.collect::<Vec<_>>().join("&");
    is_any.then(|| pairs.into_bytes())
}

/// An object or array around the value that is read.
struct Level {
    is_object: bool,
    /// Length of the path to it.
    path: usize,
}

/// One JSON value. A name that has a dot of its own stands in the path as JSON writes it, so that it is no other's.
fn json(body: &[u8], find: &Find<'_, '_>) -> Option<Vec<u8>> {
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    let (mut out, mut is_any) = (Vec::with_capacity(body.len()), false);
    let (mut levels, mut path, mut is_name) = (Vec::<Level>::new(), "body".to_owned(), false);
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        let rest = body.get(at..)?;
        let length = if *byte == b'"' { string_end(rest, 1).ok()? } else { 1 };
        let token = rest.get(..length)?;
        at += length;
        match byte {
            b'"' if is_name => {
                is_name = false;
                let name = String::from_utf8_lossy(&unquoted(token)).into_owned();
                path.truncate(levels.last()?.path);
                path.push('.');
                path.push_str(&if name.contains('.') {
                    String::from_utf8_lossy(token).into_owned()
                } else {
                    name
                });
            }
            b'"' => {
                let text = unquoted(token);
                if let Some(secret) = std::str::from_utf8(&text).ok().and_then(|text| find(&path, text)) {
                    quote(secret, &mut out);
                    is_any = true;
                    continue;
                }
            }
            b'{' | b'[' => {
                is_name = *byte == b'{';
                levels.push(Level { is_object: is_name, path: path.len() });
            }
            b'}' | b']' => {
                is_name = false;
                path.truncate(levels.pop()?.path);
            }
            b',' => is_name = levels.last()?.is_object,
            _ => {}
        }
        out.extend_from_slice(token);
    }
    is_any.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(place: &str, value: &str) -> Option<&'static [u8]> {
        (value == "@deploy@" && matches!(place, "body.secret" | "body.a.secret")).then_some(&b"s\"3&cret"[..])
    }

    fn filled(body: &str) -> String {
        json(body.as_bytes(), &find)
            .map_or_else(|| body.to_owned(), |filled| String::from_utf8(filled).unwrap())
    }

    #[test]
    fn json_is_filled_at_the_path_alone_and_stays_as_it_was_otherwise() {
        for (body, expected) in [
            (r#"{ "secret" : "@deploy@", "n": 1.0e5 }"#, r#"{ "secret" : "s\"3&cret", "n": 1.0e5 }"#),
            (
                r#"{"a":[{"secret":"@deploy@"},{"x":[]}],"secret":7}"#,
                r#"{"a":[{"secret":"s\"3&cret"},{"x":[]}],"secret":7}"#,
            ),
            (r#"{"x":{"y":1},"secret":"\u0040deploy@"}"#, r#"{"x":{"y":1},"secret":"s\"3&cret"}"#),
            (r#"{"secret":["@deploy@"]}"#, r#"{"secret":["s\"3&cret"]}"#),
        ] {
            assert_eq!(filled(body), expected);
        }
        for other in [
            r#"{"Secret":"@deploy@"}"#,
            r#"{"@deploy@":"secret"}"#,
            r#"{"a.secret":"@deploy@"}"#,
            r#"{"b":{"secret":"@deploy@"}}"#,
            r#"{"secret":{"x":"@deploy@"}}"#,
            r#"{"secret":"my @deploy@"}"#,
            r#"{"x":{},"y":"@deploy@"}"#,
            r#"["@deploy@"]"#,
            r#"{"secret":"@deploy@""#,
            "@deploy@",
        ] {
            assert_eq!(filled(other), other);
        }
    }

    #[test]
    fn a_form_is_filled_in_the_field_of_that_name_alone() {
        let filled = |body: &str| urlencoded(body, &find).map(|filled| String::from_utf8(filled).unwrap());
        assert_eq!(filled("a=1&secret=%40deploy%40").as_deref(), Some("a=1&secret=s%223%26cret"));
        assert_eq!(filled("secrets=@deploy@&secret=@deploy@1"), None);
    }
}
