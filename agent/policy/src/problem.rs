//! What is wrong with a bundle, and where.

use std::{cell::RefCell, fmt, path::PathBuf};

/// One file of a bundle.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path as shown in problems.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Something wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// A place in one of a bundle's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Index of the file.
    pub(crate) file: usize,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

/// Collects what is wrong, so that one load reports all of it.
#[derive(Debug)]
pub(crate) struct Problems {
    paths: Vec<PathBuf>,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Nothing is wrong yet with these files.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, found: RefCell::default() }
    }

    /// Something is wrong.
    pub(crate) fn report(&self, at: Position, message: impl Into<String>) {
        self.push(at, message.into(), None);
    }

    /// Something is wrong, and this is what to do.
    pub(crate) fn report_with(&self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.push(at, message.into(), Some(hint.into()));
    }

    /// A name is not one of those known; the nearest or all of them are the hint.
    pub(crate) fn unknown<'a>(
        &self,
        at: Position,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        self.push(at, message.into(), suggest(name, known));
    }

    /// Where a position is, for other messages.
    pub(crate) fn place(&self, at: Position) -> String {
        let path = self.paths.get(at.file).map(|path| path.display().to_string()).unwrap_or_default();
        format!("{path}:{}", at.line)
    }

    /// The same to the column, as problems begin.
    pub(crate) fn exact_place(&self, at: Position) -> String {
        format!("{}:{}", self.place(at), at.column)
    }

    /// The file that a position is in.
    pub(crate) fn path(&self, at: Position) -> PathBuf {
        self.paths.get(at.file).cloned().unwrap_or_default()
    }

    /// Everything found, by file, line and column.
    pub(crate) fn into_found(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        found
    }

    fn push(&self, at: Position, message: String, hint: Option<String>) {
        let problem = Problem { path: self.path(at), line: at.line, column: at.column, message, hint };
        self.found.borrow_mut().push(problem);
    }
}

/// `did you mean ...?` if a known name is near, else what there is; none if there is nothing.
fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let nearest = known.iter().map(|other| (strsim::damerau_levenshtein(name, other), *other)).min();
    match nearest {
        None => None,
        Some((distance, other)) if distance <= 1 + name.chars().count() / 4 => {
            Some(format!("did you mean {other:?}?"))
        }
        Some(_) => Some(format!("there is: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_lists_what_there_is() {
        let known = ["statement", "table"];
        assert_eq!(suggest("tabel", known).as_deref(), Some("did you mean \"table\"?"));
        assert_eq!(suggest("colour", known).as_deref(), Some("there is: statement, table"));
        assert_eq!(suggest("colour", []), None);
    }
}
