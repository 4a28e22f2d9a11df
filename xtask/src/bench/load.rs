//! Work that is measured, and how.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use tidegate_tests::Process;

use super::hops::{Hop, TRUSTED};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// As reports name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            Self::Connects => "connects",
            Self::Large => "large",
        }
    }

    /// What one operation is.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Simple | Self::Extended | Self::Prepared => "query",
            Self::Connects => "connection",
            Self::Large => "MB",
        }
    }
}

/// What came of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Operations a second.
    pub(crate) per_second: f64,
    /// CPU time that the hop's process took for one operation, in microseconds.
    pub(crate) cpu_us_per_op: f64,
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    /// Through what.
    pub(crate) hop: &'a Hop,
    /// Of what.
    pub(crate) work: Work,
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
        let mut command = self.hop.account.command(&self.hop.client);
        let address = self.hop.address.to_string();
        command.args(["client", "read", &address, TRUSTED, "SELECT id, note FROM large"]);
        let text = String::from_utf8(tidegate_tests::run(&mut command)?.stdout)?;
        let (bytes, microseconds) = text.trim().split_once(' ').context("the client's answer")?;
        let megabytes = bytes.parse::<f64>()? / f64::from(1 << 20);
        Ok((megabytes, megabytes / microseconds.parse::<f64>()? * 1e6))
    }
}

/// How much more memory the hop's process has in use for each of so many idle sessions, in bytes.
pub(crate) fn memory(hop: &Hop, sessions: u32) -> Result<f64> {
    // The first session also pays for what is shared.
    idle(hop, 1)?;
    let before = hop.resident_bytes()?;
    let during = idle(hop, sessions)?;
    Ok((during - before) / f64::from(sessions))
}

/// What the hop's process has in use while so many sessions are open.
fn idle(hop: &Hop, sessions: u32) -> Result<f64> {
    let mut command = hop.account.command(&hop.client);
    command.args(["client", "idle", &hop.address.to_string(), TRUSTED, &sessions.to_string()]);
    let mut client = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(client.child().stdout.take().context("output")?).read_line(&mut line)?;
    ensure!(line.trim() == "open", "the sessions could not be opened");
    hop.resident_bytes()
}

impl Hop {
    /// CPU time that its process has taken so far, all threads; 0 if there is none. (proc_pid_stat(5))
    fn cpu_seconds(&self) -> Result<f64> {
        let Some(id) = self.process else { return Ok(0.0) };
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The second field is a name in parentheses, which may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / system(SysconfVar::CLK_TCK)?)
    }

    /// Memory its process has in use; 0 if there is none. (proc_pid_statm(5))
    fn resident_bytes(&self) -> Result<f64> {
        let Some(id) = self.process else { return Ok(0.0) };
        let statm = fs::read_to_string(format!("/proc/{id}/statm"))?;
        let pages: f64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
        Ok(pages * system(SysconfVar::PAGE_SIZE)?)
    }
}

fn system(variable: SysconfVar) -> Result<f64> {
    let value = sysconf(variable)?.context("a system constant")?;
    Ok(f64::from(u32::try_from(value)?))
}
