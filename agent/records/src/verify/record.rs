//! One record against itself and against the log.

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use crate::{
    hash::Hash,
    line::{Header, Link},
    log::leaf::WholeLines,
    verify::{Problem, log::Known},
};

/// What a record's file holds.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) lines: u64,
    first: Option<Hash>,
    last: Option<Hash>,
    torn: bool,
    problems: Vec<(Option<u64>, Problem)>,
}

/// Reads a record and follows its chain.
pub(super) fn read(path: &Path, session: &str) -> io::Result<Facts> {
    let mut facts = Facts { lines: 0, first: None, last: None, torn: false, problems: Vec::new() };
    let mut input = WholeLines::new(BufReader::new(File::open(path)?));
    let mut before = Link::genesis(session);
    // The number that the next line should carry.
    let mut expected = 1;
    while let Some(line) = input.next()? {
        let link = before.after(line);
        match serde_json::from_slice::<Header<'_>>(line) {
            Ok(header) => {
                facts.check(&header, link.lines, expected, before.hash);
                expected = expected.max(header.seq).saturating_add(1);
            }
            Err(_) => {
                facts.problems.push((Some(link.lines), Problem::NotALine));
                expected += 1;
            }
        }
        facts.first.get_or_insert(link.hash);
        facts.last = Some(link.hash);
        before = link;
    }
    facts.lines = before.lines;
    facts.torn = input.torn > 0;
    Ok(facts)
}

impl Facts {
    fn check(&mut self, header: &Header<'_>, line: u64, expected: u64, before: Hash) {
        let found = header.seq;
        if found > expected {
            self.problems.push((Some(line), Problem::LinesMissing { expected, found }));
        } else if found < expected {
            self.problems.push((Some(line), Problem::LineRepeated { expected, found }));
        } else if header.prev != before {
            // The first line's own hash is in the log; what it carries is fixed by the session's id.
            self.problems.push((Some(line.saturating_sub(1).max(1)), Problem::Changed));
        }
    }

    /// All that is wrong with it, given what the log says.
    pub(super) fn against(&self, known: &Known) -> Vec<(Option<u64>, Problem)> {
        let mut problems = self.problems.clone();
        let beyond = self.lines.saturating_add(1);
        if self.first.is_some() && known.opened.is_some_and(|opened| self.first != Some(opened)) {
            problems.push((Some(1), Problem::Changed));
        }
        match known.closed {
            Some(closed) if self.lines < closed.lines => {
                problems.push((Some(beyond), Problem::Cut { expected: closed.lines }));
            }
            Some(closed) if self.lines > closed.lines => {
                problems.push((Some(closed.lines.saturating_add(1)), Problem::Added));
            }
            Some(_) if self.torn => problems.push((Some(beyond), Problem::Added)),
            Some(closed) if self.last != Some(closed.hash) => {
                problems.push((Some(self.lines), Problem::Changed))
            }
            None if self.lines == 0 => problems.push((Some(1), Problem::Cut { expected: 1 })),
            _ => {}
        }
        problems.dedup();
        problems
    }
}
