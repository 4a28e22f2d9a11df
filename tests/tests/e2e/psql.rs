//! What a person with `psql` sees.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tidegate_tests::{Process, World};

use crate::together::{Session, eventually};

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_wrong_password_or_none_gets_in() -> Result<()> {
    World::with(|world| {
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "a wrong password");
        let mut without = world.ci.command("psql");
        without.env_remove("PGPASSWORD").args(["-XqAtw", "-c", "SELECT 2"]);
        let output = world.ci.output(&mut without)?;
        ensure!(output.stdout == b"2\n", "no password: {output:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn cards_and_mails_are_masked_however_they_are_asked_for() -> Result<()> {
    World::with(|world| {
        world.under_either_mask(|world| {
            for query in [
                "SELECT * FROM customers ORDER BY id LIMIT 1",
                "SELECT email AS id, card_number AS name FROM customers WHERE id = 1",
                "WITH c AS (SELECT email AS a, card_number AS b FROM customers WHERE id = 1) SELECT b, a FROM c",
                "SELECT x.b, x.a FROM (SELECT id, card_number AS b, email AS a FROM customers) AS x WHERE x.id = 1",
                "COPY (SELECT email, card_number FROM customers WHERE id = 1) TO STDOUT",
            ] {
                let shown = world.ci.psql(query)?.clean()?;
                ensure!(shown.contains("1111"), "{query}: the last four digits are not shown: {shown}");
                ensure!(!shown.contains("4111111111111111"), "{query}: the card is shown: {shown}");
                ensure!(!shown.contains("ada@example.com"), "{query}: the e-mail is shown: {shown}");
            }
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_is_made_from_a_masked_column_is_refused() -> Result<()> {
    World::with(|world| {
        for query in [
            "SELECT substr(card_number, 1, 8) FROM customers",
            "SELECT id FROM customers WHERE card_number LIKE '41%'",
            "SELECT count(*) FROM customers GROUP BY card_number",
            "SELECT id FROM customers ORDER BY card_number",
        ] {
            let ran = world.ci.psql(query)?;
            ran.refused_by_the_gate(&["card_number"]).context(query)?;
            ensure!(ran.stdout.is_empty(), "{query}: {}", ran.stdout);
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_refusal_is_an_error_that_names_the_rule_and_the_session_goes_on() -> Result<()> {
    World::with(|world| {
        let ran = world.ci.psql("DROP TABLE orders;\nDELETE FROM orders;\nUPDATE orders SET quantity = 1 WHERE true;\nSELECT 'on';\n")?;
        ran.refused_by_the_gate(&["no-drop", "where-required", "ask the owners of the shop"])?;
        ensure!(ran.stdout == "on\n", "the session did not go on: {ran:?}");
        ensure!(world.server.sql("shop", "SELECT count(*) FROM orders")? == "10", "something was deleted");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_string_of_statements_is_refused_whole() -> Result<()> {
    World::with(|world| {
        let several =
            "INSERT INTO products (title, cents) VALUES ('half', 1); SELECT 1; DROP TABLE orders; SELECT 2";
        let ran = world.ci.run("psql", &["-XqAt", "-c", several], "")?;
        ran.complains(&["no-drop"])?;
        ensure!(ran.stdout.is_empty(), "something ran: {}", ran.stdout);
        ensure!(
            world.server.sql("shop", "SELECT count(*) FROM products WHERE title = 'half'")? == "0",
            "half ran"
        );
        let shown = world.ci.run("psql", &["-XqAt", "-c", "SELECT 1; SELECT 2; SELECT 3"], "")?.clean()?;
        ensure!(shown.ends_with('3'), "an allowed string did not run: {shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_refusal_aborts_the_transaction_upstream_too() -> Result<()> {
    World::with(|world| {
        let ran = world.ci.psql(
            "BEGIN;\nINSERT INTO products (title, cents) VALUES ('lost', 1);\nDROP TABLE orders;\nSELECT 'inside';\n\
             COMMIT;\nSELECT 'after';\n",
        )?;
        ran.refused_by_the_gate(&["25P02"])?;
        ensure!(ran.stdout == "after\n", "not as an aborted transaction: {ran:?}");
        let lost = world.server.sql("shop", "SELECT count(*) FROM products WHERE title = 'lost'")?;
        ensure!(lost == "0", "what came before the refusal was committed");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn notifications_arrive_without_their_payload_where_columns_are_masked() -> Result<()> {
    World::with(|world| {
        let shown = world.ci.psql("LISTEN tide;\nNOTIFY tide, 'high water';\nSELECT 1;\n")?.clean()?;
        ensure!(shown.contains("\"tide\" with payload \"***\""), "no notification: {shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn ctrl_c_cancels_its_own_statement_and_no_other() -> Result<()> {
    World::with(|world| {
        let mut bystander = Session::open(&world.ci)?;
        let mut command = world.ci.command("psql");
        command.args(["-XqAt", "-v", "VERBOSITY=verbose", "-c", "SELECT pg_sleep(60)"]);
        let mut psql = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        eventually("the statement runs", || Ok(world.server.sql("shop", running)? == "1"))?;
        psql.signal(Signal::SIGINT)?;
        let stderr = psql.child().stderr.take().context("stderr")?;
        let complaint = std::io::read_to_string(stderr)?;
        world.ci.transcribe(&complaint);
        ensure!(complaint.contains("57014"), "not cancelled: {complaint}");
        ensure!(bystander.ask("SELECT 'unharmed'")? == "unharmed", "another session was hit");
        eventually("nothing runs upstream", || Ok(world.server.sql("shop", running)? == "0"))
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_a_client_sets_when_it_connects_is_in_force() -> Result<()> {
    World::with(|world| {
        let script = "psql -XqAt -c 'SHOW statement_timeout' -c 'SHOW search_path' -c 'SHOW application_name' \
                      -c 'SHOW TimeZone' -c 'SHOW lock_timeout' -c 'SHOW client_encoding'";
        let variables = [
            ("PGOPTIONS", "-c statement_timeout=7s -csearch_path=store --lock-timeout=8s"),
            ("PGAPPNAME", "deploy 7"),
            ("PGTZ", "Asia/Tokyo"),
        ];
        let shown = world.ci.shell(script, &variables)?.clean()?;
        ensure!(shown.lines().eq(["7s", "store", "deploy 7", "Asia/Tokyo", "8s", "UTF8"]), "{shown}");
        Ok(())
    })
}
