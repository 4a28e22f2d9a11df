//! Commands about recorded sessions. They read the store beside a running agent, and without one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};
use jiff::Timestamp;
use tidegate_gate::{Entry, Recorded};
use tidegate_records::{
    Expected, Filter, Line, Pace, PublicKey, Reader, Sessions as Index, StoreError, export_asciicast,
    export_lines, follow, replay, verify,
};

use super::Exit;
use crate::{
    config::{Config, parse_duration},
    protocols::Protocols,
};

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// List sessions, newest first
    #[command(after_help = "\
Examples:
  tidegate sessions list --user ci-runner --since 2h
  tidegate sessions list --refused --json")]
    List(List),
    /// Print a session's record
    Show(Show),
    /// Print a session's record in the time it took
    #[command(after_help = "Example:\n  tidegate sessions replay ID --speed 10")]
    Replay(Replay),
    /// Write sessions' records to a file or to standard output
    #[command(after_help = "\
Examples:
  tidegate sessions export ID --format asciicast --output session.cast
  tidegate sessions export ID ID --format har --output requests.har")]
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this subject
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Only of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only on this resource
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// Only begun at or after this time: 2026-01-31T12:00:00Z, or 2h ago as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only begun before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Only with something refused in it
    #[arg(long)]
    refused: bool,
    /// Only those that still run
    #[arg(long)]
    open: bool,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The session's id
    session: String,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Wait for more, until the session ends
    #[arg(long)]
    follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The session's id
    session: String,
    /// How many times as fast as it happened
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    speed: f64,
    /// Longest pause
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    longest_pause: Duration,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The sessions' ids; more than one where the form is no single session's
    #[arg(required = true, value_name = "ID")]
    sessions: Vec<String>,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = JSONL, value_parser = formats())]
    format: String,
    /// Where to; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

const JSONL: &str = "jsonl";
const ASCIICAST: &str = "asciicast";

/// The records' own forms, and those of protocols.
fn formats() -> PossibleValuesParser {
    let own = [
        PossibleValue::new(JSONL).help("The record's own lines"),
        PossibleValue::new(ASCIICAST).help("A recording that terminal players show"),
    ];
    let protocols = Protocols::built_in();
    let theirs = protocols.exports().map(|(_, form)| PossibleValue::new(form.name).help(form.about));
    own.into_iter().chain(theirs).collect::<Vec<_>>().into()
}

#[derive(Debug, Subcommand)]
pub(super) enum Records {
    /// Find any changed, cut, missing or reordered line or file
    #[command(after_help = "\
Exit code 1: something was found.

Examples:
  tidegate records verify
  tidegate records verify --key log.pub --since yesterdays-checkpoint --json")]
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The store [default: the agent's]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// File with the log's public key, kept elsewhere; without it the store's own is believed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with an older checkpoint of this log, which it must still contain
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Sessions {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        let store = config.records();
        if !store.is_dir() {
            bail!("{}: no records there; --state or --config may say where they are", store.display());
        }
        match self {
            Self::List(list) => list.run(&store),
            Self::Show(show) => show.run(&store),
            Self::Replay(replay) => replay.run(&store),
            Self::Export(export) => export.run(&store),
        }
    }
}

impl List {
    fn run(self, store: &Path) -> Result<Exit> {
        let filter = Filter {
            subject: self.subject,
            user: self.user,
            resource: self.resource,
            since: self.since,
            until: self.until,
            denied_only: self.refused,
            open_only: self.open,
            limit: Some(self.limit),
        };
        let sessions = Index::open(store)?.list(&filter)?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&sessions)?)?;
        } else {
            sessions.iter().try_for_each(|session| writeln!(out, "{session}"))?;
        }
        Ok(Exit::Done)
    }
}

impl Show {
    fn run(&self, store: &Path) -> Result<Exit> {
        let record = Index::open(store)?.record(&self.session)?;
        if self.follow {
            // A line must be seen when it is written, not when a buffer is full.
            self.print(follow(&record)?, &mut io::stdout().lock())
        } else {
            self.print(Reader::open(&record)?, &mut BufWriter::new(io::stdout().lock()))
        }
    }

    fn print(
        &self,
        lines: impl Iterator<Item = Result<Line, StoreError>>,
        out: &mut dyn Write,
    ) -> Result<Exit> {
        if self.json {
            export_lines(lines, out)?
        } else {
            replay(lines, out, Pace::Instant)?
        }
        Ok(Exit::Done)
    }
}

impl Replay {
    fn run(&self, store: &Path) -> Result<Exit> {
        let record = Index::open(store)?.record(&self.session)?;
        let pace = Pace::Times { speed: self.speed, longest_pause: self.longest_pause };
        replay(Reader::open(&record)?, &mut io::stdout().lock(), pace)?;
        Ok(Exit::Done)
    }
}

impl Export {
    fn run(&self, store: &Path) -> Result<Exit> {
        let index = Index::open(store)?;
        let records =
            self.sessions.iter().map(|session| index.record(session)).collect::<Result<Vec<_>, _>>()?;
        let protocols = Protocols::built_in();
        let form = protocols.exports().find(|(_, form)| form.name == self.format);
        if let Some((protocol, _)) = form {
            records.iter().try_for_each(|record| self.fits(protocol, record))?;
        } else if records.len() > 1 {
            bail!("{} is one session's form: name one", self.format);
        }
        let mut out: Box<dyn Write> = match &self.output {
            Some(path) => {
                Box::new(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?))
            }
            None => Box::new(BufWriter::new(io::stdout().lock())),
        };
        if let Some((_, form)) = form {
            (form.write)(&mut records.iter().flat_map(|record| entries(record)), &mut out)?;
            return Ok(Exit::Done);
        }
        for record in &records {
            let lines = Reader::open(record)?;
            match &*self.format {
                ASCIICAST => export_asciicast(lines, &mut out)?,
                _ => export_lines(lines, &mut out)?,
            }
        }
        Ok(Exit::Done)
    }

    /// Whether a record is of the protocol whose form is wanted.
    fn fits(&self, wanted: &str, record: &Path) -> Result<()> {
        let first = Reader::open(record)?.next().transpose()?;
        match first.map(|line| line.entry) {
            Some(Entry::Open { protocol, .. }) if protocol != wanted => bail!(
                "{}: a session of {protocol}, and {} is for {wanted}; {JSONL} is for all",
                record.display(),
                self.format
            ),
            _ => Ok(()),
        }
    }
}

/// What a record says, for protocols; the file is named after the session.
fn entries(record: &Path) -> Box<dyn Iterator<Item = io::Result<Recorded>>> {
    let session: Arc<str> = record.file_stem().unwrap_or_default().to_string_lossy().into();
    let recorded =
        move |line: Line| Recorded { session: session.clone(), time: line.time, entry: line.entry };
    match Reader::open(record) {
        Ok(reader) => Box::new(reader.map(move |line| line.map(&recorded).map_err(io::Error::other))),
        Err(error) => Box::new(std::iter::once(Err(io::Error::other(error)))),
    }
}

impl Records {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        let Self::Verify(verify) = self;
        verify.run(config)
    }
}

impl Verify {
    fn run(self, config: &Config) -> Result<Exit> {
        let expected = Expected {
            key: self
                .key
                .map(|path| PublicKey::parse(&text(&path)?).with_context(|| path.display().to_string()))
                .transpose()?,
            since: self.since.map(|path| text(&path)).transpose()?,
        };
        let report = verify(&self.directory.unwrap_or_else(|| config.records()), &expected)?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            writeln!(out, "{report}")?;
        }
        Ok(if report.is_sound() { Exit::Done } else { Exit::Failed })
    }
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// A point in time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 2h")
    })?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_point_or_how_long_ago() {
        assert_eq!(time("2026-01-31T12:00:00Z").unwrap().to_string(), "2026-01-31T12:00:00Z");
        let before = Timestamp::now();
        let ago = Timestamp::now().duration_since(time("2h").unwrap()).as_secs();
        let taken = Timestamp::now().duration_since(before).as_secs();
        assert!((7199..=7200 + taken).contains(&ago), "{ago}");
        assert!(time("yesterday").unwrap_err().contains("neither a time"));
    }
}
