//! An API behind a certified authorization server, to which the gate is a client of its own.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{Account, Agent, Provider, Settings, governed_uid};

use crate::identity::{LIFETIME, jobs};

/// As `providers/oidc.mjs` knows it.
const SECRET: &str = "of-the-gate-and-nobody-else";
/// What says who asks, beside the authority's path.
const THINGS: &str =
    "curl -sS --cacert $CA -H 'Authorization: Bearer mine' -w ' %{http_code}' $URL/api/things";

/// The API, an agent that is its client, and an account that may read there.
struct Api {
    provider: Provider,
    agent: Agent,
    job: Account,
    /// The agent's own authority, where every account can read it.
    ca: String,
    _directory: TempDir,
}

impl Api {
    /// `identity` is the resource's, `issuers` are the bundle's.
    fn start(identity: &str, issuers: impl FnOnce(&Provider) -> String) -> Result<Self> {
        let (provider, uid) = (Provider::oidc(LIFETIME)?, governed_uid());
        let port: u16 = provider.host().rsplit(':').next().context("a port")?.parse()?;
        let (url, ca, issuers) = (&provider.url, provider.ca().display(), issuers(&provider));
        let bundle = format!(
            "tidegate: 1\nname: api\nsubjects:\n  ci: {{users: [\"{uid}\"]}}\n{issuers}resources:\n  api:\n    \
             protocol: http\n    {identity}addresses: [\"127.0.0.1:{port}\"]\n    tls: {{ca: {ca}}}\n    \
             credential: client\n    options:\n      hosts: [localhost]\n      \
             sign-in: {{oauth2: {{url: \"{url}/token\", ca: {ca}, scope: things.read}}}}\n\
             rules:\n  - {{name: read, subjects: [ci], resources: [api], allow: [{{method: GET, path: \"/api/**\"}}]}}\n"
        );
        let binary = std::env::var_os("TIDEGATE_BINARY").map(PathBuf::from);
        let agent = Agent::start(&Settings {
            binary: &binary.context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")?,
            bundle: &[("bundle.yaml", &bundle)],
            credentials: &[("client.user", "tidegate-gate"), ("client.password", SECRET)],
        })?;
        let directory = TempDir::with_prefix("tidegate-oauth2-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let own = directory.path().join("ca.pem");
        fs::write(&own, agent.ask(&["ca", "show"])?)?;
        let job = Account::new(uid, ([127, 0, 0, 1], port).into(), "none");
        Ok(Self { provider, agent, job, ca: own.display().to_string(), _directory: directory })
    }

    /// What the API answers, with the status.
    fn things(&self, more: &[(&str, &str)]) -> Result<String> {
        let given = [&[("URL", &*self.provider.url), ("CA", &*self.ca)], more].concat();
        self.job.shell(THINGS, &given)?.clean().with_context(|| self.agent.read_log().unwrap_or_default())
    }

    fn stop(mut self) -> Result<()> {
        self.agent.stop()?;
        self.agent.ask(&["records", "verify"])?;
        self.agent.shows_no_secret("")
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_job_uses_an_api_with_a_token_that_the_gate_gets() -> Result<()> {
    let api = Api::start("", |_| String::new())?;
    let shown = api.things(&[])?;
    ensure!(shown.starts_with("tidegate-gate things.read ") && shown.ends_with(" 200"), "{shown}");
    ensure!(api.things(&[])? == shown, "another connection got another token");
    for version in ["--http1.1", "--http2"] {
        let curl = "curl -sS $VERSION --cacert $CA -w ' %{http_code}' -u $WHO -d grant_type=client_credentials $URL/token";
        let (who, url) = (format!("tidegate-gate:{SECRET}"), &*api.provider.url);
        let token =
            api.job.shell(curl, &[("VERSION", version), ("URL", url), ("CA", &api.ca), ("WHO", &who)])?;
        ensure!(
            token.stdout.ends_with(" 403"),
            "by {version} a token of its own: {token:?} {}",
            api.agent.read_log()?
        );
    }
    // Another secret counts at once, and the token of the first one no longer.
    api.agent.remove_credential("client.password")?;
    api.agent.write_credential("client.password", "wrong")?;
    let refused = api.things(&[])?;
    ensure!(refused.contains("could not get its token") && refused.ends_with(" 502"), "{refused}");
    api.stop()
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn each_job_uses_an_api_in_its_own_name() -> Result<()> {
    let api = Api::start("identity: jobs\n    ", |provider| format!("issuers:\n{}", jobs(provider)))?;
    let mut first = String::new();
    for job in ["job1-dba", "job2-dev"] {
        let token = api.provider.token("ci-job", job)?;
        api.agent.secrets().keep("a job's token", &token);
        let shown = api.things(&[("CI_JOB_JWT", &token)])?;
        ensure!(shown.starts_with(&format!("{job} things.read ")) && shown.ends_with(" 200"), "{shown}");
        first = token;
    }
    let nobody = api.things(&[])?;
    ensure!(nobody.contains("in the name that issuer") && nobody.ends_with(" 403"), "{nobody}");
    let thief = api.things(&[("CI_JOB_JWT", &first)])?;
    ensure!(thief.contains("by a process tree that has ended") && thief.ends_with(" 403"), "{thief}");
    let eve = api.provider.token("ci-job", "eve")?;
    api.agent.secrets().keep("a job's token", &eve);
    let refused = api.things(&[("CI_JOB_JWT", &eve)])?;
    ensure!(refused.contains("could not get its token") && refused.ends_with(" 502"), "{refused}");
    let third = api.provider.token("ci-job", "job3")?;
    ensure!(api.things(&[("CI_JOB_JWT", &third)])?.starts_with("job3 "), "eve stands in another's way");
    api.stop()
}
