//! Rules and their match blocks.

use std::{ops::RangeInclusive, sync::Arc};

use super::{Loader, list, readable};
use crate::{
    Effect, FieldKind, FieldSpec, Rate, Vocabulary,
    matcher::{Block, Globs, Matcher, glob},
    named::{Asked, Comparison, Named},
    problem::Position,
    raw::{List, RawFile, RawMatch, RawRecord, RawRule, Scalar},
    rule::{Names, Rule},
    yaml::{At, Entries},
};

/// How many bytes of data a session's record takes where the rule doesn't say.
const RECORDED_DATA: u64 = 64 << 20;

/// A match block as written, once per protocol that knows all its fields.
type Blocks = Vec<(&'static str, Vec<Block>)>;

impl Loader<'_> {
    /// Every rule; indices of masks point into `masks`.
    pub(super) fn rules(&self, raw: &[RawFile], masks: &[Arc<str>]) -> Vec<Rule> {
        let rules = raw.iter().flat_map(|file| list(file.rules.as_ref()));
        rules.filter_map(|(at, rule)| self.rule(at, rule, masks)).collect()
    }

    fn rule(&self, at: Position, raw: &RawRule, masks: &[Arc<str>]) -> Option<Rule> {
        let name: Arc<str> = raw.name.get()?.as_str().into();
        let resources = self.names("resource", &raw.resources, &self.resources);
        let vocabularies = self.vocabularies_of(&resources);
        let (effect, blocks) = match self.effect(at, raw, &name) {
            Some((effect, blocks)) => (Some(effect), self.blocks(blocks, &vocabularies)),
            None => (None, Vec::new()),
        };
        let record_data = raw.record.as_ref().and_then(At::get).and_then(|record| self.record_data(record));
        if effect.is_none() && raw.masks.is_none() && record_data.is_none() && raw.rate.is_none() {
            self.problems.report_with(
                at,
                format!("rule {name:?} does nothing"),
                "give it `allow:`, `deny:`, `hold:`, `masks:`, `record:` or `rate:`",
            );
        }
        if let (Some(Effect::Deny), Some(masks)) = (effect, &raw.masks) {
            self.problems.report_with(
                masks.at,
                "a deny shows nothing, so it has no masks",
                "put them into another rule",
            );
        }
        let approval = self.approval(at, raw, effect);
        let held = raw.hold.as_ref().map_or_else(String::new, written);
        Some(Rule {
            name,
            at,
            held: held.into(),
            subjects: self.names("subject", &raw.subjects, &self.subjects),
            resources,
            facts: self.facts(raw),
            who: self.who(raw.who.as_ref()),
            effect,
            approval,
            blocks,
            masks: self.mask_indices(raw, masks),
            record_data,
            rate: raw.rate.as_ref().and_then(|rate| self.rate(rate, effect)),
            carried: self.carried(raw, effect, &vocabularies),
            hint: raw.hint.as_ref().and_then(At::get).map(|hint| hint.as_str().into()),
        })
    }

    /// How many bytes of data go into a session's record.
    fn record_data(&self, record: &RawRecord) -> Option<u64> {
        if record.data.get() != Some(&true) {
            return None;
        }
        let Some((at, text)) = record.limit.as_ref().and_then(|limit| Some((limit.at, limit.get()?))) else {
            return Some(RECORDED_DATA);
        };
        let read = size(text);
        if read.is_none() {
            let hint = "write a number and its unit: 500KiB, 64MiB, 2GiB";
            self.problems.report_with(at, format!("{text:?} is not a size"), hint);
        }
        Some(read.unwrap_or(RECORDED_DATA))
    }

    /// How often one principal may do what the rule matches.
    fn rate(&self, raw: &At<String>, effect: Option<Effect>) -> Option<Rate> {
        if effect == Some(Effect::Deny) {
            let hint = "put it into another rule";
            self.problems.report_with(raw.at, "a deny lets nothing through, so it has no rate", hint);
        }
        let text = raw.get()?;
        let read = Rate::read(text);
        if read.is_none() {
            let hint = "write how many in which time, up to a million: 10/s, 100/m, 1000/h";
            self.problems.report_with(raw.at, format!("{text:?} is not a rate"), hint);
        }
        read
    }

    /// The rule's effect and its match blocks; two effects in one rule are reported.
    fn effect<'r>(
        &self,
        at: Position,
        raw: &'r RawRule,
        name: &str,
    ) -> Option<(Effect, &'r At<List<Entries<RawMatch>>>)> {
        let effects = [(Effect::Deny, &raw.deny), (Effect::Hold, &raw.hold), (Effect::Allow, &raw.allow)];
        let mut given = effects.into_iter().filter_map(|(effect, blocks)| Some((effect, blocks.as_ref()?)));
        let first = given.next();
        if given.next().is_some() {
            self.problems.report_with(
                at,
                format!("rule {name:?} has more than one effect"),
                "write one rule for each of allow, hold and deny",
            );
        }
        first
    }

    fn mask_indices(&self, raw: &RawRule, masks: &[Arc<str>]) -> Vec<usize> {
        let mut indices = Vec::new();
        for (at, name) in list(raw.masks.as_ref()) {
            if self.declared("mask", at, name, &self.masks) {
                indices.extend(masks.iter().position(|known| **known == **name));
            }
        }
        indices
    }

    /// Globs; those that do not compile are reported.
    pub(super) fn globs(&self, raw: Option<&At<List<String>>>) -> Option<Globs> {
        let raw = raw?;
        if raw.get().is_some_and(Vec::is_empty) {
            self.problems.report_with(
                raw.at,
                "an empty list matches nothing",
                "leave the key out, or list some",
            );
        }
        let mut sound = Vec::new();
        for (at, text) in list(Some(raw)) {
            match glob(text) {
                Ok(_) => sound.push(text.as_str()),
                Err(error) => self.problems.report(at, format!("{text:?} is not a glob: {}", error.kind())),
            }
        }
        Globs::new(sound).ok()
    }

    /// The vocabularies of the resources, each once.
    pub(super) fn vocabularies_of(&self, resources: &Names) -> Vec<&'static Vocabulary> {
        let mut found: Vec<&'static Vocabulary> = Vec::new();
        for (name, vocabulary) in &self.speaks {
            if resources.contains(name) && !found.iter().any(|known| known.protocol == vocabulary.protocol) {
                found.push(*vocabulary);
            }
        }
        found
    }

    fn blocks(&self, raw: &At<List<Entries<RawMatch>>>, vocabularies: &[&'static Vocabulary]) -> Blocks {
        let listed = raw.get().map_or(&[][..], Vec::as_slice);
        if raw.get().is_some() && listed.is_empty() {
            self.problems.report_with(raw.at, "an empty list matches nothing", "`[{}]` matches everything");
        }
        for (at, fields) in
            readable(listed).flat_map(|(_, block)| block.0.iter().map(|(key, _)| (key.at, key)))
        {
            let Some(name) = fields.get() else { continue };
            if !vocabularies.is_empty() && !vocabularies.iter().any(|known| known.field(name).is_some()) {
                let known = vocabularies.iter().flat_map(|known| known.fields.iter().map(|field| field.name));
                self.problems.unknown(at, format!("unknown field `{name}:`"), name, known);
            }
        }
        let per_protocol = vocabularies.iter().map(|vocabulary| {
            let blocks = readable(listed).filter_map(|(_, block)| self.block(block, vocabulary));
            (vocabulary.protocol, blocks.collect())
        });
        per_protocol.collect()
    }

    /// The block in a protocol's terms; none if it names a field that the protocol does not have.
    fn block(&self, raw: &Entries<RawMatch>, vocabulary: &'static Vocabulary) -> Option<Block> {
        let mut fields = Vec::new();
        for (key, value) in &raw.0 {
            let spec = vocabulary.field(key.get()?)?;
            self.spelled(value, spec, vocabulary);
            fields.push((spec.name, self.matcher(value, spec)?));
        }
        Some(Block { fields })
    }

    /// Reports globs that are written as no value of their field is.
    fn spelled(&self, raw: &At<RawMatch>, spec: &FieldSpec, vocabulary: &Vocabulary) {
        let values: Vec<(Position, &Scalar)> = match raw.get() {
            Some(RawMatch::One(value)) => vec![(raw.at, value)],
            Some(RawMatch::Many(values)) => readable(values).collect(),
            Some(RawMatch::Named(_)) | None => Vec::new(),
        };
        for (at, value) in values {
            if let Scalar::Text(text) = value
                && let Some(spelling) = (vocabulary.spelling)(spec.name, text)
            {
                let hint = format!("write {spelling:?} ({})", spec.about);
                self.problems.report_with(at, format!("{text:?} matches nothing in `{}:`", spec.name), hint);
            }
        }
    }

    fn matcher(&self, raw: &At<RawMatch>, spec: &FieldSpec) -> Option<Matcher> {
        if let FieldKind::Named = spec.kind {
            return self.named(raw, spec);
        }
        let is_flag = matches!(spec.kind, FieldKind::Flag);
        if !is_flag && matches!(raw.get()?, RawMatch::One(Scalar::Flag(false))) {
            return Some(Matcher::Absent);
        }
        let values: Vec<(Position, &Scalar)> = match raw.get()? {
            RawMatch::One(value) => vec![(raw.at, value)],
            RawMatch::Many(values) => readable(values).collect(),
            RawMatch::Named(_) => return self.wrong(raw.at, spec, "a value or a list of values"),
        };
        if values.is_empty() {
            self.problems.report(raw.at, "an empty list matches nothing");
        }
        match &spec.kind {
            FieldKind::Word(known) => self.words(&values, spec, known),
            FieldKind::Text => {
                let texts = values.iter().filter_map(|(at, value)| self.text(*at, value, spec));
                Globs::new(texts.collect::<Vec<_>>().iter().map(String::as_str)).ok().map(Matcher::Texts)
            }
            FieldKind::Path => {
                let texts = values.iter().filter_map(|(at, value)| self.text(*at, value, spec));
                Globs::of_paths(texts.collect::<Vec<_>>().iter().map(String::as_str)).ok().map(Matcher::Texts)
            }
            FieldKind::Named => None,
            FieldKind::Flag => match values.as_slice() {
                [(_, Scalar::Flag(flag))] => Some(Matcher::Flag(*flag)),
                _ => self.wrong(raw.at, spec, "true or false"),
            },
            FieldKind::Number => {
                let ranges = values.iter().map(|(at, value)| match range(value) {
                    Some(range) => Some(range),
                    None => self.wrong(*at, spec, "a whole number or a range (\">= 10\")"),
                });
                ranges.collect::<Option<Vec<_>>>().map(Matcher::Numbers)
            }
        }
    }

    /// What is asked of values that have names.
    fn named(&self, raw: &At<RawMatch>, spec: &FieldSpec) -> Option<Matcher> {
        let names = match raw.get()? {
            RawMatch::One(Scalar::Flag(false)) => return Some(Matcher::Absent),
            RawMatch::Named(names) => names,
            _ => return self.wrong(raw.at, spec, "a mapping of names, or false for nothing"),
        };
        let mut asked = Vec::new();
        for (name, value) in &names.0 {
            asked.push((name.get()?.as_str(), self.asked(value, spec)?));
        }
        if asked.is_empty() {
            return self.wrong(raw.at, spec, "a mapping of names; this one has none");
        }
        Some(Matcher::Named(Named::new(asked)))
    }

    fn asked(&self, raw: &At<RawMatch>, spec: &FieldSpec) -> Option<Asked> {
        let values: Vec<(Position, &Scalar)> = match raw.get()? {
            RawMatch::One(Scalar::Flag(false)) => return Some(Asked::Absent),
            RawMatch::One(value) => vec![(raw.at, value)],
            RawMatch::Many(values) => readable(values).collect(),
            RawMatch::Named(_) => {
                let what = "flat: write the names on the way with dots between (`a.b: value`)";
                return self.wrong(raw.at, spec, what);
            }
        };
        if values.is_empty() {
            self.problems.report(raw.at, "an empty list matches nothing");
        }
        let (mut globs, mut comparisons) = (Vec::new(), Vec::new());
        for (at, value) in values {
            let text = match value {
                Scalar::Flag(flag) => flag.to_string(),
                _ => self.text(at, value, spec)?,
            };
            match Comparison::parse(&text) {
                None => globs.push(text),
                Some(Ok(comparison)) => comparisons.push(comparison),
                Some(Err(())) => {
                    let message =
                        format!("{text:?} compares with a number that not every server reads exactly");
                    self.problems.report_with(at, message, "numbers up to 9007199254740992 are compared");
                }
            }
        }
        Some(Asked::Any { globs: Globs::new(globs.iter().map(String::as_str)).ok()?, comparisons })
    }

    fn words(
        &self,
        values: &[(Position, &Scalar)],
        spec: &FieldSpec,
        known: &'static [crate::Word],
    ) -> Option<Matcher> {
        let (mut reached, mut granted) = (Vec::new(), Vec::new());
        for (at, value) in values {
            let text = self.text(*at, value, spec)?;
            let wanted = glob(&text).ok()?.compile_matcher();
            let before = reached.len();
            for word in known.iter().filter(|word| wanted.is_match(word.name)) {
                reached.push(word.name);
                if !word.spelled_out || word.name == text {
                    granted.push(word.name);
                }
            }
            if reached.len() == before {
                let names = known.iter().map(|word| word.name);
                self.problems.unknown(*at, format!("`{}:` has no word {text:?}", spec.name), &text, names);
            }
        }
        Some(Matcher::Words { reached, granted })
    }

    /// A text that is a sound glob.
    fn text(&self, at: Position, value: &Scalar, spec: &FieldSpec) -> Option<String> {
        let text = match value {
            Scalar::Text(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Flag(_) => return self.wrong(at, spec, "text"),
        };
        match glob(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                self.problems.report(at, format!("{text:?} is not a glob: {}", error.kind()));
                None
            }
        }
    }

    fn wrong<T>(&self, at: Position, spec: &FieldSpec, expected: &str) -> Option<T> {
        self.problems.report(at, format!("`{}:` is {expected} ({})", spec.name, spec.about));
        None
    }
}

/// Match blocks in one line, as YAML: what they say, however they are laid out.
fn written(blocks: &At<List<Entries<RawMatch>>>) -> String {
    let block = |entries: &Entries<RawMatch>| format!("{{{}}}", written_entries(entries));
    list(Some(blocks)).map(|(_, entries)| block(entries)).collect::<Vec<_>>().join(", ")
}

fn written_entries(entries: &Entries<RawMatch>) -> String {
    let entry = |(key, value): &(At<String>, At<RawMatch>)| {
        let value = value.get().map_or_else(String::new, written_match);
        format!("{}: {value}", key.get().map_or("", String::as_str))
    };
    entries.0.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn written_match(value: &RawMatch) -> String {
    match value {
        RawMatch::One(one) => written_scalar(one),
        RawMatch::Many(many) => {
            let each: Vec<String> = readable(many).map(|(_, one)| written_scalar(one)).collect();
            format!("[{}]", each.join(", "))
        }
        RawMatch::Named(named) => format!("{{{}}}", written_entries(named)),
    }
}

fn written_scalar(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Text(text) => format!("{text:?}"),
        Scalar::Number(number) => number.to_string(),
        Scalar::Flag(flag) => flag.to_string(),
    }
}

/// Reads `10`, `">= 10"`, `"< 3"`.
fn range(value: &Scalar) -> Option<RangeInclusive<i64>> {
    let text = match value {
        Scalar::Number(number) => return Some(*number..=*number),
        Scalar::Text(text) => text,
        Scalar::Flag(_) => return None,
    };
    let bound = |operator: &str| text.strip_prefix(operator)?.trim().parse::<i64>().ok();
    if let Some(least) = bound(">=") {
        Some(least..=i64::MAX)
    } else if let Some(most) = bound("<=") {
        Some(i64::MIN..=most)
    } else if let Some(below) = bound(">") {
        Some(below.checked_add(1)?..=i64::MAX)
    } else {
        Some(i64::MIN..=bound("<")?.checked_sub(1)?)
    }
}

/// A whole number of bytes, KiB, MiB or GiB, more than none.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|char: char| !char.is_ascii_digit())?);
    let factor = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_matched_by_value_and_by_range() {
        let text = |text: &str| range(&Scalar::Text(text.into()));
        assert_eq!(range(&Scalar::Number(7)), Some(7..=7));
        assert_eq!(text(">= 10"), Some(10..=i64::MAX));
        assert_eq!(text("<=10"), Some(i64::MIN..=10));
        assert_eq!(text("> 10"), Some(11..=i64::MAX));
        assert_eq!(text("< 10"), Some(i64::MIN..=9));
        assert_eq!(text("ten"), None);
        assert_eq!(text("> 9223372036854775807"), None);
    }
}
