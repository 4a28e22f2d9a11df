//! Room for what has come of a message and not gone on: memory is everybody's, and an account has its share of it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use crate::shares::Share;

/// Room is taken in steps of so many bytes; what has come of a message has its first for nothing.
const STEP: usize = 64 * 1024;

/// There is none left of what the account may have.
#[derive(Debug, Error)]
#[error("this account has as many bytes of messages and requests on their way to this resource as it may")]
pub(super) struct NoRoom;

/// What has come over one connection since its last message went on.
#[derive(Debug)]
pub(super) struct Meter {
    share: Arc<Share>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Bytes that there is room for.
    room: usize,
    permits: Option<OwnedSemaphorePermit>,
}

impl Meter {
    pub(super) fn new(share: &Arc<Share>) -> Arc<Self> {
        Arc::new(Self { share: share.clone(), held: Mutex::default() })
    }

    /// All that came has gone on.
    pub(super) fn went_on(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Held::default();
    }

    /// So many bytes have gone on that were no part of a message.
    pub(super) fn went_on_between(&self, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = held.bytes.saturating_sub(bytes);
    }

    fn came(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes += bytes;
        let wanted = held.bytes.saturating_sub(STEP).next_multiple_of(STEP);
        if wanted > held.room {
            let more = self.share.body(wanted - held.room).map_err(|_| NoRoom)?;
            held.room = wanted;
            match &mut held.permits {
                Some(permits) => permits.merge(more),
                none => *none = Some(more),
            }
        }
        Ok(())
    }
}

/// A stream whose reader is told of all that comes, and gets no more than there is room for.
#[derive(Debug)]
pub(super) struct Measured<S> {
    pub(super) stream: S,
    pub(super) meter: Arc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        Poll::Ready(this.meter.came(buffer.filled().len() - before).map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::Shares;

    #[test]
    fn what_goes_on_makes_room_and_what_stays_keeps_it() {
        let share = Shares::default().of(1);
        let (large, small) = (Meter::new(&share), Meter::new(&share));
        large.came(STEP).unwrap();
        // All that there is.
        while large.came(STEP).is_ok() {}
        small.came(STEP).expect("its first bytes need none");
        assert!(small.came(1).is_err());
        large.went_on();
        small.came(1).unwrap();
        (0..1_000_000).for_each(|_| {
            small.came(100).unwrap();
            small.went_on_between(100);
        });
    }
}
