//! Names by which some servers take another request than the one that is made: another method, path or host. Told by their shape,
//! as there are more of them than anybody lists.

/// Whether a query's parameter of this name, decoded, may be obeyed instead of the method: `_method`, as frameworks write it and
/// PHP reads it (`.method`, `+_method`, `[method`), `$httpMethod`, `_HttpMethod`, `X-HTTP-Method-Override`.
pub(crate) fn parameter(name: &str) -> bool {
    let inner = name.trim_start_matches(|first: char| !first.is_alphanumeric());
    let is_marked = inner.len() < name.len();
    [inner, inner.split(['[', ']']).next().unwrap_or_default()].into_iter().any(|name| {
        let letters = letters(name);
        is_method_s(&letters) || is_marked && matches!(&*letters, "method" | "httpmethod")
    })
}

/// Whether a header field of this name may be obeyed instead of the request line or `Host`: `x-http-method-override`,
/// `x-original-url`, `x-rewrite-uri`. What stores keep of a client's own beside an object (`x-amz-meta-...`) is nothing to them.
pub(crate) fn field(name: &str) -> bool {
    const NOUNS: [&str; 6] = ["url", "uri", "path", "method", "verb", "host"];
    let letters = letters(name);
    let is_another = ["override", "original", "rewrite"].iter().any(|word| letters.contains(word));
    let is_target_s = is_another && NOUNS.iter().any(|noun| letters.contains(noun));
    (is_target_s || is_method_s(&letters) || letters == "xhost") && !name.contains("-meta-")
}

fn is_method_s(letters: &str) -> bool {
    letters.contains("override") && letters.contains("method") || letters == "xhttpmethod"
}

/// What is left of a name where case and everything between letters mean nothing.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_changes_the_method_is_known_in_every_spelling() {
        for name in [
            "_method",
            ".method",
            " _method",
            " .method",
            "[method",
            "[_method]",
            "_method[]",
            "_method[0]",
            "_Method",
            "__method",
            "$method",
            "_HttpMethod",
            "$httpMethod",
            "_http_method",
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "X-HTTP-Method",
            "methodOverride",
            "X-Method-Override",
        ] {
            assert!(parameter(name), "{name:?}");
        }
        for name in
            ["method", "method[]", "payment_method", "_payment_method", "http_method", "a[_method]", "x", ""]
        {
            assert!(!parameter(name), "{name:?}");
        }
    }

    #[test]
    fn a_header_field_that_changes_the_request_is_known_by_its_shape() {
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-original-uri",
            "x-original-method",
            "x-override-url",
            "x-original-host",
            "x-http-host-override",
            "x-envoy-original-path",
            "x-rewrite-path",
            "x-host",
        ] {
            assert!(field(name), "{name}");
        }
        for name in [
            "host",
            "origin",
            "access-control-request-method",
            "x-amz-meta-original-path",
            "x-original-filename",
            "x-request-id",
            "content-location",
        ] {
            assert!(!field(name), "{name}");
        }
    }
}
