//! HTTPS: a direct connection, other hops with TLS on both sides, and the gate.

mod hops;
mod load;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::{
    hops::Hops,
    load::{Round, WORKS},
};
use super::{
    TABLE,
    report::{Figures, Report, machine},
    sections,
};
use crate::{
    build, setup,
    shell::{as_root, is_root, project, say},
};

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// How often each kind of work is measured through each hop; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Connections that are open at once when memory is measured.
    #[arg(long, default_value_t = 200)]
    idle: u32,
    /// The agent's binary: measures and prints the report, as root.
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

/// Builds, measures as root, and reports.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(binary) = &arguments.binary {
        println!("{}", serde_json::to_string(&measure(arguments, binary)?)?);
        return Ok(());
    }
    setup::run()?;
    setup::compared()?;
    let binary = build::agent(true)?;
    let report = if is_root() { measure(arguments, &binary)? } else { measure_as_root(arguments, &binary)? };
    sections::put(&project().join(TABLE), &report.markdown()).with_context(|| format!("writing {TABLE}"))?;
    if arguments.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.markdown());
    }
    say(&format!("the table is in {TABLE}"));
    Ok(())
}

/// The report is written by the user who asked for it, so root only prints it.
fn measure_as_root(arguments: &Arguments, binary: &Path) -> Result<Report> {
    say("the rest needs root");
    let mut command = as_root(env::current_exe()?, &[]);
    command.args(["bench", "http", "--binary"]).arg(binary);
    for (flag, value) in [
        ("--rounds", arguments.rounds.to_string()),
        ("--seconds", arguments.seconds.to_string()),
        ("--idle", arguments.idle.to_string()),
    ] {
        command.args([flag, &value]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed ({})", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(arguments: &Arguments, binary: &Path) -> Result<Report> {
    say("starting a server and the hops");
    let hops = Hops::start(binary)?;
    // First, while the hops have kept nothing from earlier connections.
    say(&format!("memory of {} idle connections", arguments.idle));
    let mut memory = Vec::new();
    for hop in hops.all() {
        memory.push((hop.name.to_owned(), load::memory(hop, arguments.idle).with_context(|| hop.name)?));
    }
    let mut figures = Figures::default();
    for work in &WORKS {
        for round in 0..arguments.rounds {
            say(&format!("{}: round {} of {}", work.kind.name, round + 1, arguments.rounds));
            for hop in hops.in_turn(round) {
                let round = Round { hop, work, seconds: arguments.seconds };
                figures.add(work.kind, hop.name, round.measure().with_context(|| hop.name)?);
            }
        }
    }
    Report::of("HTTPS through the gate", words(arguments.rounds), &figures, &memory)
}

/// What a reader must know to read the figures.
fn words(rounds: usize) -> String {
    format!(
        "Written by `cargo xtask bench http`. {}. Clients, hops and server share the machine; TLS on both sides of every hop. `h1` is \
         wrk with 8 connections, `h2` is h2load with 4 connections of 8 streams each, `connects` is wrk with a connection for each \
         request, of 1 KiB. The server is one process of nginx. Tidegate decides, and records, every request and its answer, and \
         signs in; `tidegate-masked` also masks a field of the JSON and looks for cards in every value. Figures are medians of \
         {rounds} rounds in turn, shares those of each round's own ratio. CPU is the hop's process alone, user and system.",
        machine(),
    )
}
