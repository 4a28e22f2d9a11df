//! What building and testing need of the system. Everything is checked first, so that a second run does nothing.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tidegate_tests::{CLIENTS, SERVERS, SERVERS_FOLDER};

use crate::{
    servers,
    shell::{as_root, cargo, find, in_ci, is_root, say, shown},
    vm::kernels::MATRIX,
};

/// Debian packages and why they are needed.
const PACKAGES: &[(&str, &str)] = &[
    ("clang-22", "the kernel programs in C, and the C parts of dependencies"),
    ("libclang-22-dev", "bindings to PostgreSQL's grammar"),
    ("llvm-22-dev", "linking the kernel programs"),
    ("libpolly-22-dev", "linking the kernel programs"),
    ("libzstd-dev", "linking the kernel programs"),
    ("zlib1g-dev", "linking the kernel programs"),
    ("libelf-dev", "loading the kernel programs"),
    ("pkg-config", "finding those libraries"),
    ("rustc-web", "compiling the kernel programs"),
    ("cargo-web", "compiling the kernel programs"),
    ("libstd-rust-web-dev-bpf", "Rust's core library for the kernel's BPF machine"),
    ("libc6-dev", "the attack programs, which carry the C library"),
    ("linux-libc-dev", "the attack programs, which use the kernel's own headers"),
    ("openssl", "certificates of the test servers"),
    ("postgresql", "the server and the clients of tests and demo"),
    ("pgbouncer", "a hop to compare with in benchmarks, and an upstream in tests"),
    ("haproxy", "a hop to compare with in benchmarks"),
    ("wrk", "a client of benchmarks, of HTTP/1.1"),
    ("nghttp2-client", "a client of benchmarks, of HTTP/2"),
    ("nginx-light", "the HTTP server of tests"),
    ("fcgiwrap", "git repositories served by it"),
    ("git", "a client and a server of tests"),
    ("curl", "a client of tests"),
    ("python3-venv", "the Python drivers of tests and demo"),
    ("iproute2", "network namespaces of tests"),
    ("procps", "looking at processes in tests"),
    ("mount", "a full disk in tests"),
    ("qemu-system-x86", "kernels other than this one, in virtual machines"),
    ("busybox-static", "the programs of those virtual machines"),
    ("cpio", "packing their files"),
    ("xz-utils", "unpacking their modules"),
    ("binutils", "packing their files"),
    ("util-linux", "other accounts and namespaces in tests"),
];

/// Packages that may be there in another way: package, program, why.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("gcc", "cc", "linking"),
    ("nodejs", "node", "the Node driver and the OpenID provider of tests"),
    ("npm", "npm", "installing them"),
];

/// Packages whose own services are of no use here, and these.
const SERVICES: &[(&str, &str)] = &[
    ("haproxy", "haproxy"),
    ("pgbouncer", "pgbouncer"),
    ("nginx-light", "nginx"),
    ("fcgiwrap", "fcgiwrap.socket"),
];

/// The Python drivers, of databases and of HTTP, and a reader of HTTP archives.
const PYTHON_DRIVERS: &[&str] = &[
    "psycopg[binary]==3.3.9",
    "asyncpg==0.32.0",
    "requests==2.34.2",
    "httpx[http2]==0.28.1",
    "websockets==17.4",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "aiohttp==3.14.5",
    "haralyzer==2.4.0",
    "boto3==1.44.5",
];

/// The Node driver.
const NODE_DRIVER: &str = "pg@8.23.1";

/// A hop to compare with in benchmarks: the last version for Debian 12's Python.
const MITMPROXY: &str = "mitmproxy==11.0.2";

/// A certified OpenID provider.
const PROVIDER: (&str, &str) = ("oidc-provider", "9.13.3");

/// A program that cargo installs, in one exact version.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    features: &'static [&'static str],
}

/// 0.11 and later want LLVM 23.
const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.3",
    why: "linking the kernel programs",
    features: &["--no-default-features", "--features", "llvm-22"],
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "checking licences, sources and advisories of dependencies",
    features: &[],
};

/// Something that is missing.
#[derive(Debug)]
enum Missing {
    Packages(Vec<(&'static str, &'static str)>),
    Tool(&'static Tool),
    Drivers,
    Provider,
    Servers,
    Mitmproxy,
}

/// Says what is missing. True if nothing is.
pub(crate) fn check() -> Result<bool> {
    let mut missing = missing()?;
    if !CARGO_DENY.is_installed() {
        missing.push(Missing::Tool(&CARGO_DENY));
    }
    if !has_mitmproxy() {
        missing.push(Missing::Mitmproxy);
    }
    for item in &missing {
        match item {
            Missing::Packages(packages) => {
                for (name, why) in packages {
                    println!("missing: package {name} ({why})");
                }
            }
            Missing::Tool(Tool { name, version, why, .. }) => println!("missing: {name} {version} ({why})"),
            Missing::Drivers => {
                println!("missing: {} in {CLIENTS} (clients of the tests)", drivers().join(", "))
            }
            Missing::Provider => {
                println!("missing: {} {} in {CLIENTS} (ID tokens of the tests)", PROVIDER.0, PROVIDER.1);
            }
            Missing::Mitmproxy => println!("missing: {MITMPROXY} in {CLIENTS} (benchmarks)"),
            Missing::Servers => {
                println!("missing: PostgreSQL {SERVERS:?} in {SERVERS_FOLDER} (servers of the tests)");
            }
        }
    }
    for kernel in MATRIX.iter().filter(|kernel| kernel.image().is_none()) {
        println!("missing: kernel {} (tests on other kernels than this one)", kernel.name);
    }
    if missing.is_empty() {
        println!("everything that is needed is there");
    }
    Ok(missing.is_empty())
}

/// Fetches the kernels of the matrix that aren't there yet. Only the matrix needs them, so one that can't be had is said and
/// not an error, except in CI.
fn kernels() -> Result<()> {
    for kernel in MATRIX.iter().filter(|kernel| kernel.image().is_none()) {
        if let Err(error) = kernel.fetch() {
            if in_ci() {
                return Err(error.context(format!("kernel {}", kernel.name)));
            }
            say(&format!("SKIPPED kernel {}, `cargo xtask vm-test` will try again: {error:#}", kernel.name));
        }
    }
    Ok(())
}

/// Installs all that any task needs.
pub(crate) fn everything() -> Result<()> {
    run()?;
    linting()?;
    compared()?;
    kernels()
}

/// Installs what is missing. Quick when nothing is.
pub(crate) fn run() -> Result<()> {
    for item in missing()? {
        match item {
            Missing::Packages(packages) => install(&packages)?,
            Missing::Tool(tool) => tool.install()?,
            Missing::Drivers => install_drivers()?,
            Missing::Provider => install_provider()?,
            Missing::Mitmproxy => install_mitmproxy()?,
            Missing::Servers => servers::install()?,
        }
    }
    Ok(())
}

/// Installs what only checking the code takes.
pub(crate) fn linting() -> Result<()> {
    if CARGO_DENY.is_installed() { Ok(()) } else { CARGO_DENY.install() }
}

/// Installs what only benchmarks compare with.
pub(crate) fn compared() -> Result<()> {
    if has_mitmproxy() { Ok(()) } else { install_mitmproxy() }
}

fn missing() -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let packages = missing_packages()?;
    if !packages.is_empty() {
        missing.push(Missing::Packages(packages));
    }
    if !BPF_LINKER.is_installed() {
        missing.push(Missing::Tool(&BPF_LINKER));
    }
    if !has_drivers() {
        missing.push(Missing::Drivers);
    }
    if !has_node_package(PROVIDER.0, PROVIDER.1) {
        missing.push(Missing::Provider);
    }
    if !servers::are_there()? {
        missing.push(Missing::Servers);
    }
    Ok(missing)
}

fn missing_packages() -> Result<Vec<(&'static str, &'static str)>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(PACKAGES.iter().map(|(name, _)| name));
    // It fails if it knows nothing of one of them; what it knows of the others it says.
    let output = query.output().with_context(|| {
        let names: Vec<_> = PACKAGES.iter().map(|(name, _)| *name).collect();
        format!("this system has no dpkg; on others than Debian install these yourself: {}", names.join(" "))
    })?;
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed: HashSet<_> = known.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    let packages = PACKAGES.iter().copied().filter(|(name, _)| !installed.contains(name));
    let programs = PROGRAMS.iter().filter(|(_, program, _)| find(program).is_none());
    Ok(packages.chain(programs.map(|(name, _, why)| (*name, *why))).collect())
}

fn install(packages: &[(&'static str, &'static str)]) -> Result<()> {
    for (name, why) in packages {
        say(&format!("package {name}: {why}"));
    }
    if !is_root() && find("sudo").is_none() {
        bail!("installing packages needs root: run this as root, or install sudo");
    }
    let fresh: HashSet<_> = packages.iter().map(|(name, _)| *name).collect();
    command_as_root(&["apt-get", "update", "-qq"])?;
    if fresh.contains("postgresql") {
        forbid_main_cluster()?;
    }
    let policy = NoServices::begin()?;
    let mut names: Vec<_> = packages.iter().map(|(name, _)| *name).collect();
    let mut command = vec!["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    command.append(&mut names);
    command_as_root(&command)?;
    drop(policy);
    if Path::new("/run/systemd/system").exists() {
        for (_, service) in SERVICES.iter().filter(|(package, _)| fresh.contains(package)) {
            command_as_root(&["systemctl", "disable", "--quiet", service])?;
        }
    }
    Ok(())
}

/// Debian's package makes a cluster when it is installed, unless it is told not to.
fn forbid_main_cluster() -> Result<()> {
    say("no cluster of the system's own is wanted: create_main_cluster = false");
    command_as_root(&["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql-common"])?;
    let file = "/etc/postgresql-common/createcluster.conf";
    command_as_root(&["sed", "-i", "s/^#\\?create_main_cluster *=.*/create_main_cluster = false/", file])
}

/// While this lives, installing a package starts no service (Debian's `policy-rc.d`).
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn begin() -> Result<Self> {
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        let guard = Self(Some(path.into()));
        let policy = tempfile::NamedTempFile::new()?;
        fs::write(policy.path(), "#!/bin/sh\nexit 101\n")?;
        let source = policy.path().display().to_string();
        command_as_root(&["install", "-m", "0755", &source, &path.display().to_string()])?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = command_as_root(&["rm", "-f", &path.display().to_string()])
        {
            eprintln!("{} forbids starting services and could not be removed: {error}", path.display());
        }
    }
}

impl Tool {
    fn is_installed(&self) -> bool {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
        let in_home = home.map(|home| home.join("bin").join(self.name)).filter(|path| path.is_file());
        let Some(tool) = find(self.name).or(in_home) else { return false };
        let version = Command::new(tool).arg("--version").output();
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(self.version))
    }

    fn install(&self) -> Result<()> {
        let Self { name, version, why, features } = self;
        say(&format!("{name} {version}: {why} (some minutes, once)"));
        let mut command = cargo(&["install", name, "--version", version, "--force", "--locked"]);
        command
            .args(*features)
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .env_remove("CARGO_TARGET_DIR")
            .current_dir("/");
        run_shown(&mut command)
    }
}

fn drivers() -> Vec<&'static str> {
    PYTHON_DRIVERS.iter().copied().chain([NODE_DRIVER]).collect()
}

/// Whether every driver is there in its version.
fn has_drivers() -> bool {
    let (name, version) = NODE_DRIVER.rsplit_once('@').unwrap_or((NODE_DRIVER, ""));
    has_python_packages("python", PYTHON_DRIVERS) && has_node_package(name, version)
}

/// Whether all of these are there in a virtual environment, in their versions.
fn has_python_packages(environment: &str, packages: &[&str]) -> bool {
    let inside = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let pythons = inside(Path::new(CLIENTS).join(environment).join("lib"));
    let installed = pythons.flat_map(|python| inside(python.path().join("site-packages")));
    let installed: HashSet<_> = installed.map(|entry| entry.file_name()).collect();
    packages.iter().all(|package| {
        let (name, version) = package.split_once("==").unwrap_or((package, ""));
        let name = name.split('[').next().unwrap_or_default().replace('-', "_");
        installed.contains(format!("{name}-{version}.dist-info").as_str().as_ref() as &std::ffi::OsStr)
    })
}

fn has_mitmproxy() -> bool {
    has_python_packages("mitmproxy", &[MITMPROXY])
}

/// In an environment of its own: it wants other versions of what drivers want, too.
fn install_mitmproxy() -> Result<()> {
    let environment = format!("{CLIENTS}/mitmproxy");
    say(&format!("{MITMPROXY}, in {environment}: a hop to compare with in benchmarks"));
    command_as_root(&["mkdir", "-p", CLIENTS])?;
    command_as_root(&["/usr/bin/python3", "-m", "venv", &environment])?;
    let pip = format!("{environment}/bin/pip");
    command_as_root(&[&pip, "install", "--quiet", "--disable-pip-version-check", MITMPROXY])?;
    command_as_root(&["chmod", "-R", "a+rX", CLIENTS])
}

/// Every account must be able to read them, so they are not in the project or in somebody's home.
fn install_drivers() -> Result<()> {
    say(&format!("drivers for tests and demo, in {CLIENTS}: {}", drivers().join(", ")));
    let inside = |name: &str| format!("{CLIENTS}/{name}");
    command_as_root(&["mkdir", "-p", &inside("node")])?;
    command_as_root(&["/usr/bin/python3", "-m", "venv", &inside("python")])?;
    let pip = inside("python/bin/pip");
    let mut install = vec![pip.as_str(), "install", "--quiet", "--disable-pip-version-check"];
    install.extend(PYTHON_DRIVERS);
    command_as_root(&install)?;
    let node = inside("node");
    let npm = ["npm", "install", "--prefix", &node, "--no-audit", "--no-fund", "--silent", NODE_DRIVER];
    command_as_root(&npm)?;
    // Whatever root's umask is.
    command_as_root(&["chmod", "-R", "a+rX", CLIENTS])
}

fn has_node_package(name: &str, version: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Package {
        version: String,
    }
    let path = Path::new(CLIENTS).join("node/node_modules").join(name).join("package.json");
    let package = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Package>(&text).ok());
    package.is_some_and(|package| package.version == version)
}

fn install_provider() -> Result<()> {
    let (package, node) = (format!("{}@{}", PROVIDER.0, PROVIDER.1), format!("{CLIENTS}/node"));
    say(&format!("{package}, in {CLIENTS}: a certified OpenID provider for tests and demo"));
    command_as_root(&["mkdir", "-p", &node])?;
    let npm = ["npm", "install", "--prefix", &node, "--no-audit", "--no-fund", "--silent", &package];
    command_as_root(&npm)?;
    command_as_root(&["chmod", "-R", "a+rX", &node])
}

pub(crate) fn command_as_root(words: &[&str]) -> Result<()> {
    let (program, arguments) = words.split_first().context("a command")?;
    // Packages must not ask questions.
    let mut command = as_root(program, &[("DEBIAN_FRONTEND", "noninteractive".as_ref())]);
    run_shown(command.args(arguments).current_dir("/"))
}

fn run_shown(command: &mut Command) -> Result<()> {
    eprintln!("    {}", shown(command));
    // What a task itself prints may be read by a program.
    crate::shell::run(command.stdout(std::io::stderr()))
}
