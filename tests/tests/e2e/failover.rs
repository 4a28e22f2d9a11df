//! A resource of several servers, of which one takes writes.

use anyhow::{Result, ensure};
use tidegate_tests::{BY_COLUMNS_ALONE, Cluster, Options, World};

use crate::together::{Session, eventually};

/// A server beside the world's own: the same to sign in to, and read-only as a standby is until it is promoted.
fn standby(world: &World) -> Result<Cluster> {
    let standby = Cluster::start(&Options::default())?;
    standby.sql("postgres", &format!("ALTER ROLE app PASSWORD '{}'", world.server.password))?;
    takes_writes(&standby, false)?;
    Ok(standby)
}

fn takes_writes(server: &Cluster, whether: bool) -> Result<()> {
    let setting = if whether { "off" } else { "on" };
    server.sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {setting}"))?;
    server.sql("postgres", "SELECT pg_reload_conf()")?;
    eventually("the setting is in force", || {
        Ok(server.sql("postgres", "SHOW default_transaction_read_only")? == setting)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_client_with_several_hosts_finds_the_server_that_takes_writes() -> Result<()> {
    World::with(|world| {
        let standby = standby(world)?;
        let ports = [standby.address.port(), world.server.address.port()];
        let verified = format!(
            "verify-full, ca: \"{}\", server-name: localhost",
            world.server.certificates.authority.display()
        );
        world.change_bundle_in(&[
            (
                &format!("\"127.0.0.1:{}\"", ports[1]),
                &format!("\"127.0.0.1:{}\", \"127.0.0.1:{}\"", ports[0], ports[1]),
            ),
            (&verified, "require"),
        ])?;
        world.agent.ask(&["reload"])?;
        let answers = |wanted: &str| -> Result<String> {
            let mut command = world.ci.command("psql");
            command.env("PGHOST", "127.0.0.1,127.0.0.1").env("PGPORT", format!("{},{}", ports[0], ports[1]));
            command.env("PGTARGETSESSIONATTRS", wanted).args(["-XqAtc", "SELECT inet_server_port()"]);
            let output = world.ci.output(&mut command)?;
            ensure!(output.status.success(), "{wanted}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
        };
        ensure!(answers("any")? == ports[0].to_string());
        ensure!(answers("read-write")? == ports[1].to_string());
        let session = Session::open(&world.ci)?;
        world.server.stop()?;
        let complaint = session.end()?;
        ensure!(complaint.is_empty() || complaint.contains("57P01"), "{complaint}");
        takes_writes(&standby, true)?;
        ensure!(answers("read-write")? == ports[0].to_string(), "the one that was promoted");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_standby_shows_columns_masked_and_is_promoted_under_way() -> Result<()> {
    World::with(|world| {
        world.server.stop()?;
        world.server.follow()?;
        world.server.launch()?;
        world.change_bundle_in(&BY_COLUMNS_ALONE)?;
        world.agent.ask(&["reload"])?;
        let card = "SELECT card_number FROM customers WHERE id = 1";
        let mut session = Session::open(&world.ci)?;
        ensure!(session.ask("SHOW in_hot_standby")? == "on");
        session.say(&format!("PREPARE cards AS {card}"))?;
        for query in [card, "EXECUTE cards", card] {
            let shown = session.ask(query)?;
            ensure!(shown == "************1111", "{query}: {shown}");
        }
        world
            .ci
            .psql("SELECT reverse(card_number) FROM customers")?
            .refused_by_the_gate(&["mask \"cards\""])?;
        world.server.sql("postgres", "SELECT pg_promote()")?;
        eventually("it is promoted", || Ok(session.ask("SHOW in_hot_standby")? == "off"))?;
        for query in [card, "EXECUTE cards"] {
            let shown = session.ask(query)?;
            ensure!(shown == "************1111", "{query}: {shown}");
        }
        ensure!(session.ask("UPDATE orders SET quantity = 2 WHERE id = 1 RETURNING quantity")? == "2");
        Ok(())
    })
}
