//! A body as an archive has it.

use base64::{Engine, engine::general_purpose::STANDARD};

/// What a record kept of a body.
#[derive(Debug, Default, Clone)]
pub(super) struct Body(Option<Vec<u8>>);

impl Body {
    pub(super) fn add(&mut self, data: &[u8]) {
        self.0.get_or_insert_default().extend_from_slice(data);
    }

    /// How many bytes there are, if any were kept.
    pub(super) fn size(&self) -> Option<i64> {
        self.0.as_ref().map(|bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
    }

    /// Its text, and how that is encoded where it is no text.
    pub(super) fn text(self) -> Option<(String, Option<&'static str>)> {
        Some(match String::from_utf8(self.0?) {
            Ok(text) => (text, None),
            Err(binary) => (STANDARD.encode(binary.as_bytes()), Some("base64")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_encoded_and_says_so() {
        let mut body = Body::default();
        assert_eq!((body.size(), body.clone().text()), (None, None));
        body.add(b"a");
        assert_eq!(body.clone().text(), Some(("a".into(), None)));
        body.add(b"\xff");
        assert_eq!((body.size(), body.text()), (Some(2), Some(("Yf8=".into(), Some("base64")))));
    }
}
