//! PostgreSQL's own tools.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Result, ensure};
use tidegate_tests::{World, run};

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn pg_dump_holds_no_card_and_no_mail() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            let dump = world.ci.run("pg_dump", &["--data-only", "--table=public.customers"], "")?.clean()?;
            ensure!(
                dump.contains("Ada Lindqvist") && dump.contains("1111") && dump.contains("tok_"),
                "not a dump of the customers: {dump}"
            );
            ensure!(
                !dump.contains("4111111111111111") && !dump.contains("ada@example.com"),
                "shown in clear: {dump}"
            );
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_dump_of_what_needs_no_mask_restores_to_the_same() -> Result<()> {
    World::with(|world| {
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777))?;
        let file = open.path().join("store.dump").display().to_string();
        world.ci.run("pg_dump", &["-Fc", "--schema=store", "--file", &file], "")?.clean()?;
        world.server.sql("postgres", "CREATE DATABASE copy OWNER app")?;
        run(world.server.direct("pg_restore").args(["--exit-on-error", "-d", "copy", &file]))?;
        let rows = "SELECT * FROM store.branches ORDER BY id";
        let (before, after) = (world.server.sql("shop", rows)?, world.server.sql("copy", rows)?);
        ensure!(before == after && before.lines().count() == 3, "{before}\nbecame\n{after}");
        Ok(())
    })
}

/// What restoring a dump of schema `store` takes, into a database that is there.
const RESTORE: &str = r#"rules:
  - name: restore
    subjects: [ci]
    resources: [shop]
    allow:
      - {action: login, database: copy}
      - {statement: [create, alter], table: false, object: schema}
      - {statement: comment, table: false, object: table}
      - {statement: [create, alter], table: "store.*"}
      - {statement: select, function: pg_catalog.setval}
"#;

/// What a dump may hold beside plain tables.
const MORE: &str = "\
    CREATE TABLE store.visits (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
      branch integer NOT NULL REFERENCES store.branches, day date DEFAULT '2026-01-31' CHECK (day > '2000-01-01')); \
    INSERT INTO store.visits (branch) VALUES (1), (3), (3); \
    CREATE INDEX ON store.visits (branch); COMMENT ON TABLE store.visits IS 'who came'; \
    CREATE VIEW store.busy AS SELECT branch, count(*) AS visits FROM store.visits GROUP BY branch";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_dump_taken_through_the_gate_is_restored_through_the_gate() -> Result<()> {
    World::with(|world| {
        let open = tempfile::tempdir()?;
        fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777))?;
        let file = open.path().join("store.dump").display().to_string();
        world.server.sql("shop", &format!("SET ROLE app; {MORE}"))?;
        world.server.sql("postgres", "CREATE DATABASE copy OWNER app")?;
        world.ci.run("pg_dump", &["-Fc", "--schema=store", "--file", &file], "")?.clean()?;
        let restore = ["--exit-on-error", "--verbose", "-d", "copy", &file];
        world.ci.run("pg_restore", &restore, "")?.complains(&["FATAL"])?;
        world.change_bundle("rules:\n", RESTORE)?;
        world.agent.ask(&["reload"])?;
        let ran = world.ci.run("pg_restore", &restore, "")?;
        ensure!(ran.code == 0, "it was not restored: {}", ran.stderr);
        for rows in ["TABLE store.branches", "TABLE store.visits", "TABLE store.busy ORDER BY 1"] {
            let (before, after) = (world.server.sql("shop", rows)?, world.server.sql("copy", rows)?);
            ensure!(before == after && !before.is_empty(), "{rows}: {before}\nbecame\n{after}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn pgbench_runs_in_all_three_modes() -> Result<()> {
    World::with(|world| {
        run(world.server.direct("pgbench").args(["-i", "-q", "-s", "1", "shop"]))?;
        world.server.sql("shop", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")?;
        for mode in ["simple", "extended", "prepared"] {
            let arguments = ["-n", "-c", "4", "-j", "2", "-t", "50", "-M", mode, "shop"];
            let ran = world.ci.run("pgbench", &arguments, "")?;
            ensure!(ran.code == 0, "{mode}: {}", ran.stderr);
            let all = "number of transactions actually processed: 200/200";
            ensure!(ran.stdout.contains(all), "{mode}: {}{}", ran.stdout, ran.stderr);
        }
        Ok(())
    })
}
