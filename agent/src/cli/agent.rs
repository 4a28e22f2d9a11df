//! Commands about the agent of this host.

use std::io::{self, Write};

use anyhow::{Result, bail};
use clap::Args;
use tidegate_identity::Unreachable;
use tidegate_kernel::{KernelError, Pins, Removed};

use super::{Exit, counted};
use crate::{
    admin::{self, Answer, Request, Status},
    authority::Life,
    config::Config,
    reload::Summary,
};

/// A question to the running agent.
#[derive(Debug, Args)]
#[command(after_help = "Needs root. Exit code 3: no agent is running, or it cannot be reached.")]
pub(super) struct Asked {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Asked {
    pub(super) fn reload(&self, config: &Config) -> Result<Exit> {
        self.ask(config, Request::Reload)
    }

    pub(super) fn status(&self, config: &Config) -> Result<Exit> {
        self.ask(config, Request::Status)
    }

    pub(super) fn stop(&self, config: &Config) -> Result<Exit> {
        self.ask(config, Request::Stop)
    }

    fn ask(&self, config: &Config, request: Request) -> Result<Exit> {
        let socket = config.admin_socket();
        let answer = match admin::ask(&socket, request) {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("tidegate: no agent answers on {}: {error}", socket.display());
                return Ok(Exit::Unreachable);
            }
        };
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        } else {
            show(&mut out, &answer)?;
        }
        Ok(if matches!(answer, Answer::Failed { .. }) { Exit::Failed } else { Exit::Done })
    }
}

/// Frees the governed. Nothing to take down is no error.
pub(super) fn detach(config: &Config) -> Result<Exit> {
    let pins = &config.pins;
    let mut out = io::stdout().lock();
    if !nix::unistd::Uid::effective().is_root() {
        bail!("only root may free the governed: nothing was changed");
    }
    if !Pins::exist(pins)? {
        writeln!(out, "nothing is attached: there is no {}", pins.display())?;
        return Ok(Exit::Done);
    }
    let held = match Pins::hold(pins) {
        Err(error @ KernelError::Busy(_)) => bail!("{error}: `tidegate stop` first"),
        held => held?,
    };
    let Removed { links, maps } = held.remove()?;
    writeln!(
        out,
        "detached {links} programs and removed {maps} maps in {}: nothing is governed by them any more",
        pins.display()
    )?;
    Ok(Exit::Done)
}

fn show(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Status(status) => show_status(out, status),
        Answer::Reloaded(now) => {
            writeln!(out, "bundle {:?} is in force ({})", now.bundle, now.digest)?;
            show_trouble(&mut io::stderr().lock(), now)
        }
        Answer::Stopping => writeln!(out, "the agent is stopping"),
        Answer::Failed { problems } => {
            problems.iter().try_for_each(|problem| writeln!(io::stderr().lock(), "{problem}"))
        }
    }
}

fn show_status(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Status { version, pid, uptime_seconds, v4_port, v6_port, in_force, .. } = status;
    writeln!(out, "agent      {version}, pid {pid}, up {uptime_seconds} s")?;
    writeln!(out, "bundle     {} ({})", in_force.bundle, in_force.digest)?;
    let found = if status.adopted { "adopted" } else { "attached anew" };
    writeln!(out, "kernel     {} in {}, ready after {} ms", found, status.pins, status.ready_after_ms)?;
    let (subjects, resources) =
        (counted(in_force.subjects, "subject"), counted(in_force.resources, "resource"));
    writeln!(out, "governs    {subjects}, {resources}")?;
    writeln!(out, "listens    127.0.0.1:{v4_port}, [::1]:{v6_port}")?;
    writeln!(out, "sessions   {} live, {} since the start", status.sessions_live, status.sessions_served)?;
    show_authority(out, &in_force.authority)?;
    for (reason, count) in &status.refused {
        writeln!(out, "refused    {count} for {reason}")?;
    }
    show_trouble(out, in_force)?;
    show_approvals(out, status)?;
    show_issuers(out, status)?;
    if status.stolen_tokens > 0 {
        let uses = counted(usize::try_from(status.stolen_tokens).unwrap_or(usize::MAX), "use");
        writeln!(out, "stolen?    {uses} of tokens that count for others: the host's record says which")?;
    }
    let kernel: Vec<_> = status.kernel.iter().map(|(name, count)| format!("{name} {count}")).collect();
    writeln!(out, "counted    {}", kernel.join(", "))
}

fn show_authority(out: &mut impl Write, authority: &Life) -> io::Result<()> {
    let next = if authority.next { "; another was begun and signs nothing yet" } else { "" };
    let days = counted(usize::try_from(authority.days_left).unwrap_or(usize::MAX), "day");
    writeln!(out, "authority  until {}, {days} from now{next}", authority.ends)
}

fn show_trouble(out: &mut impl Write, in_force: &Summary) -> io::Result<()> {
    in_force.trouble.iter().try_for_each(|trouble| {
        writeln!(out, "trouble    not all may be governed yet: {trouble}; reload once that is mended")
    })?;
    in_force.unresolved.iter().try_for_each(|why| writeln!(out, "trouble    {why}"))?;
    in_force.authority.warning().map_or(Ok(()), |warning| writeln!(out, "trouble    {warning}"))
}

/// With what goes on: the keys of before, as long as the bundle says.
fn show_issuers(out: &mut impl Write, status: &Status) -> io::Result<()> {
    status.unreachable_issuers.iter().try_for_each(|Unreachable { issuer, since, why, keys_age }| {
        let since = jiff::Timestamp::from_second(*since).unwrap_or_default();
        let goes_on = match keys_age {
            Some(age) => format!("its keys of {} min ago go on, new ones are refused", age / 60),
            None => "its tokens are refused".to_owned(),
        };
        writeln!(out, "trouble    issuer {issuer} can't be asked since {since}: {why}; {goes_on}")
    })
}

fn show_approvals(out: &mut impl Write, status: &Status) -> io::Result<()> {
    if let Some(why) = &status.unasked {
        writeln!(out, "trouble    nobody can be asked {why}")?;
    }
    if status.unreadable > 0 {
        let unreadable = counted(status.unreadable, "question");
        writeln!(out, "trouble    {unreadable} can't be read: the log says which and why")?;
    }
    Ok(())
}
