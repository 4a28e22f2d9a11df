//! The server, the agent and the accounts of the demo.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use nix::unistd::User;
use tidegate_tests::{Account, Agent, Cluster, Options, Settings, run};

use super::step::Actor;
use crate::shell::{project, say};

/// The governed account, as `policies/demo` names it.
const ACCOUNT: &str = "ci-runner";

/// The account of whoever says yes, as `policies/demo` names it.
const APPROVER: &str = "shop-dba";

/// The server's port, as `policies/demo` names it.
const PORT: u16 = 55432;

/// Everything that runs during the demo. Dropped, all of it is stopped and removed.
pub(crate) struct Stage {
    agent: Agent,
    server: Cluster,
    governed: Actor,
    ungoverned: Actor,
    approver: Actor,
    _accounts: [TemporaryAccount; 2],
}

impl Stage {
    /// Starts everything.
    pub(crate) fn set(binary: PathBuf) -> Result<Self> {
        let accounts = [TemporaryAccount::ensure(ACCOUNT)?, TemporaryAccount::ensure(APPROVER)?];
        say(&format!("starting a private PostgreSQL on port {PORT} with a small shop"));
        let server = Cluster::start(&Options { port: Some(PORT), ..Options::default() })?;
        say("starting the agent with the bundle in policies/demo and the shop's credential");
        let bundle = bundle()?;
        let files: Vec<_> = bundle.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let agent = Agent::start(&Settings {
            binary: &binary,
            bundle: &files,
            credentials: &[("shop-app.user", "app"), ("shop-app.password", &server.password)],
        })?;
        let actor = |name| {
            let user = User::from_name(name)?.with_context(|| format!("there is no account {name}"))?;
            anyhow::Ok(Actor { name, account: Account::new(user.uid.as_raw(), server.address, "") })
        };
        Ok(Self {
            governed: actor(ACCOUNT)?,
            ungoverned: actor("nobody")?,
            approver: actor(APPROVER)?,
            agent,
            server,
            _accounts: accounts,
        })
    }

    /// Stops the agent in the ordinary way and frees the accounts; the rest ends by itself. An error if a secret was shown, by
    /// the agent or among what was printed.
    pub(crate) fn end(mut self, printed: &str) -> Result<()> {
        self.agent.stop()?;
        self.agent.shows_no_secret(printed)?;
        say(self.agent.detach()?.trim_end());
        Ok(())
    }

    /// Where the server is.
    pub(crate) fn server(&self) -> SocketAddr {
        self.server.address
    }

    /// The password that only the gate knows.
    pub(crate) fn password(&self) -> &str {
        &self.server.password
    }

    /// The agent.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The governed account.
    pub(crate) fn governed(&self) -> &Actor {
        &self.governed
    }

    /// Somebody who may say yes.
    pub(crate) fn approver(&self) -> &Actor {
        &self.approver
    }

    /// An account that no rule names.
    pub(crate) fn ungoverned(&self) -> &Actor {
        &self.ungoverned
    }
}

/// The bundle's files: name and text.
pub(crate) fn bundle() -> Result<Vec<(String, String)>> {
    let folder = project().join("policies/demo");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(files)
}

/// An account that is removed at the end if it wasn't there before.
struct TemporaryAccount(Option<&'static str>);

impl TemporaryAccount {
    fn ensure(name: &'static str) -> Result<Self> {
        if User::from_name(name)?.is_some() {
            return Ok(Self(None));
        }
        say(&format!("creating the account {name} for the time of the demo"));
        run(Command::new("useradd").args([
            "--system",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            name,
        ]))?;
        Ok(Self(Some(name)))
    }
}

impl Drop for TemporaryAccount {
    fn drop(&mut self) {
        let Some(name) = self.0 else { return };
        say(&format!("removing the account {name}"));
        if let Err(error) = run(Command::new("userdel").arg(name)) {
            eprintln!("the account {name} could not be removed: {error}");
        }
    }
}
