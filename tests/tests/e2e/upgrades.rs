//! Restarts and upgrades under load: what a service manager keeps, and what holds meanwhile.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tidegate_tests::World;

use crate::canary::{Canary, Load};

/// How often the agent is restarted.
const RESTARTS: usize = 8;

/// How long after an agent was asked to stop connections are let wait for the next one: five seconds from its last sign of
/// life, which may have been a second before.
const LET_WAIT: f64 = 3.9;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn restarts_with_kept_listeners_lose_no_connection_and_no_enforcement() -> Result<()> {
    World::with(|world| {
        let canary = Canary::in_world(world)?;
        world.agent.stop()?;
        world.agent.keep_descriptors();
        world.agent.launch()?;
        ensure!(!world.agent.kept().is_empty(), "the agent gave nothing to be kept");
        let hammer = Load::hammer(&world.ci, &canary)?;
        let callers = Load::start(&world.ops, include_str!("../../clients/callers.py"), &[])?;
        let mut away = Vec::new();
        for _ in 0..RESTARTS {
            let asked = now()?;
            world.agent.stop()?;
            world.agent.launch()?;
            away.push((asked, now()?));
            world.ci.psql("SELECT 1")?.clean()?;
        }
        let (tried, said) = (hammer.end()?, callers.told()?);
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let lost = said["lost"].as_array().context("what was lost")?;
        let waited = |at: f64| away.iter().any(|(asked, ready)| at > asked + LET_WAIT && at < ready + 1.0);
        let for_nothing: Vec<_> =
            lost.iter().filter(|lost| !lost["at"].as_f64().is_some_and(waited)).collect();
        ensure!(for_nothing.is_empty(), "lost: {for_nothing:?}; away at {away:?}");
        let quick = away.iter().filter(|(asked, ready)| ready - asked < LET_WAIT).count();
        ensure!(quick >= RESTARTS / 2, "restarts took too long to tell: {away:?}");
        // Whoever was told that the agent stops was let in.
        let let_in: u64 = ["served", "told"].iter().filter_map(|what| said[what].as_u64()).sum();
        ensure!(let_in > 0 && tried > RESTARTS, "{tried}, {said}");
        println!("{RESTARTS} restarts, {quick} of them within {LET_WAIT} s: {said}, {tried} attempts");
        canary.was_not_reached()
    })
}

#[test]
#[ignore = "needs root and another build: cargo xtask test e2e"]
fn upgrades_between_builds_whose_maps_differ_leave_no_moment_without_enforcement() -> Result<()> {
    let variable = "TIDEGATE_OTHER_BINARY";
    let other = env::var_os(variable).map(PathBuf::from).context("set by cargo xtask test e2e")?;
    World::with(|world| {
        let canary = Canary::in_world(world)?;
        let own = world.agent.binary().with_file_name("own");
        fs::copy(world.agent.binary(), &own)?;
        let hammer = Load::hammer(&world.ci, &canary)?;
        let sessions = Load::start(&world.ops, include_str!("../../clients/sessions.py"), &[])?;
        let mut layout = only_layout(world.agent.pins())?;
        for (number, build) in [&other, &own, &other, &own].into_iter().enumerate() {
            // As an upgrade does it, and as a crash in the middle of one.
            if number % 2 == 0 {
                world.agent.stop()?;
            } else {
                world.agent.kill();
            }
            world.agent.replace_binary(build)?;
            world.agent.launch()?;
            let before = std::mem::replace(&mut layout, only_layout(world.agent.pins())?);
            ensure!(layout != before, "both builds have the layout {layout}");
            world.ci.psql("SELECT 1")?.clean()?;
        }
        let (tried, served) = (hammer.end()?, sessions.end()?);
        ensure!(tried > 20 && served > 0, "{tried} attempts, {served} sessions");
        println!("4 upgrades: {tried} attempts, {served} sessions");
        canary.was_not_reached()
    })
}

/// Seconds of the clock that Python calls monotonic.
fn now() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_secs_f64())
}

/// The layout of the maps in force. While no upgrade is under way there is one.
fn only_layout(pins: &Path) -> Result<String> {
    let names: Vec<_> = fs::read_dir(pins)?.flatten().map(|entry| entry.file_name()).collect();
    match &names[..] {
        [name] => Ok(name.to_string_lossy().into_owned()),
        _ => anyhow::bail!("the pins of {} layouts: {names:?}", names.len()),
    }
}
