//! What the running agent may still do.

use std::fs;

use anyhow::{Context, Result, ensure};
use tidegate_tests::World;

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
