//! Masks and the bundle's own patterns.

use std::{collections::BTreeMap, sync::Arc};

use regex::{Regex, RegexBuilder};

use super::{Loader, entries, list};
use crate::{
    Content, Show, Vocabulary,
    raw::{RawDoubt, RawFile, RawMask, RawShow},
    rule::{Columns, Doubt, Mask, Rule},
    yaml::At,
};

/// The largest that a compiled pattern may be, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

/// The built-in detectors.
const DETECTORS: [Content; 8] = [
    Content::Card,
    Content::Email,
    Content::Phone,
    Content::Iban,
    Content::UsSsn,
    Content::CloudKey,
    Content::Jwt,
    Content::PrivateKey,
];

impl Loader<'_> {
    /// Reports globs of masks that can match no field of what they are used for.
    pub(super) fn reachable_fields(&self, raw: &[RawFile], masks: &[Mask], rules: &[Rule]) {
        let entries = raw.iter().flat_map(|file| entries(file.masks.as_ref()));
        for (_, name, mask) in entries {
            let Some(index) = masks.iter().position(|known| *known.name == *name) else { continue };
            let naming = rules.iter().filter(|rule| rule.masks.contains(&index));
            let mut spoken: Vec<&Vocabulary> =
                naming.flat_map(|rule| self.vocabularies_of(&rule.resources)).collect();
            spoken.sort_by_key(|vocabulary| vocabulary.protocol);
            spoken.dedup_by_key(|vocabulary| vocabulary.protocol);
            for (at, glob) in list(mask.columns.as_ref()) {
                if spoken.is_empty() || spoken.iter().any(|known| known.path.could_match(glob)) {
                    continue;
                }
                let written: Vec<String> = spoken
                    .iter()
                    .map(|known| format!("{} for {}", known.path.written, known.protocol))
                    .collect();
                self.problems.report_with(
                    at,
                    format!("{glob:?} is no field's address: mask {name:?} hides nothing by it"),
                    format!("write {}; any part may be a glob", written.join(", or ")),
                );
            }
        }
    }

    pub(super) fn masks(&self, raw: &[RawFile]) -> Vec<Mask> {
        let patterns = self.patterns(raw);
        let entries = raw.iter().flat_map(|file| entries(file.masks.as_ref()));
        let mut masks: Vec<Mask> = Vec::new();
        for (at, name, mask) in entries {
            if mask.columns.is_none() && mask.content.is_none() {
                self.problems.report_with(
                    at,
                    format!("mask {name:?} hides nothing"),
                    "name `columns:` or `content:`",
                );
            }
            masks.push(Mask {
                name: name.into(),
                columns: self.columns(mask).map(Arc::new),
                content: self.content(mask, &patterns),
                show: Arc::new(show(mask)),
                derived: doubt(mask.derived.as_ref()),
                untraced: doubt(mask.untraced.as_ref()),
            });
        }
        masks
    }

    fn patterns(&self, raw: &[RawFile]) -> BTreeMap<String, Regex> {
        let mut patterns = BTreeMap::new();
        for (name, value) in
            raw.iter().filter_map(|file| file.patterns.as_ref()?.get()).flat_map(|all| &all.0)
        {
            let (Some(name), Some(text)) = (name.get(), value.get()) else { continue };
            if DETECTORS.iter().any(|known| known.name() == name) {
                self.problems
                    .report(value.at, format!("{name:?} is a detector already; choose another name"));
            }
            match RegexBuilder::new(text).size_limit(LARGEST_PATTERN).build() {
                Ok(regex) if regex.is_match("") => {
                    self.problems.report(value.at, "this pattern matches nothing at all, and so everywhere");
                }
                Ok(regex) => {
                    patterns.insert(name.clone(), regex);
                }
                Err(regex::Error::CompiledTooBig(_)) => {
                    self.problems.report(
                        value.at,
                        format!("this pattern compiles to more than {LARGEST_PATTERN} bytes"),
                    );
                }
                Err(error) => {
                    let why = error.to_string();
                    let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    self.problems.report(value.at, format!("this is not a regular expression: {why}"));
                }
            }
        }
        patterns
    }

    fn columns(&self, mask: &RawMask) -> Option<Columns> {
        let raw = mask.columns.as_ref()?;
        let globs = self.globs(Some(raw))?;
        match Columns::new(globs.written.iter().map(String::as_str)) {
            Ok(columns) => Some(columns),
            Err(error) => {
                self.problems.report(raw.at, format!("these globs cannot be used: {}", error.kind()));
                None
            }
        }
    }

    fn content(&self, mask: &RawMask, patterns: &BTreeMap<String, Regex>) -> Vec<Content> {
        let mut content = Vec::new();
        for (at, name) in list(mask.content.as_ref()) {
            if let Some(detector) = DETECTORS.iter().find(|known| known.name() == name) {
                content.push(detector.clone());
            } else if let Some(regex) = patterns.get(name) {
                content.push(Content::Pattern(name.as_str().into(), regex.clone()));
            } else if !self.patterns.contains_key(name) {
                let known =
                    DETECTORS.iter().map(Content::name).chain(self.patterns.keys().map(String::as_str));
                self.problems.unknown(at, format!("there is no detector or pattern {name:?}"), name, known);
            }
        }
        content
    }
}

fn show(mask: &RawMask) -> Show {
    match mask.show.as_ref().and_then(At::get) {
        None | Some(RawShow::Redact(None)) => Show::default(),
        Some(RawShow::Redact(Some(text))) => {
            text.get().map_or_else(Show::default, |text| Show::Redact(text.as_str().into()))
        }
        Some(RawShow::Keep { first, last }) => Show::Keep { first: *first, last: *last },
        Some(RawShow::Token) => Show::Token,
        Some(RawShow::Null) => Show::Null,
    }
}

fn doubt(raw: Option<&At<RawDoubt>>) -> Doubt {
    match raw.and_then(At::get) {
        None | Some(RawDoubt::Refuse) => Doubt::Refuse,
        Some(RawDoubt::Mask) => Doubt::Mask,
    }
}
