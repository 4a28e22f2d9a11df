//! What a protocol can report of an action, as bundles name it.

/// The fields a protocol's actions carry. A bundle that names any other does not load.
#[derive(Debug)]
pub struct Vocabulary {
    /// The protocol, as a resource's `protocol:` names it.
    pub protocol: &'static str,
    /// The fields that a rule may match on.
    pub fields: &'static [FieldSpec],
    /// The key under which cases give an action as text: `sql`.
    pub text: &'static str,
    /// The addresses of maskable fields, as `columns:` of a mask names them.
    pub path: PathSpec,
    /// How a glob on a field must be written, if as it is written it can match nothing: for a field's name and a glob on it.
    pub spelling: fn(&str, &str) -> Option<String>,
    /// How its actions carry a client's own credentials, if they do.
    pub carries: Option<Carries>,
}

/// How a protocol's actions carry a client's own credentials. Each says what is wrong with a name, if anything is.
#[derive(Debug)]
pub struct Carries {
    /// Of an address at which a placeholder could stand.
    pub place: fn(&str) -> Result<(), String>,
    /// Of a field that goes on only where a rule passes it.
    pub field: fn(&str) -> Result<(), String>,
}

/// For vocabularies whose fields have values of any form.
pub fn any_spelling(_field: &str, _glob: &str) -> Option<String> {
    None
}

/// How the address of a maskable field looks.
#[derive(Debug)]
pub struct PathSpec {
    /// For error messages: `schema.table.column`.
    pub written: &'static str,
    /// What every address is like: a mask that can match none of them hides nothing, and does not load.
    pub form: PathForm,
}

/// What every address of a maskable field is like.
#[derive(Debug)]
pub enum PathForm {
    /// So many names, none of them empty, with a dot between.
    Names(usize),
    /// One of these, and something behind it.
    Behind(&'static [&'static str]),
}

/// One field of a vocabulary.
#[derive(Debug)]
pub struct FieldSpec {
    /// The key in a rule's match block.
    pub name: &'static str,
    /// What its values are.
    pub kind: FieldKind,
    /// One line for documentation and JSON Schema.
    pub about: &'static str,
}

/// What a field's values are, and so how a rule matches them.
#[derive(Debug)]
pub enum FieldKind {
    /// One of a closed list.
    Word(&'static [Word]),
    /// Text, matched by globs whose `*` stops at no separator; matching is case-sensitive.
    Text,
    /// A path of segments between slashes, matched by globs whose `*` stays within a segment while `**` does not;
    /// `{name}` is a segment. `*` alone is any path.
    Path,
    /// Texts by name: a match block maps each name that it asks for to globs, comparisons (`"<= 10"`), or `false` for
    /// none. Names are compared without regard to case, values with it.
    Named,
    /// `true` or `false`.
    Flag,
    /// A whole number, matched by value or by range (`">= 10"`).
    Number,
}

/// One word of a closed list.
#[derive(Debug)]
pub struct Word {
    /// As written in a bundle.
    pub name: &'static str,
    /// A wildcard does not reach it: an allow must spell it out. For what hides other actions from the gate.
    pub spelled_out: bool,
}
