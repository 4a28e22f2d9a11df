//! The host's own authority, and the stores of those who are to trust it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use super::Exit;
use crate::{authority, config::Config, files};

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Print the certificate that clients on this host may trust
    #[command(after_help = "\
Example:
  tidegate ca show > ca.pem && psql 'host=db.internal sslmode=verify-full sslrootcert=ca.pem'")]
    Show,
    /// Put it into the system's store, and say what clients with stores of their own need
    #[command(after_help = "Needs root. Every account of this host then trusts it; its key is root's alone.")]
    Install,
    /// Take it out of the system's store
    #[command(after_help = "Needs root.")]
    Remove,
}

/// A system's store of authorities.
#[derive(Debug)]
struct Store {
    /// Where certificates are put for it.
    directory: PathBuf,
    /// What makes the store anew.
    update: &'static str,
    /// The store as one file.
    bundle: &'static str,
}

/// What the file is called in the store.
const NAME: &str = "tidegate.crt";

impl Ca {
    pub(super) fn run(&self, config: &Config) -> Result<Exit> {
        let path = authority::certificate_path(&config.authority());
        let certificate = || {
            fs::read(&path)
                .with_context(|| format!("{}: the agent makes it when it first runs", path.display()))
        };
        let mut out = io::stdout().lock();
        match self {
            Self::Show => out.write_all(&certificate()?)?,
            Self::Install => {
                let store = Store::find()?;
                let installed = store.install(&certificate()?)?;
                writeln!(out, "in the system's store: {}", installed.display())?;
                write!(out, "{}", store.advice(&path))?;
            }
            Self::Remove => match Store::find()?.remove()? {
                Some(removed) => writeln!(out, "no longer in the system's store: {}", removed.display())?,
                None => writeln!(out, "it is not in the system's store")?,
            },
        }
        Ok(Exit::Done)
    }
}

impl Store {
    /// Debian's and its kin's, or Fedora's and its kin's.
    fn find() -> Result<Self> {
        let known = [
            (
                "/usr/local/share/ca-certificates",
                "update-ca-certificates",
                "/etc/ssl/certs/ca-certificates.crt",
            ),
            ("/etc/pki/ca-trust/source/anchors", "update-ca-trust", "/etc/pki/tls/certs/ca-bundle.crt"),
        ];
        let found = known.into_iter().find(|(directory, ..)| Path::new(directory).is_dir());
        match found {
            Some((directory, update, bundle)) => Ok(Self { directory: directory.into(), update, bundle }),
            None => bail!(
                "this system has no store that is known here ({}): put `tidegate ca show` where its clients look",
                known.map(|(directory, ..)| directory).join(", ")
            ),
        }
    }

    fn install(&self, certificate: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(NAME);
        files::write(&path, certificate, 0o644).with_context(|| path.display().to_string())?;
        self.update()?;
        Ok(path)
    }

    /// None if it isn't there.
    fn remove(&self) -> Result<Option<PathBuf>> {
        let path = self.directory.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            removed => removed.with_context(|| path.display().to_string())?,
        }
        self.update()?;
        Ok(Some(path))
    }

    fn update(&self) -> Result<()> {
        let output = Command::new(self.update)
            .output()
            .with_context(|| format!("{}: install ca-certificates", self.update))?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed: {}", self.update, complaints.trim_end());
        Ok(())
    }

    /// What clients with stores of their own need in their environment.
    fn advice(&self, certificate: &Path) -> String {
        let (bundle, certificate) = (self.bundle, certificate.display());
        format!(
            "curl, git, Go, Ruby, .NET and Rust's native stores use that store. Others are told in a job's environment:\n  \
             NODE_EXTRA_CA_CERTS={bundle}   (Node.js, npm)\n  \
             REQUESTS_CA_BUNDLE={bundle}    (Python requests, pip)\n  \
             SSL_CERT_FILE={bundle}         (Python httpx and ssl, other OpenSSL)\n  \
             AWS_CA_BUNDLE={bundle}         (AWS tools)\n\
             Java: keytool -importcert -cacerts -noprompt -alias tidegate -file {certificate}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path, update: &'static str) -> Store {
        Store { directory: directory.into(), update, bundle: "/bundle.crt" }
    }

    #[test]
    fn what_is_installed_can_be_removed_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), "true");
        let path = store.install(b"PEM").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"PEM");
        assert_eq!(store.remove().unwrap(), Some(path));
        assert_eq!(store.remove().unwrap(), None);
    }

    #[test]
    fn a_store_that_cannot_be_made_anew_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = store(directory.path(), "false").install(b"PEM").unwrap_err().to_string();
        assert!(error.contains("false failed"), "{error}");
    }

    #[test]
    fn clients_with_stores_of_their_own_are_told_of() {
        let advice = store(Path::new("/"), "true").advice(Path::new("/ca.pem"));
        assert!(
            advice.contains("NODE_EXTRA_CA_CERTS=/bundle.crt") && advice.contains("-file /ca.pem"),
            "{advice}"
        );
    }
}
