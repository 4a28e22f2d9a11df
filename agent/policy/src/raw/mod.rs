//! A bundle file as it is written, before anything in it is checked. The JSON Schema is made from these types.

mod approve;
mod case;
mod dns;
mod issuer;
mod mask;
mod matching;
mod resource;
mod rule;
mod shield;
mod subject;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use approve::{RawApprove, RawReason};
pub(crate) use case::{RawCase, RawDeed, RawExpect, RawWho};
pub(crate) use dns::RawDns;
pub(crate) use issuer::{RawIdentity, RawIssuer, RawTokens, RawWhoIs};
pub(crate) use mask::{RawDoubt, RawMask, RawShow};
pub(crate) use matching::{RawMatch, Scalar};
pub(crate) use resource::{RawPass, RawResource, RawTls};
pub(crate) use rule::{RawFill, RawRecord, RawRule};
pub(crate) use shield::{RawFiles, RawUnix};
pub(crate) use subject::{RawSubject, Runtime};

use crate::{
    Requirement,
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
    /// Who says who is asking, by name: issuers of ID tokens.
    pub(crate) issuers: Option<At<Entries<RawIssuer>>>,
    /// Upstreams that connections are taken to the gate for, by name.
    pub(crate) resources: Option<At<Entries<RawResource>>>,
    /// Where governed processes may connect without the gate.
    pub(crate) passes: Option<At<List<RawPass>>>,
    /// Files that governed processes can't open, by name.
    pub(crate) files: Option<At<Entries<RawFiles>>>,
    /// Unix sockets that governed processes may talk to.
    pub(crate) unix: Option<At<List<RawUnix>>>,
    /// What the kernel must be able to do: without it the bundle is not put into force.
    pub(crate) require: Option<At<List<Requirement>>>,
    /// Which names governed processes may ask for.
    pub(crate) dns: Option<At<RawDns>>,
    /// Who may do what where. Whatever no rule allows is denied; their order never matters.
    pub(crate) rules: Option<At<List<RawRule>>>,
    /// How sensitive values are shown, by name.
    pub(crate) masks: Option<At<Entries<RawMask>>>,
    /// The bundle's own content patterns (regular expressions), by name.
    pub(crate) patterns: Option<At<Entries<String>>>,
    /// What the bundle is expected to decide: its tests.
    pub(crate) cases: Option<At<List<RawCase>>>,
}
