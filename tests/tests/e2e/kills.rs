//! The agent is killed at any moment; nothing governed gets out meanwhile, and no record is lost or broken.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{World, random};

use crate::canary::{Canary, Load};

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
        let canary = Canary::in_world(world)?;
        let hammer = Load::hammer(&world.ci, &canary)?;
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
        canary.was_not_reached()?;
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
