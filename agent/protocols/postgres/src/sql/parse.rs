//! From text to syntax tree, bounded.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
    thread,
};

use nix::unistd::dup2_stderr;
use pg_query::protobuf::RawStmt;
use thiserror::Error;

use super::{flow::MOST_OUTPUTS, redact};

/// How much text the gate is willing to understand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Length of the text in bytes.
    pub(crate) bytes: usize,
    /// Statements in one text.
    pub(crate) statements: usize,
    /// Upper bound of the nesting, in tokens: see [`nesting`].
    pub(crate) nesting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, statements: 1000, nesting: 60_000 }
    }
}

/// Why a text is refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(crate) struct NotUnderstood {
    /// For the client and the record.
    pub(crate) reason: String,
    /// Whose rule it goes against.
    pub(crate) fault: Fault,
}

/// Whose rule a text goes against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The grammar's: PostgreSQL would not understand it either.
    Syntax,
    /// It has more outputs than PostgreSQL takes.
    TooManyOutputs,
    /// What the gate is willing to follow.
    Bounds,
    /// The same, in steps taken.
    Tangled,
}

impl NotUnderstood {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fault: Fault::Bounds }
    }

    /// It takes more steps than it may.
    pub(super) fn too_tangled() -> Self {
        Self { reason: "the statement is more tangled than the gate follows".into(), fault: Fault::Tangled }
    }

    /// As the grammar words it.
    pub(super) fn syntax(error: &pg_query::Error) -> Self {
        let fault = match error {
            pg_query::Error::Scan(_) | pg_query::Error::Parse(_) => Fault::Syntax,
            _ => Fault::Bounds,
        };
        let reason = match error {
            pg_query::Error::Scan(message) | pg_query::Error::Parse(message) => message.clone(),
            other => other.to_string(),
        };
        Self { reason, fault }
    }

    /// As PostgreSQL words it.
    pub(super) fn too_many_outputs() -> Self {
        let reason = format!("target lists can have at most {MOST_OUTPUTS} entries");
        Self { reason, fault: Fault::TooManyOutputs }
    }
}

/// A text's statements as PostgreSQL's grammar reads them.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(super) statements: Vec<RawStmt>,
    /// A secret may be written in the text.
    pub(super) suspect: bool,
}

impl Parsed {
    /// How many statements the text holds.
    pub(crate) fn len(&self) -> usize {
        self.statements.len()
    }
}

/// Up to this nesting the caller's stack is enough.
const SHALLOW: usize = 400;

/// Stack for what nests deeper; touched only as far as it is used.
const DEEP_STACK: usize = 64 << 20;

/// The process's standard error as it was before any parse. The parser points it at a pipe of its own while it works
/// and then back at what it found, which may be another parse's pipe: so it is set right after each.
static STANDARD_ERROR: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// Reads a text the way a server with `standard_conforming_strings` on and UTF-8 as client encoding reads it.
pub(crate) fn parse(text: &str, limits: &Limits) -> Result<Parsed, NotUnderstood> {
    if text.len() > limits.bytes {
        return Err(NotUnderstood::new(format!(
            "the statement has {} bytes, and the gate reads at most {}",
            text.len(),
            limits.bytes
        )));
    }
    let nesting = nesting(text);
    if nesting > limits.nesting {
        return Err(NotUnderstood::new("the statement is nested deeper than the gate follows"));
    }
    let parsed = if nesting <= SHALLOW { read(text) } else { read_deep(text) }?;
    if parsed.len() > limits.statements {
        return Err(NotUnderstood::new(format!(
            "the text holds {} statements, and the gate takes at most {} at once",
            parsed.len(),
            limits.statements
        )));
    }
    Ok(parsed)
}

fn read_deep(text: &str) -> Result<Parsed, NotUnderstood> {
    let failed = || NotUnderstood::new("the gate could not parse the statement");
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(DEEP_STACK).spawn_scoped(scope, || read(text));
        reader.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

/// Runs the parser or the scanner, and sets right what they do to standard error.
pub(super) fn undisturbed<T>(run: impl FnOnce() -> T) -> T {
    let standard_error = STANDARD_ERROR.get_or_init(|| io::stderr().as_fd().try_clone_to_owned().ok());
    let result = run();
    if let Some(standard_error) = standard_error {
        // It was duplicated before: if this fails nevertheless, there is nothing to do about it.
        let _ = dup2_stderr(standard_error);
    }
    result
}

fn read(text: &str) -> Result<Parsed, NotUnderstood> {
    let result = undisturbed(|| catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, 0))));
    match result {
        Ok(Ok(result)) => Ok(Parsed { statements: result.protobuf.stmts, suspect: redact::is_suspect(text) }),
        Ok(Err(pg_query::Error::Parse(message))) => Err(NotUnderstood {
            fault: match message.contains("too deep") || message.contains("stack depth") {
                true => Fault::Bounds,
                false => Fault::Syntax,
            },
            reason: message,
        }),
        Ok(Err(pg_query::Error::Decode(_))) => {
            Err(NotUnderstood::new("the statement is nested deeper than the gate follows"))
        }
        Ok(Err(error)) => Err(NotUnderstood::new(error.to_string())),
        Err(_) => Err(NotUnderstood::new("the gate could not parse the statement")),
    }
}

/// An upper bound of how deep the syntax tree can be: for each open parenthesis, the tokens of its longest run
/// without a comma, since every token adds at most one level and list members lie side by side.
///
/// Set operations chain across commas and are counted apart. Text inside quotes and comments counts too: that
/// can only make the bound larger.
fn nesting(text: &str) -> usize {
    let (mut worst, mut open, mut run, mut chains) = (0_usize, Vec::new(), 0_usize, 0_usize);
    let mut below = 0_usize;
    let mut in_word = false;
    for &byte in text.as_bytes() {
        let word = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        match byte {
            b'(' | b'[' => {
                run += 1;
                below += run;
                open.push(run);
                run = 0;
            }
            b')' | b']' => {
                if let Some(outer) = open.pop() {
                    below -= outer;
                    run = run.max(outer);
                }
            }
            b',' | b';' => run = 0,
            b'u' | b'U' | b'i' | b'I' | b'e' | b'E' if !in_word => {
                chains += 1;
                run += 1;
            }
            _ if byte.is_ascii_whitespace() => {}
            _ if word && in_word => {}
            _ => run += 1,
        }
        in_word = word;
        worst = worst.max(below + run);
    }
    worst + chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_within_limits_is_parsed() {
        assert_eq!(parse("select 1; select 2", &Limits::default()).unwrap().len(), 2);
        assert!(parse(" -- nothing\n;", &Limits::default()).unwrap().len() == 0);
    }

    #[test]
    fn a_syntax_error_is_told_from_a_limit() {
        let fault = |text: &str| parse(text, &Limits::default()).unwrap_err().fault;
        assert_eq!(fault("selec 1"), Fault::Syntax);
        assert_eq!(fault(&" ".repeat(2 << 20)), Fault::Bounds);
        assert_eq!(fault(&"select 1;".repeat(1001)), Fault::Bounds);
    }

    #[test]
    fn deep_nesting_is_refused_and_never_crashes() {
        let long = |unit: &str, n: usize| format!("select {}1", unit.repeat(n));
        for text in [
            long("1+", 64_000),
            long("(", 100_000),
            long("not ", 20_000),
            long("-", 60_000),
            format!("select 1{}", " union select 1".repeat(20_000)),
            format!("select 1{}", "::int".repeat(30_000)),
            format!("select {}1{}", "f(".repeat(3_000), ")".repeat(3_000)),
            format!("select {}1", "case when true then ".repeat(5_000)),
        ] {
            assert!(parse(&text, &Limits::default()).is_err(), "{}", &text[..40]);
        }
    }

    #[test]
    fn parentheses_that_leave_no_trace_do_no_harm() {
        let text = format!("select {}1{}", "(".repeat(9_000), ")".repeat(9_000));
        assert!(parse(&text, &Limits::default()).is_ok());
    }

    #[test]
    fn parses_at_once_leave_standard_error_where_it_was() {
        // stat(2): the pipe of a parse would be another file.
        let file = || {
            let own = nix::sys::stat::fstat(io::stderr()).unwrap();
            (own.st_dev, own.st_ino)
        };
        parse("select 1", &Limits::default()).unwrap();
        let before = file();
        let long = format!("select {}", vec!["1"; 2_000].join(", "));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| drop(parse(&long, &Limits::default()).unwrap())));
            }
        });
        // Others of this process may parse now.
        assert!((0..1000).any(|_| file() == before));
    }

    #[test]
    fn long_but_flat_statements_are_read() {
        let rows = vec!["(1, 'a', 2.5)"; 20_000].join(", ");
        assert!(parse(&format!("insert into t values {rows}"), &Limits::default()).is_ok());
        let arms = vec!["a = 1"; 3_000].join(" or ");
        assert!(parse(&format!("select 1 where {arms}"), &Limits::default()).is_ok());
    }
}
