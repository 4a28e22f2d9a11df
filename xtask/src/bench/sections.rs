//! The file of all tables: each benchmark replaces its own section, under a heading of its own.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

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

/// A table's rows as objects, by the names of its columns.
pub(crate) fn json(table: &[&str]) -> Value {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let names = table.first().map_or_else(Vec::new, |line| cells(line));
    let row = |line: &&str| -> Value {
        let pairs = names.iter().cloned().zip(cells(line).into_iter().map(Value::from));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    serde_json::json!({ "rows": table.iter().skip(2).map(row).collect::<Vec<_>>() })
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
    fn a_table_s_rows_are_told_by_their_columns() {
        let table = ["| rules | allowed |", "|---:|---:|", "| 10 | 1.50 µs |"];
        assert_eq!(json(&table), serde_json::json!({"rows": [{"rules": "10", "allowed": "1.50 µs"}]}));
    }
}
