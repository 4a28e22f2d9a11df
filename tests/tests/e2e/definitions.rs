//! Definitions that change while others are at work.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{World, run};

use crate::together::eventually;

/// Account `ci` may change what it likes of the shop. By their columns alone, so that nothing else hides what a column mask
/// misses.
fn let_ci_alter(world: &World) -> Result<()> {
    world.server.sql("shop", "GRANT CREATE ON SCHEMA public TO app")?;
    world.change_bundle_in(&[
        ("insert, update, delete, copy-to", "insert, update, delete, create, alter, copy-to"),
        ("    content: [card]\n", ""),
        ("    content: [email]\n", ""),
    ])?;
    world.agent.ask(&["reload"])?;
    Ok(())
}

/// A directory that governed accounts may write to.
fn open_directory() -> Result<TempDir> {
    let open = tempfile::tempdir()?;
    fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777))?;
    Ok(open)
}

/// A client of `ci` written in Python, which finds its files in this directory.
fn client(script: &str, directory: &Path) -> String {
    script.replace("${directory}", &directory.display().to_string())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_change_counts_for_sessions_on_either_side_of_a_reload() -> Result<()> {
    World::with(|world| {
        let_ci_alter(world)?;
        let open = open_directory()?;
        let script = client(include_str!("../../clients/reloaded.py"), open.path());
        let shown = thread::scope(|scope| {
            let client = scope.spawn(|| world.ci.python(&script));
            eventually("the first session is open", || {
                Ok(open.path().join("open").exists() || client.is_finished())
            })?;
            world.agent.ask(&["reload"])?;
            fs::write(open.path().join("reloaded"), "")?;
            client.join().map_err(|_| anyhow::anyhow!("the client's thread"))??.clean()
        })?;
        ensure!(!shown.contains("4111111111111111"), "shown in clear: {shown}");
        Ok(())
    })
}

/// Account `ci` may do what migrations do. By their columns alone, likewise.
fn let_ci_migrate(world: &World) -> Result<()> {
    world.server.sql("shop", "GRANT CREATE ON SCHEMA public TO app")?;
    world.change_bundle_in(&[
        ("[select, transaction,", "[select, create, drop, transaction,"),
        ("insert, update, delete, copy-to", "insert, update, delete, merge, create, alter, drop, copy-to"),
        (
            "[\"public.*\", \"store.*\"]\n    masks",
            "[\"public.*\", \"store.*\", \"pg_temp.*\", \"?.*\"]\n    masks",
        ),
        ("statement: [drop, truncate]", "statement: truncate"),
        (
            "columns: [\"public.customers.email\"]",
            "columns: [\"public.customers.email\", \"public.clients.email\", \"?.clients.email\"]",
        ),
        ("    content: [card]\n", ""),
        ("    content: [email]\n", ""),
    ])?;
    world.agent.ask(&["reload"])?;
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_column_that_goes_without_a_word_moves_nothing_out_from_under_its_mask() -> Result<()> {
    World::with(|world| {
        let_ci_migrate(world)?;
        let shown = world.ci.python(include_str!("../../clients/lost_columns.py"))?.clean()?;
        ensure!(shown.is_empty(), "{shown}");
        let kept = world.server.sql("shop", "SELECT name FROM customers")?;
        ensure!(!kept.contains("4111111111111111"), "kept in clear: {kept}");
        Ok(())
    })
}

/// What a trigger of the shop's hides from everybody but the server.
const HIDING: &str = "CREATE TABLE public.wide (a text, b text, c text); CREATE TABLE public.log (a int);
    ALTER TABLE public.wide OWNER TO app; ALTER TABLE public.log OWNER TO app;
    CREATE FUNCTION public.hide() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS wide (a text); RETURN NEW; END $$;
    CREATE TRIGGER hide BEFORE INSERT ON public.log FOR EACH ROW EXECUTE FUNCTION public.hide();";

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn where_the_server_says_that_a_column_is_a_masked_one_nothing_is_shown() -> Result<()> {
    World::with(|world| {
        let_ci_migrate(world)?;
        world.server.sql("shop", HIDING)?;
        let shown = world.ci.python(include_str!("../../clients/origins.py"))?.clean()?;
        ensure!(shown.lines().count() == 5, "{shown}");
        ensure!(!shown.contains("in clear"), "{shown}");
        let sessions: serde_json::Value =
            serde_json::from_str(&world.agent.ask(&["sessions", "list", "--json"])?)?;
        let ids = sessions.as_array().context("a list")?.iter().filter_map(|session| session["id"].as_str());
        let told = ids.map(|id| world.agent.ask(&["sessions", "show", id])).collect::<Result<Vec<_>>>()?;
        let differs = told.iter().filter(|told| told.contains("origin-differs")).count();
        ensure!(differs == 3, "{differs} records tell of it: {told:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_migrations_made_is_read_over_the_same_connection() -> Result<()> {
    World::with(|world| {
        let_ci_migrate(world)?;
        let said = world.ci.python(include_str!("../../clients/migrations.py"))?.clean()?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_table_is_locked_and_altered_while_others_are_at_work_on_it() -> Result<()> {
    World::with(|world| {
        let_ci_alter(world)?;
        let open = open_directory()?;
        let script = open.path().join("load.sql");
        fs::write(&script, "SELECT title, cents FROM products WHERE id = 1;\n")?;
        fs::set_permissions(&script, PermissionsExt::from_mode(0o644))?;
        let script = script.display().to_string();
        thread::scope(|scope| {
            let load =
                scope.spawn(|| world.ops.run("pgbench", &["-n", "-c", "4", "-T", "6", "-f", &script], ""));
            world.ci.python(include_str!("../../clients/altering.py"))?.clean()?;
            let load = load.join().map_err(|_| anyhow::anyhow!("the load's thread"))??;
            ensure!(
                load.code == 0 && load.stdout.contains("failed transactions: 0 "),
                "{}{}",
                load.stdout,
                load.stderr
            );
            Ok(())
        })
    })
}

/// Two tables with an index each that takes its time: a function of one row sleeps.
const SLOW: &str = "\
    CREATE TABLE store.visits AS SELECT branch FROM generate_series(1, 11) branch; \
    CREATE TABLE store.leaves AS SELECT branch FROM generate_series(1, 11) branch; \
    CREATE INDEX visits_plain ON store.visits (branch); CREATE INDEX leaves_plain ON store.leaves (branch); \
    CREATE INDEX visits_slow ON store.visits (public.slow(branch)); \
    CREATE INDEX leaves_slow ON store.leaves (public.slow(branch))";

/// What an index takes its time with.
const SLEEPS: &str = "CREATE FUNCTION public.slow(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS \
    'BEGIN IF current_database() = ''copy'' THEN PERFORM pg_sleep(1); END IF; RETURN n; END'";

/// What restoring them takes, for `ci`, whose columns are masked, and for `ops`, whose aren't.
const RESTORE: &str = r#"rules:
  - name: restore
    subjects: [ci, ops]
    resources: [shop]
    allow:
      - {action: login, database: copy}
      - {statement: [create, alter], table: false, object: schema}
      - {statement: [create, alter, copy-from, insert, truncate], table: "store.*"}
      - {statement: [select, create], function: [pg_catalog.setval, public.slow]}
"#;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn indexes_are_restored_by_several_jobs_at_once() -> Result<()> {
    World::with(|world| {
        let open = open_directory()?;
        let file = open.path().join("store.dump").display().to_string();
        world.server.sql("shop", SLEEPS)?;
        world.server.sql("shop", &format!("SET ROLE app; {SLOW}"))?;
        run(world.server.direct("pg_dump").args(["-Fc", "--schema=store", "--file", &file, "shop"]))?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644))?;
        world.change_bundle_in(&[("rules:\n", RESTORE), ("[drop, truncate]", "[drop]")])?;
        world.agent.ask(&["reload"])?;
        for account in [&world.ci, &world.ops] {
            world.server.sql("postgres", "DROP DATABASE IF EXISTS copy WITH (FORCE)")?;
            world.server.sql("postgres", "CREATE DATABASE copy OWNER app")?;
            world.server.sql("copy", SLEEPS)?;
            let restore = ["--exit-on-error", "--no-owner", "-j", "4", "-d", "copy", &file];
            let ran = account.run("pg_restore", &restore, "")?;
            ensure!(ran.code == 0, "it was not restored: {}", ran.stderr);
            let built =
                "SELECT count(*) FROM pg_indexes WHERE schemaname = 'store' AND indexname ~ '_(slow|plain)$'";
            ensure!(world.server.sql("copy", built)? == "4", "not all indexes are there");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn twenty_thousand_wide_rows_go_through_one_pipeline() -> Result<()> {
    World::with(|world| {
        let columns: Vec<String> = (0..60).map(|n| format!("c{n} text")).collect();
        let table =
            format!("CREATE TABLE store.wide ({}); GRANT ALL ON store.wide TO app", columns.join(", "));
        world.server.sql("shop", &table)?;
        let told = world.ci.python(include_str!("../../clients/wide.py"))?.clean().context("wide.py")?;
        ensure!(told == "ok", "{told}");
        ensure!(world.server.sql("shop", "SELECT count(*) FROM store.wide")? == "40000", "rows are missing");
        Ok(())
    })
}
