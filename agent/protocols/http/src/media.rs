//! What a message says that its body is: `Content-Type` (RFC 9110, 8.3), read strictly where something depends on it.

use http::{HeaderMap, header};

/// A media type of which no reader makes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    /// Type and subtype, in lower case.
    pub(crate) essence: String,
    /// Names in lower case, each there once, and values.
    parameters: Vec<(String, String)>,
}

impl Media {
    /// What the header fields say; none if they say nothing.
    ///
    /// # Errors
    /// Readers differ over the first and the last of two, and over what a quoted text hides.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let Some(value) = one(headers)? else { return Ok(None) };
        let mut parts = value.split(';');
        let essence = parts.next().unwrap_or_default().trim_matches([' ', '\t']).to_ascii_lowercase();
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in parts.map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or("its Content-Type has a parameter without a value")?;
            let bare = match value.strip_prefix('"') {
                Some(rest) => rest
                    .strip_suffix('"')
                    .ok_or("its Content-Type has a quoted text that servers read differently")?,
                None => value,
            };
            if !is_token(name)
                || !bare.bytes().all(is_plain)
                || (bare.len() == value.len() && bare.is_empty())
            {
                return Err("its Content-Type has a parameter that servers read differently".into());
            }
            let name = name.to_ascii_lowercase();
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(format!("its Content-Type has {name} twice"));
            }
            parameters.push((name, bare.to_ascii_lowercase()));
        }
        Ok(Some(Self { essence, parameters }))
    }

    /// The character set that it names, in lower case.
    pub(crate) fn charset(&self) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == "charset").map(|(_, value)| &**value)
    }
}

/// The one `Content-Type`, of which all readers take the same for type and subtype.
///
/// # Errors
/// There are two, or one that some read and others don't.
pub(crate) fn one(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| "its Content-Type has bytes that are no ASCII")?,
        (Some(_), Some(_)) => return Err("it has more than one Content-Type"),
    };
    let essence = value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    match essence.bytes().all(|byte| byte == b'/' || is_token_byte(byte)) {
        true => Ok(Some(value)),
        false => Err("its Content-Type is no media type"),
    }
}

/// The body's media type, in lower case, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a value: of all that a quoted text may hold, nothing that ends a parameter for who doesn't know quotes.
fn is_plain(byte: u8) -> bool {
    is_token_byte(byte)
        || matches!(byte, b'/' | b':' | b' ' | b'@' | b'<' | b'>' | b'(' | b')' | b'[' | b']' | b'?')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<Media>, String> {
        let values = values.iter().map(|value| (header::CONTENT_TYPE, value.parse().unwrap()));
        Media::of(&values.collect())
    }

    #[test]
    fn a_media_type_is_read_with_its_character_set() {
        for (value, essence, charset) in [
            ("application/json", "application/json", None),
            ("Application/JSON ; Charset=UTF-8", "application/json", Some("utf-8")),
            ("application/json; charset=\"utf-8\";", "application/json", Some("utf-8")),
            ("application/ld+json;profile=\"http://x.example/y\"", "application/ld+json", None),
        ] {
            let media = read(&[value]).unwrap().unwrap();
            assert_eq!((&*media.essence, media.charset()), (essence, charset), "{value}");
        }
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn what_servers_may_read_differently_is_no_media_type() {
        for values in [
            &["application/json; charset=utf-8; charset=utf-7"][..],
            &["application/json; charset=utf-8; Charset=utf-8"],
            &["application/json; a=\"; charset=utf-8\"; charset=ibm037"],
            &["application/json; a=\"x\\\"; charset=utf-7\""],
            &["application/json; charset = utf-7"],
            &["application/json; charset"],
            &["application/json; charset='utf-7", "text/plain"],
            &["application/json, text/plain"],
            &["application/json; x=\u{ff}"],
            &["application/json; charset=utf-8, text/plain; charset=utf-7"],
        ] {
            assert!(read(values).is_err(), "{values:?} was taken");
        }
    }
}
