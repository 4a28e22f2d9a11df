//! A server that nobody governed may reach, and clients that go on while the agent comes and goes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, CLIENTS, World};

/// A server that nobody governed may reach. It counts who does.
pub(crate) struct Canary {
    pub(crate) address: SocketAddr,
    reached: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Makes it a resource of the world's, for its `ci`.
    pub(crate) fn in_world(world: &World) -> Result<Self> {
        let canary = Self::listen()?;
        world.agent.write_bundle("canary.yaml", &resource(canary.address))?;
        world.agent.ask(&["reload"])?;
        Ok(canary)
    }

    fn listen() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, reached, ending) =
            (listener.local_addr()?, Arc::<AtomicUsize>::default(), Arc::default());
        let (counted, ended) = (Arc::clone(&reached), Arc::<AtomicBool>::clone(&ending));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                counted.fetch_add(usize::from(stream.is_ok()), Ordering::Relaxed);
            }
        });
        Ok(Self { address, reached, ending, thread: Some(thread) })
    }

    /// Checks that nobody reached it yet, and that it could have been reached.
    pub(crate) fn was_not_reached(&self) -> Result<()> {
        let reached = || self.reached.load(Ordering::Relaxed);
        ensure!(reached() == 0, "the canary was reached {} times directly", reached());
        TcpStream::connect(self.address)?;
        while reached() == 0 {
            thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes it; a failure means that it has ended.
        TcpStream::connect(self.address).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// A governed client that goes on until its input ends, and then says how that went.
pub(crate) struct Load(Child);

impl Load {
    /// Starts a script with these arguments.
    pub(crate) fn start(account: &Account, script: &str, arguments: &[u16]) -> Result<Self> {
        let mut command = account.command(format!("{CLIENTS}/python/bin/python"));
        command.arg("-c").arg(script).args(arguments.iter().map(u16::to_string));
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// Connects to the canary as fast as it can.
    pub(crate) fn hammer(account: &Account, canary: &Canary) -> Result<Self> {
        Self::start(account, include_str!("../../clients/hammer.py"), &[canary.address.port()])
    }

    /// How often it succeeded.
    pub(crate) fn end(self) -> Result<usize> {
        let said = self.told()?;
        said.trim().parse().with_context(|| format!("it said {said:?}"))
    }

    /// What it said.
    pub(crate) fn told(mut self) -> Result<String> {
        self.0.stdin.take().context("input")?.flush()?;
        let mut said = String::new();
        self.0.stdout.take().context("output")?.read_to_string(&mut said)?;
        Ok(said)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A resource that the gate never asks for anything, as nobody speaks its protocol properly.
fn resource(address: SocketAddr) -> String {
    format!(
        "tidegate: 1
resources:
  canary:
    protocol: postgres
    addresses: [\"{address}\"]
    tls: {{mode: disable}}
    credential: shop-app
rules:
  - name: canary
    subjects: [ci]
    resources: [canary]
    allow:
      - {{action: login, database: shop}}
"
    )
}
