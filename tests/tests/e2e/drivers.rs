//! Drivers of other languages, unmodified.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use tidegate_tests::World;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn psycopg_prepares_pipelines_and_copies_through_masks() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            let shown = world.ci.python(include_str!("../../clients/psycopg.py"))?.clean()?;
            ensure!(shown == "ok", "{shown}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn asyncpg_reads_binary_results_through_masks() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            let shown = world.ci.python(include_str!("../../clients/asyncpg.py"))?.clean()?;
            ensure!(shown == "ok", "{shown}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn protocol_3_2_over_direct_tls_is_masked_and_cancelled_like_any_other() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            let shown = world.ci.python(include_str!("../../clients/raw.py"))?.clean()?;
            ensure!(shown == "ok", "{shown}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn node_postgres_reads_through_masks() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            let shown = world.ci.node(include_str!("../../clients/node.js"))?.clean()?;
            ensure!(shown == "ok", "{shown}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn tokio_postgres_pipelines_through_masks() -> Result<()> {
    World::with(|world| {
        // The target directory may be closed to other accounts.
        let deps = env::current_exe()?;
        let target = deps.parent().and_then(Path::parent).context("the target directory")?;
        let built = target.join("examples/rust_driver");
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755))?;
        let driver = open.path().join("rust_driver");
        fs::copy(&built, &driver).with_context(|| format!("copying {}", built.display()))?;
        world.under_either_mask(|world| {
            let shown = world.ci.run(&driver, &[], "")?.clean()?;
            ensure!(shown == "ok", "{shown}");
            Ok(())
        })
    })
}
