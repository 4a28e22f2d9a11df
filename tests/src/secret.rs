//! Passwords for one run.

use std::{fs::File, io::Read};

use anyhow::{Context, Result};

/// 24 hexadecimal digits that nobody can guess, after a word that says what they are for.
pub fn random(word: &str) -> Result<String> {
    let mut bytes = [0; 12];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().fold(format!("{word}-"), |text, byte| format!("{text}{byte:02x}")))
}
