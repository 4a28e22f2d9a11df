//! Whom the kernel governs, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::yaml::At;

/// A set of processes that are governed, chosen by any of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Subject")]
pub(crate) struct RawSubject {
    /// User names or decimal user ids.
    pub(crate) users: Option<At<List<String>>>,
    /// Group names or decimal group ids.
    pub(crate) groups: Option<At<List<String>>>,
    /// Paths within the cgroup v2 hierarchy, whether they are there yet or not; descendants count.
    pub(crate) cgroups: Option<At<List<String>>>,
    /// Units of the system's service manager: `ci.service`, `ci@*.service` for all instances, `docker-*.scope` for what
    /// Docker runs. A `*` stands right before the ending.
    pub(crate) units: Option<At<List<String>>>,
}
