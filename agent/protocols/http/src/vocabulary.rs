//! The words that bundles use for HTTP requests.

use http::Method;
use tidegate_gate::policy::{FieldKind, FieldSpec, PathForm, PathSpec, Vocabulary, Word};

const fn word(name: &'static str) -> Word {
    Word { name, spelled_out: false }
}

/// Methods of RFC 9110, 5789, 3253, 3744, 4791, 4918, 5323 and 6352. TRACE and CONNECT are not among them: nobody sends
/// them through the gate.
static METHODS: &[Word] = &[
    word("GET"),
    word("HEAD"),
    word("POST"),
    word("PUT"),
    word("DELETE"),
    word("PATCH"),
    word("OPTIONS"),
    word("PROPFIND"),
    word("PROPPATCH"),
    word("MKCOL"),
    word("COPY"),
    word("MOVE"),
    word("LOCK"),
    word("UNLOCK"),
    word("REPORT"),
    word("SEARCH"),
    word("ACL"),
    word("MKCALENDAR"),
    word("CHECKOUT"),
    word("MERGE"),
    word("MKACTIVITY"),
];

/// The fields that requests carry.
pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
    protocol: "http",
    fields: &[
        FieldSpec {
            name: "action",
            kind: FieldKind::Word(&[
                word("request"),
                // Everything behind it is messages.
                Word { name: "websocket", spelled_out: true },
                word("message"),
            ]),
            about: "what is done: a request, asking for a WebSocket, a message over one",
        },
        FieldSpec {
            name: "message",
            kind: FieldKind::Word(&[word("text"), word("binary")]),
            about: "the kind of a WebSocket's message",
        },
        FieldSpec {
            name: "to",
            kind: FieldKind::Word(&[word("server"), word("client")]),
            about: "whom a WebSocket's message is for",
        },
        FieldSpec { name: "method", kind: FieldKind::Word(METHODS), about: "the method" },
        FieldSpec {
            name: "host",
            kind: FieldKind::Text,
            about: "the host asked, in lower case, without a port",
        },
        FieldSpec {
            name: "path",
            kind: FieldKind::Path,
            about: "the path, with what need not be encoded decoded (RFC 3986, 3.3); * is within a segment, ** is not",
        },
        FieldSpec {
            name: "grpc",
            kind: FieldKind::Text,
            about: "service and method of a gRPC request: package.Service/Method",
        },
        FieldSpec {
            name: "query",
            kind: FieldKind::Text,
            about: "each parameter, decoded, as name=value; an allow must match all, false is no query",
        },
        FieldSpec {
            name: "header",
            kind: FieldKind::Text,
            about: "each header field that is sent, as `name: value`, the name in lower case; an allow must match all",
        },
        FieldSpec {
            name: "type",
            kind: FieldKind::Text,
            about: "the body's media type, in lower case, without parameters",
        },
        FieldSpec {
            name: "body",
            kind: FieldKind::Named,
            about: "values of a JSON body or message by the names on the way to them (`a.b`), or of a form by theirs",
        },
        FieldSpec {
            name: "size",
            kind: FieldKind::Number,
            about: "the body's bytes, 0 without one; where the client does not say, it is read first, up to 256 KiB",
        },
    ],
    text: "request",
    path: PathSpec {
        written: "body.name.name (of JSON) or header.name",
        form: PathForm::Behind(&["body.", "header."]),
    },
};

/// The method as bundles name it; none for one that the gate doesn't know.
pub(crate) fn method(method: &Method) -> Option<&'static str> {
    METHODS.iter().map(|word| word.name).find(|name| *name == method.as_str())
}
