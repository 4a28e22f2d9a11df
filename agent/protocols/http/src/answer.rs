//! What a client gets as a response's body.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate_gate::Permit;

/// A response's body.
pub(crate) enum Answer<'a> {
    /// The gate's own.
    Own(Option<Bytes>),
    /// The upstream's, as it is shown.
    Upstream(Shown<'a>),
}

/// An upstream's body as it is shown.
pub(crate) struct Shown<'a> {
    body: Incoming,
    permit: &'a Permit,
    /// Bytes, where the upstream said so.
    length: Option<u64>,
    /// Bytes shown so far.
    bytes: u64,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(body: Incoming, permit: &'a Permit, length: Option<u64>) -> Self {
        Self { body, permit, length, bytes: 0 }
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        match self.body.frame().await? {
            Ok(frame) => Some(Ok(self.shown(frame))),
            Err(error) => Some(Err(crate::upstream::told(&error))),
        }
    }

    fn shown(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
            self.permit.tap(data);
        }
        frame
    }
}

impl Answer<'_> {
    /// The next part; none at the end. An error says what the upstream did wrong: what was sent so far is not whole.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        match self {
            Self::Own(body) => body.take().filter(|body| !body.is_empty()).map(|body| Ok(Frame::data(body))),
            Self::Upstream(shown) => shown.next().await,
        }
    }

    /// Bytes in all, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Own(body) => Some(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Upstream(shown) => shown.length,
        }
    }

    /// Bytes shown so far.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Own(_) => 0,
            Self::Upstream(shown) => shown.bytes,
        }
    }
}
