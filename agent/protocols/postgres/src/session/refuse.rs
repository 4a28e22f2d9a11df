//! How refusals are worded for PostgreSQL's clients.

use std::{borrow::Cow, sync::Arc};

use tidegate_gate::{Cause, Refusal, ServeError};

use crate::{
    database::Misunderstood,
    sql::Fault,
    wire::{ErrorFields, Text, fields::code, write},
};

/// What the server gets in place of a refused statement: no statement at all, so that it answers with an error.
/// It shows up in the server's log.
pub(super) const STANDIN: &[u8] = b"refused_by_tidegate";

/// The name under which a stand-in is parsed. It never comes to be, and spares the unnamed statement.
pub(super) const STANDIN_NAME: &[u8] = b"refused_by_tidegate";

/// A refusal in PostgreSQL's terms.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// SQLSTATE.
    pub(super) code: &'static str,
    /// The primary message.
    pub(super) message: Arc<str>,
    /// How to get access.
    pub(super) hint: Option<Arc<str>>,
    /// Where in the statement, in characters from 1.
    pub(super) position: Option<usize>,
}

impl Refused {
    pub(super) fn new(code: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: message.into(), hint: None, position: None }
    }

    /// The ErrorResponse that takes the place of the server's.
    pub(super) fn error_response(&self, session: &str) -> Box<[u8]> {
        let mut fields = ErrorFields::new("ERROR", self.code, &self.message);
        if self.code == "42501" {
            fields = fields.with(code::DETAIL, format!("Tidegate session {session}."));
        }
        if let Some(hint) = &self.hint {
            fields = fields.with(code::HINT, Cow::Borrowed(&**hint));
        }
        if let Some(position) = self.position {
            fields = fields.with(code::POSITION, position.to_string());
        }
        let mut message = Vec::with_capacity(256);
        write::error_response(&mut message, &fields);
        message.into_boxed_slice()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = sqlstate(refusal.cause);
        Self { code, message: refusal.message, hint: refusal.hint, position: None }
    }
}

impl From<Misunderstood> for Refused {
    fn from(not: Misunderstood) -> Self {
        let code = match &not {
            Misunderstood::Text(text) => match text.fault {
                // syntax_error
                Fault::Syntax => "42601",
                // too_many_columns
                Fault::TooManyOutputs => "54011",
                // insufficient_privilege
                Fault::Bounds | Fault::Tangled => "42501",
            },
            // io_error
            Misunderstood::Catalog(_) => "58030",
            // insufficient_resources
            Misunderstood::TimeLimit => "53000",
        };
        Self::new(code, not.to_string())
    }
}

/// The SQLSTATE of a refusal in the middle of a session.
pub(crate) fn sqlstate(cause: Cause) -> &'static str {
    match cause {
        // insufficient_privilege
        Cause::Policy => "42501",
        // io_error
        Cause::Record => "58030",
        // sqlserver_rejected_establishment_of_sqlconnection
        Cause::Credential => "08004",
        // sqlclient_unable_to_establish_sqlconnection
        Cause::Upstream => "08001",
        // system_error
        Cause::Approvals => "58000",
        // configuration_limit_exceeded
        Cause::Rate(_) | Cause::TooMany => "53400",
        // admin_shutdown
        Cause::Shutdown => "57P01",
    }
}

/// What a client may know of why its session ends early, as SQLSTATE and text.
pub(crate) fn last_words(error: &ServeError) -> (&'static str, Cow<'_, str>) {
    match error {
        // protocol_violation
        ServeError::Client(what) => ("08P01", format!("protocol violation: {what}").into()),
        // connection_failure
        ServeError::Upstream(_) => ("08006", "the gate lost the server, or does not understand it".into()),
        // admin_shutdown
        ServeError::Policy(what) => ("57P01", what.into()),
        // internal_error
        ServeError::Gate(_) => ("XX000", "a fault of the gate ended this session".into()),
    }
}

/// Ends a session: appends a FATAL ErrorResponse.
pub(super) fn fatal(out: &mut Vec<u8>, code: &str, message: &str, hint: Option<&str>) {
    let mut fields = ErrorFields::new("FATAL", code, message);
    if let Some(hint) = hint {
        fields = fields.with(code::HINT, hint);
    }
    write::error_response(out, &fields);
}

pub(super) fn too_long(length: usize, longest: usize) -> Refused {
    Refused::new(
        "54000",
        format!("a statement of {length} bytes is longer than the gate looks at ({longest})"),
    )
}

/// Refuses a name that a server would cut (`NAMEDATALEN` - 1 = 63 bytes): two that the gate tells apart would be one.
pub(super) fn long_name(name: Text<'_>) -> Result<(), Refused> {
    const LONGEST: usize = 63;
    match name.as_bytes().len() {
        // name_too_long
        length if length > LONGEST => {
            Err(Refused::new("42622", format!("a name of {length} bytes is longer than {LONGEST}")))
        }
        _ => Ok(()),
    }
}

/// Of which nobody can say which are masked.
pub(super) fn other_columns(why: &str) -> Refused {
    let hint = "Run it again: definitions are read anew.";
    // feature_not_supported, as where the server's own plan is out of date.
    Refused {
        hint: Some(hint.into()),
        ..Refused::new("0A000", format!("a table changed around the gate: {why}"))
    }
}

/// Two such names may be one to the server.
pub(super) fn letters_beyond_ascii() -> Refused {
    let why = "the database's encoding isn't UTF8: the name of a statement or cursor has no letters beyond ASCII there";
    Refused::new("0A000", why)
}

pub(super) fn too_many_names() -> Refused {
    Refused::new("54000", "too many prepared statements or portals in one session")
}

pub(super) fn definitions_in_use() -> Refused {
    let why = "other sessions' statements were allowed by the definitions as they are, and the server has yet to read them";
    let hint = "Try again when they have ended: the record names these sessions.";
    Refused { hint: Some(hint.into()), ..Refused::new("55006", why) }
}

/// What somebody had said yes to came to nothing.
pub(super) fn after_a_yes(refused: Refused) -> Refused {
    let again = "A yes that was for once has to be given again.";
    let hint = refused.hint.map_or_else(|| again.into(), |hint| format!("{hint} {again}").into());
    Refused { hint: Some(hint), ..refused }
}

/// Others know nothing of the change, and their statements may be on their way.
pub(super) fn unannounced() -> Refused {
    let why =
        "the policy changed while this was decided, and other sessions were not told that definitions change";
    Refused { hint: Some("Try again.".into()), ..Refused::new("55006", why) }
}

/// Changes that are left to whoever commits them later would count when nobody looks.
pub(super) fn prepared_definitions() -> Refused {
    let why = "a transaction that changes definitions, or locks tables for that, can't be prepared for two-phase commit";
    Refused { hint: Some("COMMIT it.".into()), ..Refused::new("0A000", why) }
}

/// The code of a statement that a cancel request ended.
pub(super) const QUERY_CANCELED: &str = "57014";

/// In the server's own words.
pub(super) fn cancelled() -> Refused {
    Refused::new(QUERY_CANCELED, "canceling statement due to user request")
}

pub(super) fn no_statement(name: Text<'_>) -> Refused {
    Refused::new("26000", format!("prepared statement {name:?} does not exist"))
}

pub(super) fn no_portal(name: Text<'_>) -> Refused {
    Refused::new("34000", format!("portal {name:?} does not exist"))
}
