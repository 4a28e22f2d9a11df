//! Benchmarks: the gate beside a direct connection and other hops, in turn in one run.

mod client;
mod hop;
mod hops;
mod http;
mod kernel;
mod load;
mod report;
mod sections;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::{
    build, setup,
    shell::{as_root, cargo, is_root, project, say},
};
pub(crate) use client::Client;
use hops::Hops;
use load::{Round, Work};
use report::{Figures, Report, machine};

/// Where the table is kept.
const TABLE: &str = "tests/BENCH.md";

/// What is compared.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// PostgreSQL: direct, pgbouncer, haproxy, the gate, and the gate with masks.
    Pg(Arguments),
    /// HTTPS: direct, haproxy, mitmproxy, the gate, and the gate with masks.
    Http(http::Arguments),
    /// What a decision costs with 10, 1,000 and 10,000 rules.
    Decide(Output),
    /// What knowing who asks adds to a connection.
    Identity(Output),
    /// What the kernel side costs whom, and how long a restart takes.
    Kernel(kernel::Arguments),
}

/// How a measurement is told.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// How often each is measured; the median counts. As often as the figures are worth without it.
    #[arg(long)]
    rounds: Option<usize>,
}

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
    /// Size of the large result.
    #[arg(long, default_value_t = 1024)]
    megabytes: u32,
    /// Sessions that are open at once when memory is measured.
    #[arg(long, default_value_t = 200)]
    idle: u32,
    /// The agent's binary: measures and prints the report, as root.
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

/// Builds, measures as root, and reports.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Pg(arguments) => pg(&arguments),
        Bench::Http(arguments) => http::run(&arguments),
        Bench::Decide(output) => measured(&DECIDE, output),
        Bench::Identity(output) => measured(&IDENTITY, output),
        Bench::Kernel(arguments) => kernel::run(&arguments),
    }
}

/// A measurement that is one of a crate's own tests, optimised: nothing but the crate is in it. It prints a table.
struct Own {
    title: &'static str,
    words: &'static str,
    test: &'static [&'static str],
    name: &'static str,
    /// Its figures are microseconds in which a processor is busy; others also wait.
    is_cpu: bool,
}

const DECIDE: Own = Own {
    title: "What a decision costs",
    words: "Written by `cargo xtask bench decide`: medians. Rules that cannot match differ by resource, subject, statement or table.",
    test: &["test", "--release", "--package", "tidegate-policy", "--test", "bundles"],
    name: "speed::a_decision_costs_the_same_however_many_rules_cannot_match",
    is_cpu: true,
};

const IDENTITY: Own = Own {
    title: "What knowing who asks adds to a connection",
    words: "Written by `cargo xtask bench identity`: medians, with the host's own processes, and an issuer on loopback whose keys are \
            known.",
    test: &["test", "--release", "--package", "tidegate-identity", "--lib"],
    name: "tests::speed::a_connection_hardly_waits_for_its_identity",
    is_cpu: false,
};

fn measured(own: &Own, output: Output) -> Result<()> {
    let only = ["--", "--include-ignored", "--nocapture", "--exact", own.name];
    let mut command = cargo(own.test);
    command.args(only).stderr(Stdio::inherit());
    if let Some(rounds) = output.rounds {
        command.env("TIDEGATE_BENCH_ROUNDS", rounds.to_string());
    }
    let ran = command.output()?;
    ensure!(ran.status.success(), "the measurement failed ({})", ran.status);
    let printed = String::from_utf8(ran.stdout)?;
    // The test's own name may stand before the first line.
    let lines = printed.lines().filter(|line| line.ends_with('|'));
    let table: Vec<&str> = lines.filter_map(|line| line.get(line.find('|')?..)).collect();
    ensure!(table.len() > 2, "the measurement printed no table");
    let section = format!("# {}\n\n{}\n\n{}\n", own.title, own.words, table.join("\n"));
    sections::put(&project().join(TABLE), &section).with_context(|| format!("writing {TABLE}"))?;
    if output.json {
        let mut figures = sections::figures(&table);
        if own.is_cpu {
            figures.iter_mut().for_each(|figure| figure.cpu_us_per_op = figure.number());
        }
        println!("{}", sections::json(&figures));
    } else {
        println!("{section}");
    }
    say(&format!("the table is in {TABLE}"));
    Ok(())
}

fn pg(arguments: &Arguments) -> Result<()> {
    if let Some(binary) = &arguments.binary {
        println!("{}", serde_json::to_string(&measure(arguments, binary)?)?);
        return Ok(());
    }
    setup::run()?;
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
    command.args(["bench", "pg", "--binary"]).arg(binary);
    for (flag, value) in [
        ("--rounds", arguments.rounds.to_string()),
        ("--seconds", arguments.seconds.to_string()),
        ("--megabytes", arguments.megabytes.to_string()),
        ("--idle", arguments.idle.to_string()),
    ] {
        command.args([flag, &value]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed ({})", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(arguments: &Arguments, binary: &Path) -> Result<Report> {
    say("starting a server with the benchmark's tables, and the hops");
    let hops = Hops::start(binary, arguments.megabytes)?;
    // First, while the hops have kept nothing from earlier sessions.
    say(&format!("memory of {} idle sessions", arguments.idle));
    let mut memory = Vec::new();
    for hop in hops.all() {
        memory.push((
            hop.name.to_owned(),
            load::memory(hop, hops.client(), arguments.idle).with_context(|| hop.name)?,
        ));
    }
    let mut figures = Figures::default();
    for work in Work::ALL {
        for round in 0..arguments.rounds {
            say(&format!("{}: round {} of {}", work.kind().name, round + 1, arguments.rounds));
            for hop in hops.in_turn(round) {
                let round = Round { hop, work, client: hops.client(), seconds: arguments.seconds };
                figures.add(work.kind(), hop.name, round.measure().with_context(|| hop.name)?);
            }
        }
    }
    Report::of("PostgreSQL through the gate", words(arguments), &figures, &memory)
}

/// What a reader must know to read the figures.
fn words(arguments: &Arguments) -> String {
    format!(
        "Written by `cargo xtask bench pg`. {}. Clients, hops and server share the machine; no hop encrypts. `pgbench -S` with 8 \
         clients; `connects` opens a connection for each query, with 4; `large` is one result of {} MB in rows of 256 bytes. Tidegate \
         decides, and records, every statement; `tidegate-masked` also masks a column and looks for cards and e-mails in every value. \
         Figures are medians of {} rounds in turn, shares those of each round's own ratio. CPU is the hop's process alone, user and \
         system.",
        machine(),
        arguments.megabytes,
        arguments.rounds
    )
}
