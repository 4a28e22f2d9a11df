//! The words that bundles use for what happens on a PostgreSQL connection.

use tidegate_policy::{FieldKind, FieldSpec, PathForm, PathSpec, Vocabulary, Word, any_spelling};

const fn word(name: &'static str) -> Word {
    Word { name, spelled_out: false }
}

/// What hides other statements from the gate, or reaches outside of the database.
const fn hiding(name: &'static str) -> Word {
    Word { name, spelled_out: true }
}

static ACTIONS: &[Word] = &[word("login"), word("statement"), word("cancel")];

static STATEMENTS: &[Word] = &[
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
    hiding("do"),
    hiding("call"),
    hiding("create-function"),
    hiding("create-extension"),
    hiding("create-foreign"),
    hiding("execute-text"),
    hiding("copy-program"),
    hiding("copy-file"),
    hiding("load"),
    hiding("function-call"),
    hiding("replication"),
    hiding("alter-system"),
    hiding("role"),
];

/// `none`: the statement touches no table, such as `SELECT 1` or `BEGIN`.
static ACCESS: &[Word] = &[word("read"), word("write"), word("none")];

static WHERE: &[Word] = &[word("none"), word("constant"), word("real")];

/// The fields that PostgreSQL's actions carry.
pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
    protocol: "postgres",
    fields: &[
        FieldSpec { name: "action", kind: FieldKind::Word(ACTIONS), about: "what is done on the connection" },
        FieldSpec { name: "statement", kind: FieldKind::Word(STATEMENTS), about: "the kind of statement" },
        FieldSpec { name: "database", kind: FieldKind::Text, about: "the database signed in to" },
        FieldSpec { name: "user", kind: FieldKind::Text, about: "the user name the client gave" },
        FieldSpec {
            name: "table",
            kind: FieldKind::Text,
            about: "the table or view, as schema.name; the schema is ? where the name isn't known yet; ?.? is whatever CASCADE reaches",
        },
        FieldSpec { name: "columns", kind: FieldKind::Text, about: "the columns, as schema.table.column" },
        FieldSpec {
            name: "access",
            kind: FieldKind::Word(ACCESS),
            about: "whether the table is read or written",
        },
        FieldSpec {
            name: "function",
            kind: FieldKind::Text,
            about: "a called function that isn't known to be harmless, as schema.name; an allow must name it",
        },
        FieldSpec {
            name: "where",
            kind: FieldKind::Word(WHERE),
            about: "whether an UPDATE or DELETE is restricted by its table's own columns",
        },
        FieldSpec {
            name: "object",
            kind: FieldKind::Text,
            about: "what is created, altered or dropped: table, view, ...",
        },
    ],
    text: "sql",
    path: PathSpec { written: "schema.table.column", form: PathForm::Names(3) },
    spelling: any_spelling,
    carries: None,
};
