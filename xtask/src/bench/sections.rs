//! The file of all tables: each benchmark replaces its own section, under a heading of its own.

use std::{fs, io, path::Path};

use serde::Serialize;
use serde_json::Value;

/// Replaces the section that begins with the same heading, or adds one.
pub(crate) fn put(path: &Path, section: &str) -> io::Result<()> {
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    fs::write(path, replaced(&before, section))
}

fn replaced(text: &str, section: &str) -> String {
    let heading = section.lines().next().unwrap_or_default();
    let mut sections: Vec<String> = Vec::new();
    for line in text.lines() {
        match sections.last_mut() {
            Some(last) if !line.starts_with("# ") => *last += &format!("{line}\n"),
            _ => sections.push(format!("{line}\n")),
        }
    }
    match sections.iter_mut().find(|known| known.lines().next() == Some(heading)) {
        Some(known) => *known = section.to_owned(),
        None => sections.push(section.to_owned()),
    }
    let sections: Vec<&str> = sections.iter().map(|section| section.trim_end()).collect();
    sections.join("\n\n") + "\n"
}

/// One figure as every benchmark tells it with `--json`: what it doesn't measure is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) work: String,
    pub(crate) through: &'static str,
    pub(crate) share_of_direct: Option<f64>,
    pub(crate) cpu_us_per_op: Option<f64>,
    pub(crate) rss_bytes_per_session: Option<f64>,
    /// With its unit, as the table has it.
    pub(crate) figure: String,
}

impl Figure {
    /// Its number, without the unit.
    pub(crate) fn number(&self) -> Option<f64> {
        self.figure.split_whitespace().next()?.parse().ok()
    }
}

/// A table's cells. Each is of the work that its row's first cell and its column's name say.
pub(crate) fn figures(table: &[&str]) -> Vec<Figure> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let names = table.first().map_or_else(Vec::new, |line| cells(line));
    let of_row = |line: &&str| -> Vec<Figure> {
        let row = cells(line);
        let first = row.first().cloned().unwrap_or_default();
        let work = |column: &str| match names.len() {
            // The only column's name says nothing of the work.
            0..=2 => first.clone(),
            _ => format!("{first} {}: {column}", names.first().map_or("", String::as_str)),
        };
        let named = names.iter().zip(row).skip(1);
        named
            .map(|(column, figure)| Figure {
                work: work(column),
                through: "tidegate",
                share_of_direct: None,
                cpu_us_per_op: None,
                rss_bytes_per_session: None,
                figure,
            })
            .collect()
    };
    table.iter().skip(2).flat_map(of_row).collect()
}

/// What `--json` prints.
pub(crate) fn json(figures: &[Figure]) -> Value {
    serde_json::json!({ "rows": figures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_its_own_and_leaves_the_others() {
        let text = replaced("", "# one\n\n1\n");
        let text = replaced(&text, "# two\n\n2\n");
        let text = replaced(&text, "# one\n\n3\n");
        assert_eq!(text, "# one\n\n3\n\n# two\n\n2\n");
    }

    #[test]
    fn a_table_s_figures_are_told_in_the_shape_that_every_benchmark_has() {
        let table = ["| rules | allowed | denied |", "|---:|---:|---:|", "| 10 | 1.50 µs | 2 µs |"];
        let told = json(&figures(&table));
        assert_eq!(
            told["rows"][1],
            serde_json::json!({
                "work": "10 rules: denied", "through": "tidegate", "share_of_direct": null, "cpu_us_per_op": null,
                "rss_bytes_per_session": null, "figure": "2 µs",
            })
        );
        let table = ["| a connection of | takes longer by |", "|---|---:|", "| a process | 0.30 ms |"];
        let [only] = &figures(&table)[..] else { panic!("{table:?}") };
        assert_eq!((only.work.as_str(), only.number()), ("a process", Some(0.3)));
    }
}
