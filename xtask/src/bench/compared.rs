//! A protocol through several hops: prepared, measured as root, and told.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{TABLE, report::Report, sections};
use crate::{
    build,
    shell::{as_root, is_root, project, say},
};

/// How much is measured, whatever the protocol.
#[derive(Debug, Clone, Args)]
pub(super) struct Extent {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// How often each kind of work is measured through each hop; the median counts.
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3)]
    pub(super) seconds: u32,
    /// Connections that are open at once when memory is measured.
    #[arg(long, default_value_t = 200)]
    pub(super) idle: u32,
    /// The agent's binary: measures and prints the report, as root.
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

/// What a protocol's benchmark has of its own.
pub(super) struct Comparison<'a> {
    /// Its name among the benchmarks.
    pub(super) name: &'static str,
    pub(super) extent: &'a Extent,
    /// Flags beyond the extent's, for the part that root runs.
    pub(super) flags: Vec<(&'static str, String)>,
    /// Installs what is compared with.
    pub(super) prepare: fn() -> Result<()>,
    /// Measures with the agent's binary, as root.
    pub(super) measure: &'a dyn Fn(&Path) -> Result<Report>,
}

impl Comparison<'_> {
    /// Builds, measures as root, and reports.
    pub(super) fn run(self) -> Result<()> {
        if let Some(binary) = &self.extent.binary {
            println!("{}", serde_json::to_string(&(self.measure)(binary)?)?);
            return Ok(());
        }
        (self.prepare)()?;
        let binary = build::agent(true)?;
        let report = if is_root() { (self.measure)(&binary)? } else { self.measure_as_root(&binary)? };
        sections::put(&project().join(TABLE), &report.markdown())
            .with_context(|| format!("writing {TABLE}"))?;
        println!("{}", if self.extent.json { report.json().to_string() } else { report.markdown() });
        say(&format!("the table is in {TABLE}"));
        Ok(())
    }

    /// The report is written by the user who asked for it, so root only prints it.
    fn measure_as_root(&self, binary: &Path) -> Result<Report> {
        say("the rest needs root");
        let mut command = as_root(env::current_exe()?, &[]);
        command.args(["bench", self.name, "--binary"]).arg(binary);
        let Extent { rounds, seconds, idle, .. } = self.extent;
        let own = [
            ("--rounds", rounds.to_string()),
            ("--seconds", seconds.to_string()),
            ("--idle", idle.to_string()),
        ];
        for (flag, value) in own.iter().chain(&self.flags) {
            command.args([flag, value.as_str()]);
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the measurement failed ({})", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
