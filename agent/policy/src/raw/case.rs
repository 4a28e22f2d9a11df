//! What is expected to be decided, as written.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{List, RawIdentity, RawMatch};
use crate::{
    Effect,
    yaml::{At, Entries},
};

/// An expected decision.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Case")]
pub(crate) struct RawCase {
    /// What it shows.
    pub(crate) name: At<String>,
    /// Who asks.
    #[serde(rename = "as")]
    pub(crate) who: At<RawWho>,
    /// Name of the resource.
    pub(crate) on: At<String>,
    /// What is asked: the fields of one item, `items: [...]`, or text in the protocol's own words (`sql: ...`, `request: ...`).
    #[serde(rename = "do")]
    pub(crate) deed: At<RawDeed>,
    /// `allow`, `deny` or `hold`, or a mapping that says more.
    pub(crate) expect: At<RawExpect>,
}

/// Who asks, in a case.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "CaseAs")]
pub(crate) struct RawWho {
    /// Names of subjects.
    pub(crate) subjects: At<List<String>>,
    /// Path of the executable.
    pub(crate) executable: Option<At<String>>,
    /// SHA-256 digest of the executable.
    pub(crate) sha256: Option<At<String>>,
    /// Unit of the system's own manager that the process runs in.
    pub(crate) unit: Option<At<String>>,
    /// Id of the container that it runs in.
    pub(crate) container: Option<At<String>>,
    /// Id of the image that this was made from, as `sha256:...`.
    pub(crate) image: Option<At<String>>,
    /// Who issuers say that it is.
    pub(crate) identities: Option<At<List<RawIdentity>>>,
}

/// What is expected beyond the decision.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "CaseExpect")]
pub(crate) struct RawExpectation {
    /// The decision.
    pub(crate) decision: At<Effect>,
    /// The rule that decides.
    pub(crate) rule: Option<At<String>>,
    /// The fields whose values are masked in results, all of them.
    pub(crate) masked: Option<At<List<String>>>,
    /// The places where placeholders are filled, all of them: `header.authorization`.
    pub(crate) filled: Option<At<List<String>>>,
}

/// What a case asks.
#[derive(Debug, Default)]
pub(crate) struct RawDeed {
    /// One item's fields, or the one key under which the protocol takes text.
    pub(crate) fields: Vec<(At<String>, At<RawMatch>)>,
    pub(crate) items: Option<At<List<Entries<RawMatch>>>>,
    pub(crate) outputs: Option<At<List<String>>>,
    pub(crate) influences: Option<At<List<String>>>,
}

/// What a case expects.
#[derive(Debug)]
pub(crate) enum RawExpect {
    Only(Effect),
    More(RawExpectation),
}

struct DeedVisitor;

impl<'de> Visitor<'de> for DeedVisitor {
    type Value = RawDeed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of an item, `items: [...]` or text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDeed, A::Error> {
        let mut deed = RawDeed::default();
        while let Some(key) = map.next_key::<At<String>>()? {
            match key.get().map(String::as_str) {
                Some("items") => deed.items = Some(map.next_value()?),
                Some("outputs") => deed.outputs = Some(map.next_value()?),
                Some("influences") => deed.influences = Some(map.next_value()?),
                _ => deed.fields.push((key, map.next_value()?)),
            }
        }
        Ok(deed)
    }
}

impl<'de> Deserialize<'de> for RawDeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DeedVisitor)
    }
}

impl JsonSchema for RawDeed {
    fn schema_name() -> Cow<'static, str> {
        "CaseDo".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let field = generator.subschema_for::<RawMatch>();
        let paths = serde_json::json!({"type": "array", "items": {"type": "string"}});
        json_schema!({
            "description": "The fields of one item, or `items`, or text under the protocol's own key (`sql`, `request`); with items, what they show and depend on.",
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": {"type": "object", "additionalProperties": field}},
                "outputs": paths,
                "influences": paths
            },
            "additionalProperties": field
        })
    }
}

struct ExpectVisitor;

impl<'de> Visitor<'de> for ExpectVisitor {
    type Value = RawExpect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("allow, deny, hold or {decision: ..., rule: ..., masked: [...], filled: [...]}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawExpect, E> {
        Effect::deserialize(de::value::StrDeserializer::new(text)).map(RawExpect::Only)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawExpect, A::Error> {
        RawExpectation::deserialize(MapAccessDeserializer::new(map)).map(RawExpect::More)
    }
}

impl<'de> Deserialize<'de> for RawExpect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExpectVisitor)
    }
}

impl JsonSchema for RawExpect {
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (only, more) = (generator.subschema_for::<Effect>(), generator.subschema_for::<RawExpectation>());
        json_schema!({"anyOf": [only, more]})
    }
}
