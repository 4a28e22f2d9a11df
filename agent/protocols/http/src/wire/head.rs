//! Request heads.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use super::WireError;

/// Most bytes of a head.
pub(super) const LARGEST: usize = 64 * 1024;
/// Most header fields.
pub(crate) const MOST_FIELDS: usize = 128;
/// Longest method.
const LONGEST_METHOD: usize = 32;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// The request target, as written.
    pub(crate) target: String,
    /// HTTP/1.0 or HTTP/1.1.
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
}

impl Framing {
    /// Bytes of the body, if they are told.
    pub(crate) fn length(self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// Finds heads at the beginning of what was read; remembers how far it looked.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// Up to here there is no end of a head.
    looked: usize,
    /// An empty line before it was ignored.
    skipped: bool,
}

impl HeadReader {
    /// Takes a whole head from the buffer; none if more must be read.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, WireError> {
        // An empty line before a request line is ignored (RFC 9112, 2.2); a second one is not.
        if !self.skipped && self.looked == 0 {
            match buffer.get(..2) {
                Some(b"\r\n") => {
                    let _ = buffer.split_to(2);
                    self.skipped = true;
                }
                None if buffer.starts_with(b"\r") => return Ok(None),
                _ => {}
            }
        }
        while let Some(found) = buffer.get(self.looked..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let at = self.looked + found;
            let line_begins =
                buffer.get(..at).and_then(|before| memchr::memrchr(b'\n', before)).map_or(0, |lf| lf + 1);
            if at.checked_sub(1).and_then(|before| buffer.get(before)) != Some(&b'\r') {
                return Err(WireError::Malformed("a line ends in LF without CR"));
            }
            self.looked = at + 1;
            if self.looked > LARGEST {
                return Err(WireError::TooLarge);
            }
            if at == line_begins + 1 {
                let bytes = buffer.split_to(self.looked).freeze();
                *self = Self::default();
                return parse(&bytes).map(Some);
            }
        }
        self.looked = buffer.len();
        if self.looked > LARGEST { Err(WireError::TooLarge) } else { Ok(None) }
    }
}

/// Parses a head that ends with its empty line.
fn parse(bytes: &Bytes) -> Result<Head, WireError> {
    let mut lines = lines(bytes);
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None) => (method, target, version),
        _ => return Err(WireError::Malformed("the request line is not three words")),
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(WireError::Version),
    };
    if method.len() > LONGEST_METHOD {
        return Err(WireError::Malformed("the method is none"));
    }
    let method = Method::from_bytes(method).map_err(|_| WireError::Malformed("the method is none"))?;
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(WireError::Malformed("the target has characters that no target has"));
    }
    Ok(Head {
        method,
        target: String::from_utf8_lossy(target).into_owned(),
        version,
        headers: fields(lines)?,
    })
}

/// Header or trailer fields, up to the empty line.
pub(super) fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<HeaderMap, WireError> {
    let mut headers = HeaderMap::new();
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count >= MOST_FIELDS {
            return Err(WireError::TooLarge);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(WireError::Malformed("a header field is folded over lines"));
        }
        let colon = memchr::memchr(b':', line).ok_or(WireError::Malformed("a header field has no colon"))?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let name = HeaderName::from_bytes(name)
            .map_err(|_| WireError::Malformed("a header field's name has characters that no name has"))?;
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| WireError::Malformed("a header field's value has control characters"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Lines without their CR LF. Every LF was seen to have its CR.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

impl Head {
    /// How the body is delimited: by one `Content-Length`, or by `Transfer-Encoding: chunked`, or there is none. Both, or
    /// one of them twice, is an error even where they agree (RFC 9112, 6).
    pub(crate) fn framing(&self) -> Result<Framing, WireError> {
        let mut encodings = self.headers.get_all(header::TRANSFER_ENCODING).iter();
        let mut lengths = self.headers.get_all(header::CONTENT_LENGTH).iter();
        match (encodings.next(), encodings.next(), lengths.next(), lengths.next()) {
            (None, None, None, _) => Ok(Framing::Length(0)),
            (None, None, Some(length), None) => content_length(length).map(Framing::Length),
            (Some(encoding), None, None, None) if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                match self.version {
                    Version::HTTP_11 => Ok(Framing::Chunked),
                    _ => Err(WireError::Malformed("HTTP/1.0 has no Transfer-Encoding")),
                }
            }
            (Some(_), _, Some(_), _) => {
                Err(WireError::Malformed("the request has both Transfer-Encoding and Content-Length"))
            }
            (Some(_), ..) => Err(WireError::Malformed("the Transfer-Encoding is another than chunked")),
            (None, ..) => Err(WireError::Malformed("the request has more than one Content-Length")),
        }
    }
}

/// A length in digits alone.
pub(crate) fn content_length(value: &HeaderValue) -> Result<u64, WireError> {
    let bad = WireError::Malformed("the Content-Length is no number");
    let digits = value.to_str().map_err(|_| bad)?;
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().map_err(|_| bad),
        false => Err(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &[u8]) -> Result<Option<Head>, WireError> {
        HeadReader::default().take(&mut BytesMut::from(text))
    }

    fn framing(fields: &str) -> Result<Framing, WireError> {
        take(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())?.unwrap().framing()
    }

    #[test]
    fn a_head_is_taken_whole_and_what_follows_stays() {
        let mut buffer = BytesMut::from(&b"\r\nGET /a HTTP/1.1\r\nHost: h\r\nX-Y:  z \r\n\r\nGET /b"[..]);
        let head = HeadReader::default().take(&mut buffer).unwrap().unwrap();
        assert_eq!((head.method.as_str(), &*head.target), ("GET", "/a"));
        assert_eq!(head.headers["x-y"], "z");
        assert_eq!(&buffer[..], b"GET /b");
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        for (count, byte) in text.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            assert_eq!(reader.take(&mut buffer).unwrap().is_some(), count == text.len() - 1);
        }
    }

    #[test]
    fn what_another_server_might_read_differently_is_refused() {
        let cases: [&[u8]; 20] = [
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b" GET / HTTP/1.1\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\n\r\n",
            b"GET /\x80 HTTP/1.1\r\n\r\n",
            b"G\x00T / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nnothing\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nX\x0b: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nTransfer-Encoding\x00: chunked\r\n\r\n",
            b"GET http://a b/ HTTP/1.1\r\n\r\n",
        ];
        for text in cases {
            assert!(matches!(take(text), Err(WireError::Malformed(_))), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn another_version_is_told_as_such() {
        for version in ["HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1x", "HTTP/0.9"] {
            let head = format!("GET / {version}\r\n\r\n");
            assert_eq!(take(head.as_bytes()).unwrap_err(), WireError::Version, "{version}");
        }
    }

    #[test]
    fn lengths_that_two_servers_might_read_differently_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 \t5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ] {
            assert!(framing(fields).is_err(), "{fields:?} was taken");
        }
        assert_eq!(framing(""), Ok(Framing::Length(0)));
        assert_eq!(framing("Content-Length: 005\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn an_oversized_head_is_refused_before_it_ends() {
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; LARGEST]].concat();
        assert_eq!(take(&long).unwrap_err(), WireError::TooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1));
        assert_eq!(take(many.as_bytes()).unwrap_err(), WireError::TooLarge);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Ok(Some(head)) = take(&bytes) {
                let _ = head.framing();
            }
        }
    }
}
