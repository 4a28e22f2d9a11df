//! The fields of errors and notices. Source: PostgreSQL documentation, "Error and Notice Message Fields".

use std::borrow::Cow;

use super::{WireError, reader::Reader};

/// Field codes.
pub(crate) mod code {
    pub(crate) const SEVERITY: u8 = b'S';
    /// Like [`SEVERITY`], but never translated.
    pub(crate) const SEVERITY_PLAIN: u8 = b'V';
    pub(crate) const SQLSTATE: u8 = b'C';
    pub(crate) const MESSAGE: u8 = b'M';
    pub(crate) const DETAIL: u8 = b'D';
    pub(crate) const HINT: u8 = b'H';
    pub(crate) const POSITION: u8 = b'P';
    pub(crate) const INTERNAL_POSITION: u8 = b'p';
    pub(crate) const INTERNAL_QUERY: u8 = b'q';
    pub(crate) const WHERE: u8 = b'W';
    pub(crate) const SCHEMA: u8 = b's';
    pub(crate) const TABLE: u8 = b't';
    pub(crate) const COLUMN: u8 = b'c';
    pub(crate) const DATA_TYPE: u8 = b'd';
    pub(crate) const CONSTRAINT: u8 = b'n';
    pub(crate) const FILE: u8 = b'F';
    pub(crate) const LINE: u8 = b'L';
    pub(crate) const ROUTINE: u8 = b'R';
}

/// The fields of an ErrorResponse or NoticeResponse, in the order they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ErrorFields<'a>(Vec<(u8, Cow<'a, [u8]>)>);

impl<'a> ErrorFields<'a> {
    /// What every error has. `severity` is `ERROR`, `FATAL`, `WARNING`, ...
    pub(crate) fn new(severity: &'a str, sqlstate: &'a str, message: &'a str) -> Self {
        Self::default()
            .with(code::SEVERITY, severity)
            .with(code::SEVERITY_PLAIN, severity)
            .with(code::SQLSTATE, sqlstate)
            .with(code::MESSAGE, message)
    }

    /// Sets a field, in the place it had or at the end.
    #[must_use]
    pub(crate) fn with(mut self, code: u8, value: impl Into<Cow<'a, str>>) -> Self {
        let value = match value.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        self.set(code, value);
        self
    }

    /// Sets a field, in the place it had or at the end.
    pub(crate) fn set(&mut self, code: u8, value: Cow<'a, [u8]>) {
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, old)) => *old = value,
            None => self.0.push((code, value)),
        }
    }

    /// Keeps the fields for which the function holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(u8) -> bool) {
        self.0.retain(|(code, _)| keep(*code));
    }

    /// A field's value.
    pub(crate) fn get(&self, code: u8) -> Option<&[u8]> {
        self.iter().find_map(|(known, value)| (known == code).then_some(value))
    }

    /// The fields in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, &**value))
    }

    /// The fields with every value passed through `show`.
    #[must_use]
    pub(crate) fn map(self, show: impl Fn(u8, Cow<'a, [u8]>) -> Cow<'a, [u8]>) -> Self {
        Self(self.0.into_iter().map(|(code, value)| (code, show(code, value))).collect())
    }

    /// The fields, free of the bytes they were read from.
    pub(crate) fn into_owned(self) -> ErrorFields<'static> {
        ErrorFields(self.0.into_iter().map(|(code, value)| (code, Cow::Owned(value.into_owned()))).collect())
    }

    /// Reads the body of an ErrorResponse or NoticeResponse.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let mut fields = Vec::new();
        loop {
            match reader.u8("terminator")? {
                0 => break,
                code => fields.push((code, Cow::Borrowed(reader.text("field")?.as_bytes()))),
            }
        }
        reader.end()?;
        Ok(Self(fields))
    }

    /// SQLSTATE and message, for records and logs.
    pub(crate) fn summary(&self) -> String {
        let part = |code| String::from_utf8_lossy(self.get(code).unwrap_or_default()).into_owned();
        format!("{} {}", part(code::SQLSTATE), part(code::MESSAGE))
    }
}
