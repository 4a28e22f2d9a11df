//! A vocabulary with the fields that PostgreSQL's has, and ways to load bundles.

use std::{path::Path, sync::Arc};

use tidegate_policy::{
    Carries, FieldKind, FieldSpec, Item, PathForm, PathSpec, Policy, Principal, Problem, Process, Shape,
    SourceFile, Value, Vocabulary, Word, any_spelling,
};

const fn word(name: &'static str) -> Word {
    Word { name, spelled_out: false }
}

const fn spelled_out(name: &'static str) -> Word {
    Word { name, spelled_out: true }
}

const STATEMENTS: &[Word] = &[
    word("select"),
    word("insert"),
    word("update"),
    word("delete"),
    word("merge"),
    word("truncate"),
    word("copy-from"),
    word("copy-to"),
    word("create"),
    word("alter"),
    word("drop"),
    word("grant"),
    word("explain"),
    word("set"),
    word("set-role"),
    word("show"),
    word("transaction"),
    word("cursor"),
    word("prepare"),
    word("listen"),
    word("notify"),
    word("lock"),
    word("vacuum"),
    word("comment"),
    word("other"),
    spelled_out("do"),
    spelled_out("call"),
    spelled_out("create-function"),
    spelled_out("copy-program"),
    spelled_out("alter-system"),
];

pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
    protocol: "postgres",
    fields: &[
        FieldSpec {
            name: "action",
            kind: FieldKind::Word(&[word("login"), word("statement"), word("cancel")]),
            about: "what is done",
        },
        FieldSpec { name: "statement", kind: FieldKind::Word(STATEMENTS), about: "kind of statement" },
        FieldSpec { name: "database", kind: FieldKind::Text, about: "database signed in to" },
        FieldSpec { name: "user", kind: FieldKind::Text, about: "user signed in as" },
        FieldSpec { name: "table", kind: FieldKind::Text, about: "schema.table" },
        FieldSpec { name: "columns", kind: FieldKind::Text, about: "schema.table.column" },
        FieldSpec {
            name: "access",
            kind: FieldKind::Word(&[word("read"), word("write")]),
            about: "how the table is used",
        },
        FieldSpec { name: "function", kind: FieldKind::Text, about: "schema.function" },
        FieldSpec {
            name: "where",
            kind: FieldKind::Word(&[word("none"), word("constant"), word("real")]),
            about: "whether rows are chosen",
        },
        FieldSpec { name: "object", kind: FieldKind::Text, about: "kind of object" },
        FieldSpec { name: "rows", kind: FieldKind::Number, about: "rows at most" },
        FieldSpec { name: "settings", kind: FieldKind::Named, about: "settings by name" },
        FieldSpec { name: "quiet", kind: FieldKind::Flag, about: "a flag" },
    ],
    text: "sql",
    path: PathSpec { written: "schema.table.column", form: PathForm::Names(3) },
    spelling: any_spelling,
    carries: Some(Carries {
        place: |place| place.strip_prefix("at.").map(drop).ok_or_else(|| "is nowhere".into()),
        field: |field| if field == "known" { Ok(()) } else { Err("is no field".into()) },
    }),
};

/// Loads one file called `bundle.yaml`.
pub(crate) fn load(text: &str) -> Result<Policy, Vec<Problem>> {
    Policy::load(&[SourceFile { path: "bundle.yaml".into(), text: text.into() }], &[&VOCABULARY])
}

/// Loads one file that must be sound.
pub(crate) fn sound(text: &str) -> Policy {
    load(text).unwrap_or_else(|problems| panic!("{}", told(&problems)))
}

/// Problems as a person reads them.
pub(crate) fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The bundle in a folder of the project.
pub(crate) fn folder(folder: &str) -> Result<Policy, Vec<Problem>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let read = |path: std::path::PathBuf| SourceFile { text: std::fs::read_to_string(&path).unwrap(), path };
    Policy::load(&paths.into_iter().map(read).collect::<Vec<_>>(), &[&VOCABULARY])
}

/// Someone of subject `ci`, running psql.
pub(crate) fn runner() -> Principal {
    let process = Process { executable: Some("/usr/bin/psql".into()), ..Process::default() };
    Principal { subjects: vec!["ci".into()], process, ..Principal::default() }
}

/// A statement on a table.
pub(crate) fn statement(statement: &'static str, table: &str) -> Item {
    Item {
        fields: vec![
            ("action", Value::Word("statement")),
            ("statement", Value::Word(statement)),
            ("table", Value::Text(Arc::from(table))),
        ],
        must_name: None,
    }
}

/// A shape of these items and nothing else.
pub(crate) fn shape(items: Vec<Item>) -> Shape {
    Shape { items, ..Shape::default() }
}
