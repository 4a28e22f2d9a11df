//! What the server sends: matched with what it owes, and shown to the client as the masks say.

use std::{borrow::Cow, mem};

use bytes::Buf;
use tidegate_gate::ServeError;

use super::{
    Session, Shown,
    cut::WHOLE,
    ending::{ADMIN_SHUTDOWN, Phase},
    expect::{Expect, Run},
    refuse::QUERY_CANCELED,
    transcript,
};
use crate::{
    shown::{self, CannotShow},
    sql,
    wire::{
        self, ErrorFields, HEADER_BYTES, Header,
        backend::{self, TransactionStatus, tag},
        fields::code,
        write,
    },
};

/// What a server reports of whether it is a standby (from 14 on).
pub(crate) const STANDBY: &str = "in_hot_standby";

impl Session {
    /// Takes in what was read from the server; whole spans that nothing changes are passed on in one piece.
    pub(super) fn take_from_server(&mut self) -> Result<(), ServeError> {
        let mut input = mem::take(&mut self.server.inbound);
        let (mut at, mut clean) = (0, 0);
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.output.passing > 0 {
                let passed = self.output.passing.min(rest.len());
                self.output.passing -= passed;
                at += passed;
                continue;
            }
            if self.output.dropping > 0 {
                self.client.outbound.extend_from_slice(input.get(clean..at).unwrap_or_default());
                let dropped = self.output.dropping.min(rest.len());
                self.output.dropping -= dropped;
                at += dropped;
                clean = at;
                continue;
            }
            let Some(header) = wire::header(rest).map_err(upstream)? else { break };
            if self.passes(&header) {
                self.output.passing = header.size();
                continue;
            }
            if header.size() > WHOLE {
                self.cut(&header)?;
                continue;
            }
            let Some((body, message)) = rest.get(HEADER_BYTES..header.size()).zip(rest.get(..header.size()))
            else {
                break;
            };
            self.client.outbound.extend_from_slice(input.get(clean..at).unwrap_or_default());
            self.server_message(header.tag, body, message)?;
            at += header.size();
            clean = at;
        }
        self.client.outbound.extend_from_slice(input.get(clean..at).unwrap_or_default());
        input.advance(at);
        self.server.inbound = input;
        Ok(())
    }

    /// Whether a message goes to the client as it is and unseen: rows and copy data that no mask applies to.
    fn passes(&mut self, header: &Header) -> bool {
        if !matches!(header.tag, tag::DATA_ROW | tag::COPY_DATA) {
            return false;
        }
        let Some(run) = self.running() else { return false };
        if !run.results.pass_unseen() {
            return false;
        }
        match header.tag {
            tag::DATA_ROW => run.showed(header.length),
            _ => run.copied(header.length),
        }
        true
    }

    fn server_message(&mut self, kind: u8, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        match kind {
            tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE if self.is_cut() => return Ok(()),
            tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED if self.is_cut() => return Err(self.outrun()),
            tag::DATA_ROW => return self.row(body, message),
            tag::COPY_DATA => return self.copy_data(body, message),
            tag::ROW_DESCRIPTION => return self.row_description(body, message),
            tag::COMMAND_COMPLETE => self.complete(body)?,
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => self.statement_over()?,
            tag::READY_FOR_QUERY => self.ready(body)?,
            tag::ERROR_RESPONSE => return self.error(body),
            tag::NOTICE_RESPONSE => return self.notice(body),
            tag::NOTIFICATION_RESPONSE => return self.notification(body),
            tag::PARAMETER_STATUS => self.parameter(body)?,
            tag::PARSE_COMPLETE | tag::BIND_COMPLETE | tag::CLOSE_COMPLETE => self.acknowledged(kind)?,
            tag::NO_DATA => return self.no_data(message),
            tag::PARAMETER_DESCRIPTION => return self.parameter_description(body, message),
            tag::FUNCTION_CALL_RESPONSE if matches!(self.owed.front(), Some(Expect::FunctionCall(_))) => {}
            tag::COPY_IN_RESPONSE => self.copies_in()?,
            tag::COPY_OUT_RESPONSE => self.copies_out(body)?,
            tag::COPY_DONE => self.copied_out()?,
            _ => return Err(unexpected(kind)),
        }
        self.client.outbound.extend_from_slice(message);
        Ok(())
    }

    /// The action whose rows the server sends now.
    pub(super) fn running(&mut self) -> Option<&mut Run> {
        match self.owed.front() {
            Some(Expect::Query(run) | Expect::Execute(run) | Expect::FunctionCall(run)) => Some(run),
            _ => None,
        }
    }

    fn row(&mut self, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        let mut out = Vec::with_capacity(message.len() + 64);
        let run = self.running().ok_or_else(|| unexpected(tag::DATA_ROW))?;
        run.results.row(message, body, &mut out).map_err(cannot_show)?;
        run.showed(out.len());
        if run.results.are_recorded()
            && let Some(permit) = run.permit()
        {
            permit.tap(&transcript::row(&out));
        }
        self.client.outbound.extend_from_slice(&out);
        Ok(())
    }

    fn copy_data(&mut self, body: &[u8], message: &[u8]) -> Result<(), ServeError> {
        let mut out = Vec::with_capacity(message.len() + 64);
        let run = self.running().ok_or_else(|| unexpected(tag::COPY_DATA))?;
        run.results.copy(message, body, &mut out).map_err(cannot_show)?;
        run.copied(out.len());
        if run.results.are_recorded()
            && let Some(permit) = run.permit()
        {
            permit.tap(&transcript::copied(&out));
        }
        self.client.outbound.extend_from_slice(&out);
        Ok(())
    }

    fn acknowledged(&mut self, kind: u8) -> Result<(), ServeError> {
        match (kind, self.owed.pop()) {
            (tag::PARSE_COMPLETE, Some(Expect::Parse(name)))
            | (tag::BIND_COMPLETE, Some(Expect::Bind { name, .. })) => self.names.settle(&name, true),
            (tag::CLOSE_COMPLETE, Some(Expect::Close(name))) => self.names.take(&name),
            _ => return Err(unexpected(kind)),
        }
        Ok(())
    }

    fn complete(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let complete = backend::CommandComplete::parse(body).map_err(upstream)?;
        if let (Some(run), Some(rows)) = (self.running(), complete.rows()) {
            run.counted(rows);
        }
        if complete.tag.as_bytes() == b"ROLLBACK" {
            self.changes.undone();
        }
        self.statement_over()
    }

    /// A statement has come to its end: of a simple query there may be more, of an Execute there is none.
    fn statement_over(&mut self) -> Result<(), ServeError> {
        match self.owed.front() {
            Some(Expect::Query(run)) => {
                run.completed();
                run.results.next_statement();
            }
            Some(Expect::Execute(_)) => {
                self.transaction.executed = true;
                if let Some(Expect::Execute(run)) = self.owed.pop() {
                    self.settle(run, true);
                }
            }
            _ => return Err(unexpected(tag::COMMAND_COMPLETE)),
        }
        Ok(())
    }

    fn ready(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let status = TransactionStatus::parse(body).map_err(upstream)?;
        match self.owed.pop() {
            // A query that was not answered is not over: this belongs to something else, and so would all that follows.
            Some(Expect::Query(run)) if !run.is_answered() => return Err(unexpected(tag::READY_FOR_QUERY)),
            Some(Expect::Query(run) | Expect::FunctionCall(run)) => self.settle(run, true),
            Some(Expect::Sync) => {}
            _ => return Err(unexpected(tag::READY_FOR_QUERY)),
        }
        self.input.copying_in = false;
        self.transaction_status(status);
        Ok(())
    }

    /// Records how an action ended, and makes the names that it gave sure.
    pub(super) fn settle(&mut self, run: Run, sent: bool) {
        for name in &run.names {
            self.names.settle(name, sent && !run.has_failed());
            // PREPARE outlives the failure of what came with it: nobody knows how far the text got.
            if sent && run.has_failed() && run.results.are_several() {
                self.names.take(name);
            }
        }
        if run.redefines {
            self.database.definitions().changed();
            self.transaction.redefined = true;
        }
        if let Some(verdict) = run.results.verdict() {
            self.transaction.withhold_errors |= verdict.withhold_errors;
            self.transaction.content = verdict.content.clone().or(self.transaction.content.take());
            self.withheld = verdict.withhold_errors;
        }
        run.settle();
    }

    fn error(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let fields = ErrorFields::parse(body).map_err(upstream)?;
        let code = String::from_utf8_lossy(fields.get(code::SQLSTATE).unwrap_or(b"XX000")).into_owned();
        let fatal = matches!(fields.get(code::SEVERITY_PLAIN), Some(b"FATAL" | b"PANIC"));
        if !fatal && let Some(Expect::Refused { .. }) = self.owed.front() {
            self.changes.undone();
            return self.refused();
        }
        if !fatal && self.owed.is_empty() {
            return Err(unexpected(tag::ERROR_RESPONSE));
        }
        self.changes.undone();
        self.told = fatal;
        self.input.copying_in = false;
        let cut = self.running().and_then(|run| run.cut.take()).filter(|_| !fatal);
        let code = cut.as_ref().map_or(code, |cut| cut.code.to_owned());
        if let Some(run) = self.running() {
            run.failed(&code);
        }
        if self.phase == Phase::BrokenOff && code == QUERY_CANCELED {
            return Err(self.broken_off());
        }
        match cut {
            Some(cut) => {
                let error = cut.error_response(self.gate.session());
                self.client.outbound.extend_from_slice(&error);
            }
            None => {
                let fields = self.shown(fields);
                write::error_response(&mut self.client.outbound, &fields);
            }
        }
        if !fatal
            && !matches!(self.owed.front(), Some(Expect::Query(_) | Expect::FunctionCall(_) | Expect::Sync))
        {
            self.skip_to_sync(&code);
        }
        Ok(())
    }

    /// The server has cancelled what ran: the client is told why.
    fn broken_off(&mut self) -> ServeError {
        if let Some(Expect::Query(run) | Expect::Execute(run) | Expect::FunctionCall(run)) = self.owed.pop() {
            self.settle(run, true);
        }
        ServeError::Policy(ADMIN_SHUTDOWN.into())
    }

    /// The server has answered the message that stands for a refused one.
    fn refused(&mut self) -> Result<(), ServeError> {
        let Some(Expect::Refused { error, ready }) = self.owed.pop() else {
            return Err(unexpected(tag::ERROR_RESPONSE));
        };
        self.client.outbound.extend_from_slice(&error);
        if ready {
            self.owed.push_front(Expect::Sync);
        } else {
            self.skip_to_sync("42501");
        }
        Ok(())
    }

    /// After an error in the extended flow the server answers nothing up to the next Sync, which may be yet to come.
    fn skip_to_sync(&mut self, code: &str) {
        self.input.skipping |= !self.owed.has_sync();
        for skipped in self.owed.skip_to_sync() {
            match skipped {
                Expect::Query(mut run) | Expect::Execute(mut run) | Expect::FunctionCall(mut run) => {
                    if !run.has_failed() {
                        run.failed(code);
                    }
                    self.settle(run, false);
                }
                Expect::Parse(name) | Expect::Bind { name, .. } => self.names.settle(&name, false),
                Expect::Describe
                | Expect::OwnDescribe(_)
                | Expect::OwnParameters(_)
                | Expect::Close(_)
                | Expect::Sync
                | Expect::Refused { .. } => {}
            }
        }
    }

    fn notice(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let fields = ErrorFields::parse(body).map_err(upstream)?;
        let fields = self.shown(fields);
        write::notice_response(&mut self.client.outbound, &fields);
        Ok(())
    }

    /// Anybody's trigger may have put a row into a notification, whatever this session did last: where columns are masked,
    /// its payload is withheld; that there was one, and on which channel, is shown.
    fn notification(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let notification = backend::Notification::parse(body).map_err(upstream)?;
        let masks = self.gate.standing_masks();
        let payload = notification.payload.as_bytes();
        let scan = |text| match &masks.content {
            Some(mask) => self.gate.masker().scan(mask, text),
            None => Cow::Borrowed(text),
        };
        let payload = match masks.columns && !payload.is_empty() {
            true => Cow::Borrowed(&b"***"[..]),
            false => scan(payload),
        };
        let (process_id, channel) = (notification.process_id, scan(notification.channel.as_bytes()));
        write::notification_response(&mut self.client.outbound, process_id, &channel, &payload);
        Ok(())
    }

    /// Errors and notices are shown under the masks of the action that they belong to.
    fn shown<'a>(&mut self, fields: ErrorFields<'a>) -> ErrorFields<'a> {
        let running = self.running().and_then(|run| run.results.verdict().map(|verdict| Shown::by(verdict)));
        let Shown { content, withhold_errors, masks_columns } =
            running.unwrap_or_else(|| self.shown_beside());
        let content = content.or_else(|| self.transaction.content.clone());
        let withhold =
            self.transaction.withhold_errors || withhold_errors || self.quotes_masked_rows(&fields);
        shown::error_fields(fields, content.as_deref(), withhold, masks_columns, self.gate.masker())
    }

    /// Errors of constraints quote rows. The table need not be one that the statement names: rules of the database (CREATE
    /// RULE) write others. Those of views (WITH CHECK OPTION) name none.
    fn quotes_masked_rows(&self, fields: &ErrorFields<'_>) -> bool {
        let is_of = |class: &[u8]| fields.get(code::SQLSTATE).is_some_and(|state| state.starts_with(class));
        match (fields.get(code::SCHEMA), fields.get(code::TABLE)) {
            (Some(schema), Some(table)) if is_of(b"23") => {
                let name = |name| String::from_utf8_lossy(name).into_owned();
                self.gate.masks_table(&format!("{}.{}", name(schema), name(table)))
            }
            _ => (is_of(b"23") || is_of(b"44")) && self.gate.standing_masks().columns,
        }
    }

    /// What belongs to no action that runs may be worded by anything: a function runs while a statement is planned, or a
    /// parameter read. Every mask counts.
    fn shown_beside(&self) -> Shown {
        let masks = self.gate.standing_masks();
        Shown { content: masks.content, withhold_errors: self.withheld, masks_columns: masks.columns }
    }

    /// Statements are read by PostgreSQL's rules of today: a setting that changes them ends the session.
    fn parameter(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let status = backend::ParameterStatus::parse(body).map_err(upstream)?;
        let (name, value) =
            (status.name.to_str().map_err(upstream)?, status.value.to_str().map_err(upstream)?);
        if name == STANDBY {
            self.standby = value == "on";
            // What was read from it as a standby counts no more, nor the other way round.
            self.database.definitions().changed();
        }
        sql::setting_is_safe(name, value)
            .map_err(|why| ServeError::Upstream(format!("the server now has {name} = {value}: {why}")))
    }

    fn copies_in(&mut self) -> Result<(), ServeError> {
        let run = self.running().filter(|run| run.results.copies_in());
        run.ok_or_else(|| unexpected(tag::COPY_IN_RESPONSE))?.described();
        self.input.copying_in = true;
        Ok(())
    }

    fn copies_out(&mut self, body: &[u8]) -> Result<(), ServeError> {
        let columns = backend::CopyResponse::parse(body).map_err(upstream)?.columns.len();
        let run = self.running().ok_or_else(|| unexpected(tag::COPY_OUT_RESPONSE))?;
        run.described();
        if run.results.is_plain() {
            return Ok(());
        }
        run.results.begin_copy(columns).map_err(cannot_show)
    }

    fn copied_out(&mut self) -> Result<(), ServeError> {
        let mut out = Vec::new();
        let run = self.running().ok_or_else(|| unexpected(tag::COPY_DONE))?;
        run.results.end_copy(&mut out).map_err(cannot_show)?;
        run.copied(out.len());
        self.client.outbound.extend_from_slice(&out);
        Ok(())
    }
}

pub(super) fn upstream(error: wire::WireError) -> ServeError {
    ServeError::Upstream(error.to_string())
}

pub(super) fn unexpected(kind: u8) -> ServeError {
    ServeError::Upstream(format!("message {:?} answers nothing that was asked", char::from(kind)))
}

fn cannot_show(cannot: CannotShow) -> ServeError {
    ServeError::Upstream(format!("a result cannot be masked: {cannot}"))
}
