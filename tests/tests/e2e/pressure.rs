//! One account that asks for as much as it can, and what others notice of it.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Provider, World};

use crate::{identity::LIFETIME, together::eventually};

/// Runs itself inside of itself with an environment of 1.9 MB, this many times, and there as many clients at once.
const NESTED: &str = r#"
import os, subprocess, sys
left, clients = int(sys.argv[1]), sys.argv[2]
if left > 0:
    padding = {f'PADDING_{i}': 'x' * 125_000 for i in range(15)}
    sys.exit(subprocess.call([sys.executable, sys.argv[0], str(left - 1), clients], env={**os.environ, **padding}))
command = ['psql', '-XqAt', '-c', 'SELECT 1']
started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(int(clients))]
print(sum(one.communicate()[0] == '1\n' for one in started))
"#;

/// The most memory that the agent ever had, in MiB.
fn peak(world: &World) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", world.agent.process()?.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn environments_do_not_become_the_agents_memory() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let (url, ca) = (&provider.url, provider.ca());
        let issuers = format!(
            "tidegate: 1\nissuers:\n  jobs:\n    url: {url}\n    audience: ci-job\n    ca: {}\n    \
             groups: [groups]\n    tokens: [{{variable: CI_JOB_JWT}}, github-actions]\n",
            ca.display()
        );
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        world.agent.ask(&["reload"])?;
        let script = world.agent.runtime().join("nested.py");
        fs::write(&script, NESTED)?;
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "nobody is served");
        let before = peak(world)?;
        let nested = world.ci.run("python3", &[&*script.to_string_lossy(), "30", "30"], "")?;
        ensure!(nested.stdout.trim() == "30", "not all were served: {} {}", nested.stdout, nested.stderr);
        let after = peak(world)?;
        ensure!(after < before + 100, "the agent went from {before} MiB to {after} MiB");
        let log = world.agent.read_log()?;
        ensure!(log.contains("larger than 32 MiB together"), "nobody was told that no token is looked for");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn large_executables_hold_up_their_own_account_alone() -> Result<()> {
    World::with(|world| {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        let at = directory.path().display();
        // Holes cost nothing on the disk, and as much as other bytes to whoever reads them.
        let many = format!(
            "for i in $(seq 24); do cp \"$(readlink -f /usr/lib/postgresql/*/bin/psql)\" {at}/$i; truncate -s 240M {at}/$i; done\n\
             touch {at}/copied\n\
             for i in $(seq 24); do ({at}/$i -XqAt -c 'SELECT 1'; touch {at}/$i.done) & done; wait"
        );
        let mut command = world.ci.command("sh");
        let mut running = command.args(["-c", &many]).stdout(std::process::Stdio::piped()).spawn()?;
        eventually("they run", || Ok(directory.path().join("copied").exists()))?;
        let done = || {
            Ok::<_, anyhow::Error>(
                fs::read_dir(directory.path())?
                    .flatten()
                    .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "done"))
                    .count(),
            )
        };
        eventually("one of them is served", || Ok(done()? > 0))?;
        ensure!(world.ops.psql("SELECT 1")?.clean()? == "1", "others are not served");
        let before_others = done()?;
        ensure!(running.wait()?.success(), "the copies could not be run");
        ensure!(before_others < 12, "another account waited for {before_others} of 24 executables");
        ensure!(done()? == 24, "not all were served");
        Ok(())
    })
}
