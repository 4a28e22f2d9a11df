//! Commands about recorded sessions. They read the store beside a running agent, and without one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use tidegate_records::{
    Expected, Filter, Line, Pace, PublicKey, Reader, Sessions as Index, StoreError, export_asciicast,
    export_lines, follow, replay, verify,
};

use super::Exit;
use crate::config::{Config, parse_duration};

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
    /// Write a session's record to a file or to standard output
    #[command(
        after_help = "Example:\n  tidegate sessions export ID --format asciicast --output session.cast"
    )]
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
    /// The session's id
    session: String,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    /// Where to; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// The record's own lines
    Jsonl,
    /// A recording that terminal players show
    Asciicast,
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
        let lines = Reader::open(&Index::open(store)?.record(&self.session)?)?;
        let mut out: Box<dyn Write> = match &self.output {
            Some(path) => {
                Box::new(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?))
            }
            None => Box::new(BufWriter::new(io::stdout().lock())),
        };
        match self.format {
            Format::Jsonl => export_lines(lines, &mut out)?,
            Format::Asciicast => export_asciicast(lines, &mut out)?,
        }
        Ok(Exit::Done)
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
