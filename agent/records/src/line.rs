//! One line of a record, and the chain that binds it to the line before.

use std::{borrow::Cow, io::Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use tidegate_gate::Entry;

use crate::hash::Hash;

/// One line of a record, as it is read back. Its [`Display`](std::fmt::Display) is for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    #[serde(serialize_with = "microseconds")]
    pub time: Timestamp,
    /// SHA-256 of the line before, without its newline; of the first line, that of `tidegate record v1`,
    /// a newline and the session's id.
    pub prev: Hash,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry<'static>,
}

/// As [`Stamp`] writes it, so that a line read and written again has the same bytes and hash.
fn microseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// The part of a line that makes the chain.
#[derive(Deserialize)]
pub(crate) struct Header<'a> {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
}

/// Where a chain stands: how many lines it has, and the hash of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) lines: u64,
    pub(crate) hash: Hash,
}

impl Link {
    /// Before the first line: the hash of a fixed text and the session's id, so that no record can pass for another.
    pub(crate) fn genesis(session: &str) -> Self {
        Self { lines: 0, hash: Hash::of(&[b"tidegate record v1\n", session.as_bytes()]) }
    }

    /// After one more line, given without its newline.
    pub(crate) fn after(self, line: &[u8]) -> Self {
        Self { lines: self.lines.saturating_add(1), hash: Hash::of(&[line]) }
    }

    /// Appends the next line of the chain, with its newline. On an error nothing was appended.
    pub(crate) fn append(
        self,
        entry: &Entry<'_>,
        now: Timestamp,
        stamp: &mut Stamp,
        out: &mut Vec<u8>,
    ) -> Result<Self, serde_json::Error> {
        let start = out.len();
        let seq = self.lines.saturating_add(1);
        // Writing to a Vec does not fail.
        let _ = write!(out, "{{\"seq\":{seq},\"time\":\"");
        stamp.push(now, out);
        out.extend_from_slice(b"\",\"prev\":\"");
        self.hash.push_hex(out);
        out.push(b'"');
        // The entry's opening brace becomes the comma that joins it to the header.
        let brace = out.len();
        if let Err(error) = serde_json::to_writer(&mut *out, entry) {
            out.truncate(start);
            return Err(error);
        }
        if let Some(brace) = out.get_mut(brace) {
            *brace = b',';
        }
        let link = self.after(out.get(start..).unwrap_or_default());
        out.push(b'\n');
        Ok(link)
    }
}

/// Formats timestamps as RFC 3339 in UTC with microseconds; remembers the last second's text.
#[derive(Debug)]
pub(crate) struct Stamp {
    second: i64,
    text: String,
}

impl Stamp {
    pub(crate) const fn new() -> Self {
        Self { second: i64::MIN, text: String::new() }
    }

    fn push(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        let (mut second, mut nanoseconds) = (now.as_second(), now.subsec_nanosecond());
        if nanoseconds < 0 {
            (second, nanoseconds) = (second - 1, nanoseconds + 1_000_000_000);
        }
        if second != self.second {
            self.text = Timestamp::from_second(second).unwrap_or_default().to_string();
            self.text.pop();
            self.second = second;
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        let mut unit = 100_000;
        let microseconds = nanoseconds / 1000;
        while unit > 0 {
            // A remainder of ten fits a byte.
            out.push(b'0' + (microseconds / unit % 10) as u8);
            unit /= 10;
        }
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(detail: &str) -> Entry<'_> {
        Entry::Event { event: "test".into(), detail: detail.into() }
    }

    #[test]
    fn a_line_reads_back_and_carries_the_hash_of_the_one_before() {
        let (mut out, mut stamp) = (Vec::new(), Stamp::new());
        let now: Timestamp = "2026-11-22T03:04:05.000678Z".parse().unwrap();
        let genesis = Link::genesis("s");
        let first = genesis.append(&event("ü\n\"x\""), now, &mut stamp, &mut out).unwrap();
        first.append(&event("two"), now, &mut stamp, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [one, two] = [0, 1].map(|at| serde_json::from_str::<Line>(lines[at]).unwrap());
        assert_eq!([&one, &two].map(|line| serde_json::to_string(line).unwrap()), [lines[0], lines[1]]);
        assert_eq!((one.seq, one.prev, one.time), (1, genesis.hash, now));
        assert_eq!((two.seq, two.prev), (2, Hash::of(&[lines[0].as_bytes()])));
        assert!(matches!(one.entry, Entry::Event { detail, .. } if detail == "ü\n\"x\""));
        assert!(
            lines[0].starts_with("{\"seq\":1,\"time\":\"2026-11-22T03:04:05.000678Z\",\"prev\":\""),
            "{text}"
        );
    }

    #[test]
    fn stamps_are_right_across_seconds_and_before_the_epoch() {
        let mut stamp = Stamp::new();
        for text in
            ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.999999Z", "1969-12-31T23:59:59.250000Z"]
        {
            let mut out = Vec::new();
            stamp.push(text.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
