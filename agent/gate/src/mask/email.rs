//! E-mail addresses.

use std::ops::Range;

/// E-mail addresses: a dot-atom of RFC 5322, internationalised ones included (RFC 6531), at a domain of two labels or more.
///
/// Braces, bars and backticks are legal in a local part but bracket addresses far more often than they are part of one.
/// Quoted local parts and address literals are not found.
pub(super) fn emails(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let mut from = 0;
    for at in memchr::memchr_iter(b'@', text) {
        let before = text.get(from..at).unwrap_or_default();
        let local = before.iter().rev().take_while(|byte| is_local(**byte)).count();
        let quotes = before.iter().skip(before.len() - local).take_while(|byte| **byte == b'\'').count();
        let start = at - local + quotes;
        match domain_end(text, at + 1).filter(|_| start < at) {
            Some(end) => {
                found(start..end);
                from = end;
            }
            None => from = at + 1,
        }
    }
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b".!#$%&'*+/=?^_~-".contains(&byte)
}

/// The end of the domain that starts here.
fn domain_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut end) = (start, None);
    loop {
        let label = text.get(at..)?;
        let length = label.iter().take_while(|byte| is_label(**byte)).count();
        let label = label.get(..length)?;
        if label.is_empty() {
            return end;
        }
        let is_top = length >= 2 && !label.iter().all(u8::is_ascii_digit);
        at += length;
        if end.is_some() || (is_top && at > start + length) {
            end = Some(at);
        }
        if text.get(at) != Some(&b'.') {
            return end;
        }
        at += 1;
    }
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || byte == b'-'
}
