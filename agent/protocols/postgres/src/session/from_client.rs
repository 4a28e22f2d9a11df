//! Statements that the client sends: understood, asked for, and passed to the server byte for byte, or refused.

use std::sync::Arc;

use tidegate_gate::{Decision, ServeError, policy::Effect};

use super::{
    Session, asking,
    expect::Expect,
    holding::Stop,
    intake::{Taken, client},
    names::{Known, Name, Parameters, Prepared, Space},
    refuse::{self, Refused},
};
use crate::{
    database::Function,
    sql,
    wire::{
        HEADER_BYTES, Header,
        frontend::{self, BindNames, Execute, FunctionCall, Kind, Parse, tag},
        write,
    },
};

/// The names at the start of a Bind are looked for in this many bytes.
const BIND_NAMES: usize = 64 * 1024;

impl Session {
    /// A simple query. False: it has to wait.
    pub(super) async fn query(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
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

    pub(super) async fn parse(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
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
        prepared.types = parse.parameter_types.iter().collect();
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
    pub(super) async fn bind(&mut self, header: Header, rest: &[u8]) -> Result<Taken, ServeError> {
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
            return Ok(self.refuse_unread(&refused, size));
        }
        let prepared = match self.names.known(Space::Statements, names.statement.as_bytes()) {
            Known::As(prepared) => prepared,
            Known::Unsure => return Ok(Taken::Wait),
            Known::Nothing => {
                return Ok(self.refuse_unread(&refuse::no_statement(names.statement), size));
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
            Err(Stop::Refused(refused)) => return Ok(self.refuse_unread(&refused, size)),
        };
        if let Some(doubted) = self.doubted(&prepared)
            && let Err(stop) = self.clear_up(&prepared, &doubted)
        {
            return Ok(match stop {
                Stop::Waits => Taken::Wait,
                Stop::Refused(refused) => self.refuse_unread(&refused, size),
            });
        }
        if let Err(stop) = self.settle_definitions(&prepared) {
            return Ok(match stop {
                Stop::Waits => Taken::Wait,
                Stop::Refused(refused) => self.refuse_unread(&refused, size),
            });
        }
        let parameters = match self.parameters(statement, &prepared, header, rest) {
            Ok(Some(parameters)) => parameters,
            Ok(None) => return Ok(Taken::More),
            Err(Stop::Waits) => return Ok(Taken::Wait),
            Err(Stop::Refused(refused)) => return Ok(self.refuse_unread(&refused, size)),
        };
        let bound_by = match parameters {
            Parameters::Seen(_) => self.marks(&prepared).await,
            Parameters::Unseen | Parameters::None => Ok(None),
        };
        let bound_by = match bound_by {
            Ok(marks) => marks,
            Err(refused) => return Ok(self.refuse_unread(&refused, size)),
        };
        let bound = Some(self.changes.moment());
        let depends = asking::names_definitions(&prepared);
        let is_covered = depends && !self.reader.is_in_doubt();
        let masks = self.may_mask_columns(&prepared);
        let unread = is_covered && (masks || bound_by.is_some());
        let in_doubt = depends && !(is_covered && masks);
        let ran = Arc::default();
        let prepared = Prepared { parameters, bound, bound_by, in_doubt, ran, ..Prepared::clone(&prepared) };
        if prepared.statements.opens_cursors {
            // What is declared immutable runs as it is planned.
            self.names.may_reopen();
        }
        let name = Name(Space::Portals, names.portal.as_bytes().into());
        match self.give_name(&name, prepared) {
            Ok(()) => {}
            Err(Stop::Waits) => return Ok(Taken::Wait),
            Err(Stop::Refused(refused)) => return Ok(self.refuse_unread(&refused, size)),
        }
        // Its values may be long in coming, and others may wait for what was sent before.
        if rest.len() < size && self.owed.is_unflushed() && !self.owed.are_read() {
            self.flush();
        }
        self.owed.push(Expect::Bind { name, unread });
        Ok(self.stream(size, true))
    }

    pub(super) async fn execute(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
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
        let stays = !self.names.may_be_another(portal.as_bytes());
        let prepared = self.as_it_may_be(portal.as_bytes(), prepared);
        match self.permit(&prepared).await {
            Ok(run) => {
                if stays {
                    self.names.stays(portal.as_bytes());
                }
                if run.results.must_be_described() {
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

    pub(super) async fn function_call(&mut self, body: &[u8], message: &[u8]) -> Result<bool, ServeError> {
        let call = FunctionCall::parse(body).map_err(client)?;
        self.begin_unread();
        let called = match self.called(call.function).await {
            Ok(called) => called,
            Err(refused) => {
                self.refuse(&refused, true);
                return Ok(true);
            }
        };
        let parameters = Parameters::seen(call.argument_formats, call.arguments, &called);
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

    /// A call of a function by its oid. Whoever is to be asked about it is told which function that is, and what it takes.
    async fn called(&self, oid: u32) -> Result<Prepared, Refused> {
        let text = format!("function call, oid {oid}");
        let called =
            |text: String| Prepared::new(sql::function_call(), text.into(), 0, self.changes.moment());
        let by_oid = called(text.clone());
        let verdict = self.gate.foresee(&by_oid.shape);
        if !verdict.is_ok_and(|verdict| verdict.effect == Effect::Hold) || self.is_answered() {
            return Ok(by_oid);
        }
        let refused = match self.database.function(oid, &self.gate).await {
            Ok(Some(Function { name, types })) => {
                return Ok(Prepared { types, ..called(format!("{text}: {name}")) });
            }
            // undefined_function
            Ok(None) => {
                Refused::new("42883", format!("this needs an approval, and no function has the oid {oid}"))
            }
            Err(error) => error.into(),
        };
        self.gate.refuse("statement", &text, &refused.message);
        Err(refused)
    }

    /// A statement longer than is looked at is refused without being held.
    pub(super) fn too_long(&mut self, header: Header) -> Taken {
        let refused = refuse::too_long(header.length, self.database.longest_statement());
        self.gate.refuse("statement", "", &refused.message);
        self.refuse(&refused, header.tag != tag::PARSE);
        self.stream(header.size(), false)
    }

    /// Refuses a message of the extended flow of which nobody takes the rest.
    fn refuse_unread(&mut self, refused: &Refused, size: usize) -> Taken {
        self.refuse(refused, false);
        self.stream(size, false)
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
