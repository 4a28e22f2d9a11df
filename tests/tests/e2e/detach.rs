//! Freeing the governed: who may, when, and what is said.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{World, ungoverned_uid};

/// What it ended with, and what it said.
fn outcome(command: &mut Command) -> Result<(i32, String)> {
    let Output { status, stdout, stderr } = command.output()?;
    let said = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.code().context("no exit code")?, said))
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn only_root_frees_the_governed_and_only_while_no_agent_runs() -> Result<()> {
    World::with(|world| {
        let detach = |world: &World| world.agent.command(&["detach"]);
        for uid in [world.ci.uid, ungoverned_uid()] {
            let (code, said) = outcome(detach(world).uid(uid).gid(uid))?;
            ensure!(code == 1 && said.contains("only root"), "user {uid}: {code} {said}");
        }
        let (code, said) = outcome(&mut detach(world))?;
        let refused = said.contains("another agent is running") && said.contains("`tidegate stop` first");
        ensure!(code == 1 && refused, "beside a live agent: {code} {said}");
        world.ci.psql("SELECT 1")?.clean()?;
        world.agent.stop()?;
        let refused = "Operation not permitted";
        ensure!(world.ci.psql("SELECT 1")?.stderr.contains(refused), "a stopped agent freed the governed");
        let (code, said) = outcome(&mut detach(world))?;
        let numbers: Vec<usize> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        let told = said.starts_with("detached ") && said.contains("nothing is governed by them any more");
        ensure!(code == 0 && told, "after the agent: {code} {said}");
        ensure!(numbers.len() == 2 && numbers.iter().all(|count| *count >= 20), "{said}");
        ensure!(!world.agent.pins().exists(), "pins are left");
        let (code, said) = outcome(&mut detach(world))?;
        ensure!(code == 0 && said.starts_with("nothing is attached"), "a second time: {code} {said}");
        let free = world.ci.psql("SELECT 1")?.stderr;
        ensure!(!free.contains(refused), "still governed: {free}");
        Ok(())
    })
}
