//! Approvers whom an issuer vouches for: at their terminal, and at a browser that a letter sent them to.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_tests::{Account, Process, Provider, World};

use crate::{
    approvals::{DELETE, hold_by, waiting, wishes},
    identity::{LIFETIME, Shell, ask_for, people, tidegate},
    together::{Session, eventually},
};

const BY: &str = "by: {issuer: people, groups: [dba]}, break-glass: {issuer: people, groups: [oncall]}";

/// A shell of an account, logged in under this name.
fn logged_in(world: &World, account: &Account, provider: &Provider, name: &str) -> Result<Shell> {
    let mut shell = Shell::open(account)?;
    shell.say(&format!("{} 2>&1; echo ---", tidegate(world, "login")))?;
    let address = shell.address()?;
    provider.visit(&address, name)?;
    let said = shell.until("---")?;
    ensure!(said.contains(&format!("people says: {name:?}")), "{said}");
    Ok(shell)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn an_approver_who_logged_in_answers_by_the_groups_in_the_token() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        hold_by(world, BY, "wait: 10m")?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        // Whoever only has the account may not even see it.
        let mut nobody = Shell::open(&world.ops)?;
        let mut alice = logged_in(world, &world.ops, &provider, "alice-dba")?;
        let mut id = String::new();
        eventually("the question is seen", || {
            let listed = alice.run(&tidegate(world, "approvals list --json"))?;
            let listed: Value = serde_json::from_str(&listed).with_context(|| listed.clone())?;
            id = listed[0]["id"].as_str().unwrap_or_default().to_owned();
            Ok(!id.is_empty())
        })?;
        let approve = tidegate(world, &format!("approvals approve {id}"));
        let said = nobody.run(&approve)?;
        ensure!(said.contains("no question"), "{said}");
        let mut dev = logged_in(world, &world.ops, &provider, "dave-dev")?;
        let said = dev.run(&approve)?;
        ensure!(said.contains("no question"), "{said}");
        ensure!(wishes(world)? == "2", "it ran unapproved");
        let said = alice.run(&approve)?;
        ensure!(said.contains("is approved"), "{said}");
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        session.end()?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn glass_is_broken_reviewed_and_watched_by_people_of_three_groups() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        hold_by(world, BY, "wait: 10m, for: shape, grant: 10m")?;
        let mut watcher = logged_in(world, &world.ops, &provider, "wanda-dba")?;
        watcher.say(&format!("{} 2>&1", tidegate(world, "approvals list --watch --json")))?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let asked: Value = serde_json::from_str(&watcher.line()?)?;
        let id = asked["id"].as_str().context("a question")?.to_owned();
        let mut olga = logged_in(world, &world.ops, &provider, "olga-oncall")?;
        let answer = |what: &str| tidegate(world, &format!("approvals {what} {id} --reason because"));
        let said = olga.run(&answer("approve"))?;
        ensure!(said.contains("you may not answer"), "{said}");
        let said = olga.run(&answer("break-glass"))?;
        ensure!(said.contains("is approved"), "{said}");
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        ensure!(world.agent.read_log()?.contains("glass broken"), "no alert");
        let said = olga.run(&answer("review"))?;
        ensure!(said.contains("you asked") || said.contains("you may not"), "her own review: {said}");
        // Somebody else of the same account may be the same.
        let mut alike = logged_in(world, &world.ops, &provider, "wanda-dba")?;
        let said = alike.run(&answer("review"))?;
        ensure!(said.contains("somebody else must"), "a review by the same account: {said}");
        let mut alice = logged_in(world, &world.stranger, &provider, "alice-dba")?;
        let said = alice.run(&answer("review"))?;
        ensure!(said.contains("reviewed"), "{said}");
        // The grant counts for the shape until it is revoked.
        session.say("INSERT INTO store.wishes VALUES (1)")?;
        session.say(DELETE)?;
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "the grant does not count");
        let said = alice.run(&answer("revoke"))?;
        ensure!(said.contains("is revoked"), "{said}");
        for step in ["break-glass", "reviewed", "revoked"] {
            let line = watcher.until_line(&format!("\"{step}\""))?;
            ensure!(line.contains(&id), "{line}");
        }
        session.say("INSERT INTO store.wishes VALUES (1)")?;
        session.say(DELETE)?;
        let mut again = String::new();
        eventually("it asks again", || {
            let listed = alice.run(&tidegate(world, "approvals list --json"))?;
            let listed: Value = serde_json::from_str(&listed).with_context(|| listed.clone())?;
            let all = listed.as_array().context("a list")?;
            let waits = all.iter().find(|one| one["state"] == "waiting");
            again = waits.map_or("", |one| one["id"].as_str().unwrap_or_default()).to_owned();
            Ok(!again.is_empty())
        })?;
        ensure!(again != id, "the revoked question is asked again");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn one_who_logged_out_is_told_of_no_more_questions() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        hold_by(world, BY, "wait: 10m")?;
        let watch = tidegate(world, "approvals list --watch --json");
        let mut wanda = logged_in(world, &world.ops, &provider, "wanda-dba")?;
        wanda.say(&format!("{watch} 2>&1 &"))?;
        let mut alice = logged_in(world, &world.stranger, &provider, "alice-dba")?;
        alice.say(&format!("{watch} 2>&1 &"))?;
        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let asked: Value = serde_json::from_str(&wanda.line()?)?;
        let id = asked["id"].as_str().context("a question")?.to_owned();
        let said = wanda.run(&tidegate(world, "logout"))?;
        ensure!(said.contains("ended: 1"), "{said}");
        alice.say(&tidegate(world, &format!("approvals deny {id}")))?;
        alice.until_line("\"denied\"")?;
        let said = wanda.run("echo here")?;
        ensure!(said == "here\n", "she is told: {said}");
        Ok(())
    })
}

/// What `tidegate whoami` says in a shell.
fn whoami(world: &World, shell: &mut Shell) -> Result<String> {
    shell.run(&tidegate(world, "whoami"))
}

/// What the manager keeps of identities; none if it keeps nothing.
fn kept_identities(world: &World) -> Option<String> {
    world.agent.kept().into_iter().find(|name| name.starts_with("identities"))
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn who_logged_in_is_known_after_restarts_of_the_agent_as_long_as_their_session_lives() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        world.agent.stop()?;
        world.agent.keep_descriptors();
        world.agent.launch()?;
        let mut alice = logged_in(world, &world.ops, &provider, "alice-dba")?;
        let bob = logged_in(world, &world.stranger, &provider, "bob-dba")?;
        eventually("the manager keeps them", || {
            let name = kept_identities(world);
            let text = name.map(|name| world.agent.read_kept(&name)).transpose()?.unwrap_or_default();
            let text = String::from_utf8(text)?;
            Ok(text.contains("alice-dba") && text.contains("bob-dba"))
        })?;
        // Killed, and then stopped.
        world.agent.kill();
        world.agent.launch()?;
        ensure!(whoami(world, &mut alice)?.contains("alice-dba"), "killed: {}", world.agent.read_log()?);
        world.agent.stop()?;
        drop(bob);
        // Listeners at another port leave the room that identities need.
        world.agent.add_configuration(&format!("listen: {{v4-port: {}}}\n", free_port()?))?;
        world.agent.launch()?;
        let kept = world.agent.kept();
        ensure!(kept.iter().filter(|name| *name == "v4").count() == 1 && kept.len() <= 3, "kept: {kept:?}");
        ensure!(whoami(world, &mut alice)?.contains("alice-dba"), "stopped: {}", world.agent.read_log()?);
        let log = world.agent.read_log()?;
        ensure!(
            log.contains(r#""counting":2,"ended":0"#) && log.contains(r#""counting":1,"ended":1"#),
            "{log}"
        );
        let mut other = Shell::open(&world.ops)?;
        ensure!(!whoami(world, &mut other)?.contains("alice-dba"), "another session is alice");
        alice.run(&tidegate(world, "logout"))?;
        eventually("nothing is kept", || Ok(kept_identities(world).is_none()))?;
        world.agent.kill();
        world.agent.launch()?;
        ensure!(!whoami(world, &mut alice)?.contains("alice-dba"), "who logged out is logged in again");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn identities_that_somebody_could_have_changed_are_lost_and_that_is_told() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        world.agent.stop()?;
        world.agent.keep_descriptors();
        world.agent.launch()?;
        let mut alice = logged_in(world, &world.ops, &provider, "alice-dba")?;
        eventually("the manager keeps it", || Ok(kept_identities(world).is_some()))?;
        world.agent.stop()?;
        let name = kept_identities(world).context("something is kept")?;
        let mut file = tempfile::tempfile()?;
        file.write_all(&world.agent.read_kept(&name)?)?;
        world.agent.replace_kept(&name, file)?;
        world.agent.launch()?;
        ensure!(!whoami(world, &mut alice)?.contains("alice-dba"), "it was taken up");
        let log = world.agent.read_log()?;
        ensure!(log.contains("not sealed") && log.contains("people log in again"), "{log}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_shell_that_ends_takes_its_login_with_it_and_the_provider_is_told() -> Result<()> {
    World::with(|world| {
        let provider = Provider::oidc(LIFETIME)?;
        ask_for(world, "{issuer: people}", &people(&provider))?;
        let mut alice = logged_in(world, &world.ci, &provider, "alice-dba")?;
        // What she began goes on behind her shell, and reads its input from then on.
        let is_there = tempfile::NamedTempFile::new()?;
        let (file, folder) = (is_there.path(), is_there.path().parent().context("a folder")?);
        ensure!(fs::metadata(folder)?.permissions().mode() & 0o1 == 1, "its folder is private");
        let waits = format!("while [ -e {} ]; do sleep 0.05; done; exit", file.display());
        alice.say(&format!("exec 3<&0; psql -XqAt 2>&1 <&3 & echo begun; {waits}"))?;
        alice.until("begun")?;
        alice.say("SELECT 'alice works';")?;
        alice.until("alice works")?;
        ensure!(provider.revoked()?.is_empty(), "revoked while the shell lives");
        drop(is_there);
        eventually("the provider is told", || Ok(provider.revoked()? == "alice-dba"))?;
        alice.say("SELECT 'alice works on';")?;
        let said = alice.until_line("")?;
        ensure!(said.contains("no longer allowed"), "what outlived the shell is alice still: {said}");
        Ok(())
    })
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A receiver of letters, and what it takes.
struct Receiver {
    _process: Process,
    lines: BufReader<std::process::ChildStdout>,
}

impl Receiver {
    fn letter(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "the receiver ended");
        Ok(serde_json::from_str(&line)?)
    }
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_letter_s_link_leads_to_a_page_where_an_approver_answers() -> Result<()> {
    World::with(|world| {
        let port = free_port()?;
        let page = format!("https://localhost:{port}");
        let provider = Provider::oidc_for(LIFETIME, Some(&format!("{page}/callback")))?;
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (certificate, key) = provider.certificate();
        let mut command = provider.script("receiver.mjs");
        command.arg(certificate).arg(key).arg(secret);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Process::start(&mut command)?;
        let mut lines = BufReader::new(process.child().stdout.take().context("stdout")?);
        let mut url = String::new();
        lines.read_line(&mut url)?;
        let mut receiver = Receiver { _process: process, lines };

        world.agent.write_credential("page.certificate", &fs::read_to_string(certificate)?)?;
        world.agent.write_credential("page.key", &fs::read_to_string(key)?)?;
        world.agent.write_credential("hook.password", secret)?;
        world.agent.add_configuration(&format!(
            "approvals:\n  webhooks: [{{name: ops, url: \"{}\", secret: hook, ca: {}}}]\n  \
             web: {{listen: \"127.0.0.1:{port}\", url: \"{page}\", issuer: people, client: tidegate-web, \
             scopes: [groups], tls: page}}\n",
            url.trim(),
            provider.ca().display()
        ))?;
        let issuers = format!("tidegate: 1\nissuers:\n{}", people(&provider));
        world.agent.write_bundle("issuers.yaml", &issuers)?;
        world.agent.stop()?;
        world.agent.launch()?;
        hold_by(world, BY, "wait: 10m, reason: required")?;

        let mut session = Session::open(&world.ci)?;
        session.say(DELETE)?;
        let asked = receiver.letter()?;
        ensure!(asked["letter"]["type"] == "approval.asked", "{asked}");
        ensure!(asked["id"] == asked["letter"]["id"], "{asked}");
        let link = asked["letter"]["data"]["question"]["link"].as_str().context("a link")?.to_owned();
        ensure!(link.starts_with(&page), "{link}");
        let stranger = provider.answer(&link, "dave-dev", "approve", "mine")?;
        ensure!(stranger.contains("no question") && !stranger.contains(DELETE), "{stranger}");
        let own = provider.answer(&link, &format!("{}-dba", world.ci.uid), "approve", "mine")?;
        ensure!(own.contains("you asked"), "an issuer says that it is the asker's account: {own}");
        ensure!(wishes(world)? == "2", "it ran unapproved");
        let said = provider.answer(&link, "alice-dba", "approve", "ticket 7")?;
        let (before, after) = said.split_once("----").context("two pages")?;
        for part in [DELETE, "alice-dba of people", "psql", "group dba (people)"] {
            ensure!(before.contains(part), "no {part:?} in {before}");
        }
        ensure!(after.contains("<strong>approved</strong>") && after.contains("ticket 7"), "{after}");
        ensure!(session.ask("SELECT count(*) FROM store.wishes")? == "0", "it did not run");
        let approved = receiver.letter()?;
        ensure!(approved["letter"]["type"] == "approval.approved", "{approved}");
        ensure!(approved["letter"]["data"]["by"] == "alice-dba of people", "{approved}");
        session.end()?;
        ensure!(!world.agent.read_log()?.contains(secret), "the secret is in the log");
        ensure!(waiting(world, &world.ci).is_err() || wishes(world)? == "0", "something waits");
        Ok(())
    })
}
