//! A certificate authority for one run, made with the `openssl` command.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::run;

/// An authority and one server certificate that it signed, for `localhost`, `127.0.0.1` and `::1`.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key, readable by `owner` only.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in this directory.
    pub fn make(directory: &Path, owner: &User) -> Result<Self> {
        let path = |name: &str| directory.join(name);
        let made = Self {
            authority: path("server-ca.pem"),
            certificate: path("server.pem"),
            key: path("server.key"),
        };
        let authority_key = path("server-ca.key");
        run(openssl_request("Shop server CA", &authority_key)
            .args(["-addext", "basicConstraints=critical,CA:TRUE"])
            .arg("-out")
            .arg(&made.authority))?;
        run(openssl_request("localhost", &made.key)
            .arg("-CA")
            .arg(&made.authority)
            .arg("-CAkey")
            .arg(&authority_key)
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&made.certificate))?;
        chown(&made.key, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .context("giving away the key")?;
        std::fs::set_permissions(&made.key, PermissionsExt::from_mode(0o600))?;
        Ok(made)
    }
}

/// A self-signed or CA-signed certificate with a new P-256 key.
fn openssl_request(name: &str, key: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "30", "-subj", &format!("/CN={name}"), "-keyout"])
        .arg(key);
    command
}
