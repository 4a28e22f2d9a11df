//! Whom the bundle reaches, and how it changes.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tidegate_tests::{Account, NameServer, World, governed_uid};

use crate::together::{Session, eventually};

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_ungoverned_account_is_untouched() -> Result<()> {
    World::with(|world| {
        let query = "SELECT email, card_number FROM customers WHERE id = 1";
        let shown = world.stranger.psql(query)?.clean()?;
        ensure!(shown == "ada@example.com|4111111111111111", "{shown}");
        let ignorant = Account::new(world.stranger.uid, world.server.address, "not-the-password");
        ignorant.psql(query)?.complains(&["password authentication failed"])
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_destination_that_nothing_declares_is_refused_with_eperm() -> Result<()> {
    World::with(|world| {
        let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let script = include_str!("../../clients/reach.py")
            .replace("{port}", &elsewhere.local_addr()?.port().to_string());
        let (governed, ungoverned) =
            (world.ci.python(&script)?.clean()?, world.stranger.python(&script)?.clean()?);
        ensure!(governed == "EPERM", "a governed account: {governed}");
        ensure!(ungoverned == "connected", "an ungoverned one: {ungoverned}");
        Ok(())
    })
}

/// Where an account gets by itself.
fn reaches(account: &Account, host: &str, port: u16) -> Result<String> {
    let script = include_str!("../../clients/reach.py").replace("127.0.0.1", host);
    account.python(&script.replace("{port}", &port.to_string()))?.clean()
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn what_the_bundle_passes_by_address_network_or_name_is_reached_by_its_subjects_alone() -> Result<()> {
    World::with(|world| {
        let elsewhere = TcpListener::bind(("127.9.0.1", 0))?;
        let port = elsewhere.local_addr()?.port();
        let another = TcpListener::bind(("127.9.0.1", 0))?;
        let other_port = another.local_addr()?.port();
        let names = NameServer::start()?;
        names.set("mirror.test", &[elsewhere.local_addr()?.ip()]);
        let dns = format!("dns: {{servers: [{}]}}\nresources:\n", names.address.ip());
        for (to, host) in [
            (format!("127.9.0.1:{port}"), "127.9.0.1"),
            ("127.9.0.0/16".to_owned(), "127.9.0.1"),
            (format!("127.9.0.0/16:{port}"), "127.9.0.1"),
            (format!("mirror.test:{port}"), "mirror.test"),
        ] {
            world.change_bundle("resources:\n", &dns)?;
            world.agent.ask(&["reload"])?;
            ensure!(
                reaches(&world.ci, "127.9.0.1", port)? == "EPERM",
                "{to}: it is reached before it is passed"
            );
            let passes = format!("passes:\n  - {{subjects: [ci], to: [\"{to}\"]}}\n{dns}");
            world.change_bundle("resources:\n", &passes)?;
            world.agent.ask(&["reload"])?;
            let reached = reaches(&world.ci, host, port)?;
            ensure!(reached == "connected", "{to}: {reached}");
            let by_others = reaches(&world.ops, host, port)?;
            ensure!(by_others == "EPERM", "{to}: another subject: {by_others}");
            if to.ends_with(&port.to_string()) {
                let beside = reaches(&world.ci, host, other_port)?;
                ensure!(beside == "EPERM", "{to}: port {other_port}: {beside}");
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_reloaded_rule_reaches_running_sessions() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        let card = "SELECT card_number FROM customers WHERE id = 1";
        ensure!(session.ask(card)?.ends_with("1111"), "the bundle shows the last four digits");
        world.change_bundle("{keep-last: 4}", "redact")?;
        world.agent.signal(Signal::SIGHUP)?;
        eventually("the card is hidden whole", || Ok(!session.ask(card)?.contains("1111")))
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_bad_bundle_changes_nothing() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        world.change_bundle("masks: [cards, mails]", "masks: [crads]")?;
        let output = world.agent.attempt(&["reload"])?;
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success() && said.contains("crads"), "the problem is not named: {said}");
        let card = session.ask("SELECT card_number FROM customers WHERE id = 1")?;
        ensure!(card.ends_with("1111") && card != "4111111111111111", "the old bundle does not hold: {card}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_bundle_that_requires_a_tier_is_put_into_force_only_where_it_is_reached() -> Result<()> {
    World::with(|world| {
        // What is open here has it end with a code of its own.
        let found = world.agent.attempt(&["doctor", "--json"])?.stdout;
        let found: serde_json::Value = serde_json::from_slice(&found)?;
        let tiers = ["base", "recommended", "hardened", "full"];
        let reached =
            tiers.iter().position(|tier| found["tier"] == *tier).context("no tier that is known")?;
        for (number, tier) in tiers.into_iter().enumerate().skip(1) {
            world.change_bundle("resources:\n", &format!("require: [{tier}]\nresources:\n"))?;
            let output = world.agent.attempt(&["reload"])?;
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() == (reached >= number), "{tier} at {}: {said}", found["tier"]);
            ensure!(reached >= number || said.contains("requires") && said.contains("missing"), "{said}");
        }
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "nobody gets in any more");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_bundle_that_requires_the_shield_is_put_into_force_only_where_there_is_one() -> Result<()> {
    World::with(|world| {
        world.change_bundle("resources:\n", "require: [shield]\nresources:\n")?;
        let asked = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        let shielded = asked.trim().split(',').any(|module| module == "bpf");
        let output = world.agent.attempt(&["reload"])?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == shielded, "{said}");
        if !shielded {
            ensure!(
                said.contains("requires") && said.contains("shield"),
                "it is not said what is missing: {said}"
            );
            world.agent.stop()?;
            let refused = world.agent.launch().err().context("it starts without what is required")?;
            ensure!(format!("{refused:#}").contains("shield"), "{refused:#}");
            // What it left in the kernel holds on.
            let ran = world.ci.psql("SELECT 1")?;
            ensure!(ran.stdout.is_empty() && ran.code != 0, "{ran:?}");
            world.change_bundle("resources:\n", "resources:\n")?;
            world.agent.launch()?;
        }
        ensure!(world.ci.psql("SELECT 1")?.clean()? == "1", "nobody gets in any more");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_session_that_is_no_longer_allowed_is_ended() -> Result<()> {
    World::with(|world| {
        let mut session = Session::open(&world.ci)?;
        world.change_bundle("{action: login, database: shop}", "{action: login, database: other}")?;
        world.agent.ask(&["reload"])?;
        let live =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name = 'psql'";
        eventually("its upstream session is gone", || Ok(world.server.sql("shop", live)? == "0"))?;
        session.say("SELECT 1")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("no longer allowed"), "{complaints}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_connection_from_before_its_user_was_governed_is_ended_and_recorded() -> Result<()> {
    World::with(|world| {
        // One of its own: other tests, which run beside this one, rely on the stranger being ungoverned.
        let newcomer = Account::new(governed_uid(), world.server.address, &world.server.password);
        let mut session = Session::open(&newcomer)?;
        let (ci, newcomer) = (world.ci.uid, newcomer.uid);
        world.change_bundle(&format!("[\"{ci}\"]"), &format!("[\"{ci}\", \"{newcomer}\"]"))?;
        world.agent.ask(&["reload"])?;
        session.say("SELECT 1")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("connection"), "it goes on: {complaints}");
        let ended = format!("to {}: pid", world.server.address);
        // It is written beside what is going on.
        eventually("it is recorded", || Ok(host_record(world)?.contains(&ended)))?;
        let text = host_record(world)?;
        ensure!(text.contains("older-socket-ended") && text.contains(&format!("uid {newcomer}")), "{text}");
        world.agent.stop()?;
        let text = host_record(world)?;
        ensure!(text.contains("the agent ends"), "the record is left open: {text}");
        world.agent.launch()
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_connection_from_before_the_agent_is_ended_and_logged_before_it_says_that_it_is_ready() -> Result<()> {
    World::with(|world| {
        world.agent.stop()?;
        world.agent.detach()?;
        let ungoverned = Account::new(world.ci.uid, world.server.address, &world.server.password);
        let mut session = Session::open(&ungoverned)?;
        let before = world.agent.read_log()?.len();
        // It returns at the very word.
        world.agent.launch()?;
        let log = world.agent.read_log()?;
        let told = log.get(before..).context("the log is shorter than before")?;
        let place = |text: &str| told.lines().position(|line| line.contains(text));
        let ended =
            place("a socket was open before its process was governed").context("nothing was ended")?;
        ensure!(place(r#""message":"ready""#).is_none_or(|ready| ended < ready), "{told}");
        let line = told.lines().nth(ended).unwrap_or_default();
        ensure!(
            line.contains(&world.server.address.to_string()) && line.contains(r#""ended":true"#),
            "{line}"
        );
        session.say("SELECT 1")?;
        let complaints = session.end()?;
        ensure!(complaints.contains("connection"), "it goes on: {complaints}");
        eventually("it is recorded", || Ok(host_record(world)?.contains("older-socket-ended")))
    })
}

/// The record of what happened on the host, as it is exported; empty if there is none.
pub(crate) fn host_record(world: &World) -> Result<String> {
    let listed = world.agent.ask(&["sessions", "list", "--json"])?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
    let host = listed.iter().find(|session| session["resource"] == "host");
    let Some(id) = host.and_then(|host| host["id"].as_str()) else { return Ok(String::new()) };
    world.agent.ask(&["sessions", "export", id])
}
