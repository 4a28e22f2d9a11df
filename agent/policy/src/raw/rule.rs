//! Who may do what where, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{List, RawApprove, RawMatch, RawWhoIs};
use crate::yaml::{At, Entries};

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
    /// SHA-256 digests of executables, in hexadecimal; without them, any.
    pub(crate) sha256: Option<At<List<String>>>,
    /// Globs on the service or scope of the system's own manager that the process runs in; without them, any and none.
    pub(crate) units: Option<At<List<String>>>,
    /// Globs on the id of the container that the process runs in, `"*"` for whatever is in one; without them, anywhere.
    /// A rule that allows asks for one whose cgroup root alone can have named.
    pub(crate) containers: Option<At<List<String>>>,
    /// Ids of the images that the container was made from which the process runs in, as `docker image inspect` has them
    /// (`sha256:...`); without them, any and none. A rule that allows asks for a container as `containers` does.
    pub(crate) images: Option<At<List<String>>>,
    /// Who is asking, as an issuer says it; without it, anybody.
    pub(crate) who: Option<At<RawWhoIs>>,
    /// Match blocks: what any of them matches is allowed.
    pub(crate) allow: Option<At<List<Entries<RawMatch>>>>,
    /// Match blocks: what any of them matches waits for a person.
    pub(crate) hold: Option<At<List<Entries<RawMatch>>>>,
    /// Who may let run what is held.
    pub(crate) approve: Option<At<RawApprove>>,
    /// Match blocks: what any of them matches is denied, whatever else allows it.
    pub(crate) deny: Option<At<List<Entries<RawMatch>>>>,
    /// Names of masks that apply where this rule matches.
    pub(crate) masks: Option<At<List<String>>>,
    /// What is recorded beyond the action itself.
    pub(crate) record: Option<At<RawRecord>>,
    /// How often one principal may do what this rule matches: at most `100/m` (`s`, `m` or `h`) in any such time, counted
    /// over all its connections. Without an effect, a rule limits everything on its resources.
    pub(crate) rate: Option<At<String>>,
    /// Placeholders that clients send in a credential's place, filled in where this rule lets all of an action through.
    pub(crate) fill: Option<At<List<RawFill>>>,
    /// Names of header fields that are the client's own credentials and go on all the same, where this rule lets all of an
    /// action through.
    pub(crate) pass: Option<At<List<String>>>,
    /// Told to whoever is refused: how to get access.
    pub(crate) hint: Option<At<String>>,
}

/// A placeholder, and what is filled in where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Fill")]
pub(crate) struct RawFill {
    /// What clients send: 6 to 128 characters that nothing else is, `"@deploy@"`. It stands for one credential in the whole
    /// bundle.
    pub(crate) placeholder: At<String>,
    /// Name of the credential whose password is filled in.
    pub(crate) credential: At<String>,
    /// Where, as the whole value: `header.NAME`, `query.NAME` or `body.NAME` (`body.user.secret` of JSON). In
    /// `header.authorization` it may stand behind a scheme (`Bearer @deploy@`), or be the password of Basic.
    #[serde(rename = "in")]
    pub(crate) places: At<List<String>>,
}

/// What is recorded beyond the action itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "RecordWhat")]
pub(crate) struct RawRecord {
    /// The data, as it was shown: rows of PostgreSQL; bodies of HTTP, of requests too.
    pub(crate) data: At<bool>,
    /// How much of it one session's record takes, with its unit: `500KiB`, `64MiB` (the default), `2GiB`.
    pub(crate) limit: Option<At<String>>,
}
