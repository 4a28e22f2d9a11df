//! Reading one record.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tidegate_gate::Entry;

use crate::{
    error::{At, StoreError},
    line::Line,
};

/// The lines of one record, in order, as far as they are whole. It reads; it proves nothing: see
/// [`verify`](crate::verify()).
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    buffer: Vec<u8>,
    lines: u64,
}

impl Reader {
    /// Opens a record's file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).at(path)?;
        Ok(Self { path: path.to_owned(), input: BufReader::new(file), buffer: Vec::new(), lines: 0 })
    }

    /// The next whole line. None at the end of what is there; more may come if the session is open.
    fn read(&mut self) -> Result<Option<Line>, StoreError> {
        self.input.read_until(b'\n', &mut self.buffer).at(&self.path)?;
        if self.buffer.pop_if(|last| *last == b'\n').is_none() {
            return Ok(None);
        }
        self.lines += 1;
        let line = serde_json::from_slice(&self.buffer).map_err(|error| StoreError::Untrusted {
            path: self.path.clone(),
            why: format!("line {} is not a record's: {error}", self.lines),
        });
        self.buffer.clear();
        line.map(Some)
    }
}

impl Iterator for Reader {
    type Item = Result<Line, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The lines of one record as they are written. Waits for the next one; ends after the closing line.
#[derive(Debug)]
pub struct Follow {
    reader: Reader,
    inotify: Inotify,
    ended: bool,
}

/// Follows a record from its beginning.
pub fn follow(path: &Path) -> Result<Follow, StoreError> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).at(path)?;
    // Watched before it is read, so that no line falls between.
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(path, changes).at(path)?;
    Ok(Follow { reader: Reader::open(path)?, inotify, ended: false })
}

impl Follow {
    fn wait(&mut self) -> Result<Line, StoreError> {
        loop {
            if let Some(line) = self.reader.read()? {
                return Ok(line);
            }
            let path = &self.reader.path;
            // A record is never removed or moved while its session lasts.
            path.metadata().at(path)?;
            self.inotify.read_events().at(path)?;
        }
    }
}

impl Iterator for Follow {
    type Item = Result<Line, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.wait();
        self.ended = line.as_ref().map_or(true, |line| matches!(line.entry, Entry::Close { .. }));
        Some(line)
    }
}
