//! Bodies on their way into the record, where a rule wants them there: decompressed, and without credentials.

use bytes::Bytes;
use http::HeaderMap;
use tidegate_gate::Permit;

use crate::shown::{Masked, Masks};

/// Longest beginning of a character of UTF-8.
const LONGEST_BEGINNING: usize = 3;

/// A body, one way or the other, as it goes into the record.
#[derive(Debug)]
pub(crate) struct Transcript<'a> {
    permit: &'a Permit,
    side: Side,
    /// None, once something was wrong with it: the record says what, and has nothing more.
    body: Option<Masked<'a>>,
    /// The beginning of a character whose end has not come yet.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Sent,
    Shown,
}

impl<'a> Transcript<'a> {
    /// Of a request's body. What the masks hide of a response isn't kept of a request either.
    pub(crate) fn of_request(permit: &'a Permit, headers: &HeaderMap) -> Option<Self> {
        Self::of(permit, Side::Sent, Masks::of(permit.verdict(), permit.masker()), headers)
    }

    /// Of a response's body, which was masked already; with the header fields that the client gets.
    pub(crate) fn of_response(permit: &'a Permit, headers: &HeaderMap) -> Option<Self> {
        Self::of(permit, Side::Shown, None, headers)
    }

    fn of(permit: &'a Permit, side: Side, masks: Option<Masks<'a>>, headers: &HeaderMap) -> Option<Self> {
        if !permit.keeps_data() {
            return None;
        }
        let masks = masks.unwrap_or_else(|| Masks::none(permit.masker()));
        let body = masks.for_the_record(headers);
        let body = body.map_err(|why| permit.end_data(&cannot_be_kept(&why))).ok()?;
        Some(Self { permit, side, body: Some(body), held: Vec::new() })
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, data: &Bytes) {
        let Some(body) = &mut self.body else { return };
        match body.take(data) {
            Ok(kept) => self.keep(kept),
            Err(why) => {
                self.body = None;
                self.permit.end_data(&cannot_be_kept(&why));
            }
        }
    }

    /// What was held back until the end.
    pub(crate) fn end(mut self) {
        match self.body.take().map(Masked::end) {
            None => {}
            Some(Ok(kept)) => {
                let held = std::mem::take(&mut self.held);
                self.tap(&[&held[..], &kept].concat());
            }
            Some(Err(why)) => self.permit.end_data(&cannot_be_kept(&why)),
        }
    }

    /// Keeps what came, up to a character that isn't all there.
    fn keep(&mut self, kept: Bytes) {
        let kept = match self.held.is_empty() {
            true => kept,
            false => [&std::mem::take(&mut self.held)[..], &kept].concat().into(),
        };
        let whole = whole_characters(&kept);
        self.held = kept.slice(whole..).to_vec();
        self.tap(&kept.slice(..whole));
    }

    fn tap(&self, data: &[u8]) {
        match self.side {
            _ if data.is_empty() => {}
            Side::Sent => self.permit.tap_sent(data),
            Side::Shown => self.permit.tap(data),
        }
    }
}

/// A message of a WebSocket to the server, as the record may have it.
pub(crate) fn keep_sent_message(permit: &Permit, word: &str, payload: &[u8]) {
    let masks = Masks::of(permit.verdict(), permit.masker());
    keep_message(permit, masks, (word, payload), Permit::tap_sent);
}

/// A message to the client, which was masked already.
pub(crate) fn keep_shown_message(permit: &Permit, word: &str, payload: &[u8]) {
    keep_message(permit, None, (word, payload), Permit::tap);
}

fn keep_message<'a>(
    permit: &'a Permit,
    masks: Option<Masks<'a>>,
    (word, payload): (&str, &[u8]),
    tap: fn(&Permit, &[u8]),
) {
    if !permit.keeps_data() {
        return;
    }
    let is_masked = masks.is_some();
    let masks = masks.unwrap_or_else(|| Masks::none(permit.masker())).withholding();
    match word {
        "text" => match masks.message(payload) {
            Ok(kept) => tap(permit, &kept),
            Err(why) => permit.end_data(&cannot_be_kept(&why)),
        },
        _ if is_masked => permit.end_data(&cannot_be_kept("it is binary")),
        _ => tap(permit, payload),
    }
}

fn cannot_be_kept(why: &str) -> String {
    format!("credentials or masked values could be in it, and it cannot be looked into: {why}")
}

/// How much of it is no beginning of a character whose end is missing. What is no UTF-8 at all is whole.
fn whole_characters(data: &[u8]) -> usize {
    match std::str::from_utf8(data) {
        Err(error)
            if error.error_len().is_none() && data.len() - error.valid_up_to() <= LONGEST_BEGINNING =>
        {
            error.valid_up_to()
        }
        _ => data.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_not_cut() {
        let text = "a€".as_bytes();
        for (bytes, whole) in [(text, 4), (&text[..3], 1), (&text[..2], 1), (&text[..1], 1)] {
            assert_eq!(whole_characters(bytes), whole);
        }
        for binary in [&b"\xff\xfe"[..], b"a\xe2b", b"\x80"] {
            assert_eq!(whole_characters(binary), binary.len());
        }
    }
}
