//! What exactly an answer is for.

use std::fmt;

use tidegate_policy::{Item, Shape, Value};

use crate::Parts;

/// What exactly would run, byte for byte, and what approvers see of it beside the recorded text.
#[derive(Clone)]
pub struct Matter {
    pub(crate) exact: Parts,
    pub(crate) particulars: Vec<(String, Vec<u8>)>,
    pub(crate) server: Option<String>,
    pub(crate) definitions: Option<[u8; 32]>,
    pub(crate) text: Option<String>,
}

/// What was asked, in short: as long as it is the same, a yes is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What rules see of it.
    pub(crate) items: [u8; 32],
    /// See [`Matter::by`].
    pub(crate) definitions: Option<[u8; 32]>,
}

impl Matter {
    /// Of these very bytes.
    pub fn new(text: &[u8]) -> Self {
        let mut exact = Parts::new("matter");
        exact.add(text);
        Self { exact, particulars: Vec::new(), server: None, definitions: None, text: None }
    }

    /// Shown to approvers as this, in place of the recorded text: still through the resource's content masks.
    pub fn reading(self, text: String) -> Self {
        Self { text: Some(text), ..self }
    }

    /// For the server of this name, where the client names it and it is known to be one of its destination's: else it is known by
    /// the name that the session has for it.
    pub fn at(self, server: Option<String>) -> Self {
        Self { server, ..self }
    }

    /// By what others have defined at the upstream: a digest, which is another one once that changes. Then neither a yes to these
    /// bytes counts, nor one to their like.
    pub fn by(mut self, definitions: Option<[u8; 32]>) -> Self {
        if let Some(definitions) = definitions {
            self.exact.add("definitions").add(definitions);
        }
        Self { definitions, ..self }
    }

    /// What it runs with or in: bound to the answer, and shown through the resource's content masks, whomever they are for.
    pub fn with(self, name: impl Into<String>, value: &[u8]) -> Self {
        self.shown_as(name, value, value)
    }

    /// The same, where approvers read it better in another form.
    pub fn shown_as(mut self, name: impl Into<String>, exact: &[u8], shown: &[u8]) -> Self {
        let name = name.into();
        self.exact.add(&name).add(exact);
        self.particulars.push((name, shown.to_vec()));
        self
    }
}

impl Asked {
    pub(crate) fn new(shape: &Shape, definitions: Option<[u8; 32]>) -> Self {
        Self { items: items(shape), definitions }
    }
}

/// What the rules see of an action, in short.
fn items(shape: &Shape) -> [u8; 32] {
    let mut parts = Parts::new("items");
    parts.count(shape.items.len());
    for Item { fields, must_name, .. } in &shape.items {
        parts.maybe(*must_name).count(fields.len());
        for (field, value) in fields {
            parts.add(field);
            add(&mut parts, value);
        }
    }
    parts.finish()
}

/// A value after its kind.
fn add(parts: &mut Parts, value: &Value) {
    match value {
        Value::Word(word) => parts.add("word").add(word),
        Value::Text(text) => parts.add("text").add(&**text),
        Value::Set(values) => parts.add("set").list(values.iter().map(|value| &**value)),
        Value::Named(values) => {
            parts.add("named").count(values.len());
            values.iter().fold(parts, |parts, (name, value)| parts.add(&**name).add(&**value))
        }
        Value::Flag(flag) => parts.add("flag").add([u8::from(*flag)]),
        Value::Number(number) => parts.add("number").add(number.to_le_bytes()),
        Value::Unknown => parts.add("unknown"),
    };
}

impl fmt::Debug for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(values: &[(&'static str, Value)]) -> [u8; 32] {
        let fields = values.to_vec();
        items(&Shape { items: vec![Item { fields, ..Item::default() }], ..Shape::default() })
    }

    #[test]
    fn actions_that_rules_tell_apart_have_other_digests() {
        let text = |text: &str| Value::Text(text.into());
        let set = |parts: &[&str]| Value::Set(parts.iter().map(|part| (*part).into()).collect());
        let shapes = [
            shape_of(&[("table", text("a")), ("function", text("b"))]),
            shape_of(&[("table", set(&["a", "function", "b"]))]),
            shape_of(&[("table", set(&["a"])), ("function", text("b"))]),
            shape_of(&[("table", Value::Word("a")), ("function", text("b"))]),
            shape_of(&[("table", Value::Named(vec![("a".into(), "b".into())]))]),
            shape_of(&[("table", set(&["a", "b"]))]),
            shape_of(&[("table", Value::Unknown)]),
            shape_of(&[("table", text("unknown"))]),
            shape_of(&[("table", Value::Flag(true))]),
            shape_of(&[("table", Value::Number(1))]),
        ];
        for (number, one) in shapes.iter().enumerate() {
            assert!(shapes.iter().skip(number + 1).all(|other| other != one), "{number}");
        }
    }
}
