//! What a client sends in a stream of messages.

use bytes::Bytes;
use http_body::Frame;
use tidegate_gate::Outcome;
use tokio::sync::mpsc;

use super::frames::{Frames, framed};
use crate::{
    body::{BodyError, Noted, Part, Source},
    exchange::{Broke, Session},
    request::Understood,
};

/// A body, message by message: each part that it gives is one in its frame, whole.
pub(crate) struct Framed<'a, S> {
    source: &'a mut S,
    frames: Frames,
}

impl<'a, S: Source> Framed<'a, S> {
    /// Of messages of at most so many bytes.
    pub(crate) fn new(source: &'a mut S, most: usize) -> Self {
        Self { source, frames: Frames::new(most) }
    }

    async fn message(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        loop {
            let unreadable = |why| {
                BodyError::Malformed(format!(
                    "a rule looks at its messages, and one cannot be looked into: {why}"
                ))
            };
            if let Some(message) = self.frames.next().map_err(unreadable)? {
                return Ok(Some(Frame::data(framed(&message))));
            }
            match self.source.next().await {
                // gRPC's clients have no trailers.
                Some(frame) => self.frames.put(&frame?.into_data().unwrap_or_default()),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(BodyError::Malformed("its last message is not whole".into())),
            }
        }
    }
}

impl<S: Source> Source for Framed<'_, S> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.message().await.transpose()
    }

    async fn gone(&mut self) {
        self.source.gone().await;
    }
}

impl Session {
    /// The same as [`crate::body::pump`] of a client's stream of messages, each decided before it goes on.
    pub(crate) async fn pump_messages(
        &self,
        understood: &Understood,
        source: &mut impl Source,
        sender: mpsc::Sender<Part>,
        mut noted: Noted<'_>,
    ) -> Result<bool, Broke> {
        let mut decided =
            understood.first.clone().filter(|first| !first.is_empty()).map(|first| (first, None));
        loop {
            let (message, permit) = match decided.take() {
                Some(decided) => decided,
                None => match source.next().await.transpose()?.and_then(|frame| frame.into_data().ok()) {
                    Some(message) => {
                        let permit = self.sent(understood, &message).await.map_err(Broke::Message)?;
                        (message, Some(permit))
                    }
                    None => break,
                },
            };
            noted.take(&message);
            let sent = message.len() as u64;
            if sender.send(Part::Frame(Frame::data(message))).await.is_err() {
                return Ok(false);
            }
            permit.into_iter().for_each(|permit| permit.done(&Outcome { sent, ..Outcome::default() }));
        }
        noted.end();
        Ok(sender.send(Part::End).await.is_ok())
    }
}
