//! A pooler as the upstream.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{sys::signal::Signal, unistd::User};
use tempfile::TempDir;
use tidegate_tests::{Account, Process, World};

use crate::together::{Session, eventually};

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
      - {statement: [select, set, transaction], table: false}
      - {statement: [select, insert], table: \"public.*\"}
    masks: [cards, mails]
";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_pooler_in_session_mode_is_an_upstream_like_any_other() -> Result<()> {
    World::with(|world| {
        let pooler = Pooler::start(world, "session")?;
        let port = pooler.port.to_string();
        let psql = |script: &str| {
            let mut command = world.ci.command("psql");
            command.env("PGPORT", &port).args(["-XqAt", "-v", "VERBOSITY=verbose", "-c", script]);
            world.ci.output(&mut command)
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

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_pooler_in_transaction_mode_serves_transactions_and_keeps_nothing_of_the_gate() -> Result<()> {
    World::with(|world| {
        let pooler = Pooler::start(world, "transaction")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, pooler.port));
        let ci = Account::new(world.ci.uid, address, "any").transcribed(world.agent.transcript());
        let shown = ci.psql("SELECT card_number FROM customers WHERE id = 1")?.clean()?;
        ensure!(shown == "************1111", "{shown}");
        let ran = ci.psql(
            "BEGIN;\nSELECT count(*) FROM products;\nDROP TABLE orders;\nSELECT 1;\nCOMMIT;\nSELECT 'on'",
        )?;
        ran.complains(&["42501", "statement drop", "25P02"])?;
        ensure!(ran.stdout == "5\non\n", "{ran:?}");
        let mut command = ci.command("psql");
        command.args(["-XqAt", "-v", "VERBOSITY=verbose", "-c", "SELECT pg_sleep(60)"]);
        let mut psql = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        eventually("the statement runs", || Ok(world.server.sql("shop", running)? == "1"))?;
        psql.signal(Signal::SIGINT)?;
        let complaint = std::io::read_to_string(psql.child().stderr.take().context("stderr")?)?;
        ensure!(complaint.contains("57014"), "not cancelled: {complaint}");
        // Both of the pool's connections at once: one of them was the gate's.
        let stranger = Account::new(world.stranger.uid, address, &world.server.password);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut session = Session::open(&stranger)?;
            let settings = "current_setting('search_path') || current_setting('statement_timeout')";
            let left =
                session.ask(&format!("BEGIN; SELECT {settings} || current_setting('lock_timeout')"))?;
            ensure!(left == "\"$user\", public00", "{left}");
            held.push(session);
        }
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
    /// With room for two connections, in one of `pgbouncer`'s modes, and declared.
    fn start(world: &World, mode: &str) -> Result<Self> {
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
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
                 default_pool_size = 2\npool_mode = {mode}\n",
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
        world.agent.write_bundle("pooled.yaml", &POOLED.replace("${port}", &port.to_string()))?;
        world.agent.ask(&["reload"])?;
        Ok(Self { port, _process: process, _directory: directory })
    }
}
