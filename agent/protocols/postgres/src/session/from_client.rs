//! What the client sends: understood, asked for, and passed to the server byte for byte, or refused.

use std::{mem, sync::Arc};

use bytes::Buf;
use tidegate_gate::{Decision, ServeError};

use super::{
    Session, Waits, asking,
    ending::Phase,
    expect::Expect,
    holding::Stop,
    names::{Known, Name, Parameters, Prepared, Space},
    refuse::{self, Refused},
};
use crate::sql;
use crate::wire::{
    self, HEADER_BYTES, Header, WireError,
    frontend::{self, BindNames, Execute, FunctionCall, Kind, Parse, Target, tag},
    write,
};

/// The names at the start of a Bind are looked for in this many bytes.
const BIND_NAMES: usize = 64 * 1024;

/// What became of the client's next message.
enum Taken {
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
    fn stream(&mut self, size: usize, passes: bool) -> Taken {
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

    /// A simple query. False: it has to wait.
    async fn query(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
        if self.owed.redefines() {
            return Ok(false);
        }
        let text = frontend::query(body).map_err(client)?;
        self.begin_unread();
        let understood = match self.understand(text.as_bytes()).await {
            Ok(understood) => understood,
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => {
                self.refuse(&refused, true);
                return Ok(true);
            }
        };
        match self.permit(&understood).await {
            Ok(run) => {
                self.server.outbound.extend_from_slice(message);
                self.owed.push(Expect::Query(run));
            }
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => self.refuse(&refused, true),
        }
        self.names.next_stretch();
        Ok(true)
    }

    async fn parse(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
        if self.owed.redefines() {
            return Ok(false);
        }
        let parse = Parse::parse(body).map_err(client)?;
        if let Err(refused) = refuse::long_name(parse.name) {
            self.refuse(&refused, false);
            return Ok(true);
        }
        let name = Name(Space::Statements, parse.name.as_bytes().into());
        if !self.owed.is_empty() && !self.names.has_room(&name) {
            return Ok(false);
        }
        self.begin_unread();
        let mut prepared = match self.understand(parse.query.as_bytes()).await {
            Ok(prepared) => prepared,
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => {
                self.refuse(&refused, false);
                return Ok(true);
            }
        };
        let foreseen = match prepared.statements.list.is_empty() {
            true => Ok(None),
            false => self.gate.foresee(&prepared.shape).map(Some).map_err(Refused::from),
        };
        if let Ok(Some(verdict)) = &foreseen {
            prepared.preparation = Some(Arc::new(self.preparation(&prepared, verdict)));
        }
        match foreseen {
            Err(refused) => {
                // Asked, so that the record shows what was refused, as it does for a simple query.
                let refused = match self.ask(&prepared).await {
                    Decision::Refuse(recorded) => recorded.into(),
                    Decision::Permit(_) | Decision::Hold(_) => refused,
                };
                self.refuse(&refused, false);
            }
            Ok(_) => match self.give_name(&name, prepared) {
                Ok(()) => {
                    self.server.outbound.extend_from_slice(message);
                    self.owed.push(Expect::Parse(name));
                }
                Err(Stop::Waits) => return Ok(false),
                Err(Stop::Refused(refused)) => self.refuse(&refused, false),
            },
        }
        Ok(true)
    }

    /// Only the names matter here; the values may be of any size and are not held, unless somebody has to be asked
    /// about them.
    async fn bind(&mut self, header: Header, rest: &[u8]) -> Result<Taken, ServeError> {
        let size = header.size();
        let prefix = rest.get(HEADER_BYTES..size.min(rest.len())).unwrap_or_default();
        let Some(names) = BindNames::parse(prefix) else {
            if rest.len() < size && rest.len() < BIND_NAMES {
                return Ok(Taken::More);
            }
            return Err(ServeError::Client("a Bind without its names".into()));
        };
        if let Err(refused) =
            refuse::long_name(names.portal).and_then(|()| refuse::long_name(names.statement))
        {
            self.refuse(&refused, false);
            return Ok(self.stream(size, false));
        }
        let prepared = match self.names.known(Space::Statements, names.statement.as_bytes()) {
            Known::As(prepared) => prepared,
            Known::Unsure => return Ok(Taken::Wait),
            Known::Nothing => {
                self.refuse(&refuse::no_statement(names.statement), false);
                return Ok(self.stream(size, false));
            }
        };
        let statement = Name(Space::Statements, names.statement.as_bytes().into());
        if self.owed.redefines() {
            return Ok(Taken::Wait);
        }
        self.begin_unread();
        let prepared = match self.fresh(&statement, prepared).await {
            Ok(prepared) => prepared,
            Err(Stop::Waits) => return Ok(Taken::Wait),
            Err(Stop::Refused(refused)) => {
                self.refuse(&refused, false);
                return Ok(self.stream(size, false));
            }
        };
        if let Some(doubted) = self.doubted(&prepared)
            && let Err(stop) = self.clear_up(&prepared, &doubted)
        {
            return Ok(match stop {
                Stop::Waits => Taken::Wait,
                Stop::Refused(refused) => {
                    self.refuse(&refused, false);
                    self.stream(size, false)
                }
            });
        }
        let parameters = match self.parameters(&prepared, header, rest) {
            Ok(Some(parameters)) => parameters,
            Ok(None) => return Ok(Taken::More),
            Err(refused) => {
                self.refuse(&refused, false);
                return Ok(self.stream(size, false));
            }
        };
        let bound = Some(self.changes.moment());
        let depends = asking::names_definitions(&prepared);
        let unread = depends && !self.reader.is_in_doubt() && self.may_mask_columns(&prepared);
        let in_doubt = depends && !unread;
        let prepared = Prepared { parameters, bound, in_doubt, ..Prepared::clone(&prepared) };
        let name = Name(Space::Portals, names.portal.as_bytes().into());
        match self.give_name(&name, prepared) {
            Ok(()) => {}
            Err(Stop::Waits) => return Ok(Taken::Wait),
            Err(Stop::Refused(refused)) => {
                self.refuse(&refused, false);
                return Ok(self.stream(size, false));
            }
        }
        // Its values may be long in coming, and others may wait for what was sent before.
        if rest.len() < size && self.owed.is_unflushed() && !self.owed.are_read() {
            self.flush();
        }
        self.owed.push(Expect::Bind { name, unread });
        Ok(self.stream(size, true))
    }

    async fn execute(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
        if self.owed.redefines() {
            return Ok(false);
        }
        let portal = Execute::parse(body).map_err(client)?.portal;
        if let Err(refused) = refuse::long_name(portal) {
            self.refuse(&refused, false);
            return Ok(true);
        }
        let prepared = match self.names.known(Space::Portals, portal.as_bytes()) {
            Known::As(prepared) => prepared,
            Known::Unsure => return Ok(false),
            Known::Nothing => {
                self.refuse(&refuse::no_portal(portal), false);
                return Ok(true);
            }
        };
        if let Some(preparation) = &prepared.preparation {
            preparation.asked();
        }
        self.begin_unread();
        let prepared = match self.as_it_runs(prepared).await {
            Ok(prepared) => prepared,
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => {
                self.refuse(&refused, false);
                return Ok(true);
            }
        };
        match self.permit(&prepared).await {
            Ok(run) => {
                if !run.results.is_plain() {
                    write::describe(&mut self.server.outbound, Kind::Portal, portal.as_bytes());
                    self.owed.push(Expect::OwnDescribe(run.results.clone()));
                }
                self.server.outbound.extend_from_slice(message);
                self.owed.push(Expect::Execute(run));
            }
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => self.refuse(&refused, false),
        }
        Ok(true)
    }

    async fn function_call(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
        let call = FunctionCall::parse(body).map_err(client)?;
        self.begin_unread();
        let text = format!("function call, oid {}", call.function).into();
        let called = Prepared::new(sql::function_call(), text, 0, self.changes.moment());
        let parameters = Parameters::seen(call.argument_formats, call.arguments);
        let prepared = Prepared { parameters, ..called };
        match self.permit(&prepared).await {
            Ok(mut run) if run.results.may_be_masked() => {
                run.failed("42501");
                self.settle(run, false);
                let why = "the result of a function call by its oid can be neither masked nor recorded";
                self.refuse(&Refused::new("42501", why), true);
            }
            Ok(run) => {
                self.server.outbound.extend_from_slice(message);
                self.owed.push(Expect::FunctionCall(run));
            }
            Err(Stop::Waits) => return Ok(false),
            Err(Stop::Refused(refused)) => self.refuse(&refused, true),
        }
        self.names.next_stretch();
        Ok(true)
    }

    /// A statement longer than is looked at is refused without being held.
    fn too_long(&mut self, header: Header) -> Taken {
        let refused = refuse::too_long(header.length, self.database.longest_statement());
        self.gate.refuse("statement", "", &refused.message);
        self.refuse(&refused, header.tag != tag::PARSE);
        self.stream(header.size(), false)
    }

    /// Puts a message of the gate's own in the refused one's place: the server fails it, and so treats the
    /// transaction and the pipeline as after any error; the client gets the refusal in the error's place.
    pub(super) fn refuse(&mut self, refused: &Refused, ready: bool) {
        if ready {
            write::query(&mut self.server.outbound, refuse::STANDIN);
            self.names.next_stretch();
        } else {
            write::parse(&mut self.server.outbound, refuse::STANDIN_NAME, refuse::STANDIN, &[]);
            self.input.skipping = true;
        }
        self.owed.push(Expect::Refused { error: refused.error_response(self.gate.session()), ready });
    }
}

fn too_long(tag: u8) -> ServeError {
    ServeError::Client(format!("message {:?} is too long", char::from(tag)))
}

fn client(error: WireError) -> ServeError {
    ServeError::Client(error.to_string())
}
