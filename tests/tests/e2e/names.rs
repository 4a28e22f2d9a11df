//! Names: what governed clients resolve, and where that leads them.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use tidegate_tests::{NameServer, World};

use crate::together::eventually;

const CARD: &str = "SELECT card_number FROM customers WHERE id = 1";

/// A name server, asked by the agent, whose `shop.test` is where the shop is.
fn named(world: &World) -> Result<NameServer> {
    let server = NameServer::start()?;
    server.set("shop.test", &[world.server.address.ip()]);
    let port = world.server.address.port();
    let resource = |host: &str| {
        format!("resources:\n  shop:\n    protocol: postgres\n    addresses: [\"{host}:{port}\"]")
    };
    let by_name = format!("dns: {{servers: [{}]}}\n{}", server.address.ip(), resource("shop.test"));
    world.change_bundle(&resource("127.0.0.1"), &by_name)?;
    world.agent.ask(&["reload"])?;
    Ok(server)
}

fn psql(world: &World, query: &str) -> Result<String> {
    world.ci.run("psql", &["-h", "shop.test", "-XqAt", "-c", query], "")?.clean()
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_resource_is_reached_by_its_name() -> Result<()> {
    World::with(|world| {
        let _server = named(world)?;
        let card = psql(world, CARD)?;
        ensure!(card.ends_with("1111") && !card.starts_with("4111"), "{card}");
        let sessions = world.agent.ask(&["sessions", "list", "--json"])?;
        ensure!(sessions.contains("\"dns\""), "what was asked is not recorded: {sessions}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_resource_that_moves_is_followed_and_stays_behind_the_gate() -> Result<()> {
    World::with(|world| {
        let server = named(world)?;
        server.set("shop.test", &[IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        eventually("the new address is used", || {
            Ok(psql(world, "SELECT host(inet_server_addr())")? == "::1")
        })?;
        let card = psql(world, CARD)?;
        ensure!(card.ends_with("1111") && !card.starts_with("4111"), "{card}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn names_carry_nothing_to_a_name_server() -> Result<()> {
    World::with(|world| {
        let server = named(world)?;
        let ip = server.address.ip().to_string();
        let ask = |name: &str| {
            include_str!("../../clients/ask.py").replace("{server}", &ip).replace("{name}", name)
        };
        let refused = world.ci.python(&ask("stolen-secret.attacker.example"))?.clean()?;
        ensure!(refused == format!("udp {ip} 5\ntcp {ip} 5"), "{refused}");
        let answered = world.ci.python(&ask("sHoP.test"))?.clean()?;
        ensure!(answered == format!("udp {ip} 0\ntcp {ip} 0"), "{answered}");
        let asked = server.asked();
        ensure!(asked.iter().all(|name| name == "shop.test"), "{asked:?}");
        let free =
            world.stranger.python(&ask("free.example").replace("stream =", "raise SystemExit #"))?.clean()?;
        ensure!(free == format!("udp {ip} 3"), "an ungoverned process asks whom it will: {free}");
        Ok(())
    })
}
