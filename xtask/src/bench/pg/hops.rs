//! The server and the ways to it.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::User;
use tempfile::TempDir;
use tidegate_tests::{
    Account, Agent, Cluster, Options, Process, Settings, governed_uid, run, ungoverned_uid,
};

use crate::bench::hop::{Hop, free_address, listening};

/// The user whom the server and pgbouncer let in without a password: the large result's and the idle sessions'.
pub(crate) const TRUSTED: &str = "bench";

const BUNDLE: (&str, &str) = ("bundle.yaml", include_str!("bundle.yaml"));

/// What is masked; the other gate's bundle doesn't have this file.
const MASKS: (&str, &str) = ("masks.yaml", include_str!("masks.yaml"));

/// All of them, and what runs behind them.
pub(crate) struct Hops {
    hops: Vec<Hop>,
    client: PathBuf,
    _agents: [Agent; 2],
    _others: [Process; 2],
    _server: Cluster,
    _directory: TempDir,
}

impl Hops {
    /// Starts everything and fills the tables.
    pub(crate) fn start(binary: &Path, megabytes: u32) -> Result<Self> {
        let directory = TempDir::with_prefix("tidegate-bench-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let client = directory.path().join("client");
        fs::copy(env::current_exe()?, &client)?;
        let server = server(megabytes)?;
        let (plain, masked) = (governed_uid(), governed_uid());
        // An agent for each, so that neither pays for what the other's sessions left.
        let agents = [agent(binary, &server, plain, &[])?, agent(binary, &server, masked, &[MASKS])?];
        let (pgbouncer, pgbouncer_address) = pgbouncer(directory.path(), &server)?;
        let (haproxy, haproxy_address) = haproxy(directory.path(), &server)?;
        let hop = |name, uid, address, process| {
            // Only the gate can do without the right password.
            let password = if uid == ungoverned_uid() { server.password.as_str() } else { "" };
            Hop { name, address, account: Account::new(uid, address, password), process }
        };
        let gate = |agent: &Agent| anyhow::Ok(Some(agent.process()?.id()));
        let [unmasking, masking] = &agents;
        let hops = vec![
            hop("direct", ungoverned_uid(), server.address, None),
            hop("pgbouncer", ungoverned_uid(), pgbouncer_address, Some(pgbouncer.id())),
            hop("haproxy", ungoverned_uid(), haproxy_address, Some(haproxy.id())),
            hop("tidegate", plain, server.address, gate(unmasking)?),
            hop("tidegate-masked", masked, server.address, gate(masking)?),
        ];
        Ok(Self {
            hops,
            client,
            _agents: agents,
            _others: [pgbouncer, haproxy],
            _server: server,
            _directory: directory,
        })
    }

    /// This program, where every account can run it.
    pub(crate) fn client(&self) -> &Path {
        &self.client
    }

    /// All hops.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Hop> {
        self.hops.iter()
    }

    /// All hops; another one first in each round, so that none is always after the same.
    pub(crate) fn in_turn(&self, round: usize) -> impl Iterator<Item = &Hop> {
        let count = self.hops.len();
        self.hops.iter().cycle().skip(round % count).take(count)
    }
}

fn server(megabytes: u32) -> Result<Cluster> {
    let server = Cluster::start(&Options {
        configuration: "max_connections = 700\nshared_buffers = 512MB\nsynchronous_commit = off\nautovacuum = off\n",
        authentication: "host shop bench 127.0.0.1/32 trust",
        ..Options::default()
    })?;
    run(server.direct("pgbench").args(["-i", "-q", "-s", "10", "shop"]))?;
    // A row is 256 bytes on the wire: 7 of header, 4 and 8 for the number, 4 and 233 for the text.
    let rows = u64::from(megabytes) * 1024 * 1024 / 256;
    server.sql(
        "shop",
        &format!(
            "CREATE TABLE large AS SELECT 10000000 + n AS id, repeat(md5(n::text), 7) || repeat('x', 9) AS note \
             FROM generate_series(1, {rows}) AS n; \
             CREATE ROLE {TRUSTED} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO app, {TRUSTED}"
        ),
    )?;
    server.sql("shop", "VACUUM (FREEZE, ANALYZE)")?;
    Ok(server)
}

fn agent(binary: &Path, server: &Cluster, uid: u32, more: &[(&str, &str)]) -> Result<Agent> {
    let (name, text) = BUNDLE;
    let text =
        text.replace("${account}", &uid.to_string()).replace("${port}", &server.address.port().to_string());
    let bundle: Vec<_> = std::iter::once((name, text.as_str())).chain(more.iter().copied()).collect();
    Agent::start(&Settings {
        binary,
        bundle: &bundle,
        credentials: &[("shop-app.user", "app"), ("shop-app.password", &server.password)],
    })
}

/// In session mode: what a transaction pooler breaks, the gate must not break either.
fn pgbouncer(directory: &Path, server: &Cluster) -> Result<(Process, SocketAddr)> {
    let owner = User::from_name("postgres")?.context("there is no user postgres")?;
    let address = free_address()?;
    let path = |name: &str| directory.join(name);
    fs::write(path("users"), format!("\"app\" \"{}\"\n\"{TRUSTED}\" \"\"\n", server.password))?;
    fs::write(
        path("hba"),
        format!("host all {TRUSTED} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"),
    )?;
    fs::write(
        path("pgbouncer.ini"),
        format!(
            "[databases]\nshop = host=127.0.0.1 port={} dbname=shop\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\npool_mode = session\nauth_type = hba\nauth_hba_file = {}\n\
             auth_file = {}\nmax_client_conn = 1000\ndefault_pool_size = 300\nserver_tls_sslmode = disable\n\
             log_connections = 0\nlog_disconnections = 0\n",
            server.address.port(),
            address.port(),
            path("hba").display(),
            path("users").display(),
        ),
    )?;
    let mut command = Command::new("pgbouncer");
    command.arg("-q").arg(path("pgbouncer.ini")).uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    Ok((listening(&mut command, address)?, address))
}

/// The cheapest hop there is: bytes in, bytes out.
fn haproxy(directory: &Path, server: &Cluster) -> Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let configuration = directory.join("haproxy.cfg");
    fs::write(
        &configuration,
        format!(
            "global\n maxconn 2000\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n \
             timeout server 1h\nlisten shop\n bind {address}\n server shop {}\n",
            server.address
        ),
    )?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(&configuration);
    Ok((listening(&mut command, address)?, address))
}
