//! Request bodies on their way: from a client in parts, to an upstream as they come.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tidegate_gate::Permit;
use tokio::{sync::mpsc, time::timeout};

use crate::{forward, sign_in::Signed, transcript::Transcript};

/// How long a client that was answered early may go on sending.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Most bytes that are read for nothing of a client that was answered early.
pub(crate) const DRAINED: u64 = 256 * 1024;

/// Why a client's body could not be read to its end.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// It isn't what the protocol says a body is.
    #[error("the request's body: {0}")]
    Malformed(String),
    /// The client is gone.
    #[error("the client went away in the middle of its request's body")]
    Gone,
    /// It comes too slowly.
    #[error("the request's body comes too slowly: {0}")]
    Slow(String),
}

/// Where a request's body comes from.
pub(crate) trait Source: Send {
    /// The next part; none at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Frame<Bytes>, BodyError>>> + Send;
    /// Resolves when the client has gone, as far as that can be told. To be asked only behind the body's end.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
    /// What came behind the body and can as well stand before it, once the body was read whole.
    fn set_aside(&mut self) -> HeaderMap {
        HeaderMap::new()
    }
}

/// Reads what is left of a body for nothing; false if that is too much, takes too long or breaks off.
pub(crate) async fn drain(body: &mut impl Source) -> bool {
    let drained = async {
        let mut left = DRAINED;
        while let Some(frame) = body.next().await {
            let Ok(frame) = frame else { return false };
            let count = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(count) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    timeout(LINGER, drained).await.unwrap_or(false)
}

/// What the record is to have of a request's body.
pub(crate) struct Noted<'a> {
    permit: &'a Permit,
    transcript: Option<Transcript<'a>>,
}

impl<'a> Noted<'a> {
    pub(crate) fn new(permit: &'a Permit, headers: &HeaderMap) -> Self {
        Self { permit, transcript: Transcript::of_request(permit, headers) }
    }

    /// Takes what goes upstream.
    pub(crate) fn take(&mut self, data: &Bytes) {
        self.permit.so_far(|outcome| outcome.sent += data.len() as u64);
        if let Some(transcript) = &mut self.transcript {
            transcript.take(data);
        }
    }

    /// Nothing follows.
    pub(crate) fn end(self) {
        if let Some(transcript) = self.transcript {
            transcript.end();
        }
    }
}

/// What goes upstream as a request's body.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// All of it; none, if it is empty.
    Whole(Option<Bytes>),
    /// As it comes.
    Parts {
        /// The parts; the last one says that it is the last.
        parts: mpsc::Receiver<Part>,
        /// Bytes in all, if they are known.
        length: Option<u64>,
        /// The end was seen.
        ended: bool,
    },
    /// As it comes, signed chunk by chunk.
    Signed(Box<Signed>),
}

impl Outgoing {
    /// The same as it is before it is signed. To be asked only before any of it was sent.
    pub(crate) fn into_plain(self) -> Self {
        match self {
            Self::Signed(signed) => signed.into_plain(),
            plain => plain,
        }
    }
}

/// Of a body.
#[derive(Debug)]
pub(crate) enum Part {
    /// Data or trailers.
    Frame(Frame<Bytes>),
    /// Nothing follows. A body whose parts stop without it was cut off, and must not look whole.
    End,
}

/// A body and where its parts are put. One part waits at most: the client is read as fast as the upstream takes.
pub(crate) fn parts(length: Option<u64>) -> (mpsc::Sender<Part>, Outgoing) {
    let (sender, parts) = mpsc::channel(1);
    (sender, Outgoing::Parts { parts, length, ended: false })
}

/// Puts a client's body into its parts. Returns whether all of it was taken; an error, if the client did not send it whole.
pub(crate) async fn pump(
    source: &mut impl Source,
    sender: mpsc::Sender<Part>,
    mut noted: Noted<'_>,
) -> Result<bool, BodyError> {
    while let Some(frame) = source.next().await {
        let frame = match frame?.into_trailers() {
            Ok(trailers) => Frame::trailers(forward::trailers(&trailers)),
            Err(frame) => frame,
        };
        if let Some(data) = frame.data_ref() {
            noted.take(data);
        }
        if sender.send(Part::Frame(frame)).await.is_err() {
            return Ok(false);
        }
    }
    noted.end();
    Ok(sender.send(Part::End).await.is_ok())
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take().map(|whole| Ok(Frame::data(whole)))),
            Self::Signed(signed) => signed.poll(context),
            Self::Parts { ended: true, .. } => Poll::Ready(None),
            Self::Parts { parts, ended, .. } => match ready!(parts.poll_recv(context)) {
                Some(Part::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(Part::End) => {
                    *ended = true;
                    Poll::Ready(None)
                }
                None => Poll::Ready(Some(Err(BodyError::Gone))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_none(),
            Self::Parts { ended, .. } => *ended,
            Self::Signed(signed) => signed.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            Self::Parts { length: Some(length), .. } => SizeHint::with_exact(*length),
            Self::Parts { length: None, .. } => SizeHint::new(),
            Self::Signed(signed) => SizeHint::with_exact(signed.length()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_was_cut_off_does_not_look_whole() {
        let (sender, body) = parts(None);
        sender.send(Part::Frame(Frame::data("half".into()))).await.unwrap();
        drop(sender);
        assert!(matches!(body.collect().await, Err(BodyError::Gone)));
    }

    #[tokio::test]
    async fn a_body_that_came_to_its_end_is_whole() {
        let (sender, body) = parts(None);
        let collected = tokio::spawn(body.collect());
        sender.send(Part::Frame(Frame::data("all".into()))).await.unwrap();
        sender.send(Part::End).await.unwrap();
        assert_eq!(collected.await.unwrap().unwrap().to_bytes(), "all");
    }
}
