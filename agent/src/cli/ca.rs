//! The host's own authority: who is to trust it, and its change for the next one.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use nix::unistd::Uid;

use super::{Exit, counted, trust::Store};
use crate::{
    admin::{self, Answer, Request},
    authority::{Certificate, Folder},
    config::Config,
};

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Print what clients on this host are to trust, and how long it counts
    #[command(after_help = "\
During a change, old and new are both printed. What is not PEM goes to standard error.

Example:
  tidegate ca show > ca.pem && psql 'host=db.internal sslmode=verify-full sslrootcert=ca.pem'")]
    Show,
    /// Put it into the system's store, and say what clients with stores of their own need
    #[command(after_help = "\
Needs root. Every account of this host then trusts it; its key is root's alone. During a change, old and new are both put
there; after it, the old one is taken out.")]
    Install,
    /// Take it out of the system's store
    #[command(after_help = "Needs root.")]
    Remove,
    /// Change it for another: before it ends, or for other names
    Renew(Renew),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs root. A change takes two steps, so that clients trust whatever they are shown:
  tidegate ca renew            begins the next authority, which signs nothing yet
  tidegate ca install          has clients trust it, too; those with stores of their own need `tidegate ca show`
                               (clients that read their store at their start must be started again)
  tidegate ca renew --finish   has it take the earlier one's place
  tidegate reload              has the agent sign by it
  tidegate ca install          takes the earlier one out of the store")]
pub(super) struct Renew {
    /// Have the one that was begun take the earlier one's place
    #[arg(long)]
    finish: bool,
}

impl Ca {
    pub(super) fn run(&self, config: &Config) -> Result<Exit> {
        let (folder, now) = (Folder::of(config), SystemTime::now());
        let mut out = io::stdout().lock();
        if !matches!(self, Self::Show) && !Uid::effective().is_root() {
            bail!("this needs root: nothing was changed");
        }
        match self {
            Self::Show => show(&mut out, &folder.trusted(now)?, now)?,
            Self::Install => install(&mut out, config, &folder.trusted(now)?)?,
            Self::Remove => {
                let removed = Store::find()?.remove()?;
                if removed.is_empty() {
                    writeln!(out, "it is not in the system's store")?;
                }
                for path in removed {
                    writeln!(out, "no longer in the system's store: {}", path.display())?;
                }
            }
            Self::Renew(Renew { finish: false }) => {
                let begun = folder.renew(now)?;
                writeln!(out, "begun: {}", described(&begun, now))?;
                writeln!(
                    out,
                    "It signs nothing before the present one is over. Have clients trust it (`tidegate ca install`, `tidegate \
                     ca show`), then\n  tidegate ca renew --finish && tidegate reload && tidegate ca install"
                )?;
            }
            Self::Renew(Renew { finish: true }) => {
                may_finish(&folder.trusted(now)?)?;
                let signing = folder.finish()?;
                writeln!(out, "changed for: {}", described(&signing, now))?;
                writeln!(
                    out,
                    "`tidegate reload` has the agent sign by it; `tidegate ca install` then takes the earlier one out of the \
                     system's store"
                )?;
            }
        }
        Ok(Exit::Done)
    }
}

fn show(out: &mut impl Write, trusted: &[Certificate], now: SystemTime) -> io::Result<()> {
    for (certificate, what) in trusted.iter().zip(["signs", "is next"]) {
        write!(out, "{}", certificate.pem)?;
        writeln!(io::stderr().lock(), "{what}: {}", described(certificate, now))?;
    }
    Ok(())
}

fn described(certificate: &Certificate, now: SystemTime) -> String {
    let days = counted(usize::try_from(certificate.days_left(now)).unwrap_or(usize::MAX), "day");
    let Certificate { within, .. } = certificate;
    format!(
        "until {}, {days} from now, for {within}; SHA-256 {}",
        certificate.ends_on(),
        certificate.sha256()
    )
}

/// Whoever trusts the one that signs no longer would be cut off.
fn install(out: &mut impl Write, config: &Config, trusted: &[Certificate]) -> Result<()> {
    if let Ok(Answer::Status(status)) = admin::ask(&config.admin_socket(), Request::Status)
        && !trusted.iter().any(|certificate| certificate.sha256() == status.in_force.authority.sha256)
    {
        bail!("the running agent still signs by the earlier authority: `tidegate reload` first");
    }
    let store = Store::find()?;
    for path in store.install(trusted)? {
        writeln!(out, "in the system's store: {}", path.display())?;
    }
    write!(out, "{}", store.advice())?;
    Ok(())
}

/// Clients that trust the one that signs by the system's store are to trust the next one by it, too.
fn may_finish(trusted: &[Certificate]) -> Result<()> {
    // A system without a store has its clients' own.
    let Ok(store) = Store::find() else { return Ok(()) };
    if !store.is_used()? {
        return Ok(());
    }
    for certificate in trusted {
        ensure!(
            store.holds(certificate)?,
            "clients on this host don't trust the next authority yet: `tidegate ca install` first"
        );
    }
    Ok(())
}
