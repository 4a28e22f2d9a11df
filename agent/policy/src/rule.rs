//! Rules and masks, compiled.

use std::sync::Arc;

use crate::{
    Approval, Carried, Content, Effect, Item, Limit, Principal, Rate, Show, Vocabulary,
    facts::Facts,
    issuer::{Stranger, Who},
    matcher::{Block, Globs, Mismatch},
    problem::Position,
};

/// Names that a rule applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// `"*"`.
    All,
    /// These.
    These(Vec<Arc<str>>),
}

impl Names {
    /// Whether it is one of them.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|known| &**known == name),
        }
    }

    /// Whether every one of `other` is one of them.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::These(_), Self::All) => false,
            (Self::These(_), Self::These(others)) => others.iter().all(|name| self.contains(name)),
        }
    }
}

/// Why a rule is not for a principal.
#[derive(Debug)]
pub(crate) enum NotFor<'a> {
    /// It is for other executables, units or containers.
    Process(&'static str),
    /// The issuer does not say who is asking.
    Unknown(&'a Who),
    /// The issuer says that it is somebody else: this differs.
    Other(&'a Who, Arc<str>),
}

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) at: Position,
    pub(crate) subjects: Names,
    pub(crate) resources: Names,
    pub(crate) facts: Facts,
    pub(crate) who: Option<Who>,
    /// None for a rule that only adds masks or records.
    pub(crate) effect: Option<Effect>,
    /// On which terms it holds; always there for a hold.
    pub(crate) approval: Option<Arc<Approval>>,
    /// What it holds, as it is written; empty for a rule that holds nothing.
    pub(crate) held: Arc<str>,
    /// Match blocks by protocol; none of them matters without an effect.
    pub(crate) blocks: Vec<(&'static str, Vec<Block>)>,
    /// Indices of its masks.
    pub(crate) masks: Vec<usize>,
    /// How many bytes of data go into a session's record.
    pub(crate) record_data: Option<u64>,
    /// How often one principal may do what it matches.
    pub(crate) rate: Option<Rate>,
    /// What it lets actions carry of credentials.
    pub(crate) carried: Carried,
    pub(crate) hint: Option<Arc<str>>,
}

impl Rule {
    /// Whether the rule is for this process and for whoever is asking. Where the kernel could not tell what process it
    /// is, or the issuer not who is asking, a rule that takes away or hides applies, and one that grants
    /// does not.
    pub(crate) fn is_for(&self, principal: &Principal) -> Result<(), NotFor<'_>> {
        let grants = self.effect == Some(Effect::Allow);
        self.facts.are_of(&principal.process, grants).map_err(NotFor::Process)?;
        match self.who.as_ref().map(|who| (who, who.is(principal))) {
            Some((who, Err(Stranger::Unknown))) if grants => Err(NotFor::Unknown(who)),
            Some((who, Err(Stranger::Other(what)))) => Err(NotFor::Other(who, what)),
            _ => Ok(()),
        }
    }

    /// The claims that it asks for, with their issuer.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let asked = self.who.iter().flat_map(|who| who.claims.names().map(|name| (&who.issuer, name)));
        asked.map(|(issuer, name)| (issuer.clone(), name.clone()))
    }

    /// Whether its masks hide anything: a deny shows nothing that could be hidden.
    pub(crate) fn hides(&self) -> bool {
        self.effect != Some(Effect::Deny) && !self.masks.is_empty()
    }

    /// How often it lets a principal act, and whom that counts by.
    pub(crate) fn limit(&self) -> Option<Limit> {
        let issuer = self.who.as_ref().map(|who| who.issuer.clone());
        self.rate.map(|rate| Limit { rule: self.name.clone(), rate, issuer })
    }

    /// Whether it tells others how to get access.
    pub(crate) fn hints(&self) -> bool {
        self.effect == Some(Effect::Allow) && self.hint.is_some()
    }

    /// The match blocks for a protocol.
    pub(crate) fn blocks(&self, protocol: &str) -> &[Block] {
        self.blocks.iter().find(|(name, _)| *name == protocol).map_or(&[], |(_, blocks)| blocks)
    }

    /// Whether any block grants the item, or why the nearest does not.
    pub(crate) fn grants(&self, item: &Item, vocabulary: &Vocabulary) -> Result<(), Option<Mismatch>> {
        nearest(self.blocks(vocabulary.protocol).iter().map(|block| block.grants(item, vocabulary)))
    }

    /// Whether it lets all of an action through by itself.
    pub(crate) fn grants_all(&self, items: &[Item], vocabulary: &Vocabulary) -> bool {
        matches!(self.effect, Some(Effect::Allow | Effect::Hold))
            && !items.is_empty()
            && items.iter().all(|item| self.grants(item, vocabulary).is_ok())
    }

    /// Whether any block has to do with the item, or why the nearest does not. A rule without an effect has to do with
    /// every item.
    pub(crate) fn reaches(&self, item: &Item, vocabulary: &Vocabulary) -> Result<(), Option<Mismatch>> {
        match self.effect {
            None => Ok(()),
            Some(_) => nearest(self.blocks(vocabulary.protocol).iter().map(|block| block.reaches(item))),
        }
    }
}

/// Success if any succeeded, else the last failure that was not about an absent field.
fn nearest(results: impl Iterator<Item = Result<(), Mismatch>>) -> Result<(), Option<Mismatch>> {
    let mut nearest = None;
    for result in results {
        match result {
            Ok(()) => return Ok(()),
            Err(Mismatch::Absent(field)) => nearest = nearest.or(Some(Mismatch::Absent(field))),
            Err(mismatch) => nearest = Some(mismatch),
        }
    }
    Err(nearest)
}

/// What is sensitive, and how it is shown.
#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) name: Arc<str>,
    pub(crate) columns: Option<Arc<Columns>>,
    pub(crate) content: Vec<Content>,
    pub(crate) show: Arc<Show>,
    pub(crate) derived: Doubt,
    pub(crate) untraced: Doubt,
}

/// Where a mask cannot be applied value by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The action is refused.
    Refuse,
    /// The values are masked whole.
    Mask,
}

/// The fields that a mask covers.
#[derive(Debug)]
pub(crate) struct Columns {
    fields: Globs,
    /// Tables that may hold such a field; none if that cannot be told from how the globs are written.
    tables: Option<Globs>,
}

impl Columns {
    /// Compiles globs on the addresses of fields.
    pub(crate) fn new<'a>(
        written: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<Self, globset::Error> {
        let fields = Globs::new(written.clone())?;
        let plain = fields.written.iter().all(|glob| !glob.contains(['[', '{', '\\']));
        let prefixes: Vec<&str> = written.into_iter().flat_map(table_globs).collect();
        Ok(Self { fields, tables: if plain { Some(Globs::new(prefixes)?) } else { None } })
    }

    /// Whether the field at this address is covered.
    pub(crate) fn cover(&self, field: &str) -> bool {
        self.fields.matches(field)
    }

    /// Whether a field whose address begins like this could be covered. Says yes in doubt.
    pub(crate) fn reach(&self, beginning: &str) -> bool {
        self.fields.written.iter().any(|glob| {
            let literal = glob.split(['*', '?', '[', '{', '\\']).next().unwrap_or_default();
            literal.starts_with(beginning) || literal.len() < glob.len() && beginning.starts_with(literal)
        })
    }

    /// Whether the table could hold a covered field. Says yes in doubt.
    pub(crate) fn touch(&self, table: &str) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.matches(table))
    }
}

/// Every beginning of a glob that could match the table of a field that the whole glob matches: what comes before
/// what can be the last dot, and what ends in a `*` (which may reach past it).
fn table_globs(glob: &str) -> impl Iterator<Item = &str> {
    let last_dot = glob.rfind('.').unwrap_or(0);
    let cuts = glob.char_indices().filter(move |(index, _)| *index >= last_dot);
    cuts.filter_map(|(index, char)| match char {
        '.' | '?' => glob.get(..index),
        '*' => glob.get(..=index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reaches_what_begins_as_its_fields_do() {
        let reaches = |glob: &str| Columns::new([glob]).unwrap().reach("body.");
        for glob in ["body.a.b", "body.*", "*", "b*", "{body,header}.x", "?ody.x"] {
            assert!(reaches(glob), "{glob}");
        }
        for glob in ["header.x", "body", "bod.x", "header.*"] {
            assert!(!reaches(glob), "{glob}");
        }
    }

    #[test]
    fn a_table_is_touched_if_any_of_its_columns_could_be_covered() {
        let touches = |glob: &str, table: &str| Columns::new([glob]).unwrap().touch(table);
        assert!(touches("public.customers.card", "public.customers"));
        assert!(!touches("public.customers.card", "public.orders"));
        assert!(touches("public.*", "public.orders"));
        assert!(touches("*.card", "other.orders"));
        assert!(touches("*", "other.orders"));
        assert!(touches("pub*.customers.c*", "public.customers"));
        assert!(touches("public.customers?card", "public.customers"));
        assert!(touches("*.customers.card", "public.customers"));
        assert!(!touches("*.customers.card", "public.orders"));
        assert!(touches("{public,other}.customers.card", "other.customers"));
        assert!(!touches("shop.*.card", "public.customers"));
    }
}
