//! Measurements that are tests of the crates which they measure.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{TABLE, sections};
use crate::shell::{cargo, project, say};

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

/// A measurement that is one of a crate's own tests, optimised: nothing but the crate is in it. It prints a table.
pub(super) struct Own {
    title: &'static str,
    words: &'static str,
    test: &'static [&'static str],
    name: &'static str,
    /// Its figures are microseconds in which a processor is busy; others also wait.
    is_cpu: bool,
}

pub(super) const DECIDE: Own = Own {
    title: "What a decision costs",
    words: "Written by `cargo xtask bench decide`: medians. Rules that cannot match differ by resource, subject, statement or table.",
    test: &["test", "--release", "--package", "tidegate-policy", "--test", "bundles"],
    name: "speed::a_decision_costs_the_same_however_many_rules_cannot_match",
    is_cpu: true,
};

pub(super) const IDENTITY: Own = Own {
    title: "What knowing who asks adds to a connection",
    words: "Written by `cargo xtask bench identity`: medians, with the host's own processes, and an issuer on loopback whose keys are \
            known but where it says otherwise.",
    test: &["test", "--release", "--package", "tidegate-identity", "--lib"],
    name: "tests::speed::a_connection_hardly_waits_for_its_identity",
    is_cpu: false,
};

/// Runs the test, and reports.
pub(super) fn run(own: &Own, output: Output) -> Result<()> {
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
