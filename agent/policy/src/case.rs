//! The bundle's own tests: who does what where, and what should be decided.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use serde::Serialize;

use crate::{Effect, Policy, Principal, Resource, Shape, Shown, Verdict};

/// One expected decision.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: Arc<str>,
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) principal: Principal,
    pub(crate) resource: Arc<str>,
    pub(crate) deed: Deed,
    pub(crate) expect: Expectation,
}

/// What a case asks.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Items as the case gives them.
    Shape(Shape),
    /// Text that the protocol has to understand first.
    Text {
        text: Arc<str>,
        /// Where it is written.
        place: String,
    },
}

/// What a case expects.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) effect: Effect,
    pub(crate) rule: Option<Arc<str>>,
    /// All fields whose values are masked in results.
    pub(crate) masked: Option<BTreeSet<Arc<str>>>,
    /// All places where placeholders are filled.
    pub(crate) filled: Option<BTreeSet<Arc<str>>>,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// The case's name.
    pub name: Arc<str>,
    /// The file it is in.
    pub path: PathBuf,
    /// The line it begins on.
    pub line: usize,
    /// What differs from what was expected; empty if it passed.
    pub failures: Vec<String>,
}

impl CaseReport {
    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            return write!(f, "ok    {}", self.name);
        }
        write!(f, "FAIL  {} ({}:{})", self.name, self.path.display(), self.line)?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n      {failure}"))
    }
}

/// Why a text has no shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misread {
    /// It is not written in the protocol's words: whoever wrote it made a mistake.
    Malformed(String),
    /// A session would refuse it before any rule is asked.
    Refused(String),
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Malformed(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Misread {}

impl From<String> for Misread {
    fn from(why: String) -> Self {
        Self::Malformed(why)
    }
}

impl From<&str> for Misread {
    fn from(why: &str) -> Self {
        Self::Malformed(why.into())
    }
}

/// Makes a protocol's shape of a case's text.
pub type Understand<'a> = dyn Fn(&Resource, &str) -> Result<Shape, Misread> + 'a;

impl Policy {
    /// Runs the bundle's cases. Text that a session would refuse is denied; malformed text fails whatever is expected,
    /// as a slip of the pen would pass for a decision.
    pub fn test(&self, understand: &Understand<'_>) -> Vec<CaseReport> {
        self.cases.iter().map(|case| self.run(case, understand)).collect()
    }

    fn run(&self, case: &Case, understand: &Understand<'_>) -> CaseReport {
        let understood = match (&case.deed, self.resource(&case.resource)) {
            (Deed::Text { text, .. }, Some(resource)) => understand(resource, text).map(Some),
            _ => Ok(None),
        };
        let failures = match (&case.deed, understood) {
            (Deed::Text { place, .. }, Err(Misread::Malformed(why))) => {
                vec![format!("{place}: the text cannot be read: {why}")]
            }
            (_, Err(why)) => not_understood(&case.expect, &why),
            (Deed::Shape(shape), Ok(None)) => self.compare(case, shape),
            (_, Ok(shape)) => self.compare(case, &shape.unwrap_or_default()),
        };
        CaseReport { name: case.name.clone(), path: case.path.clone(), line: case.line, failures }
    }

    fn compare(&self, case: &Case, shape: &Shape) -> Vec<String> {
        let verdict = self.decide(&case.principal, &case.resource, shape);
        let expect = &case.expect;
        let mut failures = Vec::new();
        if verdict.effect != expect.effect {
            let why =
                if verdict.message.is_empty() { allowed_by(&verdict) } else { verdict.message.to_string() };
            failures.push(format!("expected {}, got {}: {why}", expect.effect, verdict.effect));
        } else if let Some(rule) = &expect.rule
            && verdict.rule.as_ref() != Some(rule)
        {
            let got = verdict.rule.as_deref().map_or("no rule".into(), |rule| format!("rule {rule:?}"));
            failures.push(format!("expected rule {rule:?} to decide, got {got}: {}", verdict.message));
        }
        let filled = || verdict.carried.fills.iter().flat_map(|fill| fill.places.iter().cloned()).collect();
        failures.extend(differ("masked", expect.masked.as_ref(), || masked(shape, &verdict)));
        failures.extend(differ("filled", expect.filled.as_ref(), filled));
        failures
    }
}

/// What is there beside what was expected, if anything was.
fn differ(
    what: &str,
    expected: Option<&BTreeSet<Arc<str>>>,
    got: impl FnOnce() -> BTreeSet<Arc<str>>,
) -> Option<String> {
    let (expected, got) = (expected?, got());
    let told = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
    (got != *expected).then(|| format!("expected {what}: [{}], got [{}]", told(expected), told(&got)))
}

/// The fields whose values some output would have carried and does not.
fn masked(shape: &Shape, verdict: &Verdict) -> BTreeSet<Arc<str>> {
    let results = shape.results.iter().zip(&verdict.results);
    let outputs = results.flat_map(|(lineage, masks)| lineage.outputs.iter().zip(&masks.columns));
    let hidden = outputs.filter(|(_, shown)| matches!(shown, Shown::Masked(_)));
    hidden.flat_map(|(output, _)| output.sources.iter().cloned()).collect()
}

fn allowed_by(verdict: &Verdict) -> String {
    verdict.rule.as_deref().map_or(String::new(), |rule| format!("by rule {rule:?}"))
}

fn not_understood(expect: &Expectation, why: &Misread) -> Vec<String> {
    if expect.effect == Effect::Deny && expect.rule.is_none() {
        Vec::new()
    } else {
        vec![format!("expected {}, got deny: {why}", expect.effect)]
    }
}
