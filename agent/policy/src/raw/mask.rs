//! What is sensitive and how it is shown, as written.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::List;
use crate::yaml::At;

/// What is sensitive, and how it is shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Mask")]
pub(crate) struct RawMask {
    /// Globs on the addresses of fields: `public.customers.card_number`.
    pub(crate) columns: Option<At<List<String>>>,
    /// Detectors: `card`, `email`, `phone`, `iban`, `us-ssn`, `cloud-key`, `jwt`, `private-key` or one of `patterns`.
    pub(crate) content: Option<At<List<String>>>,
    /// How it is shown; `redact` without it.
    pub(crate) show: Option<At<RawShow>>,
    /// What becomes of values made from a masked column, and of results whose rows one decides. How many rows there are is seen
    /// all the same; what such a column decides is never written.
    pub(crate) derived: Option<At<RawDoubt>>,
    /// What becomes of results whose columns cannot be traced.
    pub(crate) untraced: Option<At<RawDoubt>>,
}

/// Where a mask cannot be applied value by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Doubt")]
pub(crate) enum RawDoubt {
    /// The action is refused (the default).
    Refuse,
    /// The values are masked whole.
    Mask,
}

/// How many characters a mask may keep on a side: with more, it hides nothing.
const MOST_KEPT: usize = 1000;

/// How a mask shows a value, as written.
#[derive(Debug)]
pub(crate) enum RawShow {
    Redact(Option<At<String>>),
    Keep { first: usize, last: usize },
    Token,
    Null,
}

struct ShowVisitor;

/// The mapping forms of `show:`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ShowFields {
    redact: Option<At<String>>,
    keep_first: Option<usize>,
    keep_last: Option<usize>,
}

impl<'de> Visitor<'de> for ShowVisitor {
    type Value = RawShow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redact, token, null, {redact: text} or {keep-first: n, keep-last: n}")
    }

    fn visit_unit<E>(self) -> Result<RawShow, E> {
        Ok(RawShow::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawShow, E> {
        match text {
            "redact" => Ok(RawShow::Redact(None)),
            "token" => Ok(RawShow::Token),
            "null" => Ok(RawShow::Null),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawShow, A::Error> {
        let fields = ShowFields::deserialize(MapAccessDeserializer::new(map))?;
        match (fields.redact, fields.keep_first, fields.keep_last) {
            (Some(text), None, None) => Ok(RawShow::Redact(Some(text))),
            (None, first, last) if first.is_some() || last.is_some() => {
                let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
                if let Some(many) = [first, last].into_iter().find(|kept| *kept > MOST_KEPT) {
                    return Err(de::Error::custom(format_args!(
                        "a mask keeps at most {MOST_KEPT} characters on a side, not {many}"
                    )));
                }
                Ok(RawShow::Keep { first, last })
            }
            _ => Err(de::Error::custom(format_args!("expected {}", &self as &dyn de::Expected))),
        }
    }
}

impl<'de> Deserialize<'de> for RawShow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShowVisitor)
    }
}

impl JsonSchema for RawShow {
    fn schema_name() -> Cow<'static, str> {
        "Show".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How a sensitive value is shown. Lengths are in characters.",
            "anyOf": [
                {"enum": ["redact", "token", "null", null]},
                {
                    "type": "object",
                    "properties": {"redact": {"type": "string"}},
                    "required": ["redact"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": {
                        "keep-first": {"type": "integer", "minimum": 0, "maximum": MOST_KEPT},
                        "keep-last": {"type": "integer", "minimum": 0, "maximum": MOST_KEPT}
                    },
                    "minProperties": 1,
                    "additionalProperties": false
                }
            ]
        })
    }
}
