//! Who may let a held action run, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::{Scope, Sessions, yaml::At};

/// Who may let a held action run, and for how long that counts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Approve")]
pub(crate) struct RawApprove {
    /// Whose yes counts. Never the asker's own.
    pub(crate) by: At<RawApprovers>,
    /// What a yes is given for; `action` without it.
    #[serde(rename = "for")]
    pub(crate) scope: Option<At<Scope>>,
    /// How long the question stands, with its unit: `10m` (the default).
    pub(crate) wait: Option<At<String>>,
    /// How long a yes counts: `30m`. Without it, it counts once.
    pub(crate) grant: Option<At<String>>,
    /// Whether a yes that counts longer ends with the session that asked (`one`, which it is without this) or counts in `any`
    /// of whoever asked.
    pub(crate) sessions: Option<At<Sessions>>,
    /// Whether an answer needs a reason; `optional` without it.
    pub(crate) reason: Option<At<RawReason>>,
    /// Who may act at once, the asker included: with a reason, an alert, and a review owed.
    pub(crate) break_glass: Option<At<RawPeople>>,
}

/// Whose yes counts: whoever is any of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Approvers")]
pub(crate) struct RawApprovers {
    /// Groups that an issuer names in a verified token.
    pub(crate) groups: Option<At<List<String>>>,
    /// The issuer whose groups count; needed where the bundle has several.
    pub(crate) issuer: Option<At<String>>,
    /// Accounts of the host: names, or decimal user ids.
    pub(crate) users: Option<At<List<String>>>,
    /// Groups of the host.
    pub(crate) unix_groups: Option<At<List<String>>>,
    /// How many different people must say yes; 1 without it.
    pub(crate) approvers: Option<At<u32>>,
}

/// Whoever is any of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "People")]
pub(crate) struct RawPeople {
    /// Groups that an issuer names in a verified token.
    pub(crate) groups: Option<At<List<String>>>,
    /// The issuer whose groups count; needed where the bundle has several.
    pub(crate) issuer: Option<At<String>>,
    /// Accounts of the host: names, or decimal user ids.
    pub(crate) users: Option<At<List<String>>>,
    /// Groups of the host.
    pub(crate) unix_groups: Option<At<List<String>>>,
}

/// Whether an answer needs a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Reason")]
pub(crate) enum RawReason {
    /// It does.
    Required,
    /// It may have one.
    Optional,
}
