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
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{Account, CLIENTS, World, random};

/// How often the agent is killed, unless `TIDEGATE_KILLS` says another number.
const KILLS: usize = 200;

/// The longest that an agent lives that is killed in its start, or soon after.
const IN_START: Duration = Duration::from_secs(1);

/// The longest that one lives which has said that it is ready.
const IN_SERVICE: Duration = Duration::from_millis(300);

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn however_often_the_agent_is_killed_nothing_governed_gets_out() -> Result<()> {
    let kills = env::var("TIDEGATE_KILLS").map_or(Ok(KILLS), |text| text.parse())?;
    let mut moments = Moments::new()?;
    println!("TIDEGATE_SEED={} TIDEGATE_KILLS={kills} has it killed at the same moments again", moments.0);
    World::with(|world| {
        let canary = Canary::listen()?;
        world.agent.write_bundle("canary.yaml", &resource(canary.address))?;
        world.agent.ask(&["reload"])?;
        let hammer =
            Load::start(&world.ci, include_str!("../../clients/hammer.py"), &[canary.address.port()])?;
        let sessions = Load::start(&world.ci, include_str!("../../clients/sessions.py"), &[])?;
        let (began, mut adoptions) = (Instant::now(), 0);
        world.agent.kill();
        for kill in 1..kills {
            // One in five gets ready first, which takes much longer.
            adoptions += live_and_die(world, &mut moments, kill % 5 != 0)?;
        }
        world.agent.launch()?;
        let took = began.elapsed();
        let (tried, served) = (hammer.end()?, sessions.end()?);
        ensure!(tried > 20 * kills, "only {tried} attempts were made");
        ensure!(served > 0, "no session was served");
        ensure!(canary.reached() == 0, "the canary was reached {} times directly", canary.reached());
        TcpStream::connect(canary.address)?;
        while canary.reached() == 0 {
            thread::yield_now();
        }
        world.agent.ask(&["records", "verify"])?;
        println!("{kills} kills in {took:?}: {adoptions} adoptions, {tried} attempts, {served} sessions");
        Ok(())
    })
}

/// Starts an agent and kills it, in its start or after it was ready. It must have adopted what the one before left, and one
/// that was killed in its start that or nothing. Answers how often it did.
fn live_and_die(world: &mut World, moments: &mut Moments, in_start: bool) -> Result<usize> {
    let before = world.agent.read_log()?.len();
    if in_start {
        world.agent.begin()?
    } else {
        world.agent.launch()?
    }
    thread::sleep(moments.within(if in_start { IN_START } else { IN_SERVICE }));
    world.agent.kill();
    let log = world.agent.read_log()?;
    let said = log.get(before..).context("the log became shorter")?;
    let (adopted, anew) = found(said);
    let right = anew == 0 && (adopted == 1 || in_start && adopted == 0);
    ensure!(right, "{adopted} adoptions, {anew} fresh starts:\n{said}");
    Ok(adopted)
}

/// How many agents adopted what they found, and how many found nothing.
fn found(log: &str) -> (usize, usize) {
    (log.matches(r#""adopted":true"#).count(), log.matches(r#""adopted":false"#).count())
}

/// When to kill, from a seed: by SplitMix64.
struct Moments(u64);

impl Moments {
    /// From `TIDEGATE_SEED`, or a seed of its own.
    fn new() -> Result<Self> {
        if let Ok(seed) = env::var("TIDEGATE_SEED") {
            return Ok(Self(seed.parse().context("TIDEGATE_SEED is a number")?));
        }
        let word = random("")?;
        let digits = word.get(word.len().saturating_sub(16)..).context("16 digits")?;
        Ok(Self(u64::from_str_radix(digits, 16).context("a number")?))
    }

    fn within(&mut self, longest: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        longest.mul_f64((mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64)
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
