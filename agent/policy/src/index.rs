//! Which rules may have to do with an action, found without looking at those that cannot.
//!
//! Every block that says which word a field must be stands under each of these words, and there under the texts that it
//! asks for. What is found is more than what matches, never less: blocks are compared whole afterwards.

use std::collections::{HashMap, HashSet};

use globset::{GlobSet, GlobSetBuilder};

use crate::{
    FieldKind, Item, Principal, Shape, Value, Vocabulary,
    matcher::{Block, Matcher, glob},
    rule::Rule,
};

/// The rules of one subject on one resource. Numbers are indices of the bundle's rules.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Those that have to do with everything, or may: no block of theirs says a word.
    any_word: Texts,
    by_word: HashMap<(&'static str, &'static str), Texts>,
    /// Those with masks, whether or not they match; denies have none that count.
    masking: Vec<usize>,
    /// Allows with a hint, by name.
    hinting: Vec<usize>,
    /// Fields that any block names.
    named: HashSet<&'static str>,
}

/// Rules by the texts that they ask for.
#[derive(Debug, Default)]
struct Texts {
    /// Those that ask for none.
    any: Vec<usize>,
    /// By field: the globs of all, and whose each is.
    fields: Vec<(&'static str, GlobSet, Vec<usize>)>,
}

/// What a [`Texts`] is made from.
#[derive(Default)]
struct Gathered {
    any: Vec<usize>,
    fields: HashMap<&'static str, Vec<(String, usize)>>,
}

impl Index {
    /// Of the rules with these indices, ascending.
    pub(crate) fn new(rules: &[Rule], indices: &[usize], vocabulary: &Vocabulary) -> Self {
        let mut words: HashMap<Option<(&'static str, &'static str)>, Gathered> = HashMap::new();
        let mut named = HashSet::new();
        let numbered = || indices.iter().filter_map(|index| Some((*index, rules.get(*index)?)));
        for (index, rule) in numbered() {
            if rule.effect.is_none() {
                words.entry(None).or_default().any.push(index);
            }
            for block in rule.blocks(vocabulary.protocol) {
                named.extend(block.fields.iter().map(|(field, _)| *field));
                for key in keys(block, vocabulary) {
                    words.entry(key).or_default().add(block, index);
                }
            }
        }
        let any_word = words.remove(&None).map_or_else(Texts::default, Gathered::finish);
        let by_word = words.into_iter().filter_map(|(key, gathered)| Some((key?, gathered.finish())));
        let masking = numbered().filter(|(_, rule)| rule.hides()).map(|(index, _)| index);
        let mut hinting: Vec<(usize, &Rule)> = numbered().filter(|(_, rule)| rule.hints()).collect();
        hinting.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        Self {
            any_word,
            by_word: by_word.collect(),
            masking: masking.collect(),
            hinting: hinting.into_iter().map(|(index, _)| index).collect(),
            named,
        }
    }

    /// Adds the rules that may have to do with an item.
    fn add_for(&self, item: &Item, found: &mut Vec<usize>) {
        self.any_word.add_for(item, found);
        for (field, value) in &item.fields {
            match value {
                Value::Word(word) => {
                    self.by_word
                        .get(&(*field, *word))
                        .into_iter()
                        .for_each(|texts| texts.add_for(item, found));
                }
                Value::Unknown => {
                    let of_field = self.by_word.iter().filter(|((named, _), _)| named == field);
                    of_field.for_each(|(_, texts)| texts.add_for(item, found));
                }
                _ => {}
            }
        }
    }
}

/// The indices of all subjects that a principal is of.
pub(crate) struct Indices<'a>(Vec<&'a Index>);

impl<'a> Indices<'a> {
    pub(crate) fn new(principal: &Principal, of: impl Fn(&str) -> Option<&'a Index>) -> Self {
        Self(principal.subjects.iter().filter_map(|subject| of(subject)).collect())
    }

    /// Rules that may have to do with any item of an action, in the bundle's order.
    pub(crate) fn about(&self, shape: &Shape) -> Vec<usize> {
        self.about_items(&shape.items)
    }

    /// Rules that may have to do with any of these items, in the bundle's order.
    pub(crate) fn about_items(&self, items: &[Item]) -> Vec<usize> {
        let mut found = Vec::new();
        for index in &self.0 {
            items.iter().for_each(|item| index.add_for(item, &mut found));
        }
        once(found)
    }

    /// Whether any rule names this field.
    pub(crate) fn name(&self, field: &str) -> bool {
        self.0.iter().any(|index| index.named.contains(field))
    }

    /// Rules whose masks may count, in the bundle's order.
    pub(crate) fn masking(&self) -> Vec<usize> {
        once(self.0.iter().flat_map(|index| &index.masking).copied().collect())
    }

    /// Allows with a hint, by name as far as they are of one subject.
    pub(crate) fn hinting(&self) -> impl Iterator<Item = &'a [usize]> {
        self.0.iter().map(|index| index.hinting.as_slice())
    }
}

fn once(mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// The words that a block stands under: those of the field that says most. None for a block that says no word, or all.
fn keys(block: &Block, vocabulary: &Vocabulary) -> Vec<Option<(&'static str, &'static str)>> {
    let all = |field: &str| match vocabulary.field(field).map(|field| &field.kind) {
        Some(FieldKind::Word(words)) => words.len(),
        _ => 0,
    };
    let words = block.fields.iter().filter_map(|(field, matcher)| match matcher {
        Matcher::Words { reached, .. } if reached.len() < all(field) => Some((*field, reached)),
        _ => None,
    });
    match words.min_by_key(|(_, reached)| reached.len()) {
        None => vec![None],
        Some((field, reached)) => {
            let words: HashSet<&'static str> = reached.iter().copied().collect();
            words.into_iter().map(|word| Some((field, word))).collect()
        }
    }
}

impl Gathered {
    fn add(&mut self, block: &Block, index: usize) {
        let texts = block.fields.iter().find_map(|(field, matcher)| match matcher {
            Matcher::Texts(globs) if !globs.written.iter().any(|glob| glob == "*" || glob == "**") => {
                Some((field, globs))
            }
            _ => None,
        });
        match texts {
            None => self.any.push(index),
            Some((field, globs)) => {
                let globs = globs.written.iter().map(|glob| (glob.clone(), index));
                self.fields.entry(field).or_default().extend(globs);
            }
        }
    }

    fn finish(self) -> Texts {
        let mut texts = Texts { any: self.any, fields: Vec::new() };
        for (field, globs) in self.fields {
            let mut builder = GlobSetBuilder::new();
            for (written, _) in &globs {
                // They were compiled before, one by one.
                if let Ok(glob) = glob(written) {
                    builder.add(glob);
                }
            }
            let whose: Vec<usize> = globs.into_iter().map(|(_, index)| index).collect();
            match builder.build() {
                Ok(set) if set.len() == whose.len() => texts.fields.push((field, set, whose)),
                // More than a set can hold: these rules are always looked at.
                _ => texts.any.extend(whose),
            }
        }
        texts
    }
}

impl Texts {
    fn add_for(&self, item: &Item, found: &mut Vec<usize>) {
        found.extend(&self.any);
        for (field, set, whose) in &self.fields {
            let mut add = |text: &str| {
                found.extend(set.matches(text).into_iter().filter_map(|number| whose.get(number)));
            };
            match item.field(field) {
                Some(Value::Text(text)) => add(text),
                Some(Value::Set(parts)) => parts.iter().for_each(|part| add(part)),
                Some(Value::Unknown) => found.extend(whose),
                _ => {}
            }
        }
    }
}
