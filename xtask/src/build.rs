//! Building and linting.

use std::{
    env, fs,
    io::BufRead,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    setup,
    shell::{cargo, in_ci, project, run, say, shown},
};

/// An executable that cargo built.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The package's folder.
    pub(crate) package: PathBuf,
    /// Name of the binary or test.
    pub(crate) target: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// It runs tests.
    pub(crate) test: bool,
}

/// What of cargo's `--message-format=json` matters here.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        manifest_path: PathBuf,
        target: Target,
        profile: Profile,
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Everything but the kernel programs, which are built for another target by the agent's kernel crate.
pub(crate) const HOST: [&str; 3] = ["--workspace", "--exclude", "tidegate-programs"];

/// Builds the agent and all tests, at once so that dependencies are built once.
pub(crate) fn all() -> Result<Vec<Built>> {
    say("building the agent and the tests");
    let mut command = cargo(&["build", "--bins", "--tests", "--examples"]);
    command.args(HOST);
    executables(command)
}

/// Builds an agent whose maps have another layout, and returns a copy: its own file is the agent's, whichever was built last.
pub(crate) fn other_layout() -> Result<PathBuf> {
    say("building the agent as another version would be");
    let mut command = cargo(&["build", "--bin", "tidegate", "--features", "tidegate/other-layout"]);
    command.args(HOST);
    let built = executables(command)?.into_iter().next().context("cargo built no tidegate")?.path;
    let copy = built.with_file_name("tidegate-other-layout");
    fs::copy(&built, &copy).with_context(|| copy.display().to_string())?;
    Ok(copy)
}

/// Builds what guests run: the tests of the kernel's part, the attacks, and the agent that is attacked.
pub(crate) fn for_guests() -> Result<Vec<Built>> {
    say("building the agent, the kernel programs and their tests");
    let tests = ["--test", "hooks", "--test", "verifier", "--test", "attacks"];
    let mut command = cargo(&["build", "--bin", "tidegate"]);
    command.args(tests);
    command.args(HOST);
    executables(command)
}

/// Builds the agent and returns its binary.
pub(crate) fn agent(release: bool) -> Result<PathBuf> {
    say(if release { "building the agent, optimised" } else { "building the agent" });
    let mut command = cargo(&["build", "--bin", "tidegate"]);
    command.args(HOST);
    if release {
        command.arg("--release");
    }
    executables(command)?
        .into_iter()
        .map(|built| built.path)
        .next()
        .context("cargo built no binary called tidegate")
}

/// Builds a package's tests that measure, optimised, and returns their binary.
pub(crate) fn measurement(package: &str, test: &str) -> Result<PathBuf> {
    say("building the measurement, optimised");
    let built = executables(cargo(&["build", "--release", "--package", package, "--test", test]))?;
    built.into_iter().map(|built| built.path).next().with_context(|| format!("cargo built no {test}"))
}

/// Runs a cargo command that builds, and returns the executables that came of it.
fn executables(mut command: Command) -> Result<Vec<Built>> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(&command)))?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let mut found = Vec::new();
    for line in std::io::BufReader::new(stdout).lines() {
        let message = serde_json::from_str(&line?).unwrap_or(Message::Other);
        if let Message::CompilerArtifact { manifest_path, target, profile, executable: Some(path) } = message
        {
            let package = manifest_path.parent().context("a manifest without a folder")?.to_owned();
            found.push(Built { package, target: target.name, path, test: profile.test });
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{} failed ({status})", shown(&command));
    Ok(found)
}

/// Checks format, lints and dependencies.
pub(crate) fn lint() -> Result<()> {
    setup::linting()?;
    say("checking the format");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    say("linting");
    run(cargo(&["clippy", "--all-targets"]).args(HOST).args(["--", "-D", "warnings"]))?;
    fuzz_targets()?;
    say("checking the dependencies: licences, bans, sources");
    run(&mut deny(&["check", "bans", "licenses", "sources"]))?;
    if deny(&["fetch", "db"]).output()?.status.success() {
        say("checking the dependencies: advisories");
        run(&mut deny(&["check", "--disable-fetch", "advisories"]))
    } else {
        say("SKIPPED the dependencies' advisories: their database can't be fetched from here");
        Ok(())
    }
}

/// Checks the fuzz targets, which are workspaces of their own: nothing else would say that they no longer compile, or
/// that their lock files are behind (`cargo update --workspace` in their folder mends that). That takes no nightly
/// toolchain.
fn fuzz_targets() -> Result<()> {
    for folder in ["agent/protocols/http", "agent/protocols/postgres"] {
        say(&format!("checking the fuzz targets of {folder}"));
        let mut command =
            cargo(&["check", "--locked", "--manifest-path", &format!("{folder}/fuzz/Cargo.toml")]);
        if env::var_os("CARGO_TARGET_DIR").is_none() && !in_ci() {
            // What both workspaces need is built once.
            command.env("CARGO_TARGET_DIR", project().join("target"));
        }
        run(&mut command)?;
    }
    Ok(())
}

fn deny(arguments: &[&str]) -> Command {
    let mut command = cargo(&["deny", "--all-features", "--log-level", "error"]);
    command.args(arguments);
    command
}
