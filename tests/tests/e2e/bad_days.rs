//! What clients and records look like when something goes wrong.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

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
fn what_still_runs_when_the_agents_grace_is_over_is_cancelled_and_its_client_told() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        session.say("UPDATE orders SET quantity = 98 WHERE id = 1 AND pg_sleep(60) IS NOT NULL")?;
        let sleeping = format!("{LIVE} AND wait_event = 'PgSleep'");
        eventually("it runs", || Ok(world.server.sql("shop", &sleeping)? == "1"))?;
        world.agent.signal(Signal::SIGTERM)?;
        eventually("the agent stops", || Ok(world.agent.read_log()?.contains(r#""stopping""#)))?;
        // Asked again, it waits for the grace no longer.
        world.agent.stop()?;
        let complaints = session.end()?;
        ensure!(complaints.contains("FATAL:  57P01"), "{complaints}");
        ensure!(world.server.sql("shop", LIVE)? == "0", "its upstream session is still there");
        let listed = world.agent.ask(&["sessions", "list", "--json"])?;
        ensure!(!listed.contains("the agent stopped without closing"), "a record was left open: {listed}");
        ensure!(world.agent.read_log()?.contains(r#""cut_off":0"#), "the session did not end by itself");
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

/// How long statements may still run after the record's file was removed, as README has it.
const NOTICED: Duration = Duration::from_millis(50);

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn where_records_are_removed_under_way_nothing_more_runs_and_verify_says_so() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        let store = world.agent.state().join("records");
        fs::remove_dir_all(store.join("sessions"))?;
        thread::sleep(NOTICED);
        session.say("UPDATE orders SET quantity = 98 WHERE id = 1")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("58030"), "a statement ran unrecorded: {complaints}");
        ensure!(world.server.sql("shop", "SELECT quantity FROM orders WHERE id = 1")? == "1", "it ran");
        ensure!(world.ci.psql("SELECT 1")?.code != 0, "a session began unrecorded");
        world.agent.stop()?;
        let verified = world.agent.attempt(&["records", "verify"])?;
        ensure!(verified.status.code() == Some(1), "nothing is missed: {}", verified.status);
        fs::remove_dir_all(store)?;
        world.agent.launch()?;
        ensure!(
            world.ci.psql("SELECT 1")?.clean()? == "1",
            "with a store of its own anew, it does not serve"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_server_that_does_not_answer_is_given_up_at_sign_in_and_waited_for_in_a_statement() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        let paused = world.server.pause(world.server.process_id()?)?;
        // It accepts connections, as far as the kernel does that for it, and says nothing.
        world
            .ci
            .psql("SELECT 1")?
            .complains(&["the gate's connection to the server failed during sign-in"])?;
        drop(paused);
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "it does not recover");
        let backend = session.ask("SELECT pg_backend_pid()")?.parse()?;
        let paused = world.server.pause(backend)?;
        session.say("SELECT count(*) FROM orders")?;
        ensure!(
            world.ci.psql("SELECT 2")?.clean()? == "2",
            "one slow server process holds up other sessions"
        );
        drop(paused);
        ensure!(session.answer()? == "10", "the answer came late, and did not arrive");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_server_that_dies_in_mid_result_is_an_error_and_no_short_result() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        let backend = session.ask("SELECT pg_backend_pid()")?.parse()?;
        session.say("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT")?;
        let waiting = format!("{LIVE} AND wait_event = 'ClientWrite'");
        eventually("the answer waits for the client", || Ok(world.server.sql("shop", &waiting)? == "1"))?;
        world.server.kill_backend(backend)?;
        let complaints = session.end()?;
        // In the middle of a message nothing can be told any more: then the connection just ends.
        let told = [
            "08006",
            "57P02",
            "closed the connection unexpectedly",
            "connection has been closed unexpectedly",
        ];
        ensure!(told.iter().any(|words| complaints.contains(words)), "the client was told {complaints:?}");
        eventually("it serves again", || Ok(world.ci.psql("SELECT 1")?.code == 0))?;
        world.none_is_open()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_server_that_restarts_ends_its_sessions_in_its_own_words_and_serves_the_next() -> Result<()> {
    World::with(|world| {
        let (mut idle, mut busy) = (Session::open(&world.ci)?, Session::open(&world.ci)?);
        ensure!(busy.ask("BEGIN; SELECT quantity FROM orders WHERE id = 1")? == "1", "it did not begin");
        busy.say("UPDATE orders SET quantity = 99 WHERE id = 1; SELECT pg_sleep(60)")?;
        let sleeping = format!("{LIVE} AND wait_event = 'PgSleep'");
        eventually("it is in the middle", || Ok(world.server.sql("shop", &sleeping)? == "1"))?;
        world.server.stop()?;
        world.server.launch()?;
        idle.say("SELECT 1")?;
        for complaints in [busy.end()?, idle.end()?] {
            ensure!(complaints.contains("57P01"), "not the server's own words: {complaints}");
        }
        // The gate's own connection is gone, too, and this needs the catalog anew.
        let shown = world.ci.psql("SELECT quantity FROM public.orders AS again WHERE id = 1")?.clean()?;
        ensure!(shown == "1", "what was not committed is there: {shown}");
        world.none_is_open()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_row_too_long_to_be_masked_is_an_error_and_the_session_goes_on() -> Result<()> {
    World::with(|world| {
        let long = "SELECT repeat(name, 10000000) FROM customers";
        let ran =
            world.ci.psql(&format!("{long};\nBEGIN;\n{long};\nSELECT 1;\nROLLBACK;\nSELECT 'on';\n"))?;
        ran.complains(&["54000", "Select fewer or shorter columns", "25P02"])?;
        ensure!(ran.stdout.trim_end().ends_with("on"), "the session did not go on: {}", ran.stderr);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_missing_credential_is_named_to_the_client_and_explained_in_the_record() -> Result<()> {
    World::with(|world| {
        world.server.sql("postgres", "ALTER ROLE app PASSWORD 'changed'")?;
        let named = ["\"shop\"", "\"shop-app\"", "Ask whoever runs the gate"];
        world.ci.psql("SELECT 1")?.complains(&named)?;
        world.agent.remove_credential("shop-app.password")?;
        world.agent.remove_credential("shop-app.user")?;
        let ran = world.ci.psql("SELECT 1")?;
        ran.complains(&named)?;
        ran.complains(&["no usable credential"])?;
        let id = ran.stderr.split("session ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let record = world.agent.ask(&["sessions", "show", id.context("no session is named")?])?;
        ensure!(record.contains("none of the configured places"), "the record does not say why: {record}");
        Ok(())
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
