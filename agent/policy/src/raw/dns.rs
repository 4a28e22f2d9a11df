//! Names that may be asked for, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::yaml::At;

/// What the agent's resolver answers governed processes, beside the names of resources and passes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Dns")]
pub(crate) struct RawDns {
    /// More names that are answered: `db.internal`, or `*.internal` for the names one label below. Their addresses are
    /// reachable only as far as resources and passes say.
    pub(crate) allow: Option<At<List<String>>>,
    /// The servers that the agent asks, `10.0.0.2` or `10.0.0.2:5353`; without any, those of the host's resolv.conf.
    pub(crate) servers: Option<At<List<String>>>,
}
