//! Tokens that look stolen.

use std::{fmt, sync::Arc};

/// The use of a token that counted for another process tree: refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stolen {
    /// The issuer, by its name in the bundle.
    pub issuer: Arc<str>,
    /// Whose token it is.
    pub subject: Arc<str>,
    /// The tree that it counts for, by its root's process id; none if that has ended.
    pub first: Option<u32>,
    /// The tree that used it now, likewise.
    pub here: u32,
    /// The account of that.
    pub uid: Option<u32>,
}

impl fmt::Display for Stolen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, subject, first, here, uid } = self;
        write!(f, "the token of {subject:?} by {issuer}, which counts for ")?;
        match first {
            Some(first) => write!(f, "the process tree of pid {first}")?,
            None => f.write_str("a process tree that has ended")?,
        }
        write!(f, ", was used by that of pid {here}")?;
        uid.map_or(Ok(()), |uid| write!(f, " uid {uid}"))
    }
}

/// Whoever is told of tokens that look stolen.
pub type Witness = Box<dyn Fn(&Stolen) + Send + Sync>;
