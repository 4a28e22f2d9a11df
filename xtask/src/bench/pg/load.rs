//! Work that is measured, and how.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::Process;

use super::hops::TRUSTED;
use crate::bench::{
    hop::Hop,
    report::{Kind, Measured},
};

/// A kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// `pgbench -S`, simple query protocol.
    Simple,
    /// `pgbench -S`, extended query protocol, parsed each time.
    Extended,
    /// `pgbench -S`, prepared once.
    Prepared,
    /// A connection for each query.
    Connects,
    /// One large result. Its operations are megabytes.
    Large,
}

impl Work {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Simple, Self::Extended, Self::Prepared, Self::Connects, Self::Large];

    /// As reports have it.
    pub(crate) fn kind(self) -> Kind {
        let (name, operation) = match self {
            Self::Simple => ("simple", "query"),
            Self::Extended => ("extended", "query"),
            Self::Prepared => ("prepared", "query"),
            Self::Connects => ("connects", "connection"),
            Self::Large => ("large", "MB"),
        };
        Kind { name, operation }
    }
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    /// Through what.
    pub(crate) hop: &'a Hop,
    /// Of what.
    pub(crate) work: Work,
    /// This program, where every account can run it.
    pub(crate) client: &'a Path,
    /// For how long, where the work has no end of its own.
    pub(crate) seconds: u32,
}

impl Round<'_> {
    /// Does the work.
    pub(crate) fn measure(&self) -> Result<Measured> {
        let before = self.hop.cpu_seconds()?;
        let (operations, per_second) = match self.work {
            Work::Simple => self.pgbench(&["-c", "8", "-j", "2", "-M", "simple"])?,
            Work::Extended => self.pgbench(&["-c", "8", "-j", "2", "-M", "extended"])?,
            Work::Prepared => self.pgbench(&["-c", "8", "-j", "2", "-M", "prepared"])?,
            Work::Connects => self.pgbench(&["-c", "4", "-j", "2", "-C"])?,
            Work::Large => self.large()?,
        };
        let cpu = self.hop.cpu_seconds()? - before;
        Ok(Measured { per_second, cpu_us_per_op: cpu * 1e6 / operations })
    }

    /// Operations, and operations a second.
    fn pgbench(&self, arguments: &[&str]) -> Result<(f64, f64)> {
        let mut command = self.hop.account.command("pgbench");
        command.env("PGSSLMODE", "disable");
        command.args(["-n", "-S", "-T", &self.seconds.to_string()]).args(arguments).arg("shop");
        let output = tidegate_tests::run(&mut command)?;
        let text = String::from_utf8(output.stdout)?;
        let number = |label: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let line = line.with_context(|| format!("pgbench says no {label:?}:\n{text}"))?;
            let digits = line.trim().split([' ', '/']).next().unwrap_or_default();
            digits.parse().with_context(|| format!("pgbench's {label:?}: {line}"))
        };
        Ok((number("number of transactions actually processed:")?, number("tps =")?))
    }

    /// Megabytes, and megabytes a second.
    fn large(&self) -> Result<(f64, f64)> {
        let mut command = self.hop.account.command(self.client);
        let address = self.hop.address.to_string();
        command.args(["client", "read", &address, TRUSTED, "SELECT id, note FROM large"]);
        let text = String::from_utf8(tidegate_tests::run(&mut command)?.stdout)?;
        let (bytes, microseconds) = text.trim().split_once(' ').context("the client's answer")?;
        let megabytes = bytes.parse::<f64>()? / f64::from(1 << 20);
        Ok((megabytes, megabytes / microseconds.parse::<f64>()? * 1e6))
    }
}

/// How much more memory the hop's process has in use for each of so many idle sessions, in bytes.
pub(crate) fn memory(hop: &Hop, client: &Path, sessions: u32) -> Result<f64> {
    // The first session also pays for what is shared.
    idle(hop, client, 1)?;
    let before = hop.resident_bytes()?;
    let during = idle(hop, client, sessions)?;
    Ok((during - before) / f64::from(sessions))
}

/// What the hop's process has in use while so many sessions are open.
fn idle(hop: &Hop, client: &Path, sessions: u32) -> Result<f64> {
    let mut command = hop.account.command(client);
    command.args(["client", "idle", &hop.address.to_string(), TRUSTED, &sessions.to_string()]);
    let mut client = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(client.child().stdout.take().context("output")?).read_line(&mut line)?;
    ensure!(line.trim() == "open", "the sessions could not be opened");
    hop.resident_bytes()
}
