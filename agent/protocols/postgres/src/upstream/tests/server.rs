//! A PostgreSQL of the tests' own: its data directory, its port, its authority.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// Who may sign in, and how. `cert_user` shows a certificate.
const ACCESS: &str = "\
local   all all                      trust
host    all trusted_user 127.0.0.1/32 trust
hostssl all tls_user 127.0.0.1/32 trust
hostnossl all bare_user 127.0.0.1/32 trust
host    all md5_user     127.0.0.1/32 md5
host    all clear_user   127.0.0.1/32 password
hostssl all cert_user    127.0.0.1/32 cert
host    all scram_user   127.0.0.1/32 scram-sha-256
";

const USERS: &str = "\
create user trusted_user;
create user tls_user;
create user bare_user;
create user cert_user;
create user clear_user password 'right';
create user scram_user password 'right';
set password_encryption = md5;
create user md5_user password 'right';
";

/// A running server; stopped when dropped.
pub(super) struct Server {
    folder: TempDir,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The authority that its certificate is of, in PEM form.
    pub(super) authority: PathBuf,
    /// The certificate and the key of `cert_user`, in PEM form.
    pub(super) client: (String, String),
}

impl Server {
    /// The server that all tests running now share.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        own(folder.path());
        let data = folder.path().join("data");
        run(Command::new(program("initdb"))
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
            .arg(&data));
        let (authority, client) = certificates(folder.path(), &data);
        fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c ssl=on -c ssl_ca_file={} -c fsync=off",
            address.port(),
            folder.path().display(),
            authority.display(),
        );
        let server = Self { folder, address, authority, client };
        server.control(&["-w", "-o", &options, "start"]);
        let socket = server.folder.path().to_str().unwrap();
        let port = address.port().to_string();
        run(Command::new("psql").args(["-X", "-q", "-h", socket, "-p", &port, "-U", "postgres", "-c", USERS]));
        server
    }

    fn control(&self, arguments: &[&str]) {
        run(Command::new(program("pg_ctl"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-l")
            .arg(self.folder.path().join("log"))
            .args(arguments));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control(&["-m", "immediate", "stop"]);
    }
}

/// The authority, the server's certificate (for `db.test`) and the client's.
fn certificates(folder: &Path, data: &Path) -> (PathBuf, (String, String)) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |names: Vec<String>, common_name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = issue(vec!["db.test".to_owned()], "db.test");
    let key_file = data.join("server.key");
    fs::write(data.join("server.crt"), certificate).unwrap();
    fs::write(&key_file, key).unwrap();
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    own(&key_file);
    let file = folder.join("authority.pem");
    fs::write(&file, authority.pem()).unwrap();
    (file, issue(Vec::new(), "cert_user"))
}

/// PostgreSQL's programs refuse to run as root: the package's own account runs them then.
fn account() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> =
        accounts.lines().find(|line| line.starts_with("postgres:")).unwrap().split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

fn own(path: &Path) {
    if let Some((user, group)) = account() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// Of the server that `TIDEGATE_POSTGRES` names, or the system's newest.
fn program(name: &str) -> PathBuf {
    if let Some(programs) = env::var_os("TIDEGATE_POSTGRES") {
        return PathBuf::from(programs).join(name);
    }
    let mut versions: Vec<_> =
        fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.last().unwrap().join("bin").join(name)
}

fn run(command: &mut Command) {
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    // The server keeps what pg_ctl hands it: a pipe would never be at its end.
    let quiet = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    assert!(quiet.status().unwrap().success(), "{command:?}");
}
