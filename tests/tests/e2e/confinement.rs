//! What the running agent may still do.

use std::{
    env,
    fs::{self, File},
    os::unix::{
        fs::{FileExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Process, World, crash};

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
