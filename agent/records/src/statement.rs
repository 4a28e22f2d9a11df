//! Statements of the host, signed with the key of its log: C2SP signed-note.

use std::path::Path;

use crate::{
    error::{At, StoreError},
    layout::Layout,
    log::checkpoint::{PublicKey, SigningKey},
};

/// Signs a text with the key of the store in this directory. `kind` says what it is, such as `attack-report`.
///
/// # Errors
///
/// There is no store yet, its key can't be read, or the text has an empty line, which would end it.
pub fn sign_statement(directory: &Path, kind: &str, text: &str) -> Result<String, StoreError> {
    let layout = Layout::new(directory);
    let public = layout.public_key();
    let name = PublicKey::parse(&std::fs::read_to_string(&public).at(&public)?)?.name().to_owned();
    let body = format!("{}\n{}\n", heading(&name, kind), text.trim_end());
    if body.contains("\n\n") {
        return Err(malformed("it has an empty line"));
    }
    SigningKey::load(&layout.key(), &name)?.sign_text(&body)
}

/// The text of a signed statement, if this key signed it as one of this kind.
pub fn verify_statement(note: &str, kind: &str, key: &PublicKey) -> Result<String, StoreError> {
    let (body, signatures) = note.split_once("\n\n").ok_or_else(|| malformed("no signature"))?;
    let signed = format!("{body}\n");
    if !signatures.lines().any(|line| key.signed(line, signed.as_bytes())) {
        return Err(malformed(&format!("the key {key} did not sign it")));
    }
    let wanted = heading(key.name(), kind);
    match body.split_once('\n') {
        Some((first, text)) if first == wanted => Ok(text.to_owned()),
        _ => Err(malformed(&format!("it is no {kind} of {}", key.name()))),
    }
}

/// A checkpoint's first line is the log's name alone, so that none passes for a statement, nor the other way round.
fn heading(name: &str, kind: &str) -> String {
    format!("{name}/{kind}")
}

fn malformed(why: &str) -> StoreError {
    StoreError::Malformed { what: "signed statement", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    fn store() -> (tempfile::TempDir, PublicKey) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        layout.create().unwrap();
        let key = SigningKey::create(&layout.key(), "host.example").unwrap();
        std::fs::write(layout.public_key(), format!("{}\n", key.public())).unwrap();
        let public = key.public().clone();
        (directory, public)
    }

    #[test]
    fn a_statement_verifies_unchanged_as_its_own_kind_and_with_its_own_key() {
        let (directory, key) = store();
        let (_other, other) = store();
        let note = sign_statement(directory.path(), "report", "all is well\n").unwrap();
        assert_eq!(verify_statement(&note, "report", &key).unwrap(), "all is well");
        assert!(verify_statement(&note, "other", &key).is_err());
        assert!(verify_statement(&note, "report", &other).is_err());
        assert!(verify_statement(&note.replace("well", "ill"), "report", &key).is_err());
    }

    #[test]
    fn a_statement_never_passes_for_a_checkpoint() {
        let (directory, key) = store();
        let root = "A".repeat(43) + "=";
        let note = sign_statement(directory.path(), "report", &format!("7\n{root}")).unwrap();
        assert!(Checkpoint::verify(&note, &key).is_err());
    }

    #[test]
    fn a_text_that_would_end_early_is_not_signed() {
        let (directory, _) = store();
        assert!(sign_statement(directory.path(), "report", "one\n\ntwo").is_err());
    }
}
