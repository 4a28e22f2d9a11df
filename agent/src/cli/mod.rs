//! The command line.

mod agent;
mod approvals;
mod attack;
mod bundles;
mod ca;
mod doctor;
mod folded;
mod people;
mod sessions;
mod trust;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Config},
    log, run,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing wrong was found
  1  failed, or something wrong was found (check, test, records verify, doctor)
  2  wrong usage
  3  no agent is running, or it cannot be reached
  4  doctor: the agent works, and something is open on this host";

/// The gate between the accounts of this host and the servers they use.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where things are. Flags count before the configuration file.
#[derive(Debug, Args)]
struct Places {
    /// Configuration file [default: /etc/tidegate/tidegate.yaml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of records, keys and the host's certificate authority
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Directory of the agent's sockets
    #[arg(long, global = true, value_name = "DIR")]
    runtime: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground, as root
    #[command(after_help = "\
Examples:
  tidegate run
  tidegate run --config /etc/tidegate/staging.yaml --log tidegate=debug

SIGHUP loads the bundle again. SIGTERM and SIGINT end sessions within the grace; a second one ends the grace.")]
    Run(Run),
    /// Check a bundle: every problem, with file, line and column
    Check(bundles::Check),
    /// Run a bundle's cases
    Test(bundles::Test),
    /// Explain a decision: which rules matched, and which won
    Explain(bundles::Explain),
    /// Print the JSON Schema of bundle files
    Schema,
    /// Make the running agent load its bundle again, all or nothing
    Reload(agent::Asked),
    /// Show how the running agent is
    Status(agent::Asked),
    /// Make the running agent end, as SIGTERM does
    Stop(agent::Asked),
    /// Take down what stays in the kernel without an agent: nothing is governed any more
    #[command(after_help = "\
Needs root, and that no agent is running. What an agent attached stays in force when it stops or dies: governed
accounts then reach only what the bundle passes. This is the way to free them; another is a reboot.")]
    Detach,
    /// Say who you are to an issuer, in a browser; it counts for this login session
    Login(people::Login),
    /// Say who this job is, by an ID token; it counts for the shell that runs this
    Present(people::Present),
    /// Show who issuers say that you are
    Whoami(people::Whoami),
    /// End what was presented and logged in with
    Logout(people::Logout),
    /// List, show, replay and export recorded sessions
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Answer what waits for people
    #[command(subcommand)]
    Approvals(approvals::Approvals),
    /// Check the records
    #[command(subcommand)]
    Records(sessions::Records),
    /// The host's own certificate authority
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Find out what this host lets the agent enforce, by trying, and attack it
    Doctor(doctor::Doctor),
}

/// Flags of `run`; each counts before the configuration file.
#[derive(Debug, Args)]
struct Run {
    /// Directory of the bundle
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Directory of credential files
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
    /// Port on 127.0.0.1; 0 for any free one
    #[arg(long, value_name = "PORT")]
    v4_port: Option<u16>,
    /// Port on ::1; 0 for any free one
    #[arg(long, value_name = "PORT")]
    v6_port: Option<u16>,
    /// What is logged, in RUST_LOG's syntax: info, tidegate=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<log::Format>,
    /// Most sessions at once
    #[arg(long, value_name = "NUMBER")]
    max_sessions: Option<usize>,
    /// Most sessions at once of one user id
    #[arg(long, value_name = "NUMBER")]
    max_sessions_per_principal: Option<usize>,
    /// How long sessions may take to end when the agent stops: 10s
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    stop_grace: Option<Duration>,
}

/// How a command ended, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Unreachable = 3,
    Open = 4,
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let Cli { places, command } = Cli::parse();
    let exit = match dispatch(&places, command) {
        Ok(exit) => exit,
        // Whoever read the output has read enough.
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            Exit::Failed
        }
    };
    ExitCode::from(exit as u8)
}

fn dispatch(places: &Places, command: Command) -> Result<Exit> {
    match command {
        Command::Run(flags) => run_agent(places, flags),
        Command::Check(check) => check.run(),
        Command::Test(test) => test.run(),
        Command::Explain(explain) => explain.run(),
        Command::Schema => bundles::schema(),
        Command::Reload(asked) => asked.reload(&places.config()?),
        Command::Status(asked) => asked.status(&places.config()?),
        Command::Stop(asked) => asked.stop(&places.config()?),
        Command::Detach => agent::detach(&places.config()?),
        Command::Login(login) => login.run(&places.config()?),
        Command::Present(present) => present.run(&places.config()?),
        Command::Whoami(whoami) => whoami.run(&places.config()?),
        Command::Logout(logout) => logout.run(&places.config()?),
        Command::Sessions(sessions) => sessions.run(&places.config()?),
        Command::Approvals(approvals) => approvals.run(&places.config()?),
        Command::Records(records) => records.run(&places.config()?),
        Command::Ca(ca) => ca.run(&places.config()?),
        Command::Doctor(doctor) => doctor.run(&places.config()?),
    }
}

fn run_agent(places: &Places, flags: Run) -> Result<Exit> {
    let config = flags.over(places.config()?);
    log::begin(config.log.format, config.log.filter.as_deref())?;
    Ok(match run::run(config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!(%error, "the agent failed");
            Exit::Failed
        }
    })
}

/// `1 resource`, `2 resources`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Places {
    fn config(&self) -> Result<Config> {
        let mut config = Config::read(self.config.as_deref())?;
        set(&mut config.state, self.state.clone());
        set(&mut config.runtime, self.runtime.clone());
        Ok(config)
    }
}

impl Run {
    fn over(self, mut config: Config) -> Config {
        set(&mut config.bundle, self.bundle);
        set(&mut config.credentials.directory, self.credentials);
        set(&mut config.listen.v4_port, self.v4_port);
        set(&mut config.listen.v6_port, self.v6_port);
        set(&mut config.log.format, self.log_format);
        config.log.filter = self.log.or(config.log.filter);
        set(&mut config.limits.sessions, self.max_sessions);
        set(&mut config.limits.sessions_per_principal, self.max_sessions_per_principal);
        set(&mut config.stop_grace, self.stop_grace);
        config
    }
}

fn set<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_counts_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tidegate.yaml");
        std::fs::write(&file, "bundle: /from/file\nstate: /from/file\nstop-grace: 3s\n").unwrap();
        let line = ["tidegate", "run", "--state", "/flag", "--stop-grace", "1m", "--config"];
        let cli = Cli::parse_from(line.iter().map(|word| (*word).into()).chain([file.into_os_string()]));
        let Command::Run(flags) = cli.command else { panic!("not run") };
        let config = flags.over(cli.places.config().unwrap());
        assert_eq!(config.bundle, PathBuf::from("/from/file"));
        assert_eq!(config.state, PathBuf::from("/flag"));
        assert_eq!(config.stop_grace, Duration::from_secs(60));
    }
}
