//! The file of one record while it is written.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tidegate_gate::Entry;

use crate::line::{Link, Stamp};

/// How often a record that is written to is looked after: whether its file was removed.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes that may wait for the flusher.
const MOST_PENDING: usize = 64 * 1024;
/// Capacity that an idle record keeps, in bytes.
const KEPT_CAPACITY: usize = 4 * 1024;

/// A record's file and what waits to be written to it. Once a write failed the chain is dead: it takes one closing
/// line at most.
#[derive(Debug)]
pub(crate) struct Chain {
    file: File,
    sync: bool,
    stamp: Stamp,
    /// Lines that are not yet in the file, whole.
    pending: Vec<u8>,
    /// The end of the chain with what is pending.
    link: Link,
    /// The end of the chain in the file, and its length there.
    written: Link,
    length: u64,
    dead: Option<String>,
    /// A failed write may have left bytes beyond `length`.
    torn: bool,
    closed: bool,
    looked: Instant,
    /// The flusher knows that something is pending.
    pub(crate) awaited: bool,
}

impl Chain {
    /// Continues the file after `length` bytes whose last line is `link`'s. `sync`: each write is on the disk itself
    /// before it returns.
    pub(crate) fn new(file: File, link: Link, length: u64, sync: bool) -> Self {
        Self {
            file,
            sync,
            stamp: Stamp::new(),
            pending: Vec::new(),
            link,
            written: link,
            length,
            dead: None,
            torn: false,
            closed: false,
            looked: Instant::now(),
            awaited: false,
        }
    }

    /// Where the chain stands in the file.
    pub(crate) fn written(&self) -> Link {
        self.written
    }

    /// Whether something waits to be written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes the entry, after all that is pending, with one write(2).
    pub(crate) fn write(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        self.note(entry);
        self.flush()
    }

    /// Adds an entry to what is pending. A failure shows at the next write.
    pub(crate) fn note(&mut self, entry: &Entry<'_>) {
        if self.dead.is_some() {
            return;
        }
        match self.link.append(entry, Timestamp::now(), &mut self.stamp, &mut self.pending) {
            Ok(link) => self.link = link,
            Err(error) => self.die(error.to_string()),
        }
        if self.pending.len() > MOST_PENDING {
            // The next write meets the same answer.
            let _ = self.flush();
        }
    }

    /// Writes what is pending.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.put() {
            let error = error.to_string();
            self.die(error.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Writes the closing line, once, even where an earlier write failed: then it says so. Can be tried again after a
    /// failure. Returns the end of the chain.
    pub(crate) fn close(&mut self, reason: &str) -> Result<Link, String> {
        if self.closed {
            return Ok(self.written);
        }
        // A failure is told by the closing line itself.
        let _ = self.flush();
        let lines = self.written.lines;
        let reason = match self.dead.take() {
            None => reason.to_owned(),
            Some(dead) => format!("{reason}; after line {lines} this record could not be written: {dead}"),
        };
        self.write(&Entry::Close { reason: reason.into() })?;
        self.closed = true;
        Ok(self.written)
    }

    fn put(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if self.file.metadata()?.nlink() == 0 {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its file was removed"));
            }
        }
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        self.file.write_all(&self.pending)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.length += self.pending.len() as u64;
        self.written = self.link;
        self.pending.clear();
        self.pending.shrink_to(KEPT_CAPACITY);
        Ok(())
    }

    /// Takes back what may have been written in part, so that the file ends with a whole line.
    fn die(&mut self, error: String) {
        self.torn = self.file.set_len(self.length).is_err();
        self.pending = Vec::new();
        self.link = self.written;
        self.dead = Some(error);
    }
}
