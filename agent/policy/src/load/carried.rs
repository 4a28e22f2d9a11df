//! What rules say of credentials in a client's own requests.

use std::{collections::BTreeMap, sync::Arc};

use super::{Loader, list};
use crate::{
    Carried, Carries, Effect, Fill, Vocabulary,
    problem::Position,
    raw::{RawFile, RawFill, RawRule},
};

/// Shortest and longest placeholder, in bytes: one that is shorter could be anybody's word.
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=128;

impl Loader<'_> {
    /// What a rule fills in and lets pass.
    pub(super) fn carried(
        &self,
        raw: &RawRule,
        effect: Option<Effect>,
        vocabularies: &[&'static Vocabulary],
    ) -> Carried {
        let written = [
            raw.fill.as_ref().map(|fill| (fill.at, "fill")),
            raw.pass.as_ref().map(|pass| (pass.at, "pass")),
        ];
        for (at, key) in written.into_iter().flatten() {
            if !matches!(effect, Some(Effect::Allow | Effect::Hold)) {
                let message =
                    format!("`{key}:` is about what a rule lets through, and this one lets nothing");
                self.problems.report_with(at, message, "put it into a rule with `allow:` or `hold:`");
            }
        }
        let carries: Vec<&Carries> =
            vocabularies.iter().filter_map(|vocabulary| vocabulary.carries.as_ref()).collect();
        if let (Some((at, key)), true) = (written.into_iter().flatten().next(), carries.is_empty())
            && !vocabularies.is_empty()
        {
            let spoken: Vec<_> = vocabularies.iter().map(|vocabulary| vocabulary.protocol).collect();
            self.problems
                .report(at, format!("{} has nothing that `{key}:` could be about", spoken.join(", ")));
            return Carried::default();
        }
        let fills = list(raw.fill.as_ref()).filter_map(|(_, fill)| self.fill(fill, &carries));
        let passes = list(raw.pass.as_ref()).map(|(at, name)| {
            let wrong: Option<Vec<_>> = carries.iter().map(|known| (known.field)(name).err()).collect();
            self.wrong_for_all(at, name, wrong);
            Arc::from(name.as_str())
        });
        Carried { fills: fills.collect(), passes: passes.collect() }
    }

    fn fill(&self, raw: &RawFill, carries: &[&Carries]) -> Option<Arc<Fill>> {
        let placeholder = raw.placeholder.get()?;
        if !LENGTHS.contains(&placeholder.len()) || !placeholder.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "write 6 to 128 letters, digits and signs without a blank, which nothing else is: \"@deploy@\"";
            self.problems.report_with(raw.placeholder.at, format!("{placeholder:?} is no placeholder"), hint);
        }
        let credential = self.credential(Some(&raw.credential))?;
        if raw.places.get().is_some_and(Vec::is_empty) {
            self.problems.report(raw.places.at, "an empty list fills nothing");
        }
        let places = list(Some(&raw.places)).map(|(at, place)| {
            let wrong: Option<Vec<_>> = carries.iter().map(|known| (known.place)(place).err()).collect();
            self.wrong_for_all(at, place, wrong);
            Arc::from(place.as_str())
        });
        Some(Arc::new(Fill {
            placeholder: placeholder.as_str().into(),
            credential,
            places: places.collect(),
        }))
    }

    /// Reports what each protocol of the rule finds wrong.
    fn wrong_for_all(&self, at: Position, what: &str, wrong: Option<Vec<String>>) {
        if let Some(why) = wrong.and_then(|all| all.into_iter().next()) {
            self.problems.report(at, format!("{what:?} {why}"));
        }
    }

    /// Reports placeholders that stand for one credential here and for another there.
    pub(super) fn placeholders(&self, raw: &[RawFile]) {
        let rules = raw.iter().flat_map(|file| list(file.rules.as_ref()));
        let mut known: BTreeMap<&str, (&str, Position)> = BTreeMap::new();
        for (_, fill) in rules.flat_map(|(_, rule)| list(rule.fill.as_ref())) {
            let (Some(placeholder), Some(credential)) = (fill.placeholder.get(), fill.credential.get())
            else {
                continue;
            };
            let (first, at) = *known.entry(placeholder).or_insert((credential, fill.placeholder.at));
            if first != credential {
                let message = format!(
                    "placeholder {placeholder:?} stands for credential {first:?} already, at {}",
                    self.problems.place(at)
                );
                self.problems.report_with(fill.placeholder.at, message, "choose another for this one");
            }
        }
    }
}
