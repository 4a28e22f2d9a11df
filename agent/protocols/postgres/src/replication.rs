//! Replication, where a rule spells it out and nothing is masked: both streams pass as they are, since nothing in them
//! could be decided or masked. How the session ends is still the gate's.

use std::time::Duration;

use tidegate_gate::{Gate, ServeError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use crate::{
    cancel::CancelKey,
    session::last_words,
    startup::ClientStream,
    upstream::UpstreamStream,
    wire::{self, ErrorFields, HEADER_BYTES, WireError, frontend::tag, write},
};

/// Why there is no replication where masks apply.
pub(crate) const MASKED: &str =
    "replication carries whole tables, in which nothing can be masked, and masks apply to this account here";

/// How much is read at a time, in bytes.
const PART: usize = 32 * 1024;

/// How long a peer may take with what it gets last.
const FAREWELL: Duration = Duration::from_secs(3);

/// A session that is signed in on both sides, and in which nothing will be decided.
pub(crate) struct Replication {
    pub(crate) gate: Gate,
    pub(crate) client: ClientStream,
    /// What the client has said already.
    pub(crate) early: Vec<u8>,
    pub(crate) server: UpstreamStream,
    /// What the client gets first: the greeting, and what the server has said behind it.
    pub(crate) greeting: Vec<u8>,
    /// Kept for as long as the session may be cancelled.
    pub(crate) cancel_key: CancelKey,
}

impl Replication {
    /// Passes everything until either side ends, the session may no longer exist, or masks begin to apply.
    pub(crate) async fn run(self) -> Result<(), ServeError> {
        let Self { gate, client, early, server, greeting, cancel_key } = self;
        gate.event("replication", "from here on nothing of this session is decided, masked or recorded");
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(server);
        let (mut asked, mut answered) = (Direction::with(early), Direction::with(greeting));
        let end = tokio::select! {
            end = asked.pass(&mut from_client, &mut to_server) => of_client(end),
            end = answered.pass(&mut from_server, &mut to_client) => of_server(end),
            refusal = gate.revoked() => Err(ServeError::Policy(refusal.message.to_string())),
            () = gate.masked() => Err(ServeError::Policy(MASKED.into())),
        };
        drop(cancel_key);
        let client_leaves = async {
            if let Err(error) = &end
                && answered.finish_message(&mut from_server, &mut to_client).await
            {
                let (code, why) = last_words(error);
                let mut message = Vec::new();
                write::error_response(&mut message, &ErrorFields::new("FATAL", code, &why));
                let _ = to_client.write_all(&message).await;
            }
            let _ = to_client.shutdown().await;
        };
        let server_leaves = async {
            // Within a message it would be taken for the message's own bytes.
            if asked.frames.are_between() && !asked.frames.said_goodbye() {
                let mut goodbye = Vec::new();
                write::terminate(&mut goodbye);
                let _ = to_server.write_all(&goodbye).await;
            }
            let _ = to_server.shutdown().await;
        };
        // Either side may be gone already, or take nothing any more: there is nobody left to tell.
        let _ = timeout(FAREWELL, async { tokio::join!(client_leaves, server_leaves) }).await;
        end
    }
}

/// How a direction comes to its end.
enum End {
    /// Whoever speaks has said goodbye, closed its side, or is gone.
    Silent,
    /// Whoever listens is gone.
    Deaf(std::io::Error),
    /// Whoever speaks breaks the protocol.
    Wrong(WireError),
}

/// What the end of what the client says means.
fn of_client(end: End) -> Result<(), ServeError> {
    match end {
        End::Silent => Ok(()),
        End::Deaf(error) => Err(ServeError::Upstream(error.to_string())),
        End::Wrong(error) => Err(ServeError::Client(error.to_string())),
    }
}

/// What the end of what the server says means.
fn of_server(end: End) -> Result<(), ServeError> {
    match end {
        End::Silent => Err(ServeError::Upstream("it closed the connection".into())),
        End::Deaf(_) => Ok(()),
        End::Wrong(error) => Err(ServeError::Upstream(error.to_string())),
    }
}

/// What goes one way.
struct Direction {
    /// Read, and from `passed` on not yet passed.
    buffer: Vec<u8>,
    passed: usize,
    frames: Frames,
}

impl Direction {
    /// With what was read before.
    fn with(read: Vec<u8>) -> Self {
        Self { buffer: read, passed: 0, frames: Frames::default() }
    }

    /// Passes everything up to a goodbye. Where it is cancelled, it can be gone on from.
    async fn pass(&mut self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> End {
        loop {
            while self.passed < self.buffer.len() {
                if let Err(end) = self.pass_some(usize::MAX, to).await {
                    return end;
                }
            }
            if self.frames.said_goodbye() {
                return End::Silent;
            }
            if let Err(error) = to.flush().await {
                return End::Deaf(error);
            }
            if !self.read(from).await {
                return End::Silent;
            }
        }
    }

    /// Passes what is left of the message that has begun. Whether that is all of it.
    async fn finish_message(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> bool {
        while !self.frames.are_between() {
            let passed = match self.passed < self.buffer.len() {
                true => self.pass_some(self.frames.wanted(), to).await.is_ok(),
                false => self.read(from).await,
            };
            if !passed {
                return false;
            }
        }
        true
    }

    /// Whether there was more to be read.
    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> bool {
        self.buffer.clear();
        self.passed = 0;
        self.buffer.reserve(PART);
        from.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }

    /// Passes some of what was read, and at most so many bytes.
    async fn pass_some(&mut self, most: usize, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), End> {
        let unpassed = self.buffer.get(self.passed..).unwrap_or_default();
        let part = unpassed.get(..most).unwrap_or(unpassed);
        let count = match to.write(part).await {
            Ok(0) => return Err(End::Deaf(std::io::ErrorKind::WriteZero.into())),
            Ok(count) => count,
            Err(error) => return Err(End::Deaf(error)),
        };
        self.passed += count;
        self.frames.pass(part.get(..count).unwrap_or(part)).map_err(End::Wrong)
    }
}

/// Where in a stream of messages it is.
#[derive(Debug, Default)]
struct Frames {
    /// The next message's header, as far as it has passed.
    header: Vec<u8>,
    /// Bytes of the message's body that are still to come.
    body: usize,
    /// The type of the last message whose header has passed.
    tag: u8,
}

impl Frames {
    /// Whether the last message has passed whole, and nothing of the next.
    fn are_between(&self) -> bool {
        self.header.is_empty() && self.body == 0
    }

    /// Whether the last message was a client's Terminate.
    fn said_goodbye(&self) -> bool {
        self.tag == tag::TERMINATE && self.are_between()
    }

    /// Bytes to the end of the header or the body that is passing.
    fn wanted(&self) -> usize {
        match self.body {
            0 => HEADER_BYTES.saturating_sub(self.header.len()),
            body => body,
        }
    }

    /// These bytes have passed.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at_checked(self.wanted()).unwrap_or((bytes, &[]));
            bytes = rest;
            if self.body > 0 {
                self.body -= part.len();
                continue;
            }
            self.header.extend_from_slice(part);
            if let Some(header) = wire::header(&self.header)? {
                (self.tag, self.body) = (header.tag, header.length);
                self.header.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let mut messages = Vec::new();
        write::query(&mut messages, b"IDENTIFY_SYSTEM");
        let first = messages.len();
        write::terminate(&mut messages);
        for size in 1..=messages.len() {
            let (mut frames, mut passed) = (Frames::default(), 0);
            for part in messages.chunks(size) {
                frames.pass(part).unwrap();
                passed += part.len();
                assert_eq!(
                    frames.are_between(),
                    [first, messages.len()].contains(&passed),
                    "{size}: {passed}"
                );
            }
            assert!(frames.said_goodbye());
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error() {
        assert!(Frames::default().pass(&[b'd', 0, 0, 0, 3]).is_err());
    }
}
