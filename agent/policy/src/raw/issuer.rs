//! Issuers of ID tokens, as written.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{List, RawMatch};
use crate::{
    issuer::{Algorithm, Elsewhere},
    yaml::{At, Entries},
};

/// An issuer whose ID tokens say who is asking.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Issuer")]
pub(crate) struct RawIssuer {
    /// Its identifier, an https URL: `iss` must be this to the letter.
    pub(crate) url: At<String>,
    /// What `aud` must be: ours alone. Needed unless tokens only come from logins.
    pub(crate) audience: Option<At<String>>,
    /// The signature algorithms that are taken; RS256 without it.
    pub(crate) algorithms: Option<At<List<Algorithm>>>,
    /// Claims that every token must have: globs.
    pub(crate) require: Option<At<Entries<RawMatch>>>,
    /// The claim that names the account of this host's that a person has: `preferred_username`. Who asks from the account
    /// and who answers after a login are then known to be the same.
    pub(crate) account: Option<At<String>>,
    /// Where in the claims the groups are: `[groups]`, `[realm_access, roles]`.
    pub(crate) groups: Option<At<List<String>>>,
    /// Claims that are kept and recorded beside those that rules name.
    pub(crate) keep: Option<At<List<String>>>,
    /// How far its clock may be from ours: `30s` (the default).
    pub(crate) clock_skew: Option<At<String>>,
    /// How long known keys count while it cannot be asked: `24h` (the default).
    pub(crate) offline: Option<At<String>>,
    /// PEM file of the authorities that are trusted for its TLS; without it the system's.
    pub(crate) ca: Option<At<String>>,
    /// Where tokens come from, in the order in which they are looked for.
    pub(crate) tokens: At<List<RawTokens>>,
    /// The claim that says of which step of a job a token is, and of which run of it, so that no other step ever has the same:
    /// `job_id` of Buildkite. All tokens of a step count for the process tree that presented the first of them, and for no
    /// later step that has got hold of one.
    pub(crate) step: Option<At<String>>,
    /// What becomes of a copy of a token that counts for another process tree; `refuse` without it.
    pub(crate) elsewhere: Option<At<Elsewhere>>,
}

/// What a rule asks of who is asking.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Who")]
pub(crate) struct RawWhoIs {
    /// The issuer that must vouch for it.
    pub(crate) issuer: At<String>,
    /// Globs on `sub`.
    pub(crate) subject: Option<At<List<String>>>,
    /// Claims and what each must be: globs.
    pub(crate) claims: Option<At<Entries<RawMatch>>>,
    /// Groups, of which one must be: globs.
    pub(crate) groups: Option<At<List<String>>>,
}

/// Who an issuer says that a case's principal is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "CaseIdentity")]
pub(crate) struct RawIdentity {
    /// The issuer.
    pub(crate) issuer: At<String>,
    /// `sub`.
    pub(crate) subject: Option<At<String>>,
    /// Claims.
    pub(crate) claims: Option<At<Entries<RawMatch>>>,
    /// Groups.
    pub(crate) groups: Option<At<List<String>>>,
}

/// One place that tokens come from, as written.
#[derive(Debug)]
pub(crate) enum RawTokens {
    GithubActions { hosts: Option<At<List<String>>> },
    Variable { name: At<String>, siblings: bool },
    File(At<String>),
    Present,
    Login { client: At<String>, scopes: Option<At<List<String>>> },
}

/// The mapping forms.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Fields {
    github_actions: Option<GithubActions>,
    variable: Option<At<String>>,
    #[serde(default)]
    siblings: bool,
    file: Option<At<String>>,
    login: Option<Login>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GithubActions {
    hosts: At<List<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Login {
    client: At<String>,
    scopes: Option<At<List<String>>>,
}

struct TokensVisitor;

impl<'de> Visitor<'de> for TokensVisitor {
    type Value = RawTokens;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "github-actions, present, {variable: NAME}, {file: PATH}, {login: {client: NAME}} or {github-actions: {hosts: [...]}}",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawTokens, E> {
        match text {
            "github-actions" => Ok(RawTokens::GithubActions { hosts: None }),
            "present" => Ok(RawTokens::Present),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTokens, A::Error> {
        let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
        match (fields.github_actions, fields.variable, fields.file, fields.login) {
            (Some(github), None, None, None) if !fields.siblings => {
                Ok(RawTokens::GithubActions { hosts: Some(github.hosts) })
            }
            (None, Some(name), None, None) => Ok(RawTokens::Variable { name, siblings: fields.siblings }),
            (None, None, Some(path), None) if !fields.siblings => Ok(RawTokens::File(path)),
            (None, None, None, Some(login)) if !fields.siblings => {
                Ok(RawTokens::Login { client: login.client, scopes: login.scopes })
            }
            _ => Err(de::Error::custom(format_args!("expected {}", &self as &dyn de::Expected))),
        }
    }
}

impl<'de> Deserialize<'de> for RawTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokensVisitor)
    }
}

impl JsonSchema for RawTokens {
    fn schema_name() -> Cow<'static, str> {
        "Tokens".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let texts = serde_json::json!({"type": "array", "items": {"type": "string"}});
        let only = |name: &str, value: serde_json::Value| {
            serde_json::json!({
                "type": "object", "properties": {name: value}, "required": [name], "additionalProperties": false
            })
        };
        let hosts = only("hosts", texts.clone());
        let text = serde_json::json!({"type": "string"});
        json_schema!({
            "description": "Where a process' ID token comes from.",
            "anyOf": [
                {"enum": ["github-actions", "present"]},
                only("github-actions", hosts),
                only("file", text.clone()),
                {
                    "type": "object",
                    "properties": {"variable": text, "siblings": {"type": "boolean"}},
                    "required": ["variable"],
                    "additionalProperties": false
                },
                only("login", serde_json::json!({
                    "type": "object",
                    "properties": {"client": text, "scopes": texts},
                    "required": ["client"],
                    "additionalProperties": false
                }))
            ]
        })
    }
}
