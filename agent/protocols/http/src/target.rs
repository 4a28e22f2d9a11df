//! Where a request goes: authority, path and query, each understood once and made anew from what was understood.
//!
//! Whatever two servers may read differently is refused instead of guessed (RFC 3986, 3.2, 3.3, 3.4 and 6.2.2).

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use thiserror::Error;

use crate::overriding;

/// A target, or a part of one, that may be read in more ways than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct Ambiguous(pub(crate) &'static str);

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// A name in lower case and without a final dot, or an address as it is usually written; IPv6 without brackets.
    pub(crate) host: Arc<str>,
    /// The port, if one was written.
    pub(crate) port: Option<u16>,
}

/// What may stand in a path although some servers read it differently, as the resource's options say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tolerated {
    /// `%2F` within a segment: package registries name scoped packages that way.
    pub(crate) encoded_slash: bool,
    /// `//`.
    pub(crate) empty_segments: bool,
    /// `;` within a segment.
    pub(crate) path_parameters: bool,
    /// `_method=DELETE` in a query.
    pub(crate) method_parameters: bool,
}

/// A query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// As it is sent.
    pub(crate) text: String,
    /// Its parameters as `name=value`, decoded (WHATWG URL, 5.1). Where a server might split at `;`, those parts too.
    pub(crate) parameters: Vec<Arc<str>>,
}

impl Authority {
    /// Reads `host`, `host:port` or `[v6]:port`. Credentials (`user@`) are refused.
    pub(crate) fn parse(written: &str) -> Result<Self, Ambiguous> {
        const NONE: Ambiguous = Ambiguous("the host is no name or address");
        let (host, port) = match written.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(NONE)?;
                let address: Ipv6Addr = address.parse().map_err(|_| NONE)?;
                (address.to_string(), port)
            }
            None => {
                let at = written.find(':').unwrap_or(written.len());
                let (host, port) = written.split_at_checked(at).ok_or(NONE)?;
                (name(host).ok_or(NONE)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
                Ok(port) if port != 0 => Some(port),
                _ => return Err(Ambiguous("the host's port is none")),
            },
            _ => return Err(NONE),
        };
        Ok(Self { host: host.into(), port })
    }

    /// The host as an address, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A host's name in lower case and without a final dot, or an IPv4 address; none if it is neither.
pub(crate) fn name(written: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let host = written.strip_suffix('.').unwrap_or(written);
    let looks_numeric = host.rsplit('.').next().is_some_and(|last| {
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X")
    });
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
    // 127.1 and 0x7f000001 are addresses to some and names to others.
    let sound = host.len() <= 253 && host.split('.').all(label) && (is_address || !looks_numeric);
    sound.then(|| host.to_ascii_lowercase())
}

/// The path in its one form: unreserved characters as they are, everything else percent-encoded in upper case.
pub(crate) fn path(written: &str, tolerated: Tolerated) -> Result<String, Ambiguous> {
    let rest = written.strip_prefix('/').ok_or(Ambiguous("the path does not begin with a slash"))?;
    let mut path = String::with_capacity(written.len());
    let mut segments = rest.split('/').peekable();
    while let Some(written) = segments.next() {
        if written.is_empty() && segments.peek().is_some() && !tolerated.empty_segments {
            return Err(Ambiguous("the path has an empty segment (//)"));
        }
        path.push('/');
        segment(written, tolerated, &mut path)?;
    }
    Ok(path)
}

fn segment(written: &str, tolerated: Tolerated, path: &mut String) -> Result<(), Ambiguous> {
    let mut plain = Vec::with_capacity(written.len());
    let mut bytes = written.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, encoded) = match byte {
            b'%' => (decoded(&mut bytes)?, true),
            _ => (byte, false),
        };
        plain.push(byte);
        match byte {
            b'/' if !tolerated.encoded_slash => {
                return Err(Ambiguous("the path has an encoded slash (%2F)"));
            }
            b'\\' => return Err(Ambiguous("the path has a backslash")),
            0..=0x1f | 0x7f => return Err(Ambiguous("the path has a control character")),
            b' ' | 0x80.. if !encoded => {
                return Err(Ambiguous("the path has characters that must be encoded"));
            }
            b'#' if !encoded => return Err(Ambiguous("the target has a fragment (#)")),
            b';' if !tolerated.path_parameters => {
                return Err(Ambiguous("the path has parameters (;)"));
            }
            _ => {}
        }
        let as_it_is = is_unreserved(byte) || !encoded && is_path_character(byte);
        push(path, byte, as_it_is);
    }
    parts(&plain, tolerated)?;
    if is_encoded(&plain) {
        return Err(Ambiguous("the path is encoded twice (%25)"));
    }
    match std::str::from_utf8(&plain) {
        Ok(_) => Ok(()),
        Err(_) => Err(Ambiguous("the path is not UTF-8")),
    }
}

/// What servers make of a segment that decode it before they split the path, and of its parts before parameters.
fn parts(plain: &[u8], tolerated: Tolerated) -> Result<(), Ambiguous> {
    let slashed = plain.contains(&b'/');
    for part in plain.split(|byte| *byte == b'/') {
        if slashed && part.is_empty() && !tolerated.empty_segments {
            return Err(Ambiguous("the path has an empty segment (%2F beside a slash)"));
        }
        let name = part.split(|byte| *byte == b';').next().unwrap_or_default();
        if matches!(name, b"." | b"..") {
            return Err(Ambiguous("the path has a dot segment (/./ or /../)"));
        }
    }
    Ok(())
}

/// A glob on paths as [`as_rules_see`] has them: outside of its signs, each character in the form in which it comes.
pub(crate) fn glob(written: &str) -> String {
    let mut glob = String::with_capacity(written.len());
    let mut bytes = written.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        // A % that encodes nothing may stand before a sign of the glob.
        let encoded = Some(byte).filter(|byte| *byte == b'%').and_then(|_| {
            let digits = [ahead.next()?, ahead.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        });
        match encoded {
            None if byte == b'%' => glob.push('%'),
            None => push(
                &mut glob,
                byte,
                byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'|' | b'#'),
            ),
            Some(code) => {
                bytes = ahead;
                if code == b'*' {
                    glob.push('\\');
                }
                push(&mut glob, code, is_unreserved(code) || is_path_character(code));
            }
        }
    }
    glob
}

/// A path in its one form as rules see it: what may stand in a segment as it is stands there so, whichever way the client
/// wrote it, since every server reads both the same.
pub(crate) fn as_rules_see(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (code, behind) = after.split_at_checked(2).unwrap_or((after, ""));
        match u8::from_str_radix(code, 16).ok().filter(|byte| is_path_character(*byte)) {
            Some(byte) => text.push(char::from(byte)),
            None => text.extend(["%", code]),
        }
        rest = behind;
    }
    text + rest
}

impl Query {
    /// Reads what follows the `?`.
    pub(crate) fn parse(written: &str) -> Result<Self, Ambiguous> {
        let mut text = String::with_capacity(written.len());
        for byte in written.bytes() {
            match byte {
                0..=0x20 | 0x7f.. => return Err(Ambiguous("the query has characters that must be encoded")),
                b'#' => return Err(Ambiguous("the target has a fragment (#)")),
                _ => push(
                    &mut text,
                    byte,
                    !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'),
                ),
            }
        }
        let mut parameters = Vec::new();
        for pair in written.split('&') {
            let parts = pair.split(';').filter(|_| pair.contains(';'));
            for part in std::iter::once(pair).chain(parts).filter(|part| !part.is_empty()) {
                let parameter = parameter(part)?;
                if is_read_otherwise(name_of(&parameter)) {
                    return Err(Ambiguous(
                        "the name of a parameter of its query begins with a blank, or has a [ alone",
                    ));
                }
                parameters.push(parameter);
            }
        }
        Ok(Self { text, parameters })
    }

    /// Whether a parameter is there that some servers obey instead of the method.
    pub(crate) fn changes_the_method(&self) -> bool {
        self.parameters.iter().any(|parameter| overriding::parameter(name_of(parameter)))
    }
}

/// A parameter as `name=value`, decoded.
fn parameter(pair: &str) -> Result<Arc<str>, Ambiguous> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(format!("{}={}", form_decoded(name)?, form_decoded(value)?).into())
}

/// The name of a parameter that is written as `name=value`.
fn name_of(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Whether some servers (PHP's) read a parameter's name as another: without what it begins with, or with an underscore in it.
fn is_read_otherwise(name: &str) -> bool {
    name.starts_with(char::is_whitespace) || name.contains('[') && !name.contains(']')
}

/// A name or a value of a form or query, decoded.
pub(crate) fn form_decoded(written: &str) -> Result<String, Ambiguous> {
    let mut plain = Vec::with_capacity(written.len());
    let mut bytes = written.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => decoded(&mut bytes)?,
            b'+' => b' ',
            byte => byte,
        });
    }
    if plain.contains(&0) {
        return Err(Ambiguous("it has a zero byte (%00)"));
    }
    String::from_utf8(plain).map_err(|_| Ambiguous("it is not UTF-8"))
}

/// The byte that two digits after a `%` stand for.
fn decoded(bytes: &mut std::str::Bytes<'_>) -> Result<u8, Ambiguous> {
    let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
    match (digit(), digit()) {
        // Two digits of four bits each.
        (Some(high), Some(low)) => Ok(u8::try_from(high * 16 + low).unwrap_or_default()),
        _ => Err(Ambiguous("it has a % that encodes nothing")),
    }
}

/// Whether what was decoded could be decoded once more.
fn is_encoded(plain: &[u8]) -> bool {
    plain
        .windows(3)
        .any(|window| matches!(window, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `sub-delims`, `:` and `@`: what may stand in a segment beside unreserved characters (RFC 3986, 3.3).
fn is_path_character(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

fn push(text: &mut String, byte: u8, as_it_is: bool) {
    if as_it_is {
        text.push(char::from(byte));
    } else {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
        text.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
    }
}

/// A path in its one form, with everything encoded but what is unreserved, and slashes.
pub(crate) fn strictly_encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    path.bytes().for_each(|byte| push(&mut text, byte, is_unreserved(byte) || matches!(byte, b'/' | b'%')));
    text
}

/// A query parameter's value, encoded.
pub(crate) fn encoded(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    value.iter().for_each(|byte| push(&mut text, *byte, is_unreserved(*byte)));
    text
}

#[cfg(test)]
mod tests {
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
        for written in ["a=%", "a=%zz", "a=%00", "a=%ff", "a b", "é", "a#b", "a\r\nX: y", "x=1&+a=1", "a[b=1"]
        {
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
}
