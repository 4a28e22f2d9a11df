//! From the tree to typed values: a serde deserializer that reports unknown and repeated keys and goes on.

use std::{collections::HashMap, fmt};

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{Kind, Node, at::AT};
use crate::problem::{Position, Problems};

/// The typed value of a tree; none if it has a problem that leaves nothing to go on with.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node, problems: &Problems) -> Option<T> {
    let decoder = Decoder { node, problems };
    decoder.attempt(std::marker::PhantomData)
}

/// Why one value could not be read.
#[derive(Debug)]
struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("`{field}:` is missing"))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let expected = match expected.as_str() {
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that isn't negative",
            "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
            expected => expected,
        };
        Self(format!("expected {expected}, not {}", worded(&unexpected)))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown key `{field}:`; one of: {}", expected.join(", ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("{variant:?} is not known here; one of: {}", expected.join(", ")))
    }
}

fn worded(unexpected: &de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Str(text) => Kind::Text((*text).to_owned()).word(),
        de::Unexpected::Bool(flag) => Kind::Flag(*flag).word(),
        de::Unexpected::Signed(number) => Kind::Number(*number).word(),
        de::Unexpected::Float(number) => Kind::Float(*number).word(),
        de::Unexpected::Unit | de::Unexpected::Option => Kind::Null.word(),
        de::Unexpected::Seq => "a list".into(),
        de::Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

#[derive(Clone, Copy)]
struct Decoder<'a> {
    node: &'a Node,
    problems: &'a Problems,
}

impl<'a> Decoder<'a> {
    /// Reads the node; what goes wrong is reported where the node stands.
    fn attempt<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Option<S::Value> {
        match seed.deserialize(self) {
            Ok(value) => Some(value),
            Err(Fault(message)) => {
                self.problems.report(self.node.at, message);
                None
            }
        }
    }

    /// The entries of a mapping; keys said twice are reported and their later values left out.
    fn entries(self, entries: &'a [(Node, Node)]) -> Vec<(&'a Node, &'a Node)> {
        let mut seen: HashMap<&str, Position> = HashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Kind::Text(name) = &key.kind else { continue };
            if let Some(first) = seen.get(name.as_str()) {
                let first = self.problems.place(*first);
                self.problems.report(key.at, format!("`{name}:` is said twice; first at {first}"));
            } else {
                seen.insert(name, key.at);
                kept.push((key, value));
            }
        }
        kept
    }

    fn map<'de, V: Visitor<'de>>(
        self,
        entries: Vec<(&'a Node, &'a Node)>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None, problems: self.problems })
    }

    fn mismatch<T>(self, visitor: &dyn de::Expected) -> Result<T, Fault> {
        Err(Fault(format!("expected {visitor}, not {}", self.node.kind.word())))
    }
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Flag(flag) => visitor.visit_bool(*flag),
            Kind::Number(number) => visitor.visit_i64(*number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Text(text) => visitor.visit_str(text),
            Kind::List(items) => visitor.visit_seq(Items { items: items.iter(), problems: self.problems }),
            Kind::Map(entries) => self.map(self.entries(entries), visitor),
        }
    }

    /// Names and ids are often numbers; they are text all the same.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Text(text) => visitor.visit_str(text),
            Kind::Number(number) => visitor.visit_string(number.to_string()),
            Kind::Flag(_) | Kind::Float(_) | Kind::Null => {
                Err(Fault(format!("expected text, not {}; quote it", self.node.kind.word())))
            }
            Kind::List(_) | Kind::Map(_) => {
                Err(Fault(format!("expected text, not {}", self.node.kind.word())))
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == AT {
            visitor.visit_seq(Parts { decoder: self, next: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.mismatch(&"a mapping");
        };
        let mut known = self.entries(entries);
        known.retain(|(key, _)| {
            let Kind::Text(name) = &key.kind else { return false };
            let is_known = fields.contains(&name.as_str());
            if !is_known {
                self.problems.unknown(key.at, format!("unknown key `{name}:`"), name, fields.iter().copied());
            }
            is_known
        });
        self.map(known, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Text(text) => {
                let text: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            Kind::Map(entries) => visitor.visit_enum(MapAccessDeserializer::new(Entries {
                entries: self.entries(entries).into_iter(),
                value: None,
                problems: self.problems,
            })),
            kind => Err(Fault(format!("expected one of {}, not {}", variants.join(", "), kind.word()))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::List(_) => self.deserialize_any(visitor),
            _ => self.mismatch(&"a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Map(_) => self.deserialize_any(visitor),
            _ => self.mismatch(&"a mapping"),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The position and the value that an [`At`](super::At) is made of.
struct Parts<'a> {
    decoder: Decoder<'a>,
    next: u8,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.next = self.next.saturating_add(1);
        match self.next {
            1 => {
                let at = self.decoder.node.at;
                let parts = [at.file, at.line, at.column].into_iter();
                seed.deserialize(de::value::SeqDeserializer::new(parts)).map(Some)
            }
            2 => Ok(self.decoder.attempt(seed)),
            _ => Ok(None),
        }
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    problems: &'a Problems,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        match self.items.next() {
            Some(node) => seed.deserialize(Decoder { node, problems: self.problems }).map(Some),
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<(&'a Node, &'a Node)>,
    value: Option<&'a Node>,
    problems: &'a Problems,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Decoder { node: key, problems: self.problems }).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.value.take() {
            Some(node) => seed.deserialize(Decoder { node, problems: self.problems }),
            None => Err(Fault("a value without a key".into())),
        }
    }
}
