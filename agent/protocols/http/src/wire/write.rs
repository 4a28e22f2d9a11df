//! What is written to the client.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// How a response's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none, and none is expected: an answer to HEAD, 204, 304.
    None,
    /// So many bytes.
    Known(u64),
    /// Chunked.
    Chunked,
    /// It ends with the connection.
    Close,
}

/// A response's head. The fields are the response's own, without those that delimit it.
pub(crate) fn response_head(status: StatusCode, headers: &HeaderMap, length: Length, last: bool) -> BytesMut {
    let mut head = BytesMut::with_capacity(256 + headers.len() * 64).writer();
    let reason = status.canonical_reason().unwrap_or_default();
    // Writing to memory does not fail.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    let mut head = head.into_inner();
    for (name, value) in headers {
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }
    match length {
        Length::None | Length::Close => {}
        Length::Known(length) => head.put_slice(format!("content-length: {length}\r\n").as_bytes()),
        Length::Chunked => head.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    if last || length == Length::Close {
        head.put_slice(b"connection: close\r\n");
    }
    head.put_slice(b"\r\n");
    head
}

/// Data as a chunk; an empty one would end the body and is nothing.
pub(crate) fn chunk(data: &Bytes, out: &mut BytesMut) {
    if !data.is_empty() {
        out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.put_slice(data);
        out.put_slice(b"\r\n");
    }
}

/// The end of a chunked body.
pub(crate) fn last_chunk(trailers: &HeaderMap, out: &mut BytesMut) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}
