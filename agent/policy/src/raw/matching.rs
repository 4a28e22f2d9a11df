//! The values of a match block, as written.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::List;
use crate::yaml::Entries;

/// One value of a match block or a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scalar {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// A field's values in a match block or a case.
#[derive(Debug)]
pub(crate) enum RawMatch {
    One(Scalar),
    Many(List<Scalar>),
    /// Of a field whose values have names.
    Named(Entries<RawMatch>),
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct MatchVisitor;

impl<'de> Visitor<'de> for MatchVisitor {
    type Value = RawMatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list of values or names with theirs")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<RawMatch, E> {
        Ok(RawMatch::One(Scalar::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<RawMatch, E> {
        Ok(RawMatch::One(Scalar::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<RawMatch, E> {
        Ok(RawMatch::One(Scalar::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RawMatch, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(RawMatch::Many)
    }

    fn visit_map<A: MapAccess<'de>>(self, names: A) -> Result<RawMatch, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(names)).map(RawMatch::Named)
    }
}

impl<'de> Deserialize<'de> for RawMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MatchVisitor)
    }
}

impl JsonSchema for RawMatch {
    fn schema_name() -> Cow<'static, str> {
        "Match".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = serde_json::json!({"type": ["string", "integer", "boolean"]});
        json_schema!({
            "description": "Words, globs, true or false, or numbers (\">= 10\"); any one of a list; by name, where a field's values have names. `false` for a field that is no flag: it is absent.",
            "anyOf": [scalar, {"type": "array", "items": scalar}, {
                "type": "object",
                "additionalProperties": {"anyOf": [scalar, {"type": "array", "items": scalar}]}
            }]
        })
    }
}
