//! From the files of a bundle to a policy: everything is checked, and every problem reported.

mod approve;
mod carried;
mod cases;
mod dns;
mod facts;
mod issuers;
mod masks;
mod reach;
mod resources;
mod rules;
mod shield;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Policy, Problem, Resource, SourceFile, Vocabulary,
    decide::Engine,
    problem::{Position, Problems},
    raw::{List, RawFile},
    rule::{Names, Rule},
    yaml::{self, At, Entries},
};

/// The version of the format that this is.
const VERSION: u32 = 1;

/// Loads a bundle.
pub(crate) fn load(
    files: &[SourceFile],
    vocabularies: &[&'static Vocabulary],
) -> Result<Policy, Vec<Problem>> {
    let problems = Problems::new(files.iter().map(|file| file.path.clone()).collect());
    let policy = read(files, &problems).and_then(|raw| build(&raw, vocabularies, &problems));
    match (policy, problems.into_found()) {
        (Some(policy), found) if found.is_empty() => Ok(policy),
        (_, found) => Err(found),
    }
}

/// The raw files; none if one is so broken that what the others name could not be told from what is missing.
fn read(files: &[SourceFile], problems: &Problems) -> Option<Vec<RawFile>> {
    let start = Position { file: 0, line: 1, column: 1 };
    if files.is_empty() {
        problems.report_with(start, "the bundle has no files", "a bundle is a directory of *.yaml files");
        return None;
    }
    let raw: Vec<Option<RawFile>> = files
        .iter()
        .enumerate()
        .map(|(index, file)| yaml::parse(index, &file.text, problems))
        .map(|node| node.and_then(|node| yaml::decode(&node, problems)))
        .collect();
    raw.into_iter().collect()
}

fn build(raw: &[RawFile], vocabularies: &[&'static Vocabulary], problems: &Problems) -> Option<Policy> {
    let name = header(raw, problems);
    let loader = Loader::new(raw, vocabularies, problems);
    let subjects = loader.subjects(raw);
    let resources: Vec<Arc<Resource>> = loader.resources(raw).into_iter().map(Arc::new).collect();
    let passes = loader.passes(raw, &resources);
    let (files, unix, required) = (loader.files(raw), loader.unix(raw, &resources), loader.required(raw));
    let dns = loader.dns(raw);
    let masks = loader.masks(raw);
    let mask_names: Vec<Arc<str>> = masks.iter().map(|mask| mask.name.clone()).collect();
    let rules = loader.rules(raw, &mask_names);
    let asked: Vec<_> = rules.iter().flat_map(Rule::claims).collect();
    let issuers = loader.issuers(raw, &asked);
    loader.placeholders(raw);
    loader.reach(&rules, &mask_names);
    loader.reachable_fields(raw, &masks, &rules);
    let cases = loader.cases(raw);
    let speaking = resources.iter().filter_map(|resource| {
        let vocabulary = vocabularies.iter().find(|vocabulary| *vocabulary.protocol == *resource.protocol)?;
        Some((resource.clone(), *vocabulary))
    });
    let subject_names: Vec<Arc<str>> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let engine = Engine::new(rules, masks, speaking, &subject_names, &issuers);
    Some(Policy {
        name: name?,
        digest: "".into(),
        subjects,
        issuers,
        resources,
        passes,
        dns,
        files,
        unix,
        required,
        places: loader.places(raw),
        engine,
        cases,
    })
}

/// Checks every file's version; the bundle's name.
fn header(raw: &[RawFile], problems: &Problems) -> Option<Arc<str>> {
    let mut name: Option<&At<String>> = None;
    for file in raw {
        if let Some(version) = file.tidegate.get()
            && *version != VERSION
        {
            problems.report(
                file.tidegate.at,
                format!("format version {version} is not known; this is version {VERSION}"),
            );
        }
        match (&file.name, name) {
            (Some(again), Some(first)) => {
                problems.report(
                    again.at,
                    format!("the bundle is named twice; first at {}", problems.place(first.at)),
                );
            }
            (Some(first), None) => name = Some(first),
            (None, _) => {}
        }
    }
    if name.is_none() {
        let start = Position { file: 0, line: 1, column: 1 };
        problems.report_with(start, "the bundle has no name", "add `name:` to one of its files");
    }
    name.and_then(At::get).map(|name| name.as_str().into())
}

/// Names that a bundle declares, and where.
type Declared = BTreeMap<String, Position>;

/// What the parts of a bundle are checked against.
struct Loader<'a> {
    problems: &'a Problems,
    vocabularies: &'a [&'static Vocabulary],
    subjects: Declared,
    issuers: Declared,
    resources: Declared,
    masks: Declared,
    patterns: Declared,
    rules: Declared,
    /// The vocabulary of each resource whose protocol is known.
    speaks: BTreeMap<String, &'static Vocabulary>,
}

impl<'a> Loader<'a> {
    fn new(raw: &[RawFile], vocabularies: &'a [&'static Vocabulary], problems: &'a Problems) -> Self {
        let mut speaks = BTreeMap::new();
        for (_, name, resource) in raw.iter().flat_map(|file| entries(file.resources.as_ref())) {
            let protocol = resource.protocol.get();
            if let Some(known) =
                vocabularies.iter().find(|known| protocol.is_some_and(|name| name == known.protocol))
            {
                speaks.insert(name.to_owned(), *known);
            }
        }
        let rules = raw.iter().flat_map(|file| list(file.rules.as_ref()));
        let rule_names = rules.map(|(_, rule)| &rule.name);
        Self {
            problems,
            vocabularies,
            subjects: declare("subject", keys(raw, |file| file.subjects.as_ref()), problems),
            issuers: declare("issuer", keys(raw, |file| file.issuers.as_ref()), problems),
            resources: declare("resource", keys(raw, |file| file.resources.as_ref()), problems),
            masks: declare("mask", keys(raw, |file| file.masks.as_ref()), problems),
            patterns: declare("pattern", keys(raw, |file| file.patterns.as_ref()), problems),
            rules: declare("rule", rule_names, problems),
            speaks,
        }
    }

    /// A list of names of one kind, or `"*"`; those not declared are reported.
    fn names(&self, kind: &str, raw: &At<List<String>>, declared: &Declared) -> Names {
        let listed = raw.get().map_or(&[][..], Vec::as_slice);
        if raw.get().is_some() && listed.is_empty() {
            self.problems.report_with(
                raw.at,
                format!("no {kind} is named: this never applies"),
                "name some, or \"*\"",
            );
        }
        if listed.iter().any(|name| name.get().is_some_and(|name| name == "*")) {
            return Names::All;
        }
        let mut names = Vec::new();
        for (at, name) in readable(listed) {
            if self.declared(kind, at, name, declared) {
                names.push(Arc::from(name.as_str()));
            }
        }
        Names::These(names)
    }

    /// Whether a name is declared; reported if not.
    fn declared(&self, kind: &str, at: Position, name: &str, declared: &Declared) -> bool {
        let known = declared.contains_key(name);
        if !known {
            let known = declared.keys().map(String::as_str);
            self.problems.unknown(at, format!("there is no {kind} {name:?}"), name, known);
        }
        known
    }
}

/// Collects names; reports those declared twice or not fit to be names.
fn declare<'a>(kind: &str, names: impl Iterator<Item = &'a At<String>>, problems: &Problems) -> Declared {
    let mut declared = Declared::new();
    for key in names {
        let Some(name) = key.get() else { continue };
        if name.is_empty() || name == "*" || name.chars().any(char::is_control) {
            problems.report(key.at, format!("{name:?} cannot be the name of a {kind}"));
        } else if let Some(first) = declared.get(name) {
            let first = problems.place(*first);
            problems.report(key.at, format!("{kind} {name:?} is declared twice; first at {first}"));
        } else {
            declared.insert(name.clone(), key.at);
        }
    }
    declared
}

fn keys<'a, T: 'a>(
    raw: &'a [RawFile],
    section: impl Fn(&'a RawFile) -> Option<&'a At<Entries<T>>> + 'a,
) -> impl Iterator<Item = &'a At<String>> {
    raw.iter()
        .filter_map(move |file| section(file)?.get())
        .flat_map(|entries| entries.0.iter().map(|(key, _)| key))
}

/// The readable entries of a section.
fn entries<T>(section: Option<&At<Entries<T>>>) -> impl Iterator<Item = (Position, &str, &T)> {
    section.and_then(At::get).into_iter().flat_map(Entries::iter)
}

/// The readable members of a section that is a list.
fn list<T>(section: Option<&At<List<T>>>) -> impl Iterator<Item = (Position, &T)> {
    section.and_then(At::get).into_iter().flat_map(|list| readable(list))
}

fn readable<T>(list: &[At<T>]) -> impl Iterator<Item = (Position, &T)> {
    list.iter().filter_map(|member| Some((member.at, member.get()?)))
}

/// The readable texts of an optional list.
fn texts(section: Option<&At<List<String>>>) -> Vec<Arc<str>> {
    list(section).map(|(_, text)| text.as_str().into()).collect()
}
