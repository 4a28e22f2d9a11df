//! Commands with which people and jobs say who they are. They need no root.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use jiff::Timestamp;
use tidegate_identity::Visit;
use tidegate_policy::Identity;
use zeroize::Zeroizing;

use super::Exit;
use crate::{
    config::Config,
    user_socket::{self, Answer, Request},
};

/// More than any token has, in bytes.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate login --issuer people

It counts for this login session, and ends with it. Exit code 3: no agent is running, or it cannot be reached.")]
pub(super) struct Login {
    /// The issuer, by its name in the bundle; not needed if only one has logins
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate present --token-file \"$RUNNER_TEMP/id-token\" -- ./deploy.sh --all
  tidegate present --token-file \"$RUNNER_TEMP/id-token\"

It counts for the command and everything that it runs, and ends with it. Without a command, for the shell that ran this, if
the job was begun in a session of its own (setsid), or from a terminal's own shell.
Exit code 1: it does not count, and no command was run. 3: no agent is running, or it cannot be reached. With a command,
else the command's.")]
pub(super) struct Present {
    /// File with an ID token; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The issuer, by its name in the bundle; told by the token without it
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "command")]
    json: bool,
    /// What to run with it, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1: nobody vouches for this process, or a token that is there does not count."
)]
pub(super) struct Whoami {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Logout {
    /// The issuer, by its name in the bundle; all without it
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Login {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        ask(config, self.json, &Request::Login { issuer: self.issuer })
    }
}

impl Present {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        let mut token = Zeroizing::new(String::new());
        let read = if self.token_file.as_os_str() == "-" {
            io::stdin().lock().take(LONGEST).read_to_string(&mut token)
        } else {
            fs::File::open(&self.token_file).and_then(|file| file.take(LONGEST).read_to_string(&mut token))
        };
        read.with_context(|| self.token_file.display().to_string())?;
        let token = Zeroizing::new(token.trim().to_owned());
        ensure!(!token.is_empty(), "{}: there is no token in it", self.token_file.display());
        let own = !self.command.is_empty();
        let request = Request::Present { token, issuer: self.issuer, own };
        let Some((program, arguments)) = self.command.split_first() else {
            return ask(config, self.json, &request);
        };
        match told(config, &request) {
            Ok(Answer::Bound { .. }) => {
                drop(request);
                // It returns only if it failed.
                let failed = Command::new(program).args(arguments).exec();
                Err(failed).with_context(|| program.display().to_string())
            }
            Ok(answer) => {
                show(&mut io::stdout().lock(), &answer)?;
                Ok(Exit::Failed)
            }
            Err(exit) => Ok(exit),
        }
    }
}

impl Whoami {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        ask(config, self.json, &Request::Whoami {})
    }
}

impl Logout {
    pub(super) fn run(self, config: &Config) -> Result<Exit> {
        ask(config, self.json, &Request::Logout { issuer: self.issuer })
    }
}

/// The answer, or how to end if nobody answers.
fn told(config: &Config, request: &Request) -> Result<Answer, Exit> {
    let socket = config.user_socket();
    user_socket::ask(&socket, request, show_visit).map_err(|error| {
        eprintln!("tidegate: no agent answers on {}: {error}", socket.display());
        Exit::Unreachable
    })
}

fn ask(config: &Config, json: bool, request: &Request) -> Result<Exit> {
    let answer = match told(config, request) {
        Ok(answer) => answer,
        Err(exit) => return Ok(exit),
    };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    } else {
        show(&mut out, &answer)?;
    }
    Ok(match &answer {
        Answer::Failed { .. } => Exit::Failed,
        Answer::Known { identities, unproven } if identities.is_empty() || !unproven.is_empty() => {
            Exit::Failed
        }
        _ => Exit::Done,
    })
}

/// On standard error, so that `--json` prints one object.
fn show_visit(visit: &Visit) {
    eprintln!("Open {} and enter {}", visit.url, visit.code);
    if let Some(complete) = &visit.complete {
        eprintln!("or open {complete}");
    }
    eprintln!("within {} minutes.", visit.seconds.div_ceil(60));
}

fn show(out: &mut impl Write, answer: &Answer) -> Result<()> {
    match answer {
        Answer::Bound { identity } => show_identity(out, identity)?,
        Answer::Visit(visit) => show_visit(visit),
        Answer::Known { identities, unproven } => {
            if identities.is_empty() && unproven.is_empty() {
                writeln!(out, "no issuer vouches for this process")?;
            }
            for identity in identities {
                show_identity(out, identity)?;
            }
            for token in unproven {
                writeln!(out, "a token of issuer {} does not count: {}", token.issuer, token.why)?;
            }
        }
        Answer::LoggedOut { ended: 0 } => writeln!(out, "there was nothing to end")?,
        Answer::LoggedOut { ended } => writeln!(out, "ended: {ended}")?,
        Answer::Failed { why } => eprintln!("tidegate: {why}"),
        Answer::Questions { .. } | Answer::Question { .. } => {
            anyhow::bail!("the agent answered something else: is it of another version?")
        }
    }
    Ok(())
}

fn show_identity(out: &mut impl Write, identity: &Identity) -> Result<()> {
    let until = Timestamp::from_second(identity.expires).map(|time| time.to_string());
    let until = until.unwrap_or_else(|_| identity.expires.to_string());
    // Subjects are the issuer's text, and go to a terminal.
    writeln!(out, "{} says: {:?}, until {until}", identity.issuer, &*identity.subject)?;
    if !identity.groups.is_empty() {
        let groups: Vec<_> = identity.groups.iter().map(|group| format!("{group:?}")).collect();
        writeln!(out, "  groups: {}", groups.join(", "))?;
    }
    for (name, value) in &identity.claims {
        writeln!(out, "  {name}: {value}")?;
    }
    Ok(())
}
