//! Files and Unix sockets, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::yaml::At;

/// Files that governed processes can't open, rename or link. Needs the shield.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Files")]
pub(crate) struct RawFiles {
    /// Names of subjects, or `"*"` (the default).
    pub(crate) subjects: Option<At<List<String>>>,
    /// Names of files, each alone or with its folder's: `.pgpass`, `.aws/credentials`. The file's own may begin or end
    /// with `*`. Wherever such a file lies, and whosever it is, it is shielded.
    pub(crate) names: At<List<String>>,
}

/// Unix sockets of ungoverned processes that governed ones may talk to. Where the shield is, others are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Unix")]
pub(crate) struct RawUnix {
    /// Names of subjects, or `"*"`.
    pub(crate) subjects: At<List<String>>,
    /// What their listeners are bound to: an absolute path, or `@name` for an abstract name.
    pub(crate) to: At<List<String>>,
}
