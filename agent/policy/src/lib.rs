//! Bundles: YAML to a [`Policy`], and the decisions it makes. Pure: no I/O, no clock, no async.

#![forbid(unsafe_code)]

mod action;
mod approve;
mod carried;
mod case;
mod content;
mod decide;
mod dns;
mod explain;
mod facts;
mod identity;
mod index;
mod issuer;
mod load;
mod matcher;
mod named;
mod path;
mod plan;
mod policy;
mod principal;
mod problem;
mod rate;
mod raw;
mod resource;
mod rule;
mod shield;
mod verdict;
mod vocabulary;
mod yaml;

pub use action::{Item, Lineage, Output, Path, Shape, Value};
pub use approve::{Approval, Held, People, Scope, Sessions};
pub use carried::{Carried, Fill};
pub use case::{CaseReport, Misread, Understand};
pub use content::Content;
pub use dns::{Dns, NamePattern};
pub use explain::{Explanation, RuleExplanation};
pub use identity::{Identity, Unproven};
pub use issuer::{Algorithm, Claims, Elsewhere, Issuer, TokenSource};
pub use policy::{Policy, schema};
pub use principal::{Principal, Process, Sharer};
pub use problem::{Problem, SourceFile};
pub use rate::{Limit, Rate};
pub use resource::{Address, Host, Pass, Resource, Subject, TlsMode, UpstreamTls};
pub use shield::{FileName, FilePattern, Requirement, ShieldedFiles, UnixAddress, UnixPass};
pub use verdict::{ContentMask, Effect, FieldMasks, ResultMasks, Show, Shown, StandingMasks, Verdict};
pub use vocabulary::{Carries, FieldKind, FieldSpec, PathForm, PathSpec, Vocabulary, Word, any_spelling};
