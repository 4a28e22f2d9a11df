//! Looks for secrets where none may be.

use std::{fs, path::Path};

use anyhow::Result;

/// Every file under this directory that holds any of these secrets, as `file: secret's place in the list`.
/// Files that vanish meanwhile hold nothing.
pub fn leaks(directory: &Path, secrets: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(leaks(&path, secrets)?);
        } else if let Ok(bytes) = fs::read(&path) {
            let hits = secrets.iter().enumerate().filter(|(_, secret)| contains(&bytes, secret.as_bytes()));
            found.extend(hits.map(|(place, _)| format!("{}: secret {place}", path.display())));
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_nested_file_is_found_and_named_by_place_only() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("deep")).unwrap();
        fs::write(directory.path().join("deep/log"), "password=hunter22!").unwrap();
        fs::write(directory.path().join("clean"), "nothing").unwrap();
        let found = leaks(directory.path(), &["absent", "hunter22"]).unwrap();
        assert_eq!(found, [format!("{}: secret 1", directory.path().join("deep/log").display())]);
    }
}
