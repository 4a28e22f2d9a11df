//! Whoever hands ID tokens out, on loopback: a certified OpenID provider, and what GitHub Actions offers a job.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use tempfile::TempDir;

use crate::{CLIENTS, Certificates, Process, run};

/// A running provider. Dropped, it is stopped.
#[derive(Debug)]
pub struct Provider {
    /// Its URL, which is its issuer identifier.
    pub url: String,
    certificates: Certificates,
    process: Option<Process>,
    _directory: TempDir,
}

impl Provider {
    /// npm's `oidc-provider`, with ID tokens of this lifetime in seconds.
    pub fn oidc(lifetime: u32) -> Result<Self> {
        Self::oidc_for(lifetime, None)
    }

    /// The same, with a client `tidegate-web` that wants browsers back here.
    pub fn oidc_for(lifetime: u32, redirect: Option<&str>) -> Result<Self> {
        Self::start("oidc.mjs", |certificates, command| {
            command.arg(format!("{CLIENTS}/node/node_modules"));
            command.arg(&certificates.certificate).arg(&certificates.key).arg(lifetime.to_string());
            command.args(redirect);
        })
    }

    /// What GitHub Actions offers: `jobs` is a JSON object of request token to claims.
    pub fn github(jobs: &serde_json::Value) -> Result<Self> {
        Self::start("github.mjs", |certificates, command| {
            command.arg(&certificates.certificate).arg(&certificates.key).arg(jobs.to_string());
        })
    }

    /// What GitLab and Buildkite say of their jobs.
    pub fn ci() -> Result<Self> {
        Self::start("ci.mjs", |certificates, command| {
            command.arg(&certificates.certificate).arg(&certificates.key);
        })
    }

    /// A token of a job of `gitlab` or `buildkite` for this audience, with these claims instead of the usual job's.
    pub fn ci_token(&self, ci: &str, audience: &str, claims: &serde_json::Value) -> Result<String> {
        let job = serde_json::json!({"ci": ci, "audience": audience, "claims": claims});
        self.fetch("token", &["--data", &job.to_string()])
    }

    /// The certificate of the authority that vouches for it.
    pub fn ca(&self) -> &Path {
        &self.certificates.authority
    }

    /// Its certificate, for `localhost`, and the key to it.
    pub fn certificate(&self) -> (&Path, &Path) {
        (&self.certificates.certificate, &self.certificates.key)
    }

    /// Stops it; what vouches for it stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// The host and port.
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("https://")
    }

    /// An ID token for this client, of this account.
    pub fn token(&self, client: &str, account: &str) -> Result<String> {
        let printed = run(self.script("token.mjs").args([&self.url, client, account]))?.stdout;
        Ok(String::from_utf8(printed)?.trim().to_owned())
    }

    /// The accounts whose refresh tokens were revoked, one a line.
    pub fn revoked(&self) -> Result<String> {
        self.fetch("api/revoked", &[])
    }

    /// Signs in under this name at the address that a device flow shows, and agrees.
    pub fn visit(&self, address: &str, account: &str) -> Result<()> {
        run(self.script("person.mjs").args([address, account])).map(drop)
    }

    /// Opens a question's link, signs in under this name, and answers; the pages before and after that, with `----` between.
    pub fn answer(&self, link: &str, account: &str, answer: &str, reason: &str) -> Result<String> {
        let printed = run(self.script("approver.mjs").args([link, account, answer, reason]))?.stdout;
        Ok(String::from_utf8(printed)?)
    }

    fn fetch(&self, path: &str, how: &[&str]) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--cacert"]).arg(self.ca()).args(how);
        Ok(String::from_utf8(run(command.arg(format!("{}/{path}", self.url)))?.stdout)?)
    }

    fn start(script: &str, arguments: impl FnOnce(&Certificates, &mut Command)) -> Result<Self> {
        let directory = TempDir::with_prefix("tidegate-provider-")?;
        let root = User::from_name("root")?.context("there is no root")?;
        let certificates = Certificates::make(directory.path(), &root)?;
        let mut command = Command::new("node");
        command.arg("--no-warnings").arg(scripts().join(script));
        arguments(&certificates, &mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let mut url = String::new();
        let stdout = process.child().stdout.take().context("standard output")?;
        BufReader::new(stdout).read_line(&mut url)?;
        let url = url.trim().to_owned();
        ensure!(url.starts_with("https://"), "{script} did not start: run `cargo xtask setup`");
        Ok(Self { url, certificates, process: Some(process), _directory: directory })
    }

    /// One of the scripts beside it, which trusts its authority.
    pub fn script(&self, script: &str) -> Command {
        let mut command = Command::new("node");
        command.arg("--no-warnings").arg(scripts().join(script)).env("NODE_EXTRA_CA_CERTS", self.ca());
        command
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("providers")
}
