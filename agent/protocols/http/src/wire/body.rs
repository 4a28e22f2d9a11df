//! Request bodies.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

use super::{
    Framing, WireError,
    head::{fields, lines},
};

/// Longest line with a chunk's size.
const LONGEST_SIZE: usize = 18;
/// What may stand behind the size in the `aws-chunked` coding, and the hexadecimal digits behind that.
const CHUNK_SIGNATURE: (&[u8], usize) = (b";chunk-signature=", 64);
/// Most bytes of trailers.
const LARGEST_TRAILERS: usize = 16 * 1024;

/// Takes a body apart.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Chunks may be signed.
    aws: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Length(u64),
    /// A chunk's size follows.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The CR LF behind a chunk follows.
    ChunkEnd,
    /// Trailers follow, or the empty line at once.
    Trailers,
    Done,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Bytes of the body.
    Data(Bytes),
    /// Its trailers; nothing follows but the end.
    Trailers(HeaderMap),
    /// More must be read.
    More,
    /// It is over.
    End,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        };
        Self { state, aws: false }
    }

    /// Of a body that is itself in the `aws-chunked` coding. Its signatures are not looked at.
    pub(crate) fn aws_chunked() -> Self {
        Self { state: State::Size, aws: true }
    }

    /// Whether nothing more belongs to the body.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Takes the next part from what was read.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Decoded, WireError> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::Length(left) => {
                    let Some((data, left)) = data(input, left) else { return Ok(Decoded::More) };
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Decoded::Data(data));
                }
                State::Size => match size(input, self.aws)? {
                    None => return Ok(Decoded::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::Chunk(left) => {
                    let Some((data, left)) = data(input, left) else { return Ok(Decoded::More) };
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        let _ = input.split_to(2);
                        self.state = State::Size;
                    }
                    None if matches!(&input[..], b"" | b"\r") => return Ok(Decoded::More),
                    _ => return Err(WireError::Malformed("a chunk does not end where its size says")),
                },
                State::Trailers => return self.trailers(input),
            }
        }
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Decoded, WireError> {
        let Some(end) = trailers_end(input)? else { return Ok(Decoded::More) };
        let bytes = input.split_to(end).freeze();
        let trailers = fields(lines(&bytes))?;
        self.state = State::Done;
        if trailers.is_empty() {
            return Ok(Decoded::End);
        }
        // What decides how a message is read cannot come behind it (RFC 9110, 6.5.1).
        let deciding = [
            header::TRANSFER_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::CONTENT_TYPE,
            header::HOST,
            header::AUTHORIZATION,
            header::COOKIE,
            header::CONNECTION,
        ];
        if deciding.iter().any(|name| trailers.contains_key(name)) {
            return Err(WireError::Malformed("a trailer field is one that must come before the body"));
        }
        Ok(Decoded::Trailers(trailers))
    }
}

/// Up to `left` bytes, and how many are left then; none if there are none.
fn data(input: &mut BytesMut, left: u64) -> Option<(Bytes, u64)> {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    (count > 0).then(|| (input.split_to(count).freeze(), left - count as u64))
}

/// A chunk's size: hexadecimal digits alone. Extensions are refused: they say nothing to anybody, and servers end them
/// differently.
fn size(input: &mut BytesMut, aws: bool) -> Result<Option<u64>, WireError> {
    let bad = WireError::Malformed("a chunk's size is no hexadecimal number");
    let longest = LONGEST_SIZE + if aws { CHUNK_SIGNATURE.0.len() + CHUNK_SIGNATURE.1 } else { 0 };
    let Some(end) = memchr::memchr(b'\n', input.get(..longest.min(input.len())).unwrap_or_default()) else {
        return if input.len() >= longest { Err(bad) } else { Ok(None) };
    };
    let line = input.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(bad)?;
    let digits = if aws { unsigned(line).ok_or(bad)? } else { line };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| bad)?;
    u64::from_str_radix(digits, 16).map(Some).map_err(|_| bad)
}

/// A chunk's size without the signature behind it, if there is one; none if there is anything else.
fn unsigned(line: &[u8]) -> Option<&[u8]> {
    let (extension, digits) = CHUNK_SIGNATURE;
    let Some(at) = memchr::memchr(b';', line) else { return Some(line) };
    let (size, behind) = line.split_at_checked(at)?;
    let signature = behind.strip_prefix(extension)?;
    (signature.len() == digits && signature.iter().all(u8::is_ascii_hexdigit)).then_some(size)
}

/// Where the trailers' empty line ends; none if it isn't there yet.
fn trailers_end(input: &[u8]) -> Result<Option<usize>, WireError> {
    let mut begins = 0;
    for at in memchr::memchr_iter(b'\n', input) {
        if at == begins || input.get(at - 1) != Some(&b'\r') {
            return Err(WireError::Malformed("a line ends in LF without CR"));
        }
        if at == begins + 1 {
            return Ok(Some(at + 1));
        }
        begins = at + 1;
    }
    if input.len() > LARGEST_TRAILERS { Err(WireError::TooLarge) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, its trailers, and what is left behind it.
    fn decode(framing: Framing, text: &[u8]) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), WireError> {
        let (mut decoder, mut input) = (Decoder::new(framing), BytesMut::from(text));
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        loop {
            match decoder.take(&mut input)? {
                Decoded::Data(data) => body.extend(data),
                Decoded::Trailers(found) => trailers = found,
                Decoded::End => return Ok((body, trailers, input.to_vec())),
                Decoded::More => return Err(WireError::Malformed("it is not all there")),
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        assert_eq!(
            decode(Framing::Length(3), b"abcGET").unwrap(),
            (b"abc".to_vec(), HeaderMap::new(), b"GET".to_vec())
        );
        let (body, trailers, rest) =
            decode(Framing::Chunked, b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\nGET").unwrap();
        assert_eq!((&*body, &*rest), (&b"abc0123456789"[..], &b"GET"[..]));
        assert_eq!(trailers["x-sum"], "7");
    }

    #[test]
    fn chunks_that_two_servers_might_read_differently_are_refused() {
        let cases: [&[u8]; 15] = [
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3;x=y\r\nabc\r\n0\r\n\r\n",
            b"3;\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b" 3\r\nabc\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"-1\r\nabc\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"10000000000000003\r\nabc\r\n0\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
        ];
        for text in cases {
            let error = decode(Framing::Chunked, text).unwrap_err();
            assert_ne!(error, WireError::Malformed("it is not all there"), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn endless_trailers_are_refused() {
        let text = [b"0\r\nX: ".as_slice(), &vec![b'a'; LARGEST_TRAILERS]].concat();
        assert_eq!(decode(Framing::Chunked, &text).unwrap_err(), WireError::TooLarge);
    }

    proptest::proptest! {
        #[test]
        fn however_it_is_cut_a_body_is_the_same(cuts in proptest::collection::vec(1_usize..8, 1..60)) {
            let text = b"3\r\nabc\r\nb\r\nhello world\r\n0\r\nX: y\r\n\r\n";
            let (mut decoder, mut input, mut body) = (Decoder::new(Framing::Chunked), BytesMut::new(), Vec::new());
            let mut rest = &text[..];
            for cut in cuts.into_iter().chain([text.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                input.extend_from_slice(now);
                rest = later;
                while let Decoded::Data(data) = decoder.take(&mut input).unwrap() {
                    body.extend(data);
                }
            }
            proptest::prop_assert_eq!(&*body, b"abchello world");
            proptest::prop_assert!(decoder.is_done());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(Framing::Chunked, &bytes);
        }
    }
}
