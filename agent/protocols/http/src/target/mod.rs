//! Where a request goes: authority, path and query, each understood once and made anew from what was understood.
//!
//! Whatever two servers may read differently is refused instead of guessed (RFC 3986, 3.2, 3.3, 3.4 and 6.2.2).

mod query;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use thiserror::Error;

pub(crate) use self::query::{Query, form_decoded};

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
            return Err(Ambiguous(
                "the path has an empty segment, // (options: {tolerate: [empty-segments]} lets it)",
            ));
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
                return Err(Ambiguous(
                    "the path has an encoded slash, %2F (options: {tolerate: [encoded-slash]} lets it)",
                ));
            }
            b'\\' => return Err(Ambiguous("the path has a backslash")),
            0..=0x1f | 0x7f => return Err(Ambiguous("the path has a control character")),
            b' ' | 0x80.. if !encoded => {
                return Err(Ambiguous("the path has characters that must be encoded"));
            }
            b'#' if !encoded => return Err(Ambiguous("the target has a fragment (#)")),
            b';' if !tolerated.path_parameters => {
                return Err(Ambiguous(
                    "the path has parameters, ; (options: {tolerate: [path-parameters]} lets it)",
                ));
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
mod tests;
