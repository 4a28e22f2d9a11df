//! What the running agent may still do.

use std::{
    env,
    fs::{self, File},
    os::unix::{
        fs::{FileExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_tests::{Process, World, crash};

/// The unit that the agent is shipped with.
const UNIT: &str = include_str!("../../../agent/tidegate.service");

/// `DAC_READ_SEARCH`, `NET_BIND_SERVICE`, `NET_ADMIN`, `SYS_PTRACE`, `SYS_ADMIN` and `BPF`, by their numbers in
/// capabilities(7).
const KEPT: u64 = 1 << 2 | 1 << 10 | 1 << 12 | 1 << 19 | 1 << 21 | 1 << 39;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn every_thread_of_a_serving_agent_is_confined() -> Result<()> {
    World::with(|world| {
        world.ci.psql("SELECT 1")?.clean()?;
        let mut threads = 0;
        for task in fs::read_dir(format!("/proc/{}/task", world.agent.process()?.id()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).with_context(|| format!("no {name} in {status}"))
            };
            ensure!(field("NoNewPrivs:")? == "1", "it may gain privileges: {status}");
            ensure!(field("Seccomp:")? == "2", "its system calls are not restricted: {status}");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                let held = u64::from_str_radix(field(set)?, 16)?;
                ensure!(held & !KEPT == 0, "{set} holds {:x} beyond what is kept: {status}", held & !KEPT);
            }
            threads += 1;
        }
        ensure!(threads > 3, "only {threads} threads");
        Ok(())
    })
}

/// Runs the agent where nobody can make a control group, as a unit with `ProtectControlGroups=` does.
const WITHOUT_CGROUPS: &str = r#"#!/bin/sh
exec unshare --mount sh -c '
for folder in /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ ! -e $folder/cgroup.procs ] || mount -o remount,bind,ro $folder
done
exec "$TIDEGATE_BINARY" "$@"' sh "$@"
"#;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_agent_that_cannot_see_what_its_kernel_enforces_does_not_start_and_says_why() -> Result<()> {
    World::with(|world| {
        world.agent.stop()?;
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("tidegate");
        fs::write(&script, WITHOUT_CGROUPS)?;
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        world.agent.replace_binary(&script)?;
        let error = world.agent.launch().err().context("it started")?.to_string();
        for said in
            ["can't enforce", "packets that leave are dropped (a cgroup to try in: Read-only file system"]
        {
            ensure!(error.contains(said), "not {said:?}: {error}");
        }
        world.agent.replace_binary(Path::new(&env::var_os("TIDEGATE_BINARY").context("TIDEGATE_BINARY")?))?;
        world.agent.launch()
    })
}

/// Runs the agent in a cgroup of its own with these capabilities at most, as its unit does.
const BOUNDED: &str = r#"#!/bin/sh
echo $$ >${OWN}/cgroup.procs && exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+${BOUND} "$TIDEGATE_BINARY" "$@"
"#;

/// A cgroup for the agent, as each unit has one; whoever is in it at the end is put back.
struct Own(PathBuf);

impl Own {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2")).context("no cgroup v2")?;
        let root = Path::new(found.get(1).context("no mount point")?);
        let own = root.join(format!("tidegate-test-unit-{}", std::process::id()));
        fs::create_dir(&own)?;
        Ok(Self(own))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let root = self.0.with_file_name("cgroup.procs");
        for process in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            fs::write(&root, process).ok();
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn with_no_more_than_the_units_capabilities_the_agent_starts_at_the_tier_that_root_is_told() -> Result<()> {
    World::with(|world| {
        let told = world.agent.attempt(&["doctor", "--json"])?;
        let told: Value = serde_json::from_slice(&told.stdout)?;
        let tier = told["tier"].as_str().context("no tier")?;
        let bound = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_"));
        let bound = bound.context("the unit bounds no capabilities")?.to_lowercase().replace(" cap_", ",+");
        world.agent.stop()?;
        let (own, directory) = (Own::new()?, tempfile::tempdir()?);
        let script = directory.path().join("tidegate");
        let place = own.0.display().to_string();
        fs::write(&script, BOUNDED.replace("${OWN}", &place).replace("${BOUND}", &bound))?;
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        world.agent.replace_binary(&script)?;
        world.agent.launch()?;
        let log = world.agent.read_log()?;
        let ready = log.lines().rfind(|line| line.contains(r#""message":"ready""#)).context("not ready")?;
        ensure!(ready.contains(&format!(r#""tier":"{tier}""#)), "doctor says {tier}, and the agent: {ready}");
        world.ci.psql("SELECT 1")?.clean()?;
        let left = fs::read_dir(&own.0)?.flatten().find(|entry| entry.path().is_dir());
        ensure!(left.is_none(), "what was tried in is left: {left:?}");
        world.agent.stop()?;
        world.agent.replace_binary(Path::new(&env::var_os("TIDEGATE_BINARY").context("TIDEGATE_BINARY")?))?;
        world.agent.launch()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_crash_of_the_agent_leaves_no_core() -> Result<()> {
    World::with(|world| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", world.agent.process()?.id()))?;
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        let cores: Vec<&str> = cores.context("no limit for core files")?.split_whitespace().collect();
        ensure!(cores.starts_with(&["0", "0"]), "core files of {cores:?}");
        let directory = tempfile::tempdir()?;
        let mut other = Process::start(Command::new("sleep").arg("600").current_dir(directory.path()))?;
        ensure!(
            crash(&mut other)?.core_dumped(),
            "nothing leaves a core here, so this test can tell nothing"
        );
        ensure!(!world.agent.crash()?.core_dumped(), "the agent left a core");
        world.agent.launch()
    })
}

/// How often these bytes are in the memory that the agent may write to.
fn copies(world: &World, wanted: &[u8]) -> Result<usize> {
    let id = world.agent.process()?.id();
    let memory = File::open(format!("/proc/{id}/mem"))?;
    let mut count = 0;
    for line in fs::read_to_string(format!("/proc/{id}/maps"))?.lines().filter(|line| line.contains(" rw")) {
        let (begin, end) =
            line.split_once(' ').and_then(|(range, _)| range.split_once('-')).context("a range")?;
        let (begin, end) = (u64::from_str_radix(begin, 16)?, u64::from_str_radix(end, 16)?);
        let mut bytes = vec![0; usize::try_from(end - begin)?];
        // What is there in name only can't be read.
        if memory.read_exact_at(&mut bytes, begin).is_ok() {
            count += bytes.windows(wanted.len()).filter(|window| *window == wanted).count();
        }
    }
    Ok(count)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_password_is_in_the_agents_memory_no_longer_than_it_is_used() -> Result<()> {
    World::with(|world| {
        let password = world.server.password.clone();
        let known = copies(world, b"tidegate")?;
        ensure!(known > 0, "the memory can't be looked through");
        for _ in 0..20 {
            world.ci.psql("SELECT 1")?.clean()?;
        }
        world.none_is_open()?;
        let left = copies(world, password.as_bytes())?;
        ensure!(left == 0, "the password is left in memory {left} times");
        Ok(())
    })
}
