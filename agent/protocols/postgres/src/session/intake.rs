//! What the client sends, message by message: which go their way as they come, which wait, and which are asked for.

use std::mem;

use bytes::Buf;
use tidegate_gate::ServeError;

use super::{
    Session, Waits,
    ending::Phase,
    expect::Expect,
    names::{Name, Space},
    refuse,
};
use crate::wire::{
    self, HEADER_BYTES, Header, WireError,
    frontend::{self, Kind, Target, tag},
    write,
};

/// What became of the client's next message.
pub(super) enum Taken {
    /// It was handled; it was this long.
    Whole(usize),
    /// Its first bytes were handled; the rest goes the way that `Session::body` says.
    Streams,
    /// It isn't all there yet.
    More,
    /// It depends on an answer that the server still owes.
    Wait,
}

/// The way of a message body that isn't held whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    /// Bytes still to come.
    left: usize,
    /// They go to the server.
    pub(super) passes: bool,
}

impl Session {
    /// Takes in what was read from the client, as far as it can be.
    pub(super) async fn take_from_client(&mut self) -> Result<(), ServeError> {
        let mut input = mem::take(&mut self.client.inbound);
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(body) = self.input.body {
                at += self.pass_body(body, rest);
                continue;
            }
            if self.phase != Phase::Serving && !self.input.copying_in {
                break;
            }
            let Some(header) = wire::header(rest).map_err(client)? else { break };
            match self.client_message(header, rest).await? {
                Taken::Whole(length) => at += length,
                Taken::Streams => {}
                // Nothing was waited for but the rest of it.
                Taken::More => break,
                Taken::Wait => {
                    self.wait();
                    break;
                }
            }
            // An answer is for the message that it was waited for with, and for no other.
            self.waits = Waits::default();
            if self.ended || self.server.is_full() {
                break;
            }
        }
        input.advance(at);
        self.client.inbound = input;
        Ok(())
    }

    fn pass_body(&mut self, body: Body, rest: &[u8]) -> usize {
        let (now, _) = rest.split_at(body.left.min(rest.len()));
        if body.passes {
            self.server.outbound.extend_from_slice(now);
        }
        let left = body.left - now.len();
        self.input.body = (left > 0).then_some(Body { left, ..body });
        if self.input.body.is_none() && self.phase != Phase::Serving && !self.input.copying_in {
            self.flush();
        }
        now.len()
    }

    /// Nothing more is taken from the client until the server has answered all that it owes, or the message can go on.
    fn wait(&mut self) {
        self.input.waiting = true;
        if !self.is_understanding() {
            // That may take long, and what was understood is then to be understood anew.
            self.waits.understanding = None;
        }
        if !self.owed.is_empty() && !self.is_understanding() {
            self.flush();
        }
    }

    async fn client_message(&mut self, header: Header, rest: &[u8]) -> Result<Taken, ServeError> {
        let size = header.size();
        if header.tag == tag::TERMINATE {
            self.ended = true;
            return Ok(Taken::Whole(size.min(rest.len())));
        }
        if self.input.skipping && header.tag != tag::SYNC {
            return Ok(self.stream(size, false));
        }
        if self.input.copying_in {
            return self.copy_message(header, rest);
        }
        // What others wait for comes to its end before anything is added to it.
        let is_awaited = self.reader.is_wanted() && !self.owed.are_read();
        if self.owed.is_much() || self.owed.copies_in() || is_awaited {
            return Ok(Taken::Wait);
        }
        match header.tag {
            // Left over from a copy that failed; a server drops it, too.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => return Ok(self.stream(size, false)),
            tag::BIND => return self.bind(header, rest).await,
            tag::QUERY | tag::PARSE | tag::FUNCTION_CALL
                if header.length > self.database.longest_statement() =>
            {
                return Ok(self.too_long(header));
            }
            _ => {}
        }
        if header.length > frontend::largest_body(header.tag).map_err(client)? {
            return Err(too_long(header.tag));
        }
        let Some((body, message)) = rest.get(HEADER_BYTES..size).zip(rest.get(..size)) else {
            return Ok(Taken::More);
        };
        let taken = match header.tag {
            tag::QUERY => self.query(body, message).await?,
            tag::PARSE => self.parse(body, message).await?,
            tag::EXECUTE => self.execute(body, message).await?,
            tag::FUNCTION_CALL => self.function_call(body, message).await?,
            _ => {
                self.plain(header.tag, body, message)?;
                true
            }
        };
        Ok(if taken { Taken::Whole(size) } else { Taken::Wait })
    }

    /// The message's bytes go their way unseen as they come.
    pub(super) fn stream(&mut self, size: usize, passes: bool) -> Taken {
        self.input.body = Some(Body { left: size, passes });
        Taken::Streams
    }

    /// What a server that copies in takes. It swallows a Sync unless it has failed by then, which nobody can know
    /// here: none is sent, so that it stays clear which Sync the server answers.
    fn copy_message(&mut self, header: Header, rest: &[u8]) -> Result<Taken, ServeError> {
        let size = header.size();
        if header.tag == tag::COPY_DATA {
            return Ok(self.stream(size, true));
        }
        if header.length > frontend::largest_body(header.tag).map_err(client)? {
            return Err(too_long(header.tag));
        }
        let Some((body, message)) = rest.get(HEADER_BYTES..size).zip(rest.get(..size)) else {
            return Ok(Taken::More);
        };
        match header.tag {
            tag::SYNC | tag::FLUSH => frontend::empty(body).map_err(client)?,
            tag::COPY_DONE | tag::COPY_FAIL => {
                self.input.copying_in = false;
                self.server.outbound.extend_from_slice(message);
                if self.phase != Phase::Serving {
                    // The Sync that would fetch the server's answer is not taken any more.
                    write::flush(&mut self.server.outbound);
                }
            }
            other => {
                let what = format!("message {:?} in the middle of copying in", char::from(other));
                return Err(ServeError::Client(what));
            }
        }
        Ok(Taken::Whole(size))
    }

    /// Messages that do nothing by themselves.
    fn plain(&mut self, tag: u8, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        match tag {
            tag::SYNC => {
                frontend::empty(body).map_err(client)?;
                self.input.skipping = false;
                self.names.next_stretch();
                self.owed.push(Expect::Sync);
            }
            tag::FLUSH => {
                frontend::empty(body).map_err(client)?;
                self.owed.flushed();
            }
            tag::DESCRIBE => {
                let target = Target::parse(body).map_err(client)?;
                if let Err(refused) = refuse::long_name(target.name) {
                    self.refuse(&refused, false);
                    return Ok(());
                }
                self.owed.push(Expect::Describe);
            }
            tag::CLOSE => {
                let target = Target::parse(body).map_err(client)?;
                if let Err(refused) = refuse::long_name(target.name) {
                    self.refuse(&refused, false);
                    return Ok(());
                }
                let space = if target.kind == Kind::Statement { Space::Statements } else { Space::Portals };
                self.owed.push(Expect::Close(Name(space, target.name.as_bytes().into())));
            }
            _ => return Err(ServeError::Client(format!("message {:?} has no place here", char::from(tag)))),
        }
        self.server.outbound.extend_from_slice(message);
        Ok(())
    }
}

fn too_long(tag: u8) -> ServeError {
    ServeError::Client(format!("message {:?} is too long", char::from(tag)))
}

/// The client is to blame for what can't be read.
pub(super) fn client(error: WireError) -> ServeError {
    ServeError::Client(error.to_string())
}
