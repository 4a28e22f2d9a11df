//! What clients and records look like when something goes wrong.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tidegate_tests::{World, run};

use crate::together::{Session, eventually};

/// Upstream sessions of governed clients; the gate's own, which look up the catalog, have another name.
const LIVE: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name = 'psql'";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_killed_client_leaves_no_session_behind() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        // More than anybody takes in: the answer stands still in all buffers when the client dies.
        session.say("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT")?;
        let waiting = format!("{LIVE} AND wait_event = 'ClientWrite'");
        eventually("the answer waits for the client", || Ok(world.server.sql("shop", &waiting)? == "1"))?;
        session.process().signal(Signal::SIGKILL)?;
        eventually("its upstream session is gone", || Ok(world.server.sql("shop", LIVE)? == "0"))?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "others are not served");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_crashed_server_ends_the_session_and_the_next_one_works() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        let backend = session.ask("SELECT pg_backend_pid()")?.parse()?;
        world.server.kill_backend(backend)?;
        session.say("SELECT 1")?;
        ensure!(!session.end()?.is_empty(), "the client was told nothing");
        eventually("it serves again", || Ok(world.ci.psql("SELECT 1")?.code == 0))
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_killed_agents_records_are_sealed_by_the_next_one() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        session.say("SELECT pg_sleep(60)")?;
        eventually("the session is up", || Ok(world.server.sql("shop", LIVE)? != "0"))?;
        world.agent.kill();
        ensure!(!session.end()?.is_empty(), "the client was told nothing");
        world.agent.launch()?;
        world.agent.ask(&["records", "verify"])?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "the next agent does not serve");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_upstream_that_is_down_is_named_and_others_may_try_again() -> Result<()> {
    World::with(|world| {
        world.server.stop()?;
        world.ci.psql("SELECT 1")?.complains(&["FATAL", "could not connect to \"shop\""])?;
        world.server.launch()?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "it does not recover");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_stopping_agent_tells_its_clients_and_closes_their_records() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        world.agent.stop()?;
        session.say("SELECT 1")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("57P01"), "{complaints}");
        let listed = world.agent.ask(&["sessions", "list", "--json"])?;
        ensure!(!listed.contains("the agent stopped without closing"), "a record was left open: {listed}");
        world.agent.launch()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_statement_that_cannot_be_recorded_is_refused() -> Result<()> {
    World::with(|world| {
        world.agent.stop()?;
        let small = SmallDisk::mount(world.agent.state(), "4m")?;
        world.agent.launch()?;
        let mut session = Session::open(&world.ci)?;
        small.fill()?;
        session.say(&format!("SELECT 'ran', '{}'", "x".repeat(100_000)))?;
        let complaints = session.end()?;
        ensure!(complaints.contains("58030"), "a statement ran unrecorded: {complaints}");
        ensure!(world.ci.psql("SELECT 1")?.code != 0, "a session began unrecorded");
        small.free()?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "it does not recover");
        world.agent.stop()?;
        world.agent.ask(&["records", "verify"])?;
        drop(small);
        world.agent.launch()
    })
}

/// A file system of a given size. Unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Result<Self> {
        let options = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at))?;
        Ok(Self(at))
    }

    /// Leaves no byte free.
    fn fill(&self) -> Result<()> {
        let error =
            fs::write(self.0.join("filler"), vec![0; 8 << 20]).err().context("it does not fill up")?;
        ensure!(error.kind() == std::io::ErrorKind::StorageFull, "{error}");
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: on a failed test the agent may still have files open there.
        run(Command::new("umount").arg("--lazy").arg(&self.0)).ok();
    }
}
