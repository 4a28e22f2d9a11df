//! The agent is killed at any moment; nothing governed gets out meanwhile, and no record is lost or broken.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, CLIENTS, World, random};

/// How often the agent is killed, unless `TIDEGATE_KILLS` says another number.
const KILLS: usize = 8;

/// The longest that an agent lives, in ms, after its start began or ended.
const LONGEST: u64 = 1_000;

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn however_often_the_agent_is_killed_nothing_governed_gets_out() -> Result<()> {
    let kills = env::var("TIDEGATE_KILLS").map_or(Ok(KILLS), |text| text.parse())?;
    World::with(|world| {
        let canary = Canary::listen()?;
        world.agent.write_bundle("canary.yaml", &resource(canary.address))?;
        world.agent.ask(&["reload"])?;
        let hammer =
            Load::start(&world.ci, include_str!("../../clients/hammer.py"), &[canary.address.port()])?;
        let sessions = Load::start(&world.ci, include_str!("../../clients/sessions.py"), &[])?;
        for kill in 0..kills {
            thread::sleep(Duration::from_millis(u64::from(random_byte()?) * LONGEST / 256));
            world.agent.kill();
            // Every other one is killed in its start.
            if kill % 2 == 0 { world.agent.begin()? } else { world.agent.launch()? }
        }
        world.agent.kill();
        world.agent.launch()?;
        let (tried, served) = (hammer.end()?, sessions.end()?);
        ensure!(tried > 20 * kills, "only {tried} attempts were made");
        ensure!(served > 0, "no session was served");
        ensure!(canary.reached() == 0, "the canary was reached {} times directly", canary.reached());
        TcpStream::connect(canary.address)?;
        while canary.reached() == 0 {
            thread::yield_now();
        }
        let log = world.agent.read_log()?;
        let (adopted, fresh) =
            (log.matches(r#""adopted":true"#).count(), log.matches(r#""adopted":false"#).count());
        ensure!(fresh == 1 && adopted >= 1, "{fresh} starts attached anew, {adopted} adopted");
        world.agent.ask(&["records", "verify"])?;
        println!("{kills} kills, {adopted} adoptions, {tried} attempts, {served} sessions");
        Ok(())
    })
}

fn random_byte() -> Result<u8> {
    let word = random("moment")?;
    let digits = word.get(word.len().saturating_sub(2)..).context("two digits")?;
    u8::from_str_radix(digits, 16).context("a number")
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

/// A server that nobody governed may reach. It counts who does.
struct Canary {
    address: SocketAddr,
    reached: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
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

    fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed)
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

/// A governed client that goes on until its input ends, and then says how often it succeeded.
struct Load(Child);

impl Load {
    fn start(account: &Account, script: &str, arguments: &[u16]) -> Result<Self> {
        let mut command = account.command(format!("{CLIENTS}/python/bin/python"));
        command.arg("-c").arg(script).args(arguments.iter().map(u16::to_string));
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    fn end(mut self) -> Result<usize> {
        self.0.stdin.take().context("input")?.flush()?;
        let mut said = String::new();
        self.0.stdout.take().context("output")?.read_to_string(&mut said)?;
        said.trim().parse().with_context(|| format!("it said {said:?}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
