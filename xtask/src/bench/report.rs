//! Figures, as a table and as JSON.

use std::{fmt::Write, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// As reports name it.
    pub(crate) name: &'static str,
    /// What one operation is.
    pub(crate) operation: &'static str,
}

/// What came of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Operations a second.
    pub(crate) per_second: f64,
    /// CPU time that the hop's process took for one operation, in microseconds.
    pub(crate) cpu_us_per_op: f64,
}

/// What was measured so far: of each kind of work, through each hop, each round.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(Kind, Hops)>);

type Hops = Vec<(&'static str, Vec<Measured>)>;

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
    title: String,
    /// What a reader must know to read the figures.
    conditions: String,
    rows: Vec<Row>,
}

impl Figures {
    /// Adds a round's measurement.
    pub(crate) fn add(&mut self, work: Kind, through: &'static str, measured: Measured) {
        let Some((_, hops)) = self.0.iter_mut().find(|(kind, _)| *kind == work) else {
            return self.0.push((work, vec![(through, vec![measured])]));
        };
        match hops.iter_mut().find(|(name, _)| *name == through) {
            Some((_, rounds)) => rounds.push(measured),
            None => hops.push((through, vec![measured])),
        }
    }
}

impl Report {
    /// Sums the figures up.
    pub(crate) fn of(
        title: &str,
        conditions: String,
        figures: &Figures,
        memory: &[(String, f64)],
    ) -> Result<Self> {
        let mut rows = Vec::new();
        for (work, hops) in &figures.0 {
            let direct =
                &hops.iter().find(|(name, _)| *name == "direct").context("direct was not measured")?.1;
            for (name, measured) in hops {
                let shares =
                    measured.iter().zip(direct).map(|(hop, direct)| hop.per_second / direct.per_second);
                rows.push(Row {
                    work: work.name.into(),
                    through: (*name).into(),
                    share_of_direct: median(shares),
                    cpu_us_per_op: median(measured.iter().map(|round| round.cpu_us_per_op)),
                    rss_bytes_per_session: memory
                        .iter()
                        .find(|(hop, _)| hop == name)
                        .map_or(0.0, |(_, bytes)| *bytes),
                    per_second: median(measured.iter().map(|round| round.per_second)),
                    operation: work.operation.into(),
                });
            }
        }
        Ok(Self { title: title.to_owned(), conditions, rows })
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
        let mut text = format!("# {}\n\n{}\n", self.title, self.conditions);
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

/// What all of it runs on, in words.
pub(crate) fn machine() -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(':').next().unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} × {}, Linux {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", "")
    )
}

fn plural(operation: &str) -> &str {
    match operation {
        "query" => "queries",
        "connection" => "connections",
        "request" => "requests",
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

    const SIMPLE: Kind = Kind { name: "simple", operation: "query" };

    fn measured(per_second: f64) -> Measured {
        Measured { per_second, cpu_us_per_op: 2.0 }
    }

    #[test]
    fn the_share_is_the_median_of_each_rounds_own_ratio() {
        let mut figures = Figures::default();
        for (direct, gate) in [(100.0, 50.0), (10.0, 9.0), (200.0, 160.0)] {
            figures.add(SIMPLE, "direct", measured(direct));
            figures.add(SIMPLE, "tidegate", measured(gate));
        }
        let report = Report::of("it", "words".into(), &figures, &[("tidegate".into(), 2048.0)]).unwrap();
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
