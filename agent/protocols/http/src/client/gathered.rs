//! Writes that are put off to the next turn of their task: what several streams have to say by then goes out together, in
//! one record of TLS and one packet.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are gathered: what one record of TLS holds.
const MOST: usize = 16 * 1024;

/// A stream whose flushes are done by whoever reads it next, and wake the task for that. For tasks that read and write it by
/// turns, as HTTP/2 does.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    out: BytesMut,
    /// Something was written that the stream has not yet flushed.
    unflushed: bool,
    /// The task was not yet woken for it.
    fresh: bool,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, out: BytesMut::new(), unflushed: false, fresh: false }
    }

    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    /// Writes what was gathered.
    fn put_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.out.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The same, until the stream holds nothing back either.
    fn settle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(self.put_out(context))?;
            ready!(self.stream().poll_flush(context))?;
            (self.unflushed, self.fresh) = (false, false);
            // Connections are idle for most of their time, and there may be many.
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Where it isn't taken yet, the stream wakes the task once it is.
        if let Poll::Ready(Err(error)) = this.settle(context) {
            return Poll::Ready(Err(error));
        }
        this.stream().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = parts.iter().map(|part| part.len()).sum::<usize>();
        (this.unflushed, this.fresh) = (true, true);
        if this.out.len() + count > MOST {
            ready!(this.put_out(context))?;
            if count > MOST / 2 {
                return this.stream().poll_write_vectored(context, parts);
            }
        }
        parts.iter().for_each(|part| this.out.extend_from_slice(part));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Done by the next read.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.get_mut().fresh) {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.settle(context))?;
        this.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What the other end can read at once.
    async fn readable(end: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut all = vec![0; 4 * MOST];
        let mut buffer = ReadBuf::new(&mut all);
        poll_fn(|context| {
            let _ = Pin::new(&mut *end).poll_read(context, &mut buffer);
            Poll::Ready(())
        })
        .await;
        buffer.filled().to_vec()
    }

    #[tokio::test]
    async fn what_is_flushed_goes_out_together_when_the_task_reads_again() {
        let (near, mut far) = duplex(4 * MOST);
        let mut near = Gathered::new(near);
        near.write_all(b"one,").await.unwrap();
        near.flush().await.unwrap();
        near.write_all(b"two").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(readable(&mut far).await, b"");
        far.write_all(b"?").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'?');
        assert_eq!(readable(&mut far).await, b"one,two");
    }

    #[tokio::test]
    async fn nothing_is_lost_or_gathered_without_end_however_slowly_it_is_taken() {
        let (near, mut far) = duplex(1000);
        let mut near = Gathered::new(near);
        let sent: Vec<u8> = (0..10 * MOST).map(|at| (at % 251) as u8).collect();
        let whole = sent.clone();
        let sending = tokio::spawn(async move {
            for part in sent.chunks(3000).flat_map(|part| part.split_at_checked(2).into_iter()) {
                near.write_all(part.0).await.unwrap();
                near.write_all(part.1).await.unwrap();
                near.flush().await.unwrap();
                assert!(near.out.len() <= MOST);
            }
            near.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        sending.await.unwrap();
        assert!(got == whole);
    }

    #[tokio::test]
    async fn a_flush_wakes_its_task_once() {
        let (near, mut far) = duplex(100);
        let mut near = Gathered::new(near);
        let mut turns = 0;
        // As HTTP/2 does: reads, then writes and flushes what there is, turn by turn.
        let serving = tokio::spawn(async move {
            let mut said = false;
            poll_fn(|context| {
                turns += 1;
                let mut byte = [0];
                let read = Pin::new(&mut near).poll_read(context, &mut ReadBuf::new(&mut byte));
                if !std::mem::replace(&mut said, true) {
                    assert!(Pin::new(&mut near).poll_write(context, &[7; 300]).is_ready());
                }
                assert!(Pin::new(&mut near).poll_flush(context).is_ready());
                read
            })
            .await
            .unwrap();
            turns
        });
        let mut got = [0; 300];
        far.read_exact(&mut got).await.unwrap();
        far.write_all(b"!").await.unwrap();
        let turns = serving.await.unwrap();
        assert!(turns <= 8, "it is polled for what there is to do: {turns} times");
    }
}
