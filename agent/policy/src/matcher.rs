//! Match blocks, compiled.

use std::ops::RangeInclusive;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{FieldKind, Item, Value, Vocabulary, named::Named};

/// Globs of which any may match. Case-sensitive; `*` stops at no separator.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    set: GlobSet,
    /// As written, in order.
    pub(crate) written: Vec<String>,
}

impl Globs {
    /// Compiles globs.
    pub(crate) fn new<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, globset::Error> {
        let mut builder = GlobSetBuilder::new();
        let mut kept = Vec::new();
        for text in written {
            builder.add(glob(text)?);
            kept.push(text.to_owned());
        }
        Ok(Self { set: builder.build()?, written: kept })
    }

    /// Compiles globs on paths: `*` stays within a segment, `**` doesn't.
    pub(crate) fn of_paths<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, globset::Error> {
        let mut builder = GlobSetBuilder::new();
        let mut kept = Vec::new();
        for text in written {
            let text = path_glob(text);
            builder.add(GlobBuilder::new(&text).literal_separator(true).backslash_escape(true).build()?);
            kept.push(text);
        }
        Ok(Self { set: builder.build()?, written: kept })
    }

    /// Whether any matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.set.is_match(text)
    }
}

/// One glob.
pub(crate) fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build()
}

/// Whether a glob matches nothing but itself.
pub(crate) fn is_literal(glob: &str) -> bool {
    !glob.contains(['*', '?', '[', '{', '\\'])
}

/// A glob on paths, with `*` for each `{name}`. Read as a glob on text, it matches what it matches as one on paths, and more.
fn path_glob(written: &str) -> String {
    if written == "*" {
        return "**".to_owned();
    }
    let mut glob = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('{') {
        glob.push_str(before);
        let is_name = |name: &&str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        match after.split_once('}').filter(|(name, _)| is_name(name)) {
            Some((_, behind)) => {
                glob.push('*');
                rest = behind;
            }
            None => {
                glob.push('{');
                rest = after;
            }
        }
    }
    glob.push_str(rest);
    glob
}

/// What a block asks of one field.
#[derive(Debug, Clone)]
pub(crate) enum Matcher {
    /// Words of a closed list.
    Words {
        /// Those that the block reaches, by name or by wildcard: what a deny or a hold stops.
        reached: Vec<&'static str>,
        /// Those that it grants: a wildcard does not grant what has to be spelled out.
        granted: Vec<&'static str>,
    },
    /// Globs on text.
    Texts(Globs),
    /// Texts by name.
    Named(Named),
    /// A flag.
    Flag(bool),
    /// Numbers, in any of these ranges.
    Numbers(Vec<RangeInclusive<i64>>),
    /// The item does not have the field.
    Absent,
}

impl Matcher {
    fn grants(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Words { granted, .. }, Value::Word(word)) => granted.contains(word),
            (Self::Texts(globs), Value::Set(parts)) => parts.iter().all(|part| globs.matches(part)),
            (Self::Named(named), Value::Named(values)) => named.grants(values),
            _ => self.reaches(value),
        }
    }

    fn reaches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Words { reached, .. }, Value::Word(word)) => reached.contains(word),
            (Self::Texts(globs), Value::Text(text)) => globs.matches(text),
            (Self::Texts(globs), Value::Set(parts)) => parts.iter().any(|part| globs.matches(part)),
            (Self::Named(named), Value::Named(values)) => named.reaches(values),
            (Self::Flag(wanted), Value::Flag(flag)) => wanted == flag,
            (Self::Numbers(ranges), Value::Number(number)) => {
                ranges.iter().any(|range| range.contains(number))
            }
            _ => false,
        }
    }

    /// Whether this matches whatever `other` does, as far as can be seen from how both are written.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Words { reached, .. }, Self::Words { granted, .. }) => {
                granted.iter().all(|word| reached.contains(word))
            }
            (Self::Texts(ours), Self::Texts(theirs)) => theirs.written.iter().all(|text| {
                let literal = is_literal(text);
                ours.written.iter().any(|glob| glob == "*" || glob == "**" || glob == text)
                    || (literal && ours.matches(text))
            }),
            (Self::Flag(ours), Self::Flag(theirs)) => ours == theirs,
            (Self::Absent, Self::Absent) => true,
            (Self::Numbers(ours), Self::Numbers(theirs)) => theirs.iter().all(|range| {
                ours.iter().any(|wide| wide.contains(range.start()) && wide.contains(range.end()))
            }),
            _ => false,
        }
    }
}

/// A match block: every field it names must be there and match, or be absent if it says so.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Field and what is asked of it.
    pub(crate) fields: Vec<(&'static str, Matcher)>,
}

/// Why a block does not match an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The item has no such field.
    Absent(&'static str),
    /// The item has the field, and should not.
    Present(&'static str),
    /// The field's value is another.
    Differs(&'static str),
    /// The block does not name a field that this item must be allowed by.
    Unnamed(&'static str),
}

impl Block {
    /// Whether the block grants the item: every part of every field it names, the field that the item must be allowed
    /// by, and nothing that would have to be spelled out and isn't.
    pub(crate) fn grants(&self, item: &Item, vocabulary: &Vocabulary) -> Result<(), Mismatch> {
        self.compare(item, false, Matcher::grants)?;
        let names = |field: &str| self.fields.iter().any(|(name, _)| *name == field);
        if let Some(field) = item.must_name
            && !names(field)
        {
            return Err(Mismatch::Unnamed(field));
        }
        for (field, value) in &item.fields {
            if let Value::Word(word) = value
                && vocabulary.is_spelled_out(field, word)
                && !names(field)
            {
                return Err(Mismatch::Unnamed(field));
            }
        }
        Ok(())
    }

    /// Whether the block has to do with the item: any part of every field it names. Values that are not known may be any.
    pub(crate) fn reaches(&self, item: &Item) -> Result<(), Mismatch> {
        self.compare(item, true, Matcher::reaches)
    }

    /// Whether the block asks for this field, and everything else that it asks for is so.
    pub(crate) fn depends_on(&self, field: &str, item: &Item) -> bool {
        self.fields.iter().any(|(name, _)| *name == field) && self.reaches(item).is_ok()
    }

    fn compare(
        &self,
        item: &Item,
        in_doubt: bool,
        matches: impl Fn(&Matcher, &Value) -> bool,
    ) -> Result<(), Mismatch> {
        for (field, matcher) in &self.fields {
            match (matcher, item.field(field)) {
                (Matcher::Absent, None) => {}
                (Matcher::Absent, Some(Value::Named(values))) if values.is_empty() => {}
                (Matcher::Named(_), None) | (_, Some(Value::Unknown)) if in_doubt => {}
                (Matcher::Absent, Some(_)) => return Err(Mismatch::Present(field)),
                (_, None) => return Err(Mismatch::Absent(field)),
                (matcher, Some(value)) if matches(matcher, value) => {}
                (_, Some(_)) => return Err(Mismatch::Differs(field)),
            }
        }
        Ok(())
    }

    /// Whether a deny of this leaves nothing of an allow of `other`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.fields.iter().all(|(field, ours)| {
            other.fields.iter().any(|(name, theirs)| name == field && ours.covers(theirs))
        })
    }
}

impl Item {
    /// The field's value, if the item has it.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

impl Vocabulary {
    /// The field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&'static crate::FieldSpec> {
        self.fields.iter().find(|field| field.name == name)
    }

    fn is_spelled_out(&self, field: &str, word: &str) -> bool {
        match self.field(field).map(|field| &field.kind) {
            Some(FieldKind::Word(words)) => words.iter().any(|known| known.name == word && known.spelled_out),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_path_stays_within_its_segment() {
        let matches = |glob: &str, path: &str| Globs::of_paths([glob]).unwrap().matches(path);
        assert!(matches("/repos/*/pulls", "/repos/acme/pulls"));
        assert!(!matches("/repos/*/pulls", "/repos/acme/evil/pulls"));
        assert!(matches("/repos/{owner}/{repo}", "/repos/acme/shop"));
        assert!(!matches("/repos/{owner}/{repo}", "/repos/acme/shop/contents"));
        assert!(matches("/simple/**", "/simple/a/b"));
        assert!(!matches("/simple/**", "/simpler/a"));
        assert!(matches("/{v1,v2}/x", "/v2/x"));
        for everything in ["*", "**"] {
            assert!(matches(everything, "/a/b") && matches(everything, "/"), "{everything}");
        }
    }

    #[test]
    fn as_text_a_glob_on_paths_matches_no_less() {
        for (written, path) in
            [("/repos/*/pulls", "/repos/a/pulls"), ("/a/**/b", "/a/x/y/b"), ("/{id}", "/7")]
        {
            let kept = Globs::of_paths([written]).unwrap();
            assert!(kept.matches(path), "{written}");
            assert!(Globs::new(kept.written.iter().map(String::as_str)).unwrap().matches(path), "{written}");
        }
    }
}
