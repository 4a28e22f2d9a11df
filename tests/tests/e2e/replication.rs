//! Replication: what must be spelled out, and is never half masked.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, Ran, World};

/// Allowed to both accounts, of which `ci` stands under masks and `ops` does not.
const SPELLED_OUT: &str = "rules:
  - name: replicate
    subjects: [ci, ops]
    resources: [shop]
    allow: [{action: login, database: [shop, replication]}, {statement: replication}]
";

/// What a walsender tells of itself, and of any table.
fn identify(account: &Account, replication: &str) -> Result<Ran> {
    let target = format!("dbname=shop replication={replication}");
    account.run("psql", &["-XqAt", "-v", "VERBOSITY=verbose", "-c", "IDENTIFY_SYSTEM", &target], "")
}

/// A world whose upstream user may replicate, and whose bundle allows it.
fn allowed(world: &World) -> Result<()> {
    world.server.sql("postgres", "ALTER ROLE app REPLICATION")?;
    world.change_bundle("rules:\n", SPELLED_OUT)?;
    world.agent.ask(&["reload"]).map(drop)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn replication_is_refused_unless_a_rule_spells_it_out() -> Result<()> {
    World::with(|world| {
        world.server.sql("postgres", "ALTER ROLE app REPLICATION")?;
        for value in ["database", "true", "on", "1"] {
            identify(&world.ops, value)?.complains(&["FATAL", "no rule allows statement replication"])?;
        }
        allowed(world)?;
        for value in ["database", "true"] {
            let told = identify(&world.ops, value)?.clean()?;
            ensure!(told.split('|').count() == 4, "not what a walsender says: {told}");
        }
        let sessions = world.agent.ask(&["sessions", "show", "--json", &newest(world)?])?;
        ensure!(
            sessions.contains("nothing of this session is decided"),
            "the record does not say so: {sessions}"
        );
        Ok(())
    })
}

/// The newest session of the account without masks, by its id.
fn newest(world: &World) -> Result<String> {
    let list = world.agent.ask(&["sessions", "list", "--subject", "ops", "--limit", "1", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    Ok(list.pointer("/0/id").and_then(serde_json::Value::as_str).context("no session of ops")?.to_owned())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn who_stands_under_a_mask_never_replicates() -> Result<()> {
    World::with(|world| {
        allowed(world)?;
        identify(&world.ci, "database")?.complains(&["FATAL", "refused by mask"])?;
        // Masks that would rather hide a result whole than refuse it, then one by content alone.
        let columns = "    columns: [\"public.customers.card_number\"]\n";
        let mails_by_columns = "  mails:\n    columns: [\"public.customers.email\"]\n";
        for [cards, mails] in [
            [
                ("keep-last: 4}", "keep-last: 4}\n    untraced: mask"),
                ("show: token", "show: token\n    untraced: mask"),
            ],
            [(columns, "    untraced: mask\n"), (mails_by_columns, "  mails:\n    untraced: mask\n")],
        ] {
            world.change_bundle_in(&[("rules:\n", SPELLED_OUT), cards, mails])?;
            world.agent.ask(&["reload"])?;
            identify(&world.ci, "database")?.complains(&["FATAL", "masks apply to this account here"])?;
            identify(&world.ops, "database")?.clean()?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn pg_receivewal_and_pg_basebackup_work_where_nothing_is_masked() -> Result<()> {
    World::with(|world| {
        allowed(world)?;
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777))?;
        let at = |name: &str| open.path().join(name).display().to_string();
        let end = world.server.sql("shop", "SELECT pg_current_wal_flush_lsn()")?;
        fs::create_dir(at("wal"))?;
        fs::set_permissions(at("wal"), PermissionsExt::from_mode(0o777))?;
        let ran = world.ops.run("pg_receivewal", &["-D", &at("wal"), "--no-loop", "--endpos", &end], "")?;
        ensure!(ran.code == 0, "{}", ran.stderr);
        ensure!(fs::read_dir(at("wal"))?.count() > 0, "nothing was received");
        let ran = world.ops.run("pg_basebackup", &["-D", &at("copy"), "-X", "stream", "-c", "fast"], "")?;
        ensure!(ran.code == 0, "{}", ran.stderr);
        ensure!(open.path().join("copy/PG_VERSION").exists(), "no copy of the server");
        Ok(())
    })
}
