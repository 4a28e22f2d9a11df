//! A pooler as the upstream.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use tempfile::TempDir;
use tidegate_tests::{Process, World};

use crate::together::eventually;

/// `${port}` is the pooler's.
const POOLED: &str = "tidegate: 1
resources:
  pooled:
    protocol: postgres
    addresses: [\"127.0.0.1:${port}\"]
    tls: {mode: disable}
    credential: shop-app
rules:
  - name: pooled
    subjects: [ci]
    resources: [pooled]
    allow:
      - {action: [login, cancel]}
      - {statement: [select, set], table: false}
      - {statement: select, table: \"public.*\"}
    masks: [cards, mails]
";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_pooler_in_session_mode_is_an_upstream_like_any_other() -> Result<()> {
    World::with(|world| {
        let pooler = Pooler::start(world)?;
        let port = pooler.port.to_string();
        world.agent.write_bundle("pooled.yaml", &POOLED.replace("${port}", &port))?;
        world.agent.ask(&["reload"])?;
        let psql = |script: &str| {
            let mut command = world.ci.command("psql");
            command.env("PGPORT", &port).args(["-XqAt", "-v", "VERBOSITY=verbose", "-c", script]);
            command.output().context("psql")
        };
        let shown = psql("SELECT card_number FROM customers WHERE id = 1")?;
        let card = String::from_utf8(shown.stdout)?;
        ensure!(
            card.trim_end().ends_with("1111") && !card.contains("4111"),
            "{card:?}: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        let refused = String::from_utf8(psql("DROP TABLE orders")?.stderr)?;
        ensure!(refused.contains("42501"), "{refused}");
        ensure!(psql("SELECT set_config('a.b', 'c', false), count(*) FROM orders")?.stdout == b"c|10\n");
        Ok(())
    })
}

/// A `pgbouncer` in front of a world's server. Dropped, it is killed.
struct Pooler {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl Pooler {
    fn start(world: &World) -> Result<Self> {
        let owner = User::from_name("postgres")?.context("there is no user postgres")?;
        let directory = TempDir::with_prefix("tidegate-pooler-")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let users = directory.path().join("users");
        let settings = directory.path().join("pgbouncer.ini");
        fs::write(&users, format!("\"app\" \"{}\"\n", world.server.password))?;
        fs::write(
            &settings,
            format!(
                "[databases]\nshop = host=127.0.0.1 port={} dbname=shop\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = session\n",
                world.server.address.port(),
                users.display()
            ),
        )?;
        for path in [directory.path(), &users, &settings] {
            chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        fs::set_permissions(&users, PermissionsExt::from_mode(0o600))?;
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("-q").arg(&settings).uid(owner.uid.as_raw()).gid(owner.gid.as_raw()).current_dir("/");
        let process =
            Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        eventually("the pooler listens", || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()))?;
        Ok(Self { port, _process: process, _directory: directory })
    }
}
