//! Network namespaces of their own, as containers have them.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, ensure};
use tidegate_tests::{Process, World, run};

use crate::together::eventually;

const CARD: &str = "SELECT card_number FROM customers WHERE id = 1";

/// The host's end and the namespace's end of the link between them (RFC 5737).
const ENDS: [&str; 2] = ["198.51.100.201", "198.51.100.202"];

/// There is one link at a time: its addresses are the host's.
static LINKED: Mutex<()> = Mutex::new(());

/// A namespace with a link to the host's, removed when dropped.
struct Linked(String, #[expect(dead_code, reason = "held to the end")] MutexGuard<'static, ()>);

impl Linked {
    fn new() -> Result<Self> {
        let process = std::process::id();
        let alone = LINKED.lock().unwrap_or_else(PoisonError::into_inner);
        let linked = Self(format!("tidegate-{process}"), alone);
        let (outside, inside) = (format!("tgo{process}"), format!("tgi{process}"));
        ip(&["netns", "add", &linked.0])?;
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", &linked.0])?;
        ip(&["address", "add", &format!("{}/30", ENDS[0]), "dev", &outside])?;
        ip(&["link", "set", &outside, "up"])?;
        for words in [
            &["address", "add", &format!("{}/30", ENDS[1]), "dev", &inside][..],
            &["link", "set", &inside, "up"],
            &["link", "set", "lo", "up"],
        ] {
            ip(&[&["-n", linked.0.as_str()], words].concat())?;
        }
        Ok(linked)
    }

    /// Runs a program in it as this user, with libpq's variables of this world.
    fn run(&self, world: &World, uid: u32, program: &[&str]) -> Result<Output> {
        let uid = uid.to_string();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0, "setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
            .args(["timeout", "30"])
            .args(program)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("PGHOST", world.server.address.ip().to_string())
            .env("PGPORT", world.server.address.port().to_string())
            .envs([("PGDATABASE", "shop"), ("PGUSER", "app"), ("PGPASSWORD", "not-the-password")]);
        world.ci.output(&mut command)
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // The link goes with it.
        if let Err(error) = ip(&["netns", "delete", &self.0]) {
            eprintln!("{error:#}");
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    run(Command::new("ip").args(words)).map(drop)
}

/// Runs until it succeeds: in a namespace that the agent has only just seen, the first connection may be refused.
fn printed(what: &str, mut attempt: impl FnMut() -> Result<Output>) -> Result<String> {
    let mut shown = String::new();
    eventually(what, || {
        let output = attempt()?;
        shown = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        Ok(output.status.success())
    })?;
    Ok(shown)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_governed_process_in_a_namespace_of_its_own_goes_through_the_gate_and_nowhere_else() -> Result<()> {
    World::with(|world| {
        let linked = Linked::new()?;
        let psql = ["psql", "-XqAt", "-c", CARD];
        let card = printed("psql gets in", || linked.run(world, world.ci.uid, &psql))?;
        ensure!(card.ends_with("1111") && !card.starts_with("4111"), "{card}");

        let canary = TcpListener::bind((ENDS[0], 0))?;
        let port = canary.local_addr()?.port();
        let reach = format!("import socket; socket.create_connection(('{}', {port}), 5)", ENDS[0]);
        let reach = ["python3", "-c", &reach];
        let refused = linked.run(world, world.ci.uid, &reach)?;
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(complaint.contains("PermissionError"), "not refused: {complaint}");
        canary.set_nonblocking(true)?;
        ensure!(canary.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "it was reached");
        let free = linked.run(world, world.stranger.uid, &reach)?;
        ensure!(free.status.success(), "an ungoverned one: {}", String::from_utf8_lossy(&free.stderr));
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_rootless_namespace_is_served_too() -> Result<()> {
    World::with(|world| {
        let script = format!("ip link set lo up && exec psql -XqAt -c '{CARD}'");
        let card = printed("psql gets in", || {
            let mut command = world.ci.command("unshare");
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            world.ci.output(command.args(["-Urn", "sh", "-c", &script]))
        })?;
        ensure!(card.ends_with("1111") && !card.starts_with("4111"), "{card}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_namespace_that_nobody_governed_is_in_any_more_is_left() -> Result<()> {
    World::with(|world| {
        let linked = Linked::new()?;
        // A line for each socket in the namespace, after the heading.
        let sockets = || -> Result<usize> {
            let table = linked.run(world, world.stranger.uid, &["cat", "/proc/net/udp"])?;
            Ok(String::from_utf8_lossy(&table.stdout).lines().skip(1).count())
        };
        let mut waiting = Command::new("ip");
        let uid = world.ci.uid.to_string();
        waiting.args([
            "netns",
            "exec",
            &linked.0,
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
        ]);
        let process = Process::start(waiting.args(["sleep", "600"]))?;
        eventually("the agent listens", || Ok(sockets()? > 0))?;
        drop(process);
        eventually("the agent has left", || Ok(sockets()? == 0))
    })
}
