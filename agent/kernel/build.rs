//! Compiles the eBPF programs with whichever toolchain this machine has for them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "tidegate-programs";
/// What cargo sets for the feature of this name.
const OTHER_LAYOUT: &str = "CARGO_FEATURE_OTHER_LAYOUT";
/// An older one knows fewer of the BPF machine's relocations.
const CLANG: &str = "clang-22";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// What this package's own compilation sets and the programs' must not inherit: its flags, wrappers and toolchain.
const FOREIGN: [&str; 8] =
    ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CLIPPY_", "LD_LIBRARY_PATH", "MAKEFLAGS"];
/// Where cargo finds its home and the registry.
const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// A toolchain that can compile for BPF.
enum Toolchain {
    /// rustup's nightly, which builds `core` itself.
    Nightly,
    /// The distribution's packages, which bring `core` along.
    Debian,
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            for line in problem.lines() {
                println!("cargo:warning={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let programs = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../../ebpf/programs");
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", programs.display());
    println!("cargo:rerun-if-changed={}", programs.with_file_name("abi").display());
    for folder in ["shield", "unix", "sockets"] {
        let folder = programs.with_file_name(folder);
        println!("cargo:rerun-if-changed={}", folder.display());
        let name = folder.file_name().unwrap_or_default().display().to_string();
        compile(&folder.join(format!("{name}.bpf.c")), &out)?;
    }

    let linker =
        linker().ok_or("bpf-linker not found on PATH or in cargo's bin folder: run `cargo xtask setup`")?;
    let toolchain = toolchain().ok_or(
        "no toolchain for eBPF: neither a rustup nightly with rust-src nor the packages rustc-web, cargo-web and \
         libstd-rust-web-dev-bpf are installed: run `cargo xtask setup`",
    )?;
    println!("cargo:rustc-env=TIDEGATE_EBPF_TOOLCHAIN={}", toolchain.name());
    println!("cargo:rustc-env=TIDEGATE_LAYOUT={}", layout(&programs)?);

    let target_dir = out.join("ebpf");
    let output = toolchain
        .cargo(&linker)?
        .args(["build", "--release", "--package", PACKAGE, "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .args(env::var_os(OTHER_LAYOUT).map(|_| "--features=tidegate-abi/other-layout"))
        .current_dir(&programs)
        .output()
        .map_err(|error| format!("cargo for {}: {error}", toolchain.name()))?;
    if !output.status.success() {
        return Err(format!(
            "the eBPF programs did not compile with {} ({}):\n{}\nIf tools are missing, run `cargo xtask setup`.",
            toolchain.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr),
        ));
    }
    let built = target_dir.join(TARGET).join("release").join(PACKAGE);
    fs::copy(&built, out.join(PACKAGE)).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// Names what the maps are and hold, by the text that says so. A difference too many costs a new set of maps; one too few
/// would let an agent adopt maps that it misreads.
fn layout(programs: &Path) -> Result<String, String> {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let others = ["src/maps.rs", "../shield/files.h", "../shield/sockets.h", "../unix/unix.bpf.c"];
    let mut sources = files(&programs.join("../abi/src"))?;
    sources.extend(others.map(|source| programs.join(source)));
    for path in sources {
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // FNV-1a: it has to tell builds apart, not to withstand anybody.
        let feature = env::var_os(OTHER_LAYOUT).map(|_| 1);
        for byte in text.into_iter().chain(feature) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{digest:016x}"))
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    files.sort();
    Ok(files)
}

/// Compiles programs in C, to an object of the same name. They need no header of the system's.
fn compile(source: &Path, out: &Path) -> Result<(), String> {
    let object = out.join(source.file_name().unwrap_or_default()).with_extension("o");
    let output = Command::new(CLANG)
        .args(["-g", "-O2", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .args(["-target", "bpf", "-c"])
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()
        .map_err(|error| format!("{CLANG}: {error}: run `cargo xtask setup`"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} did not compile ({}):\n{}",
        source.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

impl Toolchain {
    fn name(&self) -> &'static str {
        match self {
            Self::Nightly => "rustup's nightly with rust-src",
            Self::Debian => "the distribution's rustc with its BPF core",
        }
    }

    fn cargo(&self, linker: &Path) -> Result<Command, String> {
        let mut command = match self {
            Self::Nightly => {
                let mut command = clean("rustup");
                command.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                command
            }
            Self::Debian => {
                let mut command = clean(DEBIAN_CARGO);
                // One unstable feature of aya-ebpf.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        let mut linker_flag = OsString::from("-Clinker=");
        linker_flag.push(linker);
        let mut flags = linker_flag;
        let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
        for flag in
            ["-Clink-arg=--btf", "-Cdebuginfo=2", &format!("--cfg=bpf_target_arch=\"{architecture}\"")]
        {
            flags.push("\x1f");
            flags.push(flag);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        Ok(command)
    }
}

/// The nightly comes first: where somebody installed rust-src, it was for this.
fn toolchain() -> Option<Toolchain> {
    let nightly = sysroot(clean("rustup").args(["run", "nightly", "rustc"]).env("RUSTUP_AUTO_INSTALL", "0"))
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir());
    if nightly {
        return Some(Toolchain::Nightly);
    }
    let debian = Path::new(DEBIAN_CARGO).is_file()
        && sysroot(&mut clean(DEBIAN_RUSTC))
            .is_some_and(|root| root.join("lib/rustlib").join(TARGET).join("lib").is_dir());
    debian.then_some(Toolchain::Debian)
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn linker() -> Option<PathBuf> {
    println!("cargo:rerun-if-env-changed=PATH");
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

/// A command without what cargo sets for this build script.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let foreign = FOREIGN.iter().any(|prefix| text.starts_with(prefix));
        let kept = KEPT.iter().any(|prefix| text.starts_with(prefix));
        if foreign && !kept {
            command.env_remove(&name);
        }
    }
    command
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
