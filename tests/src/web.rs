//! A private nginx with an API, files, git repositories and a WebSocket, for tests of HTTP.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use tempfile::TempDir;

use crate::{CLIENTS, Certificates, Process, random, run};

/// The configuration. `${...}` stand for this one's own.
const CONFIGURATION: &str = include_str!("../nginx.conf");

/// A running nginx. It answers only whoever shows its token. Dropped, it is stopped.
#[derive(Debug)]
pub struct Web {
    /// Port of HTTPS, HTTP/1.1 and HTTP/2.
    pub port: u16,
    /// Port of plain HTTP.
    pub plain_port: u16,
    /// Port of gRPC, once [`Web::grpc`] has started it.
    pub grpc_port: u16,
    /// Port of the store that takes signed requests alone, once [`Web::store`] has started it.
    pub store_port: u16,
    /// What it takes as a Bearer token, and as the password of user `bot`.
    pub token: String,
    /// Its certificates.
    pub certificates: Certificates,
    directory: TempDir,
    _processes: [Process; 3],
}

impl Web {
    /// Starts one, with a repository `shop.git` of one commit and an empty `payroll.git`. Needs root.
    pub fn start() -> Result<Self> {
        let owner =
            User::from_name("www-data")?.context("there is no user www-data: run `cargo xtask setup`")?;
        let directory = TempDir::with_prefix("tidegate-web-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let certificates = Certificates::make(directory.path(), &owner)?;
        let (port, plain_port, token) = (free_port()?, free_port()?, random("web")?);
        let (live_port, grpc_port, store_port) = (free_port()?, free_port()?, free_port()?);
        let path = |name: &str| directory.path().join(name);
        for name in ["files", "repositories", "temporary"] {
            fs::create_dir(path(name))?;
            chown(path(name), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        let large: String = (0..200_000).map(|line| format!("line {line} of a file\n")).collect();
        fs::write(path("files").join("large.txt"), large)?;
        let basic = {
            let encoded = run(Command::new("sh").args(["-c", &format!("printf bot:{token} | base64 -w0")]))?;
            String::from_utf8(encoded.stdout)?
        };
        let configuration = CONFIGURATION
            .replace("${directory}", &directory.path().display().to_string())
            .replace("${port}", &port.to_string())
            .replace("${plain_port}", &plain_port.to_string())
            .replace("${live_port}", &live_port.to_string())
            .replace("${token}", &token)
            .replace("${basic}", &basic);
        fs::write(path("nginx.conf"), configuration)?;
        repositories(&path("repositories"), &owner)?;
        let log = fs::File::create(path("log"))?;
        let socket = format!("unix:{}", path("temporary").join("fcgi").display());
        let cgi = Process::start(
            Command::new("fcgiwrap")
                .args(["-s", &socket])
                .uid(owner.uid.as_raw())
                .gid(owner.gid.as_raw())
                .current_dir("/")
                // git looks there for settings.
                .env("HOME", directory.path())
                .env_remove("XDG_CONFIG_HOME")
                .stdin(Stdio::null())
                .stderr(log.try_clone()?),
        );
        // Its socket is made by the account that serves.
        let nginx = Process::start(
            Command::new("/usr/sbin/nginx")
                .arg("-c")
                .arg(path("nginx.conf"))
                .arg("-e")
                .arg(path("log"))
                .stderr(log),
        )?;
        let live = Process::start(
            Command::new(format!("{CLIENTS}/python/bin/python"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/live.py"))
                .arg(live_port.to_string())
                .stdin(Stdio::null()),
        )?;
        let web = Self {
            port,
            plain_port,
            grpc_port,
            store_port,
            token,
            certificates,
            _processes: [cgi?, nginx, live],
            directory,
        };
        web.listens(port)?;
        web.listens(live_port)?;
        Ok(web)
    }

    /// What it was asked: a line a request, with what it was signed in with.
    pub fn asked(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.path().join("access"))?)
    }

    /// A file that it serves under `/files/`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("files").join(name)
    }

    /// Starts a gRPC server, which is stopped when this is dropped.
    pub fn grpc(&self) -> Result<Process> {
        let server = Process::start(
            Command::new(format!("{CLIENTS}/python/bin/python"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/grpc_server.py"))
                .arg(self.grpc_port.to_string())
                .args([&self.certificates.certificate, &self.certificates.key])
                .stdin(Stdio::null()),
        )?;
        self.listens(self.grpc_port)?;
        Ok(server)
    }

    /// Starts the service of `policies/http/orders.proto` at this address; `stubs` is where protoc put what it made of that.
    pub fn orders(&self, address: &str, stubs: &Path) -> Result<Process> {
        let server = Process::start(
            Command::new(format!("{CLIENTS}/python/bin/python"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/orders_server.py"))
                .arg(address)
                .args([&self.certificates.certificate, &self.certificates.key])
                .arg(stubs)
                .stdin(Stdio::null()),
        )?;
        self.listens_at(address.parse()?)?;
        Ok(server)
    }

    /// Starts an object store and a table for whoever signs with access key `GATE`, the secret `token` and session token
    /// `session-token`. It is stopped when this is dropped.
    pub fn store(&self) -> Result<Process> {
        let path = |name: &str| self.directory.path().join(name);
        fs::write(path("access-key"), format!("GATE\n{}\nsession-{}\n", self.token, self.token))?;
        let server = Process::start(
            Command::new(format!("{CLIENTS}/python/bin/python"))
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("providers/store.py"))
                .arg(self.store_port.to_string())
                .args([&self.certificates.certificate, &self.certificates.key])
                .args([path("access-key"), path("access")])
                .stdin(Stdio::null()),
        )?;
        self.listens(self.store_port)?;
        Ok(server)
    }

    fn listens(&self, port: u16) -> Result<()> {
        self.listens_at((Ipv4Addr::LOCALHOST, port).into())
    }

    fn listens_at(&self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "nobody listens at {address}:\n{}", log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Bare repositories that take pushes, the first with one commit.
fn repositories(directory: &Path, owner: &User) -> Result<()> {
    let script = "\
        for name in shop payroll; do \
            git init -q --bare -b main $name.git; git -C $name.git config http.receivepack true; \
        done; \
        git clone -q shop.git work 2>/dev/null; cd work; echo hello > README; git add README; \
        git -c user.name=t -c user.email=t@example.com commit -qm first; git push -q origin HEAD:main";
    run(Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .uid(owner.uid.as_raw())
        .gid(owner.gid.as_raw()))?;
    Ok(())
}
