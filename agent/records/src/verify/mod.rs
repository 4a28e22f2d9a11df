//! Proving a store: every line, file and leaf against the signed checkpoint.

mod log;
mod record;

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tidegate_gate::Plain;

use crate::{
    error::{At, StoreError},
    human::count,
    layout::Layout,
    log::checkpoint::{Checkpoint, PublicKey},
    verify::log::Known,
};

/// What an auditor holds that does not come from the store itself.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The log's public key. Without it the store's own is used, which whoever changed the store may have changed too.
    pub key: Option<PublicKey>,
    /// A checkpoint that was saved earlier, as a signed note: the log must be a continuation of it.
    pub since: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records read.
    pub sessions: u64,
    /// Lines read.
    pub lines: u64,
    /// Leaves read.
    pub leaves: u64,
    /// The checkpoint, if it is there and its signature is good.
    pub checkpoint: Option<Checkpoint>,
    /// Leaves that it does not cover: an agent that runs signs them within moments, one that died at its next start.
    pub unsigned_leaves: u64,
    /// Whether an agent was writing to the store.
    pub live: bool,
    /// Records that are not closed. What they hold is checked as far as it goes.
    pub open: Vec<OpenSession>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// A record that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenSession {
    /// The session's id.
    pub session: String,
    /// Lines so far.
    pub lines: u64,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, below the store's directory.
    pub file: PathBuf,
    /// The line, from 1, where one can be named.
    pub line: Option<u64>,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// The log knows the record, but its file is not there.
    FileMissing,
    /// The file is there, but the log does not know it, or it lies in the wrong place.
    FileUnknown,
    /// The line is not one that the agent writes.
    NotALine,
    /// The line's hash is not what the next line, or the log, says.
    Changed,
    /// Lines are missing before this one, or it was moved up.
    LinesMissing {
        /// The number that it should carry.
        expected: u64,
        /// The number that it carries.
        found: u64,
    },
    /// The line repeats a number: it was duplicated or moved down.
    LineRepeated {
        /// The number that it should carry.
        expected: u64,
        /// The number that it carries.
        found: u64,
    },
    /// The record ends here, but the log says that it is longer.
    Cut {
        /// Lines that it should have.
        expected: u64,
    },
    /// The record goes on here, but the log says that it had ended.
    Added,
    /// A leaf is not in its place: leaves are missing, repeated or were moved.
    LeafMisplaced {
        /// The number that the leaf carries.
        found: u64,
    },
    /// The leaf contradicts an earlier one of the same session.
    LeafContradicts,
    /// The leaves end here, but a checkpoint covers more.
    LeavesMissing {
        /// Leaves that it covers.
        expected: u64,
    },
    /// The leaves are not the ones that a checkpoint was signed over.
    TreeDiffers {
        /// Leaves that it covers.
        size: u64,
    },
    /// The file cannot be read or its signature is not good.
    Unproven {
        /// Why.
        why: String,
    },
}

/// Checks the store in this directory. What is wrong with it is in the report; an error means that it could not be
/// read. An agent may be running.
pub fn verify(directory: &Path, expected: &Expected) -> Result<Report, StoreError> {
    let layout = Layout::new(directory);
    let mut report = Report {
        sessions: 0,
        lines: 0,
        leaves: 0,
        checkpoint: None,
        unsigned_leaves: 0,
        live: layout.is_live(),
        open: Vec::new(),
        findings: Vec::new(),
    };
    // First the log and then the records, so that a record which goes on meanwhile is ahead of what the log says.
    let mut known = log::check(&layout, expected, &mut report)?;
    let mut unknown = Vec::new();
    for path in files(&layout.sessions()).at(layout.sessions())? {
        check_file(&layout, &path, &mut known, &mut unknown, &mut report)?;
    }
    settle_unknown(&layout, unknown, &mut report)?;
    let mut missing: Vec<_> = known.into_iter().filter(|(_, known)| !known.seen).map(|(id, _)| id).collect();
    missing.sort();
    for session in missing {
        let file = layout.record(&session).unwrap_or_else(|| layout.leaves());
        report.find(&layout, &file, None, Problem::FileMissing);
    }
    Ok(report)
}

/// A file that the log did not know when it was read.
struct Unknown {
    path: PathBuf,
    session: Option<String>,
    lines: u64,
}

fn check_file(
    layout: &Layout,
    path: &Path,
    known: &mut HashMap<String, Known>,
    unknown: &mut Vec<Unknown>,
    report: &mut Report,
) -> Result<(), StoreError> {
    let session = path.file_stem().and_then(|stem| stem.to_str());
    let session = session.filter(|session| layout.record(session).as_deref() == Some(path));
    let Some((session, known)) = session.and_then(|session| Some((session, known.get_mut(session)?))) else {
        let lines = session.map_or(Ok(0), |session| record::read(path, session).map(|facts| facts.lines));
        unknown.push(Unknown {
            path: path.to_owned(),
            session: session.map(str::to_owned),
            lines: lines.at(path)?,
        });
        return Ok(());
    };
    known.seen = true;
    let facts = record::read(path, session).at(path)?;
    report.sessions += 1;
    report.lines += facts.lines;
    for (line, problem) in facts.against(known) {
        report.find(layout, path, line, problem);
    }
    if known.closed.is_none() {
        report.open.push(OpenSession { session: session.to_owned(), lines: facts.lines });
    }
    Ok(())
}

/// A file may have come after the log was read: then the log knows it now, or, beside a running agent, will know it
/// soon and it has no more than its first line.
fn settle_unknown(layout: &Layout, unknown: Vec<Unknown>, report: &mut Report) -> Result<(), StoreError> {
    if unknown.is_empty() {
        return Ok(());
    }
    let now = if report.live { log::sessions(layout)? } else { HashMap::new() };
    for Unknown { path, session, lines } in unknown {
        match session {
            Some(session) if report.live && (lines <= 1 || now.contains_key(&session)) => {
                report.open.push(OpenSession { session, lines });
            }
            _ => report.find(layout, &path, None, Problem::FileUnknown),
        }
    }
    Ok(())
}

/// All files below a directory, in order.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, layout: &Layout, file: &Path, line: Option<u64>, problem: Problem) {
        let file = file.strip_prefix(layout.root()).unwrap_or(file).to_owned();
        self.findings.push(Finding { file, line, problem });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sessions, lines) = (count(self.sessions, "record"), count(self.lines, "line"));
        writeln!(f, "{sessions} with {lines}; leaves in the log: {}", self.leaves)?;
        match &self.checkpoint {
            Some(checkpoint) => {
                writeln!(f, "checkpoint of {} over {}: signature good", checkpoint.origin, checkpoint.size)?;
            }
            None => writeln!(f, "no valid checkpoint")?,
        }
        if self.unsigned_leaves > 0 {
            writeln!(f, "{} not yet covered by it", self.unsigned_leaves)?;
        }
        for open in &self.open {
            let state = if self.live { "open" } else { "open; the next start of the agent seals it" };
            writeln!(f, "session {} ({}): {state}", Plain(&open.session), count(open.lines, "line"))?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        match self.findings.len() {
            0 => f.write_str("nothing was changed, cut, added, reordered or removed"),
            found => write!(f, "{}", count(found as u64, "problem")),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.file.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileMissing => f.write_str("the log knows this record, but its file is missing"),
            Self::FileUnknown => f.write_str("the log does not know this file"),
            Self::NotALine => f.write_str("not a line that the agent writes"),
            Self::Changed => {
                f.write_str("its hash is not what the next line or the log says: one of them was changed")
            }
            Self::LinesMissing { expected, found } => {
                write!(f, "line {found} stands where {expected} belongs: lines were removed or moved")
            }
            Self::LineRepeated { expected, found } => {
                write!(f, "line {found} stands where {expected} belongs: it was duplicated or moved")
            }
            Self::Cut { expected } => {
                write!(f, "the record ends before this line, but had {}", count(*expected, "line"))
            }
            Self::Added => f.write_str("the record had ended before this line"),
            Self::LeafMisplaced { found } => {
                write!(f, "leaf {found} stands here: leaves were removed, repeated or moved")
            }
            Self::LeafContradicts => f.write_str("the leaf contradicts an earlier one of its session"),
            Self::LeavesMissing { expected } => {
                write!(f, "the log ends here, but {expected} leaves were signed")
            }
            Self::TreeDiffers { size } => {
                write!(f, "the first {size} leaves are not the ones that were signed")
            }
            Self::Unproven { why } => f.write_str(why),
        }
    }
}
