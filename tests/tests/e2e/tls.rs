//! TLS between the client and the gate.

use std::fs;

use anyhow::{Result, ensure};
use tidegate_tests::World;

const QUERY: &str = "SELECT 'in'";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn every_sslmode_short_of_verifying_gets_in() -> Result<()> {
    World::with(|world| {
        for mode in ["disable", "allow", "prefer", "require"] {
            let shown =
                world.ci.run("psql", &["-XqAt", "-c", QUERY, &format!("sslmode={mode}")], "")?.clean()?;
            ensure!(shown == "in", "{mode}: {shown}");
        }
        let info = world.ci.run("psql", &["-X", "-c", "\\conninfo", "sslmode=require"], "")?.clean()?;
        ensure!(info.contains("SSL connection"), "no TLS: {info}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn verify_full_trusts_the_agents_authority_and_no_other() -> Result<()> {
    World::with(|world| {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), world.agent.ask(&["ca", "show"])?)?;
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        let verify = |authority: &std::path::Path| {
            let target = format!("sslmode=verify-full sslrootcert={}", authority.display());
            world.ci.run("psql", &["-XqAt", "-c", QUERY, &target], "")
        };
        ensure!(verify(file.path())?.clean()? == "in", "the agent's own authority");
        verify(&world.server.certificates.authority)?.complains(&["certificate verify failed"])
    })
}
