//! What was recorded, by the command line.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_tests::{Process, World};

use crate::together::Session;

/// The ids of the sessions that `sessions list` shows with these filters.
fn listed(world: &World, filters: &[&str]) -> Result<Vec<String>> {
    let list = world.agent.ask(&[&["sessions", "list", "--json"], filters].concat())?;
    let list: Vec<Value> = serde_json::from_str(&list)?;
    Ok(list.iter().filter_map(|one| Some(one.get("id")?.as_str()?.to_owned())).collect())
}

/// The one among them.
fn only(world: &World, filters: &[&str]) -> Result<String> {
    let mut found = listed(world, filters)?;
    ensure!(found.len() == 1, "{filters:?} shows {found:?}");
    found.pop().context("a session")
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn sessions_are_filtered_followed_and_replayed() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        world.ops.psql("DROP TABLE orders")?.refused_by_the_gate(&["no-drop"])?;
        let (open, refused) = (only(world, &["--open"])?, only(world, &["--refused"])?);
        ensure!(open != refused, "{open}");
        ensure!(only(world, &["--subject", "ci"])? == open && only(world, &["--subject", "ops"])? == refused);
        ensure!(listed(world, &["--since", "1h"])? == [refused.clone(), open.clone()], "not newest first");
        ensure!(only(world, &["--limit", "1"])? == refused);
        for nothing in [
            ["--resource", "other"],
            ["--user", "nobody"],
            ["--since", "2099-01-01T00:00:00Z"],
            ["--until", "1h"],
        ] {
            ensure!(listed(world, &nothing)?.is_empty(), "{nothing:?} shows something");
        }
        let mut show = world.agent.command(&["sessions", "show", "--follow", "--json", &open]);
        let mut follower = Process::start(show.stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(follower.child().stdout.take().context("stdout")?).lines();
        let mut shows =
            |what: &str| lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
        shows("SELECT 'here'").context("it does not begin at the beginning")??;
        ensure!(session.ask("SELECT 'followed'")? == "followed");
        shows("SELECT 'followed'").context("it does not go on")??;
        ensure!(session.end()?.is_empty());
        shows("close").context("it does not end")??;
        ensure!(follower.wait(Duration::from_secs(30))?.success(), "it failed at the end");
        let fast = ["sessions", "replay", "--speed", "1000", "--longest-pause", "10ms", &open];
        let replayed = world.agent.ask(&fast)?;
        ensure!(replayed.contains("SELECT 'here'") && replayed.contains("SELECT 'followed'"), "{replayed}");
        Ok(())
    })
}

/// The record of a session, somewhere in the store.
fn record(store: &Path, id: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = record(&path, id)? {
                return Ok(Some(found));
            }
        } else if path.file_stem().is_some_and(|stem| stem == id) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_changed_record_is_named_by_verify_which_fails() -> Result<()> {
    World::with(|world| {
        world.ci.psql("SELECT 'as it was'")?.clean()?;
        world.none_is_open()?;
        let id = only(world, &["--subject", "ci"])?;
        world.agent.stop()?;
        let path = record(&world.agent.state(), &id)?.context("there is no record")?;
        let before = fs::read(&path)?;
        let text = String::from_utf8(before.clone())?;
        ensure!(text.contains("as it was"), "{text}");
        fs::write(&path, text.replace("as it was", "as it is!"))?;
        let output = world.agent.attempt(&["records", "verify"])?;
        fs::write(&path, before)?;
        let told = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.code() == Some(1), "it ended with {}: {told}", output.status);
        ensure!(told.contains(&id), "it does not say which: {told}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_log_that_goes_to_no_terminal_is_json() -> Result<()> {
    World::with(|world| {
        world.ci.psql("SELECT 1")?.clean()?;
        world.agent.stop()?;
        let log = world.agent.read_log()?;
        for line in log.lines() {
            let fields: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(fields.get("level").is_some() && fields.get("message").is_some(), "{line}");
        }
        ensure!(log.lines().count() > 2, "{log}");
        Ok(())
    })
}
