//! What a bundle says to no effect: rules that never decide, masks and resources that no rule names.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Declared, Loader};
use crate::{
    Effect,
    matcher::{Block, Matcher, is_literal},
    rule::{Names, Rule},
};

impl Loader<'_> {
    /// Reports what can have no effect.
    pub(super) fn reach(&self, rules: &[Rule], masks: &[Arc<str>]) {
        let denies = Denies::of(rules);
        for rule in rules.iter().filter(|rule| matches!(rule.effect, Some(Effect::Allow | Effect::Hold))) {
            if let Some(deny) = denies.smothering(rule) {
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
            let named: BTreeSet<Option<&str>> =
                rules.iter().flat_map(|rule| names(&rule.resources)).collect();
            self.unused("resource", &self.resources, |name| {
                named.contains(&None) || named.contains(&Some(name))
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

/// Denies, found by what a rule that one leaves nothing of must name: each pair of a subject and a resource, and a text.
#[derive(Default)]
struct Denies<'r>(HashMap<(Option<&'r str>, Option<&'r str>), Places<'r>>);

/// The denies of one subject on one resource, with their places among the rules.
#[derive(Default)]
struct Places<'r> {
    /// Those of a block that asks for these texts alone in this field.
    by_text: HashMap<(&'static str, &'r str), Vec<(usize, &'r Rule)>>,
    /// Those of a block that asks for none.
    any: Vec<(usize, &'r Rule)>,
}

impl<'r> Denies<'r> {
    fn of(rules: &'r [Rule]) -> Self {
        let mut denies = Self::default();
        let numbered = rules.iter().enumerate().filter(|(_, rule)| rule.effect == Some(Effect::Deny));
        for (number, deny) in numbered {
            for subject in names(&deny.subjects) {
                for resource in names(&deny.resources) {
                    denies.0.entry((subject, resource)).or_default().add(number, deny);
                }
            }
        }
        denies
    }

    /// The first deny that leaves nothing of a rule.
    fn smothering(&self, rule: &'r Rule) -> Option<&'r Rule> {
        let block = rule.blocks.iter().find_map(|(_, blocks)| blocks.first())?;
        let (subject, resource) = (names(&rule.subjects).next()?, names(&rule.resources).next()?);
        let places = [(None, None), (subject, None), (None, resource), (subject, resource)];
        let found =
            places.iter().filter_map(|place| self.0.get(place)).flat_map(|places| places.about(block));
        found.filter(|(_, deny)| smothers(deny, rule)).min_by_key(|(number, _)| *number).map(|(_, deny)| deny)
    }
}

impl<'r> Places<'r> {
    fn add(&mut self, number: usize, deny: &'r Rule) {
        for block in deny.blocks.iter().flat_map(|(_, blocks)| blocks) {
            let literal = texts(block).find(|(_, written)| written.iter().all(|text| is_literal(text)));
            match literal {
                None => self.any.push((number, deny)),
                Some((field, written)) => {
                    for text in written {
                        self.by_text.entry((field, text)).or_default().push((number, deny));
                    }
                }
            }
        }
    }

    /// Those that may cover a block: all that asks for texts alone asks for the first of the block's, too.
    fn about(&self, block: &'r Block) -> impl Iterator<Item = (usize, &'r Rule)> {
        let of_text =
            texts(block).filter_map(|(field, written)| self.by_text.get(&(field, written.first()?.as_str())));
        self.any.iter().chain(of_text.flatten()).copied()
    }
}

/// Names, each; none for all of them.
fn names(names: &Names) -> impl Iterator<Item = Option<&str>> {
    let (all, these) = match names {
        Names::All => (Some(None), &[][..]),
        Names::These(these) => (None, &these[..]),
    };
    all.into_iter().chain(these.iter().map(|name| Some(&**name)))
}

/// The fields of a block that ask for texts.
fn texts(block: &Block) -> impl Iterator<Item = (&'static str, &[String])> {
    block.fields.iter().filter_map(|(field, matcher)| match matcher {
        Matcher::Texts(globs) => Some((*field, &globs.written[..])),
        _ => None,
    })
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
