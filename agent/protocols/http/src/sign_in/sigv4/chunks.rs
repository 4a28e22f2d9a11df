//! Bodies that are signed chunk by chunk (Amazon S3 API Reference, "Transferring Payload in Multiple Chunks").

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};

use super::{
    checksum_length,
    signer::{Signer, digest},
};
use crate::body::{BodyError, Outgoing};

/// Bytes of a chunk. S3 takes none below 8 KiB but the last.
const CHUNK: usize = 64 * 1024;
const SIGNATURE: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature:";
/// HMAC-SHA256 in hexadecimal.
const DIGITS: u64 = 64;

/// Signs chunk after chunk, each with the one before.
pub(super) struct Chunks {
    signer: Signer,
    previous: String,
}

impl Chunks {
    /// `seed` is the signature of the request.
    pub(super) fn new(signer: Signer, seed: String) -> Self {
        Self { signer, previous: seed }
    }

    /// One chunk. An empty one is the last, and what follows it begins right behind its line.
    fn chunk(&mut self, data: &[u8], out: &mut BytesMut) {
        let lines = [&*self.previous, &digest(b""), &digest(data)];
        self.previous = self.signer.sign("AWS4-HMAC-SHA256-PAYLOAD", &lines);
        out.extend_from_slice(format!("{:x}{SIGNATURE}{}\r\n", data.len(), self.previous).as_bytes());
        if !data.is_empty() {
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What comes behind the last chunk, with the empty line at the end.
    fn trailer(&mut self, trailer: Option<(&HeaderName, &[u8])>, out: &mut BytesMut) {
        if let Some((name, value)) = trailer {
            let canonical = [name.as_str().as_bytes(), b":", value, b"\n"].concat();
            let lines = [&*self.previous, &digest(&canonical)];
            self.previous = self.signer.sign("AWS4-HMAC-SHA256-TRAILER", &lines);
            out.extend_from_slice(&[name.as_str().as_bytes(), b":", value, b"\r\n"].concat());
            out.extend_from_slice(format!("{TRAILER_SIGNATURE}{}\r\n", self.previous).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A body in the `aws-chunked` coding, signed as it goes.
pub(crate) struct Signed {
    plain: Outgoing,
    chunks: Chunks,
    held: BytesMut,
    length: u64,
    trailer: Option<HeaderName>,
    trailers: HeaderMap,
    over: bool,
}

impl Signed {
    /// `length` is that of the plain body.
    pub(super) fn new(plain: Outgoing, chunks: Chunks, length: u64, trailer: Option<HeaderName>) -> Self {
        let length = coded_length(length, trailer.as_ref());
        let (held, trailers) = (BytesMut::new(), HeaderMap::new());
        Self { plain, chunks, held, length, trailer, trailers, over: false }
    }

    /// Bytes in the coding.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether there is no more.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The body without the coding. To be asked before any of it was taken.
    pub(crate) fn into_plain(self) -> Outgoing {
        self.plain
    }

    /// The next part.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            let mut out = BytesMut::new();
            if self.held.len() >= CHUNK {
                let chunk = self.held.split_to(CHUNK);
                self.chunks.chunk(&chunk, &mut out);
                return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
            }
            let frame = match ready!(Pin::new(&mut self.plain).poll_frame(context)) {
                Some(frame) => frame?,
                None => {
                    self.over = true;
                    let last = self.last(&mut out).map(|()| Frame::data(out.freeze()));
                    return Poll::Ready(Some(last));
                }
            };
            match frame.into_data() {
                Ok(data) => self.held.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
    }

    fn last(&mut self, out: &mut BytesMut) -> Result<(), BodyError> {
        if !self.held.is_empty() {
            let chunk = self.held.split();
            self.chunks.chunk(&chunk, out);
        }
        self.chunks.chunk(b"", out);
        let trailer = match &self.trailer {
            None => None,
            Some(name) => {
                let value = self.trailers.get(name);
                let missing = || BodyError::Malformed(format!("{name} did not come behind it"));
                Some((name, value.ok_or_else(missing)?.as_bytes()))
            }
        };
        self.chunks.trailer(trailer, out);
        Ok(())
    }
}

/// Bytes of a body in the coding.
fn coded_length(plain: u64, trailer: Option<&HeaderName>) -> u64 {
    let line = |size: u64| format!("{size:x}").len() as u64 + SIGNATURE.len() as u64 + DIGITS + 2;
    let chunk = |size: u64| line(size) + size + 2;
    let (whole, rest) = (plain / CHUNK as u64, plain % CHUNK as u64);
    let rest = if rest > 0 { chunk(rest) } else { 0 };
    let trailer = trailer.map_or(0, |name| {
        let checksum = name.as_str().len() + 1 + checksum_length(name) + 2;
        (checksum + TRAILER_SIGNATURE.len()) as u64 + DIGITS + 2
    });
    // A length that is so large that this overflows is no body's: the server will not take it either.
    whole.saturating_mul(chunk(CHUNK as u64)).saturating_add(rest + line(0) + trailer + 2)
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("length", &self.length).finish_non_exhaustive()
    }
}
