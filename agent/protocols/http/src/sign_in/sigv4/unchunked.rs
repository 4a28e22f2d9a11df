//! A client's body out of the `aws-chunked` coding. Its chunks' signatures are the client's own, and looked at by nobody.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::Frame;

use super::checksum_length;
use crate::{
    body::{BodyError, Source},
    wire::{Decoded, Decoder},
};

/// A body as it was before it was coded.
pub(crate) struct Unchunked<'a, S> {
    source: &'a mut S,
    decoder: Decoder,
    buffer: BytesMut,
    /// Bytes that are still to come.
    left: u64,
    trailer: Option<HeaderName>,
    trailers: HeaderMap,
    over: bool,
}

impl<'a, S: Source> Unchunked<'a, S> {
    /// `length` is what the client says that it has without the coding.
    pub(crate) fn new(source: &'a mut S, length: u64, trailer: Option<HeaderName>) -> Self {
        let (decoder, buffer) = (Decoder::aws_chunked(), BytesMut::new());
        Self { source, decoder, buffer, left: length, trailer, trailers: HeaderMap::new(), over: false }
    }

    /// The next part; none at the end.
    async fn part(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        loop {
            let decoded = self.decoder.take(&mut self.buffer);
            match decoded.map_err(|error| malformed(&error.to_string()))? {
                Decoded::Data(data) => {
                    let left = self.left.checked_sub(data.len() as u64);
                    self.left = left.ok_or_else(|| malformed("it is longer than it says"))?;
                    return Ok(Some(Frame::data(data)));
                }
                Decoded::Trailers(trailers) => {
                    self.trailers = self.checked(trailers)?;
                    return Ok(Some(Frame::trailers(self.trailers.clone())));
                }
                Decoded::End => return self.end().await.map(|()| None),
                Decoded::More => {}
            }
            let frame =
                self.source.next().await.ok_or_else(|| malformed("it ends before its last chunk"))??;
            // HTTP's own trailers say nothing here.
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// The checksum among what the client sent behind the body. Its signature is the client's own.
    fn checked(&self, mut trailers: HeaderMap) -> Result<HeaderMap, BodyError> {
        trailers.remove("x-amz-trailer-signature");
        let fits =
            |name: &HeaderName| trailers.get(name).is_some_and(|value| value.len() == checksum_length(name));
        match (trailers.len(), self.trailer.as_ref()) {
            (0, _) => Ok(trailers),
            (1, Some(name)) if fits(name) => Ok(trailers),
            _ => Err(malformed("what follows it is not the checksum that was announced")),
        }
    }

    async fn end(&mut self) -> Result<(), BodyError> {
        self.over = true;
        if self.left > 0 {
            return Err(malformed("it is shorter than it says"));
        }
        if self.trailer.as_ref().is_some_and(|name| !self.trailers.contains_key(name)) {
            return Err(malformed("the checksum that was announced is missing"));
        }
        loop {
            let is_more = match self.source.next().await {
                None => return if self.buffer.is_empty() { Ok(()) } else { Err(behind()) },
                Some(frame) => frame?.data_ref().is_some_and(|data| !data.is_empty()),
            };
            if is_more {
                return Err(behind());
            }
        }
    }
}

impl<S: Source> Source for Unchunked<'_, S> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if self.over {
            return None;
        }
        self.part().await.transpose()
    }

    async fn gone(&mut self) {
        self.source.gone().await;
    }

    fn set_aside(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }
}

fn behind() -> BodyError {
    malformed("there is more behind its last chunk")
}

fn malformed(why: &str) -> BodyError {
    BodyError::Malformed(format!("it says that it is aws-chunked: {why}"))
}
