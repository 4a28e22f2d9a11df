//! Records in forms that other programs read.

use std::{
    io::{self, Write},
    sync::Arc,
};

use jiff::Timestamp;

use crate::Entry;

/// A form in which a protocol tells what its sessions' records say.
#[derive(Debug, Clone, Copy)]
pub struct Export {
    /// As the command line has it: a file's usual extension.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Writes all of it.
    pub write: ExportFn,
}

/// Writes records, which come one after the other and each in order, as one document. An error is the reader's or the writer's.
pub type ExportFn = fn(&mut dyn Iterator<Item = io::Result<Recorded>>, &mut dyn Write) -> io::Result<()>;

/// An entry, as it is read back from a record.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The session's id.
    pub session: Arc<str>,
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub entry: Entry<'static>,
}
