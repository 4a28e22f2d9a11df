//! A bundle file as it is written, before anything in it is checked. The JSON Schema is made from these types.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer},
};

use crate::{
    Effect, TlsMode,
    yaml::{At, Entries},
};

/// A list whose members stand for themselves.
pub(crate) type List<T> = Vec<At<T>>;

/// One file of a Tidegate bundle. The files of a bundle are merged; names are unique across them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "Tidegate bundle file", rename = "Bundle")]
pub(crate) struct RawFile {
    /// Version of the format: 1.
    pub(crate) tidegate: At<u32>,
    /// The bundle's name; in one of its files.
    pub(crate) name: Option<At<String>>,
    /// Whom the kernel governs, by name.
    pub(crate) subjects: Option<At<Entries<RawSubject>>>,
    /// Upstreams that connections are taken to the gate for, by name.
    pub(crate) resources: Option<At<Entries<RawResource>>>,
    /// Where governed processes may connect without the gate.
    pub(crate) passes: Option<At<List<RawPass>>>,
    /// Who may do what where. Whatever no rule allows is denied; their order never matters.
    pub(crate) rules: Option<At<List<RawRule>>>,
    /// How sensitive values are shown, by name.
    pub(crate) masks: Option<At<Entries<RawMask>>>,
    /// The bundle's own content patterns (regular expressions), by name.
    pub(crate) patterns: Option<At<Entries<String>>>,
    /// What the bundle is expected to decide: its tests.
    pub(crate) cases: Option<At<List<RawCase>>>,
}

/// A set of processes that are governed, chosen by any of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Subject")]
pub(crate) struct RawSubject {
    /// User names or decimal user ids.
    pub(crate) users: Option<At<List<String>>>,
    /// Group names or decimal group ids.
    pub(crate) groups: Option<At<List<String>>>,
    /// Paths within the cgroup v2 hierarchy; descendants count.
    pub(crate) cgroups: Option<At<List<String>>>,
}

/// A named upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Resource")]
pub(crate) struct RawResource {
    /// The protocol spoken there: `postgres`.
    pub(crate) protocol: At<String>,
    /// Destinations: `host:port`, `10.2.0.0/16:5432`, `[::1]:5432`.
    pub(crate) addresses: At<List<String>>,
    /// TLS towards the upstream.
    pub(crate) tls: Option<At<RawTls>>,
    /// Name of the credential to sign in with.
    pub(crate) credential: At<String>,
    /// How long connecting and signing in may take, with its unit: `10s` (the default).
    pub(crate) connect_timeout: Option<At<String>>,
    /// The protocol's own options.
    pub(crate) options: Option<At<serde_json::Map<String, serde_json::Value>>>,
}

/// TLS towards an upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Tls")]
pub(crate) struct RawTls {
    /// How much is asked of the upstream; `verify-full` where a `ca` is named, else `prefer`.
    pub(crate) mode: Option<At<TlsMode>>,
    /// PEM file of the authorities that are trusted; without it the system's.
    pub(crate) ca: Option<At<String>>,
    /// The name the upstream's certificate must bear, if not the host it is reached by.
    pub(crate) server_name: Option<At<String>>,
}

/// Destinations that subjects may connect to without the gate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Pass")]
pub(crate) struct RawPass {
    /// Names of subjects, or `"*"`.
    pub(crate) subjects: At<List<String>>,
    /// Destinations: `10.0.0.0/8:443`, `mirror.internal:80`; without a port, every port.
    pub(crate) to: At<List<String>>,
}

/// Who may do what where, and what is shown of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub(crate) struct RawRule {
    /// Its name, as refusals and records give it.
    pub(crate) name: At<String>,
    /// Names of subjects, or `"*"`.
    pub(crate) subjects: At<List<String>>,
    /// Names of resources, or `"*"`.
    pub(crate) resources: At<List<String>>,
    /// Globs on the executable's path; without them, any executable.
    pub(crate) executables: Option<At<List<String>>>,
    /// Match blocks: what any of them matches is allowed.
    pub(crate) allow: Option<At<List<Entries<RawMatch>>>>,
    /// Match blocks: what any of them matches waits for a person.
    pub(crate) hold: Option<At<List<Entries<RawMatch>>>>,
    /// Match blocks: what any of them matches is denied, whatever else allows it.
    pub(crate) deny: Option<At<List<Entries<RawMatch>>>>,
    /// Names of masks that apply where this rule matches.
    pub(crate) masks: Option<At<List<String>>>,
    /// What is recorded beyond the action itself.
    pub(crate) record: Option<At<RawRecord>>,
    /// Told to whoever is refused: how to get access.
    pub(crate) hint: Option<At<String>>,
}

/// What is recorded beyond the action itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "RecordWhat")]
pub(crate) struct RawRecord {
    /// The rows, as they were shown.
    pub(crate) rows: At<bool>,
}

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
    /// What becomes of values made from a masked column, and of masked columns that decide which rows are seen.
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
    /// What is asked: the fields of one item, `items: [...]`, or `sql: ...`.
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
}

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
}

/// How a mask shows a value, as written.
#[derive(Debug)]
pub(crate) enum RawShow {
    Redact(Option<At<String>>),
    Keep { first: usize, last: usize },
    Token,
    Null,
}

/// What a case asks.
#[derive(Debug, Default)]
pub(crate) struct RawDeed {
    /// One item's fields, if it is written that way.
    pub(crate) fields: Vec<(At<String>, At<RawMatch>)>,
    pub(crate) items: Option<At<List<Entries<RawMatch>>>>,
    pub(crate) sql: Option<At<String>>,
    pub(crate) outputs: Option<At<List<String>>>,
    pub(crate) influences: Option<At<List<String>>>,
}

/// What a case expects.
#[derive(Debug)]
pub(crate) enum RawExpect {
    Only(Effect),
    More(RawExpectation),
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
        f.write_str("a value or a list of values")
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
            "description": "Words, globs, true or false, or numbers (\">= 10\"); any one of a list. `false` for a field that is no flag: it is absent.",
            "anyOf": [scalar, {"type": "array", "items": scalar}]
        })
    }
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
                Ok(RawShow::Keep { first: first.unwrap_or(0), last: last.unwrap_or(0) })
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
                        "keep-first": {"type": "integer", "minimum": 0},
                        "keep-last": {"type": "integer", "minimum": 0}
                    },
                    "minProperties": 1,
                    "additionalProperties": false
                }
            ]
        })
    }
}

struct DeedVisitor;

impl<'de> Visitor<'de> for DeedVisitor {
    type Value = RawDeed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of an item, `items: [...]` or `sql: ...`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawDeed, A::Error> {
        let mut deed = RawDeed::default();
        while let Some(key) = map.next_key::<At<String>>()? {
            match key.get().map(String::as_str) {
                Some("items") => deed.items = Some(map.next_value()?),
                Some("sql") => deed.sql = Some(map.next_value()?),
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
            "description": "The fields of one item, or `items`, or `sql`; with items, what they show and depend on.",
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": {"type": "object", "additionalProperties": field}},
                "sql": {"type": "string"},
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
        f.write_str("allow, deny, hold or {decision: ..., rule: ..., masked: [...]}")
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
