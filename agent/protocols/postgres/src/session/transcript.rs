//! Rows as they go into the record: as shown, one JSON array a row.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::wire::{self, HEADER_BYTES, backend::DataRow};

/// A DataRow message as a JSON array: strings as they are, null, and what is not text in base64 after `base64:`.
pub(super) fn row(message: &[u8]) -> Vec<u8> {
    let Some(Ok(row)) = message.get(HEADER_BYTES..).map(DataRow::parse) else { return Vec::new() };
    let values = row.map_while(Result::ok).map(|value| match value.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => Value::String(text.to_owned()),
        Some(Err(_)) => Value::String(format!("base64:{}", STANDARD.encode(value.unwrap_or_default()))),
    });
    Value::Array(values.collect()).to_string().into_bytes()
}

/// What CopyData messages carry.
pub(super) fn copied(mut messages: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(messages.len());
    while let Ok(Some(header)) = wire::header(messages) {
        let Some((message, rest)) = messages.split_at_checked(header.size()) else { break };
        payload.extend_from_slice(message.get(HEADER_BYTES..).unwrap_or_default());
        messages = rest;
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write;

    #[test]
    fn a_row_is_a_json_array() {
        let mut message = Vec::new();
        write::data_row(&mut message, &[Some(b"a\"b"), None, Some(&[0xff])]);
        assert_eq!(row(&message), br#"["a\"b",null,"base64:/w=="]"#);
    }

    #[test]
    fn copied_data_loses_its_framing() {
        let mut messages = Vec::new();
        write::raw(&mut messages, b'd', b"1\t2\n");
        write::raw(&mut messages, b'd', b"3\t4\n");
        assert_eq!(copied(&messages), b"1\t2\n3\t4\n");
    }
}
