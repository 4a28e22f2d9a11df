//! The log's leaves: two for a session, in a file of JSON lines.

use std::{
    borrow::Cow,
    io::{self, BufRead},
};

use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// What a leaf says of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Moment {
    /// Its record was begun: one line.
    Opened,
    /// Its record is complete.
    Closed,
}

/// One leaf. Its bytes, without the newline, are what the tree hashes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leaf<'a> {
    /// Its place in the log, from 0.
    pub(crate) index: u64,
    pub(crate) leaf: Moment,
    #[serde(borrow)]
    pub(crate) session: Cow<'a, str>,
    /// Lines of the record at that moment.
    pub(crate) lines: u64,
    /// Hash of the last of them.
    pub(crate) hash: Hash,
}

/// Reads a file's whole lines. What follows the last newline is counted, not given.
pub(crate) struct WholeLines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Bytes of whole lines so far.
    pub(crate) whole: u64,
    /// Bytes after the last newline, once the end was reached.
    pub(crate) torn: u64,
}

impl<R: BufRead> WholeLines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), whole: 0, torn: 0 }
    }

    /// The next line without its newline, or none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        let read = self.input.read_until(b'\n', &mut self.buffer)? as u64;
        if self.buffer.pop_if(|last| *last == b'\n').is_some() {
            self.whole += read;
            return Ok(Some(&self.buffer));
        }
        self.torn = read;
        Ok(None)
    }
}
