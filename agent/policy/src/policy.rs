//! A loaded bundle.

use std::{collections::HashMap, sync::Arc};

use crate::{
    ContentMask, Dns, FieldMasks, Issuer, Pass, Principal, Problem, Requirement, Resource, Shape,
    ShieldedFiles, SourceFile, StandingMasks, Subject, UnixPass, Verdict, Vocabulary, case::Case,
    decide::Engine, load, raw::RawFile,
};

/// A loaded bundle: everything it says, checked and compiled.
#[derive(Debug)]
pub struct Policy {
    /// The bundle's name.
    pub name: Arc<str>,
    /// SHA-256 over the bundle's files, lower-case hex. Set by whoever read the files; empty until then.
    pub digest: Arc<str>,
    /// Whom the kernel governs.
    pub subjects: Vec<Subject>,
    /// Who says who is asking.
    pub issuers: Vec<Arc<Issuer>>,
    /// Where connections are taken to the gate.
    pub resources: Vec<Arc<Resource>>,
    /// Where governed processes may connect without the gate.
    pub passes: Vec<Pass>,
    /// Files that governed processes can't open.
    pub files: Vec<ShieldedFiles>,
    /// Unix sockets that they may talk to.
    pub unix: Vec<UnixPass>,
    /// What the kernel must be able to do.
    pub required: Vec<Requirement>,
    /// Which names they may ask for, beside those of resources and passes.
    pub dns: Dns,
    /// Where each resource is written.
    pub(crate) places: HashMap<Arc<str>, Places>,
    pub(crate) engine: Engine,
    pub(crate) cases: Vec<Case>,
}

/// Where a resource is written, as `file:line:column`.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) whole: String,
    /// By name.
    pub(crate) options: HashMap<String, String>,
}

impl Policy {
    /// Loads a bundle from the text of its files; every problem found is returned, not only the first.
    pub fn load(files: &[SourceFile], vocabularies: &[&'static Vocabulary]) -> Result<Self, Vec<Problem>> {
        load::load(files, vocabularies)
    }

    /// Decides one action. Total: what no rule allows is denied.
    pub fn decide(&self, principal: &Principal, resource: &str, shape: &Shape) -> Verdict {
        self.engine.decide(principal, resource, shape)
    }

    /// Whether the decision depends on a field that the action doesn't have yet, for protocols that look for it only then.
    pub fn depends_on(&self, field: &str, principal: &Principal, resource: &str, shape: &Shape) -> bool {
        self.engine.depends_on(field, principal, resource, shape)
    }

    /// The masks of a principal on a resource, whatever it does there.
    pub fn standing_masks(&self, principal: &Principal, resource: &str) -> StandingMasks {
        self.engine.standing_masks(principal, resource)
    }

    /// Whether a mask may cover a field of this table for a principal, whatever it does there. Says yes in doubt.
    pub fn masks_table(&self, principal: &Principal, resource: &str, table: &str) -> bool {
        self.engine.masks_table(principal, resource, table)
    }

    /// What content masks hide of a resource, from whomever: for those of whom nobody knows what they may see.
    pub fn masked_for_anybody(&self, resource: &str) -> Option<Arc<ContentMask>> {
        self.engine.masked_for_anybody(resource)
    }

    /// The same of masks on fields.
    pub fn fields_masked_for_anybody(&self, resource: &str) -> Option<Arc<FieldMasks>> {
        self.engine.fields_masked_for_anybody(resource)
    }

    /// The resource of this name.
    pub fn resource(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| &*resource.name == name)
    }

    /// The credentials that it names, each with what needs it, in words.
    pub fn credentials(&self) -> impl Iterator<Item = (String, &Arc<str>)> {
        let signed_in_by = self.resources.iter().filter_map(|resource| {
            Some((format!("resource {:?}", resource.name), resource.credential.as_ref()?))
        });
        let filled_in = self.engine.rules().iter().flat_map(|rule| {
            rule.carried.fills.iter().map(|fill| (format!("rule {:?}", rule.name), &fill.credential))
        });
        signed_in_by.chain(filled_in)
    }

    /// Where a resource, or one of its options, is written, as `file:line:column`: for what is found wrong with it after the
    /// bundle was read.
    pub fn place_of_resource(&self, name: &str, option: Option<&str>) -> Option<&str> {
        let places = self.places.get(name)?;
        let option = option.and_then(|option| places.options.get(option));
        Some(option.unwrap_or(&places.whole))
    }
}

/// The JSON Schema of a bundle's files, for editors. What depends on a protocol's vocabulary is open in it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RawFile).to_value()
}
