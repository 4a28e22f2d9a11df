//! Bundles: YAML to a [`Policy`], and the decisions it makes. Pure: no I/O, no clock, no async.

#![forbid(unsafe_code)]

mod action;
mod content;
mod policy;
mod principal;
mod verdict;
mod vocabulary;

pub use action::{Item, Lineage, Output, Path, Shape, Value};
pub use content::Content;
pub use policy::{Address, Host, Pass, Policy, Problem, Resource, SourceFile, Subject, TlsMode, UpstreamTls};
pub use principal::{Principal, Process};
pub use verdict::{ContentMask, Effect, ResultMasks, Show, Shown, Verdict};
pub use vocabulary::{FieldKind, FieldSpec, Vocabulary, Word};
