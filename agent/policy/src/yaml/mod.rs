//! YAML with positions: a tree first, then typed values, with every problem collected instead of only the first.

mod at;
mod decode;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Spanned,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

pub(crate) use at::{At, Entries};
pub(crate) use decode::decode;

use crate::problem::{Position, Problems};

/// A YAML node and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    at: Position,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Null,
    Flag(bool),
    Number(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Kind {
    /// As a message names it.
    fn word(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Flag(flag) => format!("`{flag}`"),
            Self::Number(number) => format!("the number {number}"),
            Self::Float(number) => format!("the number {number}"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a mapping".into(),
        }
    }
}

/// Longest file that is read, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// The tree of one file; none if it is not well-formed, which is then reported.
pub(crate) fn parse(file: usize, text: &str, problems: &Problems) -> Option<Node> {
    let start = Position { file, line: 1, column: 1 };
    if text.len() > MOST_BYTES {
        problems.report(start, format!("the file is larger than {MOST_BYTES} bytes"));
        return None;
    }
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => Some(place(file, raw)),
        Err(error) => {
            let location = error.location();
            let at = location.map_or(start, |location| position(file, location));
            let message = plain(&error);
            if text.lines().nth(at.line.saturating_sub(1)).is_some_and(|line| line.contains('*')) {
                problems.report_with(
                    at,
                    message,
                    "quote values that begin with `*`: \"*\"; aliases are not read",
                );
            } else {
                problems.report(at, message);
            }
            None
        }
    }
}

/// No aliases, anchors, merges or custom tags, and little of everything: a bundle is plain.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_depth: 24,
            flow_nesting_limit: 24,
            max_documents: 1,
            max_nodes: 200_000,
            max_total_scalar_bytes: MOST_BYTES,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The error's first line without the place, which the problem carries.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.rfind(" at line ") {
        Some(end) => line.get(..end).unwrap_or(line).to_owned(),
        None => line.to_owned(),
    }
}

fn position(file: usize, location: serde_saphyr::Location) -> Position {
    let one_based = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Position { file, line: one_based(location.line()), column: one_based(location.column()) }
}

fn place(file: usize, raw: Spanned<Raw>) -> Node {
    let at = position(file, raw.referenced);
    let kind = match raw.value {
        Raw::Null => Kind::Null,
        Raw::Flag(flag) => Kind::Flag(flag),
        Raw::Number(number) => Kind::Number(number),
        Raw::Float(number) => Kind::Float(number),
        Raw::Text(text) => Kind::Text(text),
        Raw::List(items) => Kind::List(items.into_iter().map(|item| place(file, item)).collect()),
        Raw::Map(entries) => Kind::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = Node { at: position(file, key.referenced), kind: Kind::Text(key.value) };
                    (key, place(file, value))
                })
                .collect(),
        ),
    };
    Node { at, kind }
}

/// What the YAML library hands over.
enum Raw {
    Null,
    Flag(bool),
    Number(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or_else(|_| Raw::Text(number.to_string()), Raw::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
