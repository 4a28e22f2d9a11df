//! The one entry for people and CI: `cargo xtask`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod servers;
mod setup;
mod shell;
mod suites;
mod vm;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set-up, builds, tests, demo and benchmarks of Tidegate.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install every system package and tool that building and testing need. Does nothing when all is there.
    Setup {
        /// Only report what is missing.
        #[arg(long)]
        check: bool,
    },
    /// Build the agent with its kernel programs.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Check format, lints and dependencies.
    Lint,
    /// Run tests; those that need root get it through sudo. All of them: lint before.
    Test {
        /// Which ones.
        #[arg(default_value = "all")]
        suite: suites::Suite,
        /// Only those whose name contains this.
        filter: Option<String>,
    },
    /// Run the tests of the kernel programs on every kernel of the matrix, in virtual machines.
    VmTest(vm::Wanted),
    /// See unmodified clients go through the gate: masked, refused, recorded.
    Demo {
        /// The agent's binary; built if not given.
        #[arg(long, hide = true)]
        binary: Option<PathBuf>,
    },
    /// Compare the gate with a direct connection and with other hops.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a program with a PostgreSQL of its own, as root.
    #[command(hide = true)]
    WithServer {
        /// Its major version, if not the system's own.
        #[arg(long)]
        version: Option<u32>,
        /// The program.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A client of the benchmarks, run in another account.
    #[command(subcommand, hide = true)]
    Client(bench::Client),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was well.
fn run(task: Task) -> Result<bool> {
    match task {
        Task::Setup { check: true } => setup::check(),
        Task::Setup { check: false } => setup::everything().map(|()| true),
        Task::Build { release } => {
            setup::run()?;
            build::agent(release).map(|_| true)
        }
        Task::Lint => build::lint().map(|()| true),
        Task::Test { suite, filter } => suites::run(suite, filter.as_deref()),
        Task::VmTest(wanted) => vm::run(&wanted),
        Task::Demo { binary } => demo::run(binary).map(|()| true),
        Task::Bench(bench) => bench::run(bench).map(|()| true),
        Task::WithServer { version, program, arguments } => {
            suites::with_server(version, &program, &arguments)
        }
        Task::Client(client) => client.run().map(|()| true),
    }
}
