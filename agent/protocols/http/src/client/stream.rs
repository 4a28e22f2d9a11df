//! One stream of HTTP/2 as a connection of its own, once both sides agreed to that (RFC 8441, 5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is sent and received on a stream, as bytes. Its end is the stream's, also when it is dropped.
#[derive(Debug)]
pub(crate) struct Carried {
    receive: RecvStream,
    send: SendStream<Bytes>,
    /// What was received and not read yet.
    left: Bytes,
    /// It was said that no more is sent.
    over: bool,
}

impl Carried {
    pub(crate) fn new(receive: RecvStream, send: SendStream<Bytes>) -> Self {
        Self { receive, send, left: Bytes::new(), over: false }
    }

    fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.over, true) {
            true => Ok(()),
            false => self.send.send_data(Bytes::new(), true).map_err(broken),
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // A stream that is closed already needs no end.
        let _ = self.finish();
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left.is_empty() {
            match ready!(this.receive.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => this.left = data.map_err(broken)?,
            }
        }
        let count = this.left.len().min(buffer.remaining());
        buffer.put_slice(this.left.get(..count).unwrap_or_default());
        this.left.advance(count);
        Poll::Ready(this.receive.flow_control().release_capacity(count).map_err(broken))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(data.len());
        let Some(capacity) = ready!(this.send.poll_capacity(context)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let now = data.get(..capacity.map_err(broken)?).unwrap_or(data);
        Poll::Ready(
            this.send.send_data(Bytes::copy_from_slice(now), false).map(|()| now.len()).map_err(broken),
        )
    }

    /// The connection's task writes what streams have to say.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().finish())
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
