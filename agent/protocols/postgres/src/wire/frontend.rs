//! The bodies of what clients send.

use super::{Formats, Oids, Text, WireError, reader::Reader};

/// Message types.
pub(crate) mod tag {
    pub(crate) const BIND: u8 = b'B';
    pub(crate) const CLOSE: u8 = b'C';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_FAIL: u8 = b'f';
    pub(crate) const DESCRIBE: u8 = b'D';
    pub(crate) const EXECUTE: u8 = b'E';
    pub(crate) const FLUSH: u8 = b'H';
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    pub(crate) const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share it.
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const SYNC: u8 = b'S';
    pub(crate) const TERMINATE: u8 = b'X';
}

/// The largest body, in bytes, that a server takes of a message type (`SocketBackend`, `PQ_SMALL_MESSAGE_LIMIT`,
/// `PQ_LARGE_MESSAGE_LIMIT`, `PG_MAX_AUTH_TOKEN_LENGTH`).
pub(crate) fn largest_body(tag: u8) -> Result<usize, WireError> {
    const SMALL: usize = 10_000 - 4;
    const TOKEN: usize = 65_535 - 4;
    const LARGE: usize = 0x3fff_fffe - 4;
    match tag {
        tag::QUERY | tag::FUNCTION_CALL | tag::BIND | tag::PARSE | tag::COPY_DATA => Ok(LARGE),
        tag::CLOSE | tag::DESCRIBE | tag::EXECUTE | tag::FLUSH => Ok(SMALL),
        tag::SYNC | tag::COPY_DONE | tag::COPY_FAIL | tag::TERMINATE => Ok(SMALL),
        tag::PASSWORD => Ok(TOKEN),
        other => Err(WireError::Tag(other)),
    }
}

/// Query: the statements of a simple query.
pub(crate) fn query(body: &[u8]) -> Result<Text<'_>, WireError> {
    one_text(body, "query")
}

/// CopyFail: the reason.
pub(crate) fn copy_fail(body: &[u8]) -> Result<Text<'_>, WireError> {
    one_text(body, "reason")
}

/// Sync, Flush, CopyDone and Terminate: nothing.
pub(crate) fn empty(body: &[u8]) -> Result<(), WireError> {
    Reader::new(body).end()
}

/// PasswordMessage.
pub(crate) fn password(body: &[u8]) -> Result<Text<'_>, WireError> {
    one_text(body, "password")
}

fn one_text<'a>(body: &'a [u8], what: &'static str) -> Result<Text<'a>, WireError> {
    let mut reader = Reader::new(body);
    let text = reader.text(what)?;
    reader.end()?;
    Ok(text)
}

/// SASLInitialResponse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SaslInitialResponse<'a> {
    /// The chosen mechanism.
    pub(crate) mechanism: Text<'a>,
    /// Its first message.
    pub(crate) response: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message =
            Self { mechanism: reader.text("mechanism")?, response: reader.value("initial response")? };
        reader.end()?;
        Ok(message)
    }
}

/// Parse: a statement to prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub(crate) name: Text<'a>,
    /// The statement.
    pub(crate) query: Text<'a>,
    /// The parameters' types as far as the client fixes them; 0 leaves one open.
    pub(crate) parameter_types: Oids<'a>,
}

impl<'a> Parse<'a> {
    #[expect(clippy::self_named_constructors, reason = "every message is read by a function of this name")]
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = Self {
            name: reader.text("statement name")?,
            query: reader.text("query")?,
            parameter_types: reader.oids("parameter types")?,
        };
        reader.end()?;
        Ok(message)
    }
}

/// The names at the start of a Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindNames<'a> {
    /// The portal to make; empty for the unnamed one.
    pub(crate) portal: Text<'a>,
    /// The statement it is made of; empty for the unnamed one.
    pub(crate) statement: Text<'a>,
}

impl<'a> BindNames<'a> {
    /// Reads the names from the first bytes of a body, which may be far longer; none while they aren't whole.
    /// The caller bounds how long it waits for more.
    pub(crate) fn parse(prefix: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(prefix);
        let portal = reader.text("portal name").ok()?;
        let statement = reader.text("statement name").ok()?;
        Some(Self { portal, statement })
    }
}

/// Bind, whole. The values are not looked at beyond their framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bind<'a> {
    /// The portal and the statement.
    pub(crate) names: BindNames<'a>,
    /// How the parameters are written.
    pub(crate) parameter_formats: Formats<'a>,
    /// The parameters.
    pub(crate) parameters: Values<'a>,
    /// How the result's columns are asked for.
    pub(crate) result_formats: Formats<'a>,
}

impl<'a> Bind<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let names =
            BindNames { portal: reader.text("portal name")?, statement: reader.text("statement name")? };
        let parameter_formats = reader.formats("parameter formats")?;
        let parameters = Values::skip(&mut reader)?;
        let result_formats = reader.formats("result formats")?;
        reader.end()?;
        Ok(Self { names, parameter_formats, parameters, result_formats })
    }
}

/// A list of parameters, each known to be framed well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// How many there are.
    pub(crate) fn len(self) -> usize {
        self.count.into()
    }

    /// The values in order; none for null.
    pub(crate) fn iter(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| reader.value("parameter").ok())
    }

    fn skip(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.u16("number of parameters")?;
        let from = *reader;
        for _ in 0..count {
            reader.value("parameter")?;
        }
        let bytes = from.rest();
        let used = bytes.len() - reader.rest().len();
        Ok(Self { count, bytes: bytes.get(..used).unwrap_or(bytes) })
    }
}

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Kind {
    /// The code on the wire.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

/// The body of Describe and of Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// What kind of thing.
    pub(crate) kind: Kind,
    /// Its name; empty for the unnamed one.
    pub(crate) name: Text<'a>,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let kind = match reader.u8("kind")? {
            b'S' => Kind::Statement,
            b'P' => Kind::Portal,
            other => return Err(WireError::Value { what: "kind of thing", value: other.into() }),
        };
        let name = reader.text("name")?;
        reader.end()?;
        Ok(Self { kind, name })
    }
}

/// Execute: a portal to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Execute<'a> {
    /// The portal; empty for the unnamed one.
    pub(crate) portal: Text<'a>,
    /// Rows after which it is suspended; none for all. The server takes a negative number for all, too.
    pub(crate) max_rows: Option<u32>,
}

impl<'a> Execute<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let portal = reader.text("portal name")?;
        let max_rows = u32::try_from(reader.i32("row limit")?).ok().filter(|&rows| rows > 0);
        reader.end()?;
        Ok(Self { portal, max_rows })
    }
}

/// FunctionCall, the fast-path interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FunctionCall<'a> {
    /// The function's object id.
    pub(crate) function: u32,
    /// How the arguments are written.
    pub(crate) argument_formats: Formats<'a>,
    /// The arguments.
    pub(crate) arguments: Values<'a>,
    /// How the result is asked for.
    pub(crate) result_format: super::Format,
}

impl<'a> FunctionCall<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = Self {
            function: reader.u32("function")?,
            argument_formats: reader.formats("argument formats")?,
            arguments: Values::skip(&mut reader)?,
            result_format: super::Format::parse(reader.u16("result format")?)?,
        };
        reader.end()?;
        Ok(message)
    }
}
