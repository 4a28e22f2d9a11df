//! One side of a session: a stream with what was read from it and what waits to be written to it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much one read takes at most, in bytes. The buffer is the thread's, so that idle sessions hold none.
const SCRATCH: usize = 128 * 1024;

/// A side with more than this waiting to be written gets no more: the other side is not read from.
const FULL: usize = 256 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A stream and its buffers, which hold memory only while they hold bytes.
#[derive(Debug)]
pub(super) struct Link<S> {
    stream: S,
    /// Read and not yet understood.
    pub(super) inbound: BytesMut,
    /// To be written, from `sent` on.
    pub(super) outbound: Vec<u8>,
    sent: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Takes a stream over, with what was already read from it.
    pub(super) fn new(stream: S, read: &[u8]) -> Self {
        Self { stream, inbound: read.into(), outbound: Vec::new(), sent: 0, unflushed: false }
    }

    /// So much waits to be written that nothing should be added.
    pub(super) fn is_full(&self) -> bool {
        self.outbound.len() - self.sent > FULL
    }

    /// So much was read and not understood that nothing more should be read.
    pub(super) fn holds_much(&self) -> bool {
        self.inbound.len() > FULL
    }

    /// Reads what is there. Zero bytes: the peer has closed its side.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.inbound.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Writes what waits, as far as the peer takes it. Ready when nothing is left.
    pub(super) fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outbound.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.unflushed = true;
        }
        self.outbound.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the memory of empty buffers back.
    pub(super) fn rest(&mut self) {
        if self.inbound.is_empty() && self.inbound.capacity() > 0 {
            self.inbound = BytesMut::new();
        }
        if self.outbound.is_empty() && self.outbound.capacity() > 0 {
            self.outbound = Vec::new();
        }
    }

    /// Ends the stream, as [`Link::finish`], and resolves when the peer has closed its side, too. What it still says is thrown
    /// away. A peer that takes nothing for as long as it likes is not left in the middle of a message.
    pub(super) async fn closed(&mut self) {
        let mut is_finished = false;
        std::future::poll_fn(|context| {
            is_finished = is_finished || self.poll_finish(context).is_ready();
            while let Ok(1..) = ready!(self.poll_fill(context)) {
                self.inbound.clear();
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Writes all that waits and ends the stream in order.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_finish(context)).await
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
