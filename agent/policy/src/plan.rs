//! How the results of an allowed action are shown, or why masks don't let it run.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    Content, ContentMask, FieldMasks, Lineage, Output, ResultMasks, Shape, Show, Shown,
    rule::{Columns, Doubt, Mask, Rule},
};

/// A mask that applies, and the rule that says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active<'a> {
    pub(crate) mask: &'a Mask,
    pub(crate) rule: &'a Rule,
}

/// What the masks make of an action.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) results: Vec<ResultMasks>,
    pub(crate) fields: Option<Arc<FieldMasks>>,
    pub(crate) withhold_errors: bool,
}

/// A mask that cannot be applied and therefore refuses.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) message: String,
}

impl<'a> Active<'a> {
    fn covers(&self, path: &str) -> bool {
        self.mask.columns.as_ref().is_some_and(|columns| columns.cover(path))
    }

    /// Whether the mask could apply to what could not be traced.
    fn may_hide(&self, lineage: &Lineage) -> bool {
        match (&self.mask.columns, &lineage.among) {
            (Some(columns), Some(among)) => among.iter().any(|path| columns.cover(path)),
            (Some(_), None) => true,
            // Detectors can look through outputs that are known by number, and through whatever has a number at all.
            (None, among) => among.is_none() && lineage.outputs.is_empty(),
        }
    }

    fn refuses(self, why: &str) -> Refusal<'a> {
        Refusal { rule: self.rule, message: format!("refused by mask {:?}: {why}", self.mask.name) }
    }
}

/// What the detectors of all masks look for; the strictest way to show counts for each.
pub(crate) fn content(active: &[Active<'_>]) -> Option<Arc<ContentMask>> {
    let mut finds: Vec<(Content, Arc<Show>)> = Vec::new();
    for (content, show) in active
        .iter()
        .flat_map(|active| active.mask.content.iter().map(|content| (content, &active.mask.show)))
    {
        match finds.iter_mut().find(|(known, _)| known.name() == content.name()) {
            Some((_, known)) => *known = stricter(known, show).clone(),
            None => finds.push((content.clone(), show.clone())),
        }
    }
    finds.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
    (!finds.is_empty()).then(|| Arc::new(ContentMask { finds }))
}

/// Plans every result of an action.
pub(crate) fn plan<'a>(
    active: &[Active<'a>],
    content: Option<&Arc<ContentMask>>,
    shape: &Shape,
) -> Result<Planned, Refusal<'a>> {
    computed(active, shape)?;
    copied(active, shape)?;
    let influenced = influenced(active, shape)?;
    let results = shape.results.iter().map(|lineage| result(active, content, lineage, influenced));
    Ok(Planned {
        results: results.collect::<Result<_, _>>()?,
        fields: if shape.open || touches(active, shape) { fields(active) } else { None },
        withhold_errors: withhold_errors(active, shape),
    })
}

/// The masks on fields, to be looked up when the answer comes.
pub(crate) fn fields(active: &[Active<'_>]) -> Option<Arc<FieldMasks>> {
    let masks =
        active.iter().filter_map(|active| Some((active.mask.columns.clone()?, active.mask.show.clone())));
    let masks: Vec<_> = masks.collect();
    (!masks.is_empty()).then(|| Arc::new(FieldMasks(masks)))
}

/// Refuses what is computed from a masked field, where its mask says so, even if no result shows it.
fn computed<'a>(active: &[Active<'a>], shape: &Shape) -> Result<(), Refusal<'a>> {
    for path in &shape.computed {
        let mut covering = active.iter().filter(|active| active.covers(path));
        if let Some(refusing) = covering.find(|active| active.mask.derived == Doubt::Refuse) {
            return Err(refusing.refuses(&format!("a value is computed from {path}")));
        }
    }
    Ok(())
}

/// Refuses a copy of a masked field, and what may be one: nothing shown later could make up for it.
fn copied<'a>(active: &[Active<'a>], shape: &Shape) -> Result<(), Refusal<'a>> {
    for path in &shape.copied {
        if let Some(covering) = active.iter().find(|active| active.covers(path)) {
            return Err(covering.refuses(&format!("{path} may not be copied to where no mask covers it")));
        }
    }
    match (&shape.untraced, active.iter().find(|active| active.mask.columns.is_some())) {
        (Some(why), Some(hiding)) => {
            Err(hiding.refuses(&format!("what decides rows could not be traced: {why}")))
        }
        _ => Ok(()),
    }
}

/// Whether a masked field decides which rows are seen, and its masks would rather hide all than refuse.
fn influenced<'a>(active: &[Active<'a>], shape: &Shape) -> Result<bool, Refusal<'a>> {
    let mut influenced = false;
    for path in &shape.influences {
        for covering in active.iter().filter(|active| active.covers(path)) {
            if covering.mask.derived == Doubt::Refuse {
                return Err(
                    covering.refuses(&format!("{path} may not decide which rows are seen or changed"))
                );
            }
            if shape.keeps {
                return Err(covering.refuses(&format!("{path} may not decide what is written or kept")));
            }
            influenced = true;
        }
    }
    Ok(influenced)
}

fn result<'a>(
    active: &[Active<'a>],
    content: Option<&Arc<ContentMask>>,
    lineage: &Lineage,
    influenced: bool,
) -> Result<ResultMasks, Refusal<'a>> {
    let mut whole = influenced.then(redacted);
    if let Some(why) = &lineage.untraced {
        let mut hiding = active.iter().filter(|active| active.may_hide(lineage)).peekable();
        if hiding.peek().is_some() {
            whole = Some(redacted());
        }
        if let Some(refusing) = hiding.find(|active| active.mask.untraced == Doubt::Refuse) {
            return Err(refusing.refuses(&format!("a result could not be traced to its columns: {why}")));
        }
        if lineage.among.is_some() && whole.is_none() {
            return Ok(ResultMasks { columns: Vec::new(), whole: Some(unmasked(content)) });
        }
    }
    let columns = lineage.outputs.iter().map(|each| match &whole {
        Some(show) => output(active, content, each).map(|_| Shown::Masked(show.clone())),
        None => output(active, content, each),
    });
    Ok(ResultMasks { columns: columns.collect::<Result<_, _>>()?, whole: whole.map(Shown::Masked) })
}

fn output<'a>(
    active: &[Active<'a>],
    content: Option<&Arc<ContentMask>>,
    output: &Output,
) -> Result<Shown, Refusal<'a>> {
    let mut show: Option<Arc<Show>> = None;
    for path in &output.sources {
        for covering in active.iter().filter(|active| active.covers(path)) {
            let shown = match (output.computed, covering.mask.derived) {
                (false, _) => covering.mask.show.clone(),
                (true, Doubt::Mask) => redacted(),
                (true, Doubt::Refuse) => {
                    return Err(covering.refuses(&format!("a value is computed from {path}")));
                }
            };
            show = Some(show.map_or_else(|| shown.clone(), |known| stricter(&known, &shown).clone()));
        }
    }
    Ok(show.map_or_else(|| unmasked(content), Shown::Masked))
}

/// How what no mask covers is shown.
fn unmasked(content: Option<&Arc<ContentMask>>) -> Shown {
    content.map_or(Shown::Plain, |content| Shown::Scanned(content.clone()))
}

/// Whether a table is touched that may hold a masked field.
fn touches(active: &[Active<'_>], shape: &Shape) -> bool {
    shape.touched.iter().any(|table| touch(active, table))
}

/// Whether this table may hold a masked field.
pub(crate) fn touch(active: &[Active<'_>], table: &str) -> bool {
    let mut columns = active.iter().filter_map(|active| active.mask.columns.as_deref());
    columns.any(|columns| columns.touch(table) || columns.cover(table))
}

/// Whether the upstream's error details may carry the value of a masked field.
fn withhold_errors(active: &[Active<'_>], shape: &Shape) -> bool {
    let columns: Vec<&Columns> = active.iter().filter_map(|active| active.mask.columns.as_deref()).collect();
    if columns.is_empty() {
        return false;
    }
    let mut sources =
        shape.results.iter().flat_map(|result| &result.outputs).flat_map(|output| &output.sources);
    let untraced = |result: &Lineage| result.untraced.is_some() && result.among.is_none();
    shape.untraced.is_some()
        || shape.results.iter().any(untraced)
        || touches(active, shape)
        || shape.influences.iter().any(|path| columns.iter().any(|columns| columns.cover(path)))
        || sources.any(|path| columns.iter().any(|columns| columns.cover(path)))
}

fn redacted() -> Arc<Show> {
    Arc::new(Show::default())
}

/// The one that shows less. Total, so that the order of masks never matters.
pub(crate) fn stricter<'a>(a: &'a Arc<Show>, b: &'a Arc<Show>) -> &'a Arc<Show> {
    fn openness(show: &Show) -> (u8, usize, usize, Reverse<&str>) {
        match show {
            Show::Null => (0, 0, 0, Reverse("")),
            Show::Redact(text) => (1, 0, 0, Reverse(text)),
            Show::Token => (2, 0, 0, Reverse("")),
            Show::Keep { first, last } => (3, first.saturating_add(*last), *last, Reverse("")),
        }
    }
    if openness(a) <= openness(b) { a } else { b }
}

impl Default for Show {
    /// Redacted, without a text of the bundle's own.
    fn default() -> Self {
        Self::Redact("[masked]".into())
    }
}

impl Content {
    /// As bundles name it.
    pub fn name(&self) -> &str {
        match self {
            Self::Card => "card",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Iban => "iban",
            Self::UsSsn => "us-ssn",
            Self::CloudKey => "cloud-key",
            Self::Jwt => "jwt",
            Self::PrivateKey => "private-key",
            Self::Pattern(name, _) => name,
        }
    }
}
