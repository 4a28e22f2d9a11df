//! Showing a record to people: as text, in its own time, or as a recording for terminal players.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tidegate_gate::{
    Block, Entry, Plain,
    policy::{Effect, Identity, Unproven},
};

use crate::{error::StoreError, human::count, line::Line};

/// How fast a record is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Without waiting.
    Instant,
    /// So many times as fast as it happened.
    Times {
        /// 1 is real time; what is not above 0 counts as 1.
        speed: f64,
        /// No pause is longer than this.
        longest_pause: Duration,
    },
}

impl Pace {
    /// How long to wait where this much time went by.
    fn pause(self, gap: Duration) -> Duration {
        match self {
            Self::Instant => Duration::ZERO,
            Self::Times { speed, longest_pause } => {
                let speed = if speed.is_finite() && speed > 0.0 { speed } else { 1.0 };
                Duration::try_from_secs_f64(gap.as_secs_f64() / speed)
                    .map_or(longest_pause, |gap| gap.min(longest_pause))
            }
        }
    }
}

/// Why a record could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It could not be read.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// The output failed: often the reader has gone away.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// Prints a record's actions and shown rows in order, in the time they took. Of a record that is
/// [followed](crate::follow), [`Pace::Instant`] prints each when it comes.
pub fn replay(
    record: impl Iterator<Item = Result<Line, StoreError>>,
    out: &mut dyn Write,
    pace: Pace,
) -> Result<(), ShowError> {
    let mut start = None;
    let mut last = None;
    for line in record {
        let line = line?;
        let pause = pace.pause(since(last.replace(line.time).unwrap_or(line.time), line.time));
        if !pause.is_zero() {
            out.flush()?;
            std::thread::sleep(pause);
        }
        let offset = since(*start.get_or_insert(line.time), line.time);
        writeln!(out, "+{:>10.6}  {line}", offset.as_secs_f64())?;
    }
    Ok(out.flush()?)
}

/// Writes a record's lines as they are in its file, to the byte: JSON, one a line.
pub fn export_lines(
    record: impl Iterator<Item = Result<Line, StoreError>>,
    out: &mut dyn Write,
) -> Result<(), ShowError> {
    for line in record {
        serde_json::to_writer(&mut *out, &line?).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes a record as an asciicast, version 2, that terminal players show: what [`replay`] prints, with its timing.
pub fn export_asciicast(
    record: impl Iterator<Item = Result<Line, StoreError>>,
    out: &mut dyn Write,
) -> Result<(), ShowError> {
    let mut start = None;
    for line in record {
        let line = line?;
        if start.is_none() {
            let title = match &line.entry {
                Entry::Open { resource, .. } => format!("session on {}", Plain(resource)),
                _ => "session".to_owned(),
            };
            let header = json!({
                "version": 2,
                "width": COLUMNS,
                "height": ROWS,
                "timestamp": line.time.as_second(),
                "title": title,
            });
            writeln!(out, "{header}")?;
        }
        let offset = since(*start.get_or_insert(line.time), line.time).as_secs_f64();
        let shown = format!("{line}\n").replace('\n', "\r\n");
        writeln!(out, "{}", json!([offset, "o", shown]))?;
    }
    Ok(out.flush()?)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Entry::Open { principal, destination, resource, protocol, .. } => {
                let process = &principal.process;
                let who =
                    process.user.as_deref().map_or_else(|| format!("uid {}", process.uid), str::to_owned);
                let executable = process.executable.as_deref().unwrap_or(&process.command);
                let (who, executable, resource) = (Plain(&who), Plain(executable), Plain(resource));
                write!(
                    f,
                    "{who} ({executable}, pid {}) -> {resource} ({protocol}, {destination})",
                    process.pid
                )?;
                principal.identities.iter().try_for_each(|identity| vouched(f, identity))?;
                principal.unproven.iter().try_for_each(|Unproven { issuer, why }| {
                    write!(f, "\n    a token of {} does not count: {}", Plain(issuer), Plain(why))
                })
            }
            Entry::Action { id, action, text, decision, rule, reason, .. } => {
                let decision = match decision {
                    Effect::Allow => "allowed",
                    Effect::Hold => "held",
                    Effect::Deny => "REFUSED",
                };
                write!(f, "#{id} {} {decision}", Plain(action))?;
                match rule {
                    Some(rule) => write!(f, " by {}", Plain(rule))?,
                    None => f.write_str(" by default")?,
                }
                write!(f, ": {}", Block(text))?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, "\n    {}", Plain(reason)))
            }
            Entry::Approval { id, question, step, by, reason } => {
                write!(f, "#{id} approval {} {}", Plain(question), Plain(step))?;
                if let Some(by) = by {
                    write!(f, " by {}", Plain(by))?;
                }
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {}", Plain(reason)))
            }
            Entry::Outcome { id, outcome, error, rows, bytes, sent, answer, waited, microseconds } => {
                write!(f, "#{id} {}", Plain(outcome))?;
                if let Some(error) = error {
                    write!(f, " ({})", Plain(error))?;
                }
                f.write_str(":")?;
                if *sent > 0 {
                    write!(f, " {} sent,", count(*sent, "byte"))?;
                }
                if answer.is_none() {
                    write!(f, " {},", count(*rows, "row"))?;
                }
                write!(f, " {}, {}", count(*bytes, "byte"), milliseconds(*microseconds))?;
                if let Some(waited) = waited {
                    write!(f, ", answered after {}", milliseconds(*waited))?;
                }
                answer.as_ref().map_or(Ok(()), |answer| write!(f, "\n    {}", Block(answer)))
            }
            Entry::Sent { id, data } => kept(f, *id, "sent", data),
            Entry::Shown { id, data } => kept(f, *id, "shown", data),
            Entry::DataEnds { id, reason } => write!(f, "#{id} no more data: {}", Plain(reason)),
            Entry::Event { event, detail } => write!(f, "event {}: {}", Plain(event), Plain(detail)),
            Entry::Close { reason } => write!(f, "closed: {}", Plain(reason)),
        }
    }
}

/// What an issuer says of who asks.
fn vouched(f: &mut fmt::Formatter<'_>, identity: &Identity) -> fmt::Result {
    write!(f, "\n    {} says: {}", Plain(&identity.issuer), Plain(&identity.subject))?;
    let groups = identity.groups.iter().map(|group| ("group", group.to_string()));
    let claims = identity
        .claims
        .iter()
        .map(|(name, value)| (&**name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    groups.chain(claims).try_for_each(|(name, value)| write!(f, ", {}: {}", Plain(name), Plain(&value)))
}

/// Data of an action.
fn kept(f: &mut fmt::Formatter<'_>, id: u64, word: &str, data: &str) -> fmt::Result {
    match data.strip_prefix("base64:") {
        Some(data) => write!(f, "#{id} {word} (binary, base64): {}", Plain(data)),
        None => write!(f, "#{id} {word}: {}", Block(data.trim_end_matches('\n'))),
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000)
}

/// Time between two lines; none if the clock was set back.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

const COLUMNS: u32 = 120;
const ROWS: u32 = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_scaled_and_bounded() {
        let pace = Pace::Times { speed: 4.0, longest_pause: Duration::from_secs(2) };
        assert_eq!(pace.pause(Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(pace.pause(Duration::from_secs(3600)), Duration::from_secs(2));
        assert_eq!(Pace::Instant.pause(Duration::from_secs(4)), Duration::ZERO);
        let stopped = Pace::Times { speed: 0.0, longest_pause: Duration::from_secs(9) };
        assert_eq!(stopped.pause(Duration::from_secs(4)), Duration::from_secs(4));
    }
}
