//! What a bundle says to no effect: rules that never decide, masks and resources that no rule names.

use std::{collections::BTreeSet, sync::Arc};

use super::{Declared, Loader};
use crate::{Effect, rule::Rule};

impl Loader<'_> {
    /// Reports what can have no effect.
    pub(super) fn reach(&self, rules: &[Rule], masks: &[Arc<str>]) {
        for rule in rules
            .iter()
            .filter(|rule| rule.effect == Some(Effect::Allow) || rule.effect == Some(Effect::Hold))
        {
            if let Some(deny) = rules.iter().find(|deny| smothers(deny, rule)) {
                let place = self.problems.place(deny.at);
                self.problems.report_with(
                    rule.at,
                    format!(
                        "rule {:?} never applies: rule {:?} at {place} denies all of it",
                        rule.name, deny.name
                    ),
                    "order does not matter, a deny always wins; narrow one of them down",
                );
            }
        }
        // A rule that could not be read may have named anything.
        if rules.len() == self.rules.len() {
            let used: BTreeSet<&str> = rules
                .iter()
                .flat_map(|rule| &rule.masks)
                .filter_map(|index| masks.get(*index))
                .map(|name| &**name)
                .collect();
            self.unused("mask", &self.masks, |name| used.contains(name));
            self.unused("resource", &self.resources, |name| {
                rules.iter().any(|rule| rule.resources.contains(name))
            });
        }
    }

    fn unused(&self, kind: &str, declared: &Declared, is_used: impl Fn(&str) -> bool) {
        for (name, at) in declared.iter().filter(|(name, _)| !is_used(name)) {
            self.problems.report_with(
                *at,
                format!("no rule names {kind} {name:?}"),
                format!("name it in a rule's `{kind}s:`, or remove it"),
            );
        }
    }
}

/// Whether a deny leaves nothing of another rule.
fn smothers(deny: &Rule, rule: &Rule) -> bool {
    let blocks = rule.blocks.iter().all(|(protocol, blocks)| {
        blocks.iter().all(|block| deny.blocks(protocol).iter().any(|denied| denied.covers(block)))
    });
    let says_anything = rule.blocks.iter().any(|(_, blocks)| !blocks.is_empty());
    deny.effect == Some(Effect::Deny)
        && deny.subjects.covers(&rule.subjects)
        && deny.resources.covers(&rule.resources)
        && deny.facts.cover(&rule.facts)
        && says_anything
        && blocks
}
