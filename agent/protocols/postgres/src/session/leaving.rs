//! How a session takes leave of the server, which may still be about to read, or to change, what others go by.

use std::{future::poll_fn, task::Poll, time::Duration};

use tidegate_gate::ServeError;
use tokio::time::{sleep, timeout};

use super::{
    Session,
    ending::{CANCEL, LAST_ANSWER, Phase},
    lost,
};
use crate::{database::AGE, wire::write};

/// How long a peer may take to read what it is told last, and the server to finish what its client didn't wait for.
const FAREWELL: Duration = Duration::from_secs(3);

/// What became of what the server was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It is over, as far as others wait for it.
    Answered,
    /// The connection was closed without an answer: it may go on, as a pooler in between may have closed its own side.
    Closed,
    /// It may go on, whatever becomes of the connection: a pooler in between closes its own side.
    Unknown,
}

impl Session {
    /// Ends both sides in order. `is_left`: the client left by itself, and may have left something behind that is to be done.
    pub(super) async fn leave(mut self, is_left: bool) {
        if self.owed.are_read() {
            self.reader.read();
        }
        if !self.is_covering() {
            self.say_goodbye();
            // Either side may be gone already, or take nothing any more: there is nobody left to tell.
            let both = async { tokio::join!(self.client.finish(), self.server.finish()) };
            let _ = timeout(FAREWELL, both).await;
            return;
        }
        let _ = timeout(FAREWELL, self.client.finish()).await;
        let last = self.wind_up(is_left).await;
        self.say_goodbye();
        let _ = timeout(FAREWELL, self.server.finish()).await;
        if self.is_covering() {
            self.cover(last);
        }
    }

    /// Others wait for what the server was sent, or go by it.
    fn is_covering(&self) -> bool {
        self.changing.is_some() || self.reader.is_covered()
    }

    fn say_goodbye(&mut self) {
        // Within a message it would be taken for the message's own bytes.
        if !self.is_within_message() {
            write::terminate(&mut self.server.outbound);
        }
    }

    fn is_within_message(&self) -> bool {
        self.input.body.is_some_and(|body| body.passes)
    }

    /// Waits for what the server still owes, and has it cancelled where that takes long: before the goodbye, behind which
    /// nobody could tell any more whether it goes on.
    async fn wind_up(&mut self, is_left: bool) -> Last {
        if self.owed.is_empty() {
            return Last::Answered;
        }
        let awaits_more = self.is_within_message() || self.input.copying_in;
        if is_left && !awaits_more {
            if self.owed.is_unflushed() {
                self.flush();
            }
            let last = self.last_answers(FAREWELL).await;
            if last != Last::Unknown {
                return last;
            }
        }
        // What was broken off was cancelled before.
        if self.phase != Phase::BrokenOff {
            // Where that fails, it takes longer.
            let _ = timeout(CANCEL, self.cancel()).await;
        }
        self.last_answers(LAST_ANSWER).await
    }

    /// Takes what the server answers, for nobody, as long as others may wait for that.
    async fn last_answers(&mut self, limit: Duration) -> Last {
        match timeout(limit, self.answers()).await {
            Ok(Ok(())) => Last::Answered,
            Ok(Err(_)) => Last::Closed,
            Err(_) => Last::Unknown,
        }
    }

    async fn answers(&mut self) -> Result<(), ServeError> {
        while !self.owed.is_empty() && self.is_covering() {
            let read = poll_fn(|context| {
                if let Poll::Ready(Err(error)) = self.server.poll_drain(context) {
                    return Poll::Ready(Err(error));
                }
                self.server.poll_fill(context)
            });
            if read.await.map_err(lost)? == 0 {
                return Err(ServeError::Upstream("it closed the connection".into()));
            }
            self.take_from_server()?;
            self.client.outbound.clear();
            if self.owed.are_read() {
                self.reader.read();
            }
        }
        Ok(())
    }

    /// Others hear of what was sent until the server has closed its side, however long that takes. Where it gave no answer,
    /// that may have been a pooler.
    fn cover(self, last: Last) {
        let Self { changing, reader, mut server, .. } = self;
        tokio::spawn(async move {
            server.closed().await;
            if last != Last::Answered {
                sleep(AGE).await;
            }
            drop((changing, reader));
        });
    }
}
