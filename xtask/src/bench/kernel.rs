//! What the kernel side costs: a measurement of its own crate's, and how long a killed agent is away.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tidegate_tests::{Agent, Settings, governed_uid};

use super::{
    TABLE,
    sections::{self, Figure},
};
use crate::{
    build, setup,
    shell::{as_root, is_root, project, say},
};

/// The measurement, among the tests of `agent/kernel`.
const MEASUREMENT: &str = "speed::what_the_programs_cost";

/// Rows that others are compared with.
const BARE_CONNECT: &str = "connect, nobody governed, no programs";
const UNGOVERNED_DATA: &str = "data of the ungoverned";

const BUNDLE: &str = "\
tidegate: 1
name: bench
subjects:
  job: {users: [\"${user}\"]}
resources:
  nowhere: {protocol: postgres, addresses: [\"192.0.2.1:5432\"], tls: {mode: disable}, credential: nobody}
rules:
  - {name: sign-in, subjects: [job], resources: [nowhere], allow: [{action: login}]}
";

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connects of one measurement.
    #[arg(long, default_value_t = 2000)]
    connects: usize,
    /// The agent's binary: measures its restarts and prints a row, as root.
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

/// Builds, measures as root, and reports.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(binary) = &arguments.binary {
        println!("{}", restarts(binary, arguments.rounds)?);
        return Ok(());
    }
    setup::run()?;
    let agent = build::agent(true)?;
    let mut table = vec!["| what | figure |".to_owned(), "|---|---:|".to_owned()];
    say("connects, data, memory and the verifier's work");
    table.extend(programs(arguments)?);
    say("restarts of an agent that was killed");
    table.push(if is_root() {
        restarts(&agent, arguments.rounds)?
    } else {
        restarts_as_root(&agent, arguments)?
    });
    let lines: Vec<&str> = table.iter().map(String::as_str).collect();
    let words = format!(
        "Written by `cargo xtask bench kernel`: medians of {} rounds, each of {} connects and 256 MB. Clients and server share the \
         machine, on loopback. The verifier's work is this kernel's; `ebpf/verifier.json` has the matrix.",
        arguments.rounds, arguments.connects
    );
    let section = format!("# What the kernel side costs\n\n{words}\n\n{}\n", lines.join("\n"));
    sections::put(&project().join(TABLE), &section).with_context(|| format!("writing {TABLE}"))?;
    if arguments.json {
        println!("{}", sections::json(&told(&lines)));
    } else {
        println!("{section}");
    }
    say(&format!("the table is in {TABLE}"));
    Ok(())
}

/// The table's figures. What is done with the programs is a share of what is done without them, or by the ungoverned.
fn told(table: &[&str]) -> Vec<Figure> {
    let mut figures = sections::figures(table);
    let number = |work: &str| figures.iter().find(|figure| figure.work == work).and_then(Figure::number);
    let (connect, data) = (number(BARE_CONNECT), number(UNGOVERNED_DATA));
    for figure in &mut figures {
        if [BARE_CONNECT, UNGOVERNED_DATA].contains(&figure.work.as_str()) {
            figure.through = "direct";
        }
        figure.share_of_direct = match figure.work.split(' ').next() {
            Some("connect" | "connect,") => connect.zip(figure.number()).map(|(direct, own)| direct / own),
            Some("data") => data.zip(figure.number()).map(|(direct, own)| own / direct),
            _ => None,
        };
    }
    figures
}

/// Rows of the crate's own measurement.
fn programs(arguments: &Arguments) -> Result<Vec<String>> {
    let hooks = build::measurement("tidegate-kernel", "hooks")?;
    let (rounds, connects) = (arguments.rounds.to_string(), arguments.connects.to_string());
    let variables =
        [("TIDEGATE_SPEED_ROUNDS", rounds.as_ref()), ("TIDEGATE_SPEED_CONNECTS", connects.as_ref())];
    let mut command = as_root(&hooks, &variables);
    command.args(["--ignored", "--exact", MEASUREMENT, "--nocapture", "--test-threads", "1"]);
    let ran = command.stderr(Stdio::inherit()).output()?;
    ensure!(ran.status.success(), "the measurement failed ({})", ran.status);
    let printed = String::from_utf8(ran.stdout)?;
    let rows = printed.lines().filter(|line| line.ends_with('|'));
    // The test's own name may stand before the first row.
    let rows: Vec<String> = rows.filter_map(|line| line.get(line.find('|')?..)).map(str::to_owned).collect();
    ensure!(!rows.is_empty(), "the measurement printed no rows");
    Ok(rows)
}

fn restarts_as_root(agent: &Path, arguments: &Arguments) -> Result<String> {
    let mut command = as_root(std::env::current_exe()?, &[]);
    command.args(["bench", "kernel", "--rounds", &arguments.rounds.to_string(), "--binary"]).arg(agent);
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The row of how long it takes from the start of an agent, after one that was killed, until it serves.
fn restarts(binary: &Path, rounds: usize) -> Result<String> {
    let mut agent = Agent::start(&Settings {
        binary,
        bundle: &[("bundle.yaml", &BUNDLE.replace("${user}", &governed_uid().to_string()))],
        credentials: &[("nobody.user", "nobody"), ("nobody.password", "nothing")],
    })?;
    let mut taken = Vec::new();
    for _ in 0..rounds {
        agent.kill();
        let begun = Instant::now();
        agent.launch()?;
        taken.push(begun.elapsed());
    }
    taken.sort();
    let median = taken.get(taken.len() / 2).context("no round was asked for")?;
    Ok(format!("| restart of a killed agent, until it serves | {} ms |", median.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_cost_is_told_as_a_share_of_doing_without_them() {
        let rows = [
            "| what | figure |",
            "|---|---:|",
            &format!("| {BARE_CONNECT} | 20.0 µs |"),
            "| connect of a governed process to what is passed | 40.0 µs |",
            &format!("| {UNGOVERNED_DATA} | 2000 MB/s |"),
            "| data of a governed process to what is passed | 1000 MB/s |",
            "| memory of the maps | 38.4 MiB |",
        ];
        let told = told(&rows);
        let shares: Vec<_> = told.iter().map(|figure| (figure.through, figure.share_of_direct)).collect();
        let half = ("tidegate", Some(0.5));
        assert_eq!(shares, [("direct", Some(1.0)), half, ("direct", Some(1.0)), half, ("tidegate", None)]);
    }
}
