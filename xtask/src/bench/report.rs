//! Figures, as a table and as JSON.

use std::{collections::BTreeMap, fmt::Write, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::load::{Measured, Work};

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<Work, Vec<(&'static str, Vec<Measured>)>>);

/// One line of the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    work: String,
    through: String,
    /// Median over the rounds of its rate divided by the direct one's in the same round.
    share_of_direct: f64,
    cpu_us_per_op: f64,
    rss_bytes_per_session: f64,
    /// Median rate.
    #[serde(default)]
    per_second: f64,
    #[serde(default)]
    operation: String,
}

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    conditions: String,
}

impl Figures {
    /// Adds a round's measurement.
    pub(crate) fn add(&mut self, work: Work, through: &'static str, measured: Measured) {
        let hops = self.0.entry(work).or_default();
        match hops.iter_mut().find(|(name, _)| *name == through) {
            Some((_, rounds)) => rounds.push(measured),
            None => hops.push((through, vec![measured])),
        }
    }
}

impl Report {
    /// Sums the figures up.
    pub(crate) fn of(
        figures: &Figures,
        memory: &[(String, f64)],
        rounds: usize,
        megabytes: u32,
    ) -> Result<Self> {
        let mut rows = Vec::new();
        for (work, hops) in &figures.0 {
            let direct =
                &hops.iter().find(|(name, _)| *name == "direct").context("direct was not measured")?.1;
            for (name, measured) in hops {
                let shares =
                    measured.iter().zip(direct).map(|(hop, direct)| hop.per_second / direct.per_second);
                rows.push(Row {
                    work: work.name().into(),
                    through: (*name).into(),
                    share_of_direct: median(shares),
                    cpu_us_per_op: median(measured.iter().map(|round| round.cpu_us_per_op)),
                    rss_bytes_per_session: memory
                        .iter()
                        .find(|(hop, _)| hop == name)
                        .map_or(0.0, |(_, bytes)| *bytes),
                    per_second: median(measured.iter().map(|round| round.per_second)),
                    operation: work.operation().into(),
                });
            }
        }
        Ok(Self { rows, conditions: conditions(rounds, megabytes) })
    }

    /// As `--json` prints it.
    pub(crate) fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "work": row.work,
                    "through": row.through,
                    "share_of_direct": row.share_of_direct,
                    "cpu_us_per_op": row.cpu_us_per_op,
                    "rss_bytes_per_session": row.rss_bytes_per_session,
                })
            })
            .collect();
        serde_json::json!({ "rows": rows })
    }

    /// As it is kept in the project.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# PostgreSQL through the gate\n\n{}\n", self.conditions);
        text += "\n| work | through | a second | share of direct | CPU of the hop | memory of an idle session |\n";
        text += "|---|---|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let none = row.through == "direct";
            let of_hop = |text: String| if none { "-".to_owned() } else { text };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} {} | {:.2} | {} | {} |",
                row.work,
                row.through,
                row.per_second,
                plural(&row.operation),
                row.share_of_direct,
                of_hop(format!("{:.1} µs/{}", row.cpu_us_per_op, row.operation)),
                of_hop(format!("{:.1} KiB", row.rss_bytes_per_session / 1024.0)),
            );
        }
        text
    }
}

/// What a reader must know to read the figures.
fn conditions(rounds: usize, megabytes: u32) -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(':').next().unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Written by `cargo xtask bench pg`. {cores} × {}, Linux {}. Clients, hops and server share the machine; no hop \
         encrypts. `pgbench -S` with 8 clients; `connects` opens a connection for each query, with 4; `large` is one \
         result of {megabytes} MB in rows of 256 bytes. Tidegate decides, and records, every statement; \
         `tidegate-masked` also masks a column and looks for cards and e-mails in every value. Figures are medians of \
         {rounds} rounds in turn, shares those of each round's own ratio. CPU is the hop's process alone, user and \
         system.",
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", ""),
    )
}

fn plural(operation: &str) -> &str {
    match operation {
        "query" => "queries",
        "connection" => "connections",
        other => other,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => f64::midpoint(*below, *above),
        (_, Some(value)) => *value,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(per_second: f64) -> Measured {
        Measured { per_second, cpu_us_per_op: 2.0 }
    }

    #[test]
    fn the_share_is_the_median_of_each_rounds_own_ratio() {
        let mut figures = Figures::default();
        for (direct, gate) in [(100.0, 50.0), (10.0, 9.0), (200.0, 160.0)] {
            figures.add(Work::Simple, "direct", measured(direct));
            figures.add(Work::Simple, "tidegate", measured(gate));
        }
        let report = Report::of(&figures, &[("tidegate".into(), 2048.0)], 3, 1).unwrap();
        let json = report.json();
        assert_eq!(json["rows"][1]["through"], "tidegate");
        assert_eq!(json["rows"][1]["share_of_direct"], 0.8);
        assert_eq!(json["rows"][1]["rss_bytes_per_session"], 2048.0);
        assert!(
            report.markdown().contains("| simple | tidegate | 50 queries | 0.80 | 2.0 µs/query | 2.0 KiB |")
        );
    }

    #[test]
    fn a_median_of_two_is_between_them() {
        assert!((median([3.0, 1.0].into_iter()) - 2.0).abs() < f64::EPSILON);
    }
}
