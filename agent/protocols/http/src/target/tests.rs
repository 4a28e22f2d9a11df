use super::*;

const STRICT: Tolerated = Tolerated {
    encoded_slash: false,
    empty_segments: false,
    path_parameters: false,
    method_parameters: false,
};

#[test]
fn a_path_has_one_form() {
    for (written, one) in [
        ("/", "/"),
        ("/a/b/", "/a/b/"),
        ("/%7Euser/%61", "/~user/a"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/@scope/x+y,z=1:2", "/@scope/x+y,z=1:2"),
        ("/%40scope", "/%40scope"),
        ("/{id}|\"", "/%7Bid%7D%7C%22"),
        ("/100%25", "/100%25"),
        ("/.well-known/..x/x..", "/.well-known/..x/x.."),
    ] {
        assert_eq!(path(written, STRICT).as_deref(), Ok(one), "{written}");
    }
}

#[test]
fn a_path_that_servers_may_read_differently_is_refused() {
    for written in [
        "",
        "a",
        "*",
        "/a//b",
        "//",
        "/a/../b",
        "/a/..",
        "/./a",
        "/%2e%2E/a",
        "/a/%2e",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0a",
        "/a\u{7f}",
        "/a b",
        "/é",
        "/a;b",
        "/a/..;/b",
        "/a%3bb",
        "/a%252fb",
        "/a#b",
        "/a%25%32%66b",
        "/a%",
        "/a%2",
        "/a%zz",
        "/%c0%af",
        "/%ff",
        "/a%+1",
    ] {
        assert!(path(written, STRICT).is_err(), "{written:?} was taken");
    }
}

#[test]
fn what_a_resource_tolerates_stays_what_it_was() {
    let all = Tolerated { encoded_slash: true, empty_segments: true, path_parameters: true, ..STRICT };
    assert_eq!(path("/@babel%2fcore//x;v=1", all).as_deref(), Ok("/@babel%2Fcore//x;v=1"));
    assert!(path("/a%5cb", all).is_err());
}

#[test]
fn no_tolerance_lets_dots_through() {
    let slash = Tolerated { encoded_slash: true, ..STRICT };
    for written in [
        "/acme%2f..%2fusers",
        "/acme%2F%2e%2E%2f..%2fusers",
        "/..%2fusers",
        "/acme%2f.",
        "/acme%2f%2fusers",
        "/acme%2f/users",
        "/%2fusers",
    ] {
        assert!(path(written, slash).is_err(), "{written:?} was taken");
    }
    let parameters = Tolerated { path_parameters: true, ..STRICT };
    for written in ["/open/..;x/secret", "/open/.;/secret", "/open/%2e%2e%3bx=1/secret"] {
        assert!(path(written, parameters).is_err(), "{written:?} was taken");
    }
    let all = Tolerated { encoded_slash: true, empty_segments: true, path_parameters: true, ..STRICT };
    for written in ["/a/%2e%2e/b", "/a%2f..;x%2fb"] {
        assert!(path(written, all).is_err(), "{written:?} was taken");
    }
    assert!(path("/@babel%2fcore", slash).is_ok());
}

#[test]
fn rules_see_one_spelling_of_what_servers_read_the_same() {
    for (written, seen) in [
        ("/v1/p%3Adelete", "/v1/p:delete"),
        ("/%40acme/x", "/@acme/x"),
        ("/users/ada%40example.com", "/users/ada@example.com"),
        ("/%21%24%26%27%28%29%2A%2B%2C%3D", "/!$&'()*+,="),
        ("/caf%C3%A9/a%20b%25", "/caf%C3%A9/a%20b%25"),
    ] {
        assert_eq!(as_rules_see(&path(written, STRICT).unwrap()), seen);
    }
}

#[test]
fn an_authority_is_a_host_and_maybe_a_port() {
    let parsed = |written: &str| {
        Authority::parse(written).ok().map(|authority| (authority.host.to_string(), authority.port))
    };
    assert_eq!(parsed("Git.Internal."), Some(("git.internal".into(), None)));
    assert_eq!(parsed("git.internal:8443"), Some(("git.internal".into(), Some(8443))));
    assert_eq!(parsed("[2001:DB8::1]:443"), Some(("2001:db8::1".into(), Some(443))));
    assert_eq!(parsed("127.0.0.1:80"), Some(("127.0.0.1".into(), Some(80))));
    for written in [
        "",
        ":80",
        "user@host",
        "user:pw@host",
        "a b",
        "a,b",
        "a/b",
        "a..b",
        ".",
        "127.1",
        "0x7f000001",
        "127.0.0.0x1",
        "host:",
        "host:0",
        "host:+80",
        "host:99999",
        "[::1",
        "[::1]80",
        "[zone%eth0]",
        "é",
        "host:80:80",
        "a\\b",
        "host#",
        "host?x",
    ] {
        assert_eq!(parsed(written), None, "{written:?}");
    }
}

#[test]
fn a_query_is_sent_as_it_was_and_read_decoded() {
    let query = Query::parse("q=a+b%26c&per_page=5&flag&&[x]={1}").unwrap();
    assert_eq!(query.text, "q=a+b%26c&per_page=5&flag&&[x]=%7B1%7D");
    let read: Vec<_> = query.parameters.iter().map(|parameter| &**parameter).collect();
    assert_eq!(read, ["q=a b&c", "per_page=5", "flag=", "[x]={1}"]);
}

#[test]
fn a_parameter_behind_a_semicolon_is_seen_too() {
    let query = Query::parse("x=1;admin=1").unwrap();
    assert!(query.parameters.iter().any(|parameter| **parameter == *"admin=1"));
    assert!(query.parameters.iter().any(|parameter| **parameter == *"x=1;admin=1"));
}

#[test]
fn a_parameter_that_changes_the_method_is_seen_however_it_is_written() {
    let changes = |written: &str| Query::parse(written).unwrap().changes_the_method();
    for written in [
        "_method=DELETE",
        "a=1;_method=PUT",
        "%5Fmethod=x",
        "$httpMethod=DELETE",
        "X-HTTP-Method-Override=x",
        ".method=DELETE",
        "_HttpMethod=DELETE",
    ] {
        assert!(changes(written), "{written}");
    }
    assert!(!changes("method=PUT&x=_method"));
}

#[test]
fn a_query_that_cannot_be_decoded_is_refused() {
    for written in ["a=%", "a=%zz", "a=%00", "a=%ff", "a b", "é", "a#b", "a\r\nX: y", "x=1&+a=1", "a[b=1"] {
        assert!(Query::parse(written).is_err(), "{written:?} was taken");
    }
}

proptest::proptest! {
    /// What was understood once is understood the same again: nothing is hidden by one more round.
    #[test]
    fn the_one_form_of_a_path_is_its_own(written in "/[a-z%0-9A-F./;@ -]{0,24}") {
        if let Ok(one) = path(&written, STRICT) {
            proptest::prop_assert_eq!(path(&one, STRICT), Ok(one));
        }
    }
}
