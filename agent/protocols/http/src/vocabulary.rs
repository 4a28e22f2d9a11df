//! The words that bundles use for HTTP requests.

use http::Method;
use tidegate_gate::policy::{Carries, FieldKind, FieldSpec, PathForm, PathSpec, Vocabulary, Word};

use crate::{forward, target};

const fn word(name: &'static str) -> Word {
    Word { name, spelled_out: false }
}

/// Methods of RFC 9110, 5789, 3253, 3744, 4791, 4918, 5323 and 6352. TRACE is not among them, as nobody sends it through the
/// gate, nor CONNECT, which is an action of its own.
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
                // What is in it nobody sees.
                Word { name: "connect", spelled_out: true },
            ]),
            about: "what is done: a request, asking for a WebSocket, a message over one or in a call of gRPC, a proxy's tunnel",
        },
        FieldSpec {
            name: "message",
            kind: FieldKind::Word(&[word("text"), word("binary")]),
            about: "the kind of a WebSocket's message",
        },
        FieldSpec {
            name: "to",
            kind: FieldKind::Word(&[word("server"), word("client")]),
            about: "whom a message is for",
        },
        FieldSpec { name: "method", kind: FieldKind::Word(METHODS), about: "the method" },
        FieldSpec {
            name: "host",
            kind: FieldKind::Text,
            about: "the host asked, in lower case, without a port",
        },
        FieldSpec { name: "port", kind: FieldKind::Number, about: "the port that a proxy's tunnel leads to" },
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
    spelling,
    carries: Some(Carries { place, field: forward::can_be_passed }),
};

/// The method as bundles name it; none for one that the gate doesn't know.
pub(crate) fn method(method: &Method) -> Option<&'static str> {
    METHODS.iter().map(|word| word.name).find(|name| *name == method.as_str())
}

/// Requests have names of header fields, hosts and media types in lower case, and paths in one form.
fn spelling(field: &str, glob: &str) -> Option<String> {
    let spelled = match field {
        "host" | "type" => glob.to_ascii_lowercase(),
        "header" => {
            let (name, value) = glob.split_at_checked(glob.find(':').unwrap_or(glob.len()))?;
            name.to_ascii_lowercase() + value
        }
        "path" => target::glob(glob),
        _ => return None,
    };
    (spelled != glob).then_some(spelled)
}

/// What is wrong with the address of a place for placeholders.
fn place(place: &str) -> Result<(), String> {
    match place.split_once('.') {
        Some(("header", name)) => forward::can_go(name),
        Some(("query" | "body", name)) if !name.is_empty() => Ok(()),
        _ => Err("is no place in a request: write header.NAME, query.NAME or body.NAME".into()),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_gate::policy::{Policy, SourceFile};

    use super::*;

    #[test]
    fn a_bundle_that_has_it_does_not_load_and_says_how_to_write_it() {
        let text = "tidegate: 1\nname: it\nsubjects: {tester: {users: [\"0\"]}}\nresources: {it: {protocol: http, addresses: \
                    [\"it.test:443\"]}}\nrules:\n  - {name: all, subjects: [tester], resources: [it], deny: [{header: \
                    [\"x-ok: *\", \"X-Acl: *\"]}]}\n";
        let file = SourceFile { path: "it.yaml".into(), text: text.into() };
        let problems = Policy::load(&[file], &[&VOCABULARY]).unwrap_err();
        let told: String = problems.iter().map(ToString::to_string).collect();
        assert!(told.contains("it.yaml:6:") && told.contains("write \"x-acl: *\""), "{told}");
    }

    #[test]
    fn what_could_match_no_request_has_another_spelling() {
        for (field, written, spelled) in [
            ("header", "X-Acl: Public*", "x-acl: Public*"),
            ("host", "Git.Internal", "git.internal"),
            ("type", "Application/JSON", "application/json"),
            ("path", "/caf%c3%a9/*", "/caf%C3%A9/*"),
            ("path", "/a b/é/{id}", "/a%20b/%C3%A9/{id}"),
            ("path", "/%7Eroot/**", "/~root/**"),
            ("path", "/acme%2fpayroll", "/acme%2Fpayroll"),
            ("path", "/v1/p%3Adelete%2A", "/v1/p:delete\\*"),
        ] {
            assert_eq!(spelling(field, written).as_deref(), Some(spelled), "{field}: {written}");
        }
        for (field, written) in [
            ("header", "x-acl: *"),
            ("query", "Name=É"),
            ("path", "/{v1,v2}/[a-z]?/\\*/x%2F**"),
            ("path", "*"),
            ("path", "/@scope/{name}:cancel"),
        ] {
            assert_eq!(spelling(field, written), None, "{field}: {written}");
        }
    }
}
