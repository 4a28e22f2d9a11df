//! An agent in front of an nginx, and a governed account.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tidegate_tests::{Account, Agent, Settings, Web, governed_uid, run};

const BUNDLE: &str = r#"tidegate: 1
name: web
subjects:
  ci: {users: ["${ci}"]}
resources:
  web:
    protocol: http
    addresses: ["127.0.0.1:${port}"]
    tls: {ca: ${ca}}
    credential: web
    options: {hosts: [localhost]}
  plain:
    protocol: http
    addresses: ["127.0.0.1:${plain_port}"]
    tls: {mode: disable}
    credential: web
  rpc:
    protocol: http
    addresses: ["127.0.0.1:${grpc_port}"]
    tls: {ca: ${ca}}
    credential: web
  objects:
    protocol: http
    addresses: ["127.0.0.1:${store_port}"]
    tls: {ca: ${ca}}
    credential: key
    options: {hosts: [localhost], sign-in: {sigv4: {region: eu-central-1, service: s3}}}
  table:
    protocol: http
    addresses: ["127.0.0.2:${store_port}"]
    tls: {ca: ${ca}, server-name: localhost}
    credential: key
    options: {sign-in: {sigv4: {region: eu-central-1, service: dynamodb}}}
rules:
  - name: keep
    subjects: [ci]
    resources: [objects]
    allow: [{method: GET, path: /bucket}, {method: [GET, PUT], path: "/bucket/**"}]
  - {name: look-up, subjects: [ci], resources: [table], allow: [{method: POST, path: /, body: {TableName: prices}}]}
  - {name: no-scans, subjects: [ci], resources: [table], deny: [{header: "x-amz-target: *.Scan"}]}
  - {name: call, subjects: [ci], resources: [rpc], allow: [{grpc: "acme.Echo/*"}]}
  - {name: no-drop, subjects: [ci], resources: [rpc], deny: [{grpc: "*/Drop"}], hint: ask ops}
  - name: read
    subjects: [ci]
    resources: [web, plain]
    allow:
      - {method: [GET, HEAD], path: ["/files/**", /things]}
    hint: ask the platform team
  - name: talk
    subjects: [ci]
    resources: [web]
    allow:
      - {action: websocket, path: /live}
      - {action: message, path: /live}
    masks: [people]
  - {name: no-orders, subjects: [ci], resources: [web], deny: [{action: message, to: server, body: {op: order}}]}
  - name: echo
    subjects: [ci]
    resources: [web]
    allow: [{method: GET, path: /echo}]
    fill: [{placeholder: "@filled@", credential: filled, in: [header.x-key, query.key]}]
  - name: small-orders
    subjects: [ci]
    resources: [web]
    allow: [{method: POST, path: /things, body: {amount: "<= 100"}}]
  - name: customers
    subjects: [ci]
    resources: [web]
    allow: [{method: GET, path: [/customers, /compressed]}]
    masks: [people]
    record: {data: true}
  - name: shop-repository
    subjects: [ci]
    resources: [web]
    allow:
      - {method: GET, path: /git/shop.git/info/refs, query: "service=git-*"}
      - {method: POST, path: [/git/shop.git/git-upload-pack, /git/shop.git/git-receive-pack]}
  - name: ask-first
    subjects: [ci]
    resources: [plain]
    hold: [{path: /files/held.txt}]
    approve: {by: {users: [root]}}
masks:
  people: {columns: [body.customers.email], content: [card], show: {keep-last: 4}}
"#;

/// An nginx, an agent in front of it, and an account.
pub(super) struct Stage {
    pub(super) web: Web,
    pub(super) agent: Agent,
    pub(super) ci: Account,
    pub(super) directory: TempDir,
}

impl Stage {
    /// Runs a test; afterwards the records are verified, and everything is searched for secrets.
    pub(super) fn with(test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::with_mut(|stage| test(stage))
    }

    /// The same for a test that starts the agent again.
    pub(super) fn with_mut(test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut stage = Self::set()?;
        match test(&mut stage) {
            Ok(()) => stage.finish(),
            Err(error) => {
                stage.agent.shows_no_secret(&format!("{error:?}"))?;
                Err(error.context(stage.agent.read_log().unwrap_or_default()))
            }
        }
    }

    fn set() -> Result<Self> {
        let (web, uid) = (Web::start()?, governed_uid());
        let bundle = BUNDLE
            .replace("${ci}", &uid.to_string())
            .replace("${port}", &web.port.to_string())
            .replace("${plain_port}", &web.plain_port.to_string())
            .replace("${store_port}", &web.store_port.to_string())
            .replace("${grpc_port}", &web.grpc_port.to_string())
            .replace("${ca}", &web.certificates.authority.display().to_string());
        let binary = std::env::var_os("TIDEGATE_BINARY").map(PathBuf::from);
        let agent = Agent::start(&Settings {
            binary: &binary.context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")?,
            bundle: &[("bundle.yaml", &bundle)],
            credentials: &[
                ("web.user", "bot"),
                ("web.password", &web.token),
                ("filled.password", &web.token),
                ("key.user", "GATE"),
                ("key.password", &web.token),
                ("key.token", &format!("session-{}", web.token)),
            ],
        })?;
        let directory = TempDir::with_prefix("tidegate-http-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
        fs::write(directory.path().join("ca.pem"), agent.ask(&["ca", "show"])?)?;
        let ci = Account::new(uid, ([127, 0, 0, 1], web.port).into(), "none").transcribed(agent.transcript());
        Ok(Self { web, agent, ci, directory })
    }

    fn finish(mut self) -> Result<()> {
        self.agent.stop()?;
        self.agent.ask(&["records", "verify"]).context("the records do not verify")?;
        self.agent.shows_no_secret("")
    }

    /// Runs a script as the governed account. `$URL` and `$PLAIN` are the server's, `$CA` is the gate's certificate, `$DIR` is to
    /// be written to.
    pub(super) fn script(&self, script: &str) -> Result<tidegate_tests::Ran> {
        self.ci.shell(script, &self.variables().each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    fn variables(&self) -> [(&'static str, String); 12] {
        let ca = self.directory.path().join("ca.pem").display().to_string();
        let directory = self.directory.path().display().to_string();
        [
            ("URL", format!("https://127.0.0.1:{}", self.web.port)),
            ("PLAIN", format!("http://127.0.0.1:{}", self.web.plain_port)),
            ("PORT", self.web.port.to_string()),
            ("GRPC_PORT", self.web.grpc_port.to_string()),
            ("STORE", format!("https://127.0.0.1:{}", self.web.store_port)),
            ("TABLE", format!("https://127.0.0.2:{}", self.web.store_port)),
            ("CA", ca.clone()),
            ("SSL_CERT_FILE", ca.clone()),
            ("REQUESTS_CA_BUNDLE", ca.clone()),
            ("NODE_EXTRA_CA_CERTS", ca),
            ("HOME", directory.clone()),
            ("DIR", directory),
        ]
    }

    /// `tidegate approvals ...` as root.
    pub(super) fn approvals(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.agent.binary());
        command.arg("approvals").args(arguments).arg("--runtime").arg(self.agent.runtime());
        Ok(String::from_utf8(run(&mut command)?.stdout)?)
    }

    /// Everything that was recorded.
    pub(super) fn records(&self) -> Result<String> {
        let mut all = String::new();
        for session in self.sessions(&[])? {
            all += &self.agent.ask(&["sessions", "show", &session])?;
        }
        Ok(all)
    }

    /// The ids of sessions, as far as they are of these resources; of all, if none is named.
    pub(super) fn sessions(&self, resources: &[&str]) -> Result<Vec<String>> {
        let listed: serde_json::Value =
            serde_json::from_str(&self.agent.ask(&["sessions", "list", "--json"])?)?;
        let is_wanted = |session: &&serde_json::Value| {
            resources.is_empty() || resources.iter().any(|name| session["resource"] == *name)
        };
        let wanted = listed.as_array().context("a list")?.iter().filter(is_wanted);
        wanted.map(|session| Ok(session["id"].as_str().context("an id")?.to_owned())).collect()
    }
}
