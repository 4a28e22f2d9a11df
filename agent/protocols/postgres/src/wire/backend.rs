//! The bodies of what servers send.

use super::{Format, Formats, Oids, Text, WireError, reader::Reader, startup};

/// Message types.
pub(crate) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const BIND_COMPLETE: u8 = b'2';
    pub(crate) const CLOSE_COMPLETE: u8 = b'3';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_IN_RESPONSE: u8 = b'G';
    pub(crate) const COPY_OUT_RESPONSE: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NO_DATA: u8 = b'n';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const NOTIFICATION_RESPONSE: u8 = b'A';
    pub(crate) const PARAMETER_DESCRIPTION: u8 = b't';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const PARSE_COMPLETE: u8 = b'1';
    pub(crate) const PORTAL_SUSPENDED: u8 = b's';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// The Authentication messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authentication<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password {
        /// Goes into the digest.
        salt: [u8; 4],
    },
    /// AuthenticationSASL: the mechanisms on offer, best first.
    Sasl(Vec<Text<'a>>),
    /// AuthenticationSASLContinue: the mechanism's challenge.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal: the mechanism's outcome.
    SaslFinal(&'a [u8]),
    /// A method that is not spoken here, by its code.
    Other(u32),
}

impl<'a> Authentication<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = match reader.u32("authentication code")? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password { salt: reader.array("salt")? },
            10 => return Self::mechanisms(reader).map(Self::Sasl),
            11 => return Ok(Self::SaslContinue(reader.rest())),
            12 => return Ok(Self::SaslFinal(reader.rest())),
            other => return Ok(Self::Other(other)),
        };
        reader.end()?;
        Ok(message)
    }

    fn mechanisms(mut reader: Reader<'a>) -> Result<Vec<Text<'a>>, WireError> {
        let mut mechanisms = Vec::new();
        loop {
            let mechanism = reader.text("mechanism")?;
            if mechanism.is_empty() {
                reader.end()?;
                return Ok(mechanisms);
            }
            mechanisms.push(mechanism);
        }
    }
}

/// ParameterStatus: a setting's name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParameterStatus<'a> {
    /// The setting.
    pub(crate) name: Text<'a>,
    /// Its value.
    pub(crate) value: Text<'a>,
}

impl<'a> ParameterStatus<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = Self { name: reader.text("parameter name")?, value: reader.text("parameter value")? };
        reader.end()?;
        Ok(message)
    }
}

/// BackendKeyData: what a cancel request must show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackendKeyData<'a> {
    /// The server's process id.
    pub(crate) process_id: u32,
    /// 4 bytes in 3.0, up to 256 in 3.2.
    pub(crate) secret: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        Ok(Self { process_id: reader.u32("process id")?, secret: startup::secret(reader)? })
    }
}

/// Where a session stands between two queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    /// Outside a transaction.
    Idle,
    /// In a transaction.
    Transaction,
    /// In a transaction that an error ended: everything but its end is refused.
    Failed,
}

impl TransactionStatus {
    /// Reads the body of ReadyForQuery.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let status = match reader.u8("transaction status")? {
            b'I' => Self::Idle,
            b'T' => Self::Transaction,
            b'E' => Self::Failed,
            other => return Err(WireError::Value { what: "transaction status", value: other.into() }),
        };
        reader.end()?;
        Ok(status)
    }

    /// The code on the wire.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Transaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// One column of a RowDescription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FieldDescription<'a> {
    /// The column's name.
    pub(crate) name: Text<'a>,
    /// The table it is a column of; 0 if it isn't one of a table.
    pub(crate) table_oid: u32,
    /// Its number within that table; 0 if it isn't one of a table.
    pub(crate) column: i16,
    /// Its type.
    pub(crate) type_oid: u32,
    /// The type's length in bytes (`pg_type.typlen`); negative if it varies.
    pub(crate) type_length: i16,
    /// The type's modifier (`pg_attribute.atttypmod`).
    pub(crate) type_modifier: i32,
    /// How its values are written; text in the answer to a Describe of a statement, which can't know.
    pub(crate) format: Format,
}

/// Reads RowDescription.
pub(crate) fn row_description(body: &[u8]) -> Result<Vec<FieldDescription<'_>>, WireError> {
    /// The least that a field takes: an empty name and its numbers.
    const LEAST_FIELD_BYTES: usize = 19;
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u16("number of columns")?);
    if reader.rest().len() < count * LEAST_FIELD_BYTES {
        return Err(WireError::Ends("column"));
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        fields.push(FieldDescription {
            name: reader.text("column name")?,
            table_oid: reader.u32("table")?,
            column: reader.array("column number").map(i16::from_be_bytes)?,
            type_oid: reader.u32("type")?,
            type_length: reader.array("type length").map(i16::from_be_bytes)?,
            type_modifier: reader.i32("type modifier")?,
            format: Format::parse(reader.u16("format")?)?,
        });
    }
    reader.end()?;
    Ok(fields)
}

/// ParameterDescription: the types of a statement's parameters.
pub(crate) fn parameter_description(body: &[u8]) -> Result<Oids<'_>, WireError> {
    let mut reader = Reader::new(body);
    let types = reader.oids("parameter types")?;
    reader.end()?;
    Ok(types)
}

/// DataRow: its values in order, none for null. A row that is framed badly ends with an error.
#[derive(Debug, Clone)]
pub(crate) struct DataRow<'a> {
    left: u16,
    reader: Reader<'a>,
}

impl<'a> DataRow<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        Ok(Self { left: reader.u16("number of columns")?, reader })
    }

    /// How many values are still to come.
    pub(crate) fn columns(&self) -> usize {
        self.left.into()
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Result<Option<&'a [u8]>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.reader.value("column value")
            }
            None if self.reader.is_empty() => return None,
            None => Err(WireError::Trailing(self.reader.rest().len())),
        };
        if value.is_err() {
            (self.left, self.reader) = (0, Reader::new(&[]));
        }
        Some(value)
    }
}

/// CommandComplete: what ran, and on how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandComplete<'a> {
    /// The command tag: `INSERT 0 5`.
    pub(crate) tag: Text<'a>,
}

impl<'a> CommandComplete<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let tag = reader.text("command tag")?;
        reader.end()?;
        Ok(Self { tag })
    }

    /// The number of rows at the tag's end, if it has one.
    pub(crate) fn rows(self) -> Option<u64> {
        let (_, count) = self.tag.to_str().ok()?.rsplit_once(' ')?;
        count.bytes().all(|digit| digit.is_ascii_digit()).then(|| count.parse().ok())?
    }
}

/// CopyInResponse, CopyOutResponse and CopyBothResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyResponse<'a> {
    /// Text (rows in lines: text and CSV) or binary.
    pub(crate) format: Format,
    /// Each column's format; all text if the whole is.
    pub(crate) columns: Formats<'a>,
}

impl<'a> CopyResponse<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = Self {
            format: Format::parse(reader.u8("copy format")?.into())?,
            columns: reader.formats("column formats")?,
        };
        reader.end()?;
        Ok(message)
    }
}

/// NotificationResponse: what NOTIFY sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification<'a> {
    /// The process that sent it.
    pub(crate) process_id: u32,
    /// The channel.
    pub(crate) channel: Text<'a>,
    /// What was sent with it.
    pub(crate) payload: Text<'a>,
}

impl<'a> Notification<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = Self {
            process_id: reader.u32("process id")?,
            channel: reader.text("channel")?,
            payload: reader.text("payload")?,
        };
        reader.end()?;
        Ok(message)
    }
}

/// FunctionCallResponse: the result; none for null.
pub(crate) fn function_call_response(body: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut reader = Reader::new(body);
    let value = reader.value("function result")?;
    reader.end()?;
    Ok(value)
}

/// NegotiateProtocolVersion: the server speaks less than it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NegotiateProtocolVersion<'a> {
    /// The newest protocol version it speaks. Servers send the whole version here, major included, although the
    /// documentation has the minor one alone.
    pub(crate) newest: u32,
    /// The protocol options it doesn't know.
    pub(crate) unknown_options: Vec<Text<'a>>,
}

impl<'a> NegotiateProtocolVersion<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let newest = reader.u32("protocol version")?;
        let count = reader.u32("number of options")?;
        let mut unknown_options = Vec::new();
        // Each turn takes at least a byte, so a false count ends with an error before it costs anything.
        for _ in 0..count {
            unknown_options.push(reader.text("option")?);
        }
        reader.end()?;
        Ok(Self { newest, unknown_options })
    }
}
