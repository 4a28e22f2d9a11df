//! An API behind a certified authorization server, to which the gate is a client of its own.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{Account, Agent, Provider, Settings, governed_uid};

/// As `providers/oidc.mjs` knows it.
const SECRET: &str = "of-the-gate-and-nobody-else";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_job_uses_an_api_with_a_token_that_the_gate_gets() -> Result<()> {
    let (provider, uid) = (Provider::oidc(600)?, governed_uid());
    let port: u16 = provider.host().rsplit(':').next().context("a port")?.parse()?;
    let (url, ca) = (&provider.url, provider.ca().display());
    let bundle = format!(
        "tidegate: 1\nname: api\nsubjects:\n  ci: {{users: [\"{uid}\"]}}\nresources:\n  api:\n    protocol: http\n    \
         addresses: [\"127.0.0.1:{port}\"]\n    tls: {{ca: {ca}}}\n    credential: client\n    options:\n      \
         hosts: [localhost]\n      sign-in: {{oauth2: {{url: \"{url}/token\", ca: {ca}, scope: things.read}}}}\n\
         rules:\n  - {{name: read, subjects: [ci], resources: [api], allow: [{{method: GET, path: \"/api/**\"}}]}}\n"
    );
    let binary = std::env::var_os("TIDEGATE_BINARY").map(PathBuf::from);
    let mut agent = Agent::start(&Settings {
        binary: &binary.context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")?,
        bundle: &[("bundle.yaml", &bundle)],
        credentials: &[("client.user", "tidegate-gate"), ("client.password", SECRET)],
    })?;
    let directory = TempDir::with_prefix("tidegate-oauth2-")?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let own = directory.path().join("ca.pem");
    fs::write(&own, agent.ask(&["ca", "show"])?)?;
    let job = Account::new(uid, ([127, 0, 0, 1], port).into(), "none");
    let own = own.display().to_string();
    let get = || {
        let curl = "curl -sS --cacert $CA -H 'Authorization: Bearer mine' -w ' %{http_code}' $URL/api/things";
        job.shell(curl, &[("URL", url), ("CA", &own)])?.clean()
    };
    let shown = get().with_context(|| agent.read_log().unwrap_or_default())?;
    ensure!(shown.starts_with("tidegate-gate things.read ") && shown.ends_with(" 200"), "{shown}");
    ensure!(get()? == shown, "another connection got another token");
    for version in ["--http1.1", "--http2"] {
        let curl = "curl -sS $VERSION --cacert $CA -w ' %{http_code}' -u $WHO -d grant_type=client_credentials $URL/token";
        let who = format!("tidegate-gate:{SECRET}");
        let token = job.shell(curl, &[("VERSION", version), ("URL", url), ("CA", &own), ("WHO", &who)])?;
        ensure!(
            token.stdout.ends_with(" 403"),
            "by {version} a token of its own: {token:?} {}",
            agent.read_log()?
        );
    }
    // Another secret counts at once, and the token of the first one no longer.
    agent.remove_credential("client.password")?;
    agent.write_credential("client.password", "wrong")?;
    let refused = get()?;
    ensure!(refused.contains("could not get its token") && refused.ends_with(" 502"), "{refused}");
    agent.stop()?;
    agent.ask(&["records", "verify"])?;
    agent.shows_no_secret("")
}
