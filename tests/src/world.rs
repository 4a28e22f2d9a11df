//! A server, an agent in front of it, and two governed accounts.

use std::{
    env,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{Account, Agent, Cluster, Options, Settings};

/// The bundle of the tests. `${ci}`, `${ops}`, `${port}` and `${ca}` stand for this world's own.
pub const BUNDLE: &str = include_str!("../bundle.yaml");

/// What makes its masks ones by column alone, so that no detector hides what a column's mask misses.
pub const BY_COLUMNS_ALONE: [(&str, &str); 2] =
    [("    content: [card]\n", ""), ("    content: [email]\n", "")];

/// What governed clients offer as their password: it is never the right one.
const WRONG_PASSWORD: &str = "not-the-password";

/// User ids that are governed, and as many that are not. Worlds live side by side, so each takes its own.
const GOVERNED: std::ops::RangeInclusive<u32> = 61_101..=61_199;

/// A whole world. Everything in it is private to one test.
#[derive(Debug)]
pub struct World {
    /// The upstream.
    pub server: Cluster,
    /// The agent.
    pub agent: Agent,
    /// Sees cards and e-mails masked.
    pub ci: Account,
    /// Sees them in clear, and may only read.
    pub ops: Account,
    /// Not governed, and knows the real password.
    pub stranger: Account,
}

impl World {
    /// Runs a test in a world of its own. Afterwards the agent is stopped, its records are verified, and its log, its state
    /// and everything that clients and commands printed are searched for every secret that was used; after a test that
    /// failed, too, and in its error.
    pub fn with(test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Self::on(&Options::default(), test)
    }

    /// The same, with a server of these options.
    pub fn on(options: &Options, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut world = Self::start(options)?;
        match test(&mut world) {
            Ok(()) => world.finish(),
            Err(error) => {
                let shown = world.agent.shows_no_secret(&format!("{error:?}"));
                let error = error.context(world.agent.read_log().unwrap_or_default());
                Err(shown.err().map_or(error, |leak| anyhow!("{leak:#}; and the test failed")))
            }
        }
    }

    /// Replaces the bundle's file by one in which this is changed to that. It counts after a reload.
    pub fn change_bundle(&self, from: &str, to: &str) -> Result<()> {
        self.change_bundle_in(&[(from, to)])
    }

    /// The same in several places.
    pub fn change_bundle_in(&self, changes: &[(&str, &str)]) -> Result<()> {
        let mut text = bundle(&self.server, self.ci.uid, self.ops.uid);
        for (from, to) in changes {
            ensure!(text.contains(from), "the bundle does not say {from:?}");
            text = text.replace(from, to);
        }
        self.agent.write_bundle("bundle.yaml", &text)
    }

    /// Runs a part of a test under masks by column and by content, as the bundle has them, and then under masks by column
    /// alone.
    pub fn under_either_mask(&self, part: impl Fn(&Self) -> Result<()>) -> Result<()> {
        part(self).context("under masks by column and by content")?;
        self.change_bundle_in(&BY_COLUMNS_ALONE)?;
        self.agent.ask(&["reload"])?;
        part(self).context("under masks by column alone")
    }

    /// Checks that the record of every session comes to its end.
    pub fn none_is_open(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let open = self.agent.ask(&["sessions", "list", "--open", "--json"])?;
            if open.trim() == "[]" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "these sessions are still open: {open}");
        }
    }

    fn start(options: &Options) -> Result<Self> {
        let server = Cluster::start(options)?;
        let (ci, ops) = (governed_uid(), governed_uid());
        let agent = Agent::start(&Settings {
            binary: &binary()?,
            bundle: &[("bundle.yaml", &bundle(&server, ci, ops))],
            credentials: &[("shop-app.user", "app"), ("shop-app.password", &server.password)],
        })?;
        agent.secrets().keep("the superuser's password", &server.superuser_password);
        agent.secrets().keep_file(&server.certificates.key)?;
        let transcript = agent.transcript().clone();
        let account =
            |uid, password: &str| Account::new(uid, server.address, password).transcribed(&transcript);
        Ok(Self {
            ci: account(ci, WRONG_PASSWORD),
            ops: account(ops, WRONG_PASSWORD),
            stranger: account(ungoverned_uid(), &server.password),
            server,
            agent,
        })
    }

    fn finish(mut self) -> Result<()> {
        self.agent.stop()?;
        self.agent.ask(&["records", "verify"]).context("the records do not verify")?;
        self.agent.shows_no_secret("")
    }
}

/// A user id to govern that nobody else in this process governs.
pub fn governed_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = GOVERNED.end() - GOVERNED.start() + 1;
    GOVERNED.start() + NEXT.fetch_add(1, Ordering::Relaxed) % count
}

/// A user id that nobody governs.
pub fn ungoverned_uid() -> u32 {
    GOVERNED.end() + 2
}

fn bundle(server: &Cluster, ci: u32, ops: u32) -> String {
    BUNDLE
        .replace("${ci}", &ci.to_string())
        .replace("${ops}", &ops.to_string())
        .replace("${port}", &server.address.port().to_string())
        .replace("${ca}", &server.certificates.authority.display().to_string())
}

/// The binary under test, as `cargo xtask test` built it.
fn binary() -> Result<PathBuf> {
    env::var_os("TIDEGATE_BINARY")
        .map(PathBuf::from)
        .context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")
}
