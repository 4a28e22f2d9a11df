//! A private PostgreSQL.

use std::{
    fs::{self, DirBuilder, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};
use tempfile::TempDir;

use crate::{Certificates, process::signal_process, random, run};

/// A small shop: customers with e-mail addresses and card numbers, products, orders. The tables of schema `store`
/// hold nothing that needs a mask.
pub const SHOP: &str = include_str!("../../policies/demo/shop.sql");

/// Where Debian's packages put a server's programs.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The versions that `cargo xtask setup` fetches, beside the one of the system's packages.
pub const SERVERS: [u32; 3] = [16, 17, 18];

/// Where it puts them: readable to every account.
pub const SERVERS_FOLDER: &str = "/var/cache/tidegate/servers";

/// How a cluster is set up.
#[derive(Debug, Default)]
pub struct Options {
    /// One of [`SERVERS`]; the newest of the system's packages if none is given.
    pub version: Option<u32>,
    /// The port; any free one if none is given.
    pub port: Option<u16>,
    /// More lines of `postgresql.conf`.
    pub configuration: &'static str,
    /// Lines of `pg_hba.conf` that come before the usual ones.
    pub authentication: &'static str,
}

/// A running PostgreSQL with TLS and SCRAM, and the shop in database `shop`, owned by user `app`. Dropped, it is
/// stopped and its data removed.
#[derive(Debug)]
pub struct Cluster {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificates.
    pub certificates: Certificates,
    /// The password of user `app`: what the gate signs in with.
    pub password: String,
    /// The password of the superuser `postgres`.
    pub superuser_password: String,
    programs: PathBuf,
    data: PathBuf,
    owner: User,
    directory: TempDir,
}

impl Cluster {
    /// Makes and starts one. Needs root: PostgreSQL runs as the package's `postgres` user.
    pub fn start(options: &Options) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "this needs root: run it through `cargo xtask`");
        let owner =
            User::from_name("postgres")?.context("there is no user postgres: run `cargo xtask setup`")?;
        let directory = TempDir::with_prefix("tidegate-postgres-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let port = options.port.map_or_else(free_port, Ok)?;
        let cluster = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            certificates: Certificates::make(directory.path(), &owner)?,
            password: random("app")?,
            superuser_password: random("superuser")?,
            programs: options.version.map_or_else(programs, fetched)?,
            data: directory.path().join("data"),
            owner,
            directory,
        };
        cluster.initialise(options)?;
        cluster.launch()?;
        cluster.fill()?;
        Ok(cluster)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub fn launch(&self) -> Result<()> {
        let log = self.data.join("log");
        run(self
            .server_program("pg_ctl")
            .arg("-D")
            .arg(&self.data)
            .arg("-l")
            .arg(log)
            .args(["-w", "start"]))?;
        Ok(())
    }

    /// Stops it, ending its sessions properly.
    pub fn stop(&self) -> Result<()> {
        run(self.server_program("pg_ctl").arg("-D").arg(&self.data).args(["-m", "fast", "-w", "stop"]))?;
        Ok(())
    }

    /// Kills the backend with this id, as a crash would: the server ends all sessions and recovers.
    pub fn kill_backend(&self, id: u32) -> Result<()> {
        signal_process(id, Signal::SIGKILL)
    }

    /// Stops one of the server's processes, the postmaster or a backend, from doing anything until the guard is dropped.
    pub fn pause(&self, id: u32) -> Result<Paused> {
        signal_process(id, Signal::SIGSTOP)?;
        Ok(Paused(id))
    }

    /// The postmaster's process id.
    pub fn process_id(&self) -> Result<u32> {
        let file =
            fs::read_to_string(self.data.join("postmaster.pid")).context("the server is not running")?;
        Ok(file.lines().next().unwrap_or_default().parse()?)
    }

    /// Runs SQL directly, as the superuser, and returns what it printed: unaligned, tuples only.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let output =
            run(self.direct("psql").args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]))?;
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// A client program that reaches this server directly, as the superuser: root is not governed.
    pub fn direct(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.address.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &self.superuser_password);
        command
    }

    /// From its next start on it is a standby, of nobody, until it is promoted.
    pub fn follow(&self) -> Result<()> {
        write_private(&self.data.join("standby.signal"), "", &self.owner)
    }

    fn initialise(&self, options: &Options) -> Result<()> {
        DirBuilder::new().mode(0o700).create(&self.data)?;
        chown(&self.data, Some(self.owner.uid.as_raw()), Some(self.owner.gid.as_raw()))?;
        let password = self.directory.path().join("password");
        write_private(&password, &self.superuser_password, &self.owner)?;
        run(self
            .server_program("initdb")
            .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&self.data))?;
        fs::remove_file(&password)?;
        let path = self.data.join("pg_hba.conf");
        fs::write(&path, format!("{}\n{}", options.authentication, fs::read_to_string(&path)?))?;
        let path = self.data.join("postgresql.conf");
        Ok(fs::write(&path, fs::read_to_string(&path)? + &self.configuration(options))?)
    }

    fn configuration(&self, options: &Options) -> String {
        format!(
            "\nlisten_addresses = '127.0.0.1, ::1'\nport = {}\nunix_socket_directories = ''\nmax_connections = 300\n\
             fsync = off\nssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n{}\n",
            self.address.port(),
            self.certificates.certificate.display(),
            self.certificates.key.display(),
            options.configuration,
        )
    }

    fn fill(&self) -> Result<()> {
        // A password in SQL would be in the server's log if this statement failed, and an argument in the error.
        let role = "\\getenv password APP_PASSWORD\n\
                    CREATE ROLE app LOGIN PASSWORD :'password'; CREATE DATABASE shop OWNER app;";
        let script = self.directory.path().join("shop.sql");
        fs::write(&script, format!("{role}\n\\connect shop\nSET ROLE app;\n{SHOP}"))?;
        run(self
            .direct("psql")
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"])
            .env("APP_PASSWORD", &self.password)
            .arg("-f")
            .arg(script))?;
        Ok(())
    }

    fn server_program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.uid(self.owner.uid.as_raw()).gid(self.owner.gid.as_raw()).current_dir(self.directory.path());
        command
    }
}

/// A process of a server that stands still. Dropped, it goes on.
#[derive(Debug)]
pub struct Paused(u32);

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed in the meantime.
        signal_process(self.0, Signal::SIGCONT).ok();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.server_program("pg_ctl");
        // A test may have stopped it already.
        run(stop.arg("-D").arg(&self.data).args(["-m", "immediate", "-w", "stop"])).ok();
    }
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str, owner: &User) -> Result<()> {
    File::create(path)?.set_permissions(PermissionsExt::from_mode(0o600))?;
    chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
    Ok(fs::write(path, text)?)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where the programs of a version are that was fetched.
pub fn fetched(version: u32) -> Result<PathBuf> {
    let programs = Path::new(SERVERS_FOLDER).join(format!("node_modules/postgres-{version}/native/bin"));
    ensure!(programs.is_dir(), "there is no PostgreSQL {version}: run `cargo xtask setup`");
    Ok(programs)
}

/// Where the programs of the newest PostgreSQL of the system are.
pub fn programs() -> Result<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    fs::read_dir(PROGRAMS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| version(path))
        .map(|path| path.join("bin"))
        .context("PostgreSQL is not installed: run `cargo xtask setup`")
}
