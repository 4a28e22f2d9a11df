//! Questions that a fleet's database keeps, through whatever happens to it.

use std::fs;

use anyhow::{Result, ensure};
use tidegate_tests::{World, random};

use crate::{
    approvals::{DELETE, approvals, hold, waiting, wishes},
    together::{Session, eventually},
};

/// Makes the database, on the world's own server, and has the agent keep questions there from its next launch on.
fn keep_in_a_database(world: &World, ca: &str) -> Result<String> {
    let password = random("fleet")?;
    world.server.sql("postgres", &format!("CREATE ROLE fleet LOGIN PASSWORD '{password}'"))?;
    world.server.sql("postgres", "CREATE DATABASE approvals OWNER fleet")?;
    world.agent.write_credential("fleet.user", "fleet")?;
    world.agent.write_credential("fleet.password", &password)?;
    let port = world.server.address.port();
    world.agent.add_configuration(&format!(
        "approvals: {{database: {{connection: \"host=localhost port={port} dbname=approvals\", credential: fleet, ca: {ca}}}}}\n"
    ))?;
    Ok(password)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_question_outlives_the_agent_and_the_fleets_server() -> Result<()> {
    World::with(|world| {
        let ca = world.server.certificates.authority.display().to_string();
        keep_in_a_database(world, &ca)?;
        world.agent.stop()?;
        world.agent.launch()?;
        hold(world, "wait: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let id = waiting(world, &world.ops)?;
        let kept = world.server.sql("approvals", "SELECT id FROM tidegate_questions")?;
        ensure!(kept == id, "the database has {kept:?}");
        world.server.stop()?;
        drop(session);
        world.agent.kill();
        world.agent.launch()?;
        let told = "nobody can be asked since";
        eventually("the status says so", || Ok(world.agent.ask(&["status"])?.contains(told)))?;
        let (done, said) = approvals(world, &world.ops, &["approve", &id])?;
        ensure!(!done && said.contains("the store of approvals"), "{said}");
        world.server.launch()?;
        eventually("it is approved", || Ok(approvals(world, &world.ops, &["approve", &id])?.0))?;
        ensure!(!world.agent.ask(&["status"])?.contains(told), "it still says so");
        world.ci.psql(&format!("{DELETE};"))?.clean()?;
        ensure!(wishes(world)? == "0", "it did not run");
        // Connections that were cut off are made anew.
        world.server.stop()?;
        world.server.launch()?;
        eventually("it is there again", || Ok(approvals(world, &world.ops, &["list"])?.0))?;
        let mut session = Session::open(&world.ci)?;
        session.say("DELETE FROM store.wishes WHERE id = 2")?;
        ensure!(waiting(world, &world.ops)? != id, "the old question waits");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_database_that_is_not_trusted_or_refuses_the_password_keeps_nothing_but_holds_from_running() -> Result<()>
{
    World::with(|world| {
        let ca = world.agent.state().join("fleet-ca.pem");
        // An authority, but not the one that vouches for the server.
        fs::copy(world.agent.state().join("ca/ca.pem"), &ca)?;
        let password = keep_in_a_database(world, &ca.display().to_string())?;
        world.agent.stop()?;
        world.agent.launch()?;
        hold(world, "wait: 10m")?;
        let is_told = |world: &World, word: &str| {
            eventually(word, || {
                let status = world.agent.ask(&["status"])?;
                Ok(status.contains("nobody can be asked") && status.contains(word))
            })
        };
        is_told(world, "certificate")?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "what nothing holds is refused, too");
        let refused = world.ci.psql(DELETE)?;
        ensure!(refused.stderr.contains("nobody can be asked"), "{refused:?}");
        fs::copy(&world.server.certificates.authority, &ca)?;
        world.server.sql("postgres", "ALTER ROLE fleet PASSWORD 'another'")?;
        world.agent.stop()?;
        world.agent.launch()?;
        is_told(world, "password authentication failed")?;
        // A password that is put right counts without a restart.
        world.server.sql("postgres", &format!("ALTER ROLE fleet PASSWORD '{password}'"))?;
        let mut session = Session::open(&world.ci)?;
        eventually("it waits", || {
            session.say(DELETE)?;
            let (_, listed) = approvals(world, &world.ops, &["list"])?;
            Ok(listed.contains("waiting"))
        })?;
        session.process().signal(nix::sys::signal::Signal::SIGKILL)?;
        ensure!(wishes(world)? == "2", "it ran");
        Ok(())
    })
}
