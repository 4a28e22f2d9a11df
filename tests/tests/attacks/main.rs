//! Every way around the gate that we know of, tried as the governed account: with the agent alive, after it was killed, while
//! it is stopped or starved, and begun before it was there. A way that is known to be open must be open, or the table of those is out of date.

mod open;
mod stage;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tidegate_attacks::{ATTACKS, Row, Target, When};

use crate::stage::Stage;

#[test]
#[ignore = "needs root and a guest: cargo xtask test"]
fn nothing_but_what_is_known_to_be_open_gets_past_a_live_agent() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.start_agent()?;
    let target = stage.target()?;
    let attacks = ATTACKS.iter().filter(|attack| matches!(attack.when, When::Any | When::Alive));
    let rows = attacks.map(|attack| stage.battery.run(attack, &target)).collect::<Result<Vec<_>>>()?;
    stage.agent_is_alive()?;
    open::compare(&rows, stage.asks_programs()?)?;
    stage.shows_no_secret(&rows)
}

#[test]
#[ignore = "needs root and a guest: cargo xtask test"]
fn nothing_but_what_is_known_to_be_open_gets_past_a_killed_agent() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.start_agent()?;
    let target = stage.target()?;
    stage.kill_agent();
    let attacks = ATTACKS.iter().filter(|attack| matches!(attack.when, When::Any | When::Dead));
    let rows = attacks.map(|attack| stage.battery.run(attack, &target)).collect::<Result<Vec<_>>>()?;
    open::compare(&rows, stage.asks_programs()?)?;
    stage.shows_no_secret(&rows)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn nothing_but_what_is_known_to_be_open_gets_past_an_agent_that_is_stopped() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.start_agent()?;
    let target = stage.target()?;
    // From the first moment on, when its last sign of life still counts.
    stage.agent()?.signal(Signal::SIGSTOP)?;
    let rows = at_any_time(&mut stage, &target);
    stage.agent()?.signal(Signal::SIGCONT)?;
    stage.agent_is_alive()?;
    open::compare(&rows?, stage.asks_programs()?)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn nothing_but_what_is_known_to_be_open_gets_past_an_agent_without_memory_and_descriptors() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.start_agent()?;
    let target = stage.target()?;
    let starved = stage.starve_agent()?;
    let rows = at_any_time(&mut stage, &target);
    // It may have ended of it.
    drop(starved);
    open::compare(&rows?, stage.asks_programs()?)
}

/// The attacks that need nothing of the agent.
fn at_any_time(stage: &mut Stage, target: &Target) -> Result<Vec<Row>> {
    let attacks = ATTACKS.iter().filter(|attack| attack.when == When::Any);
    attacks.map(|attack| stage.battery.run(attack, target)).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn nothing_but_what_is_known_to_be_open_outlives_the_start_of_the_agent() -> Result<()> {
    let mut stage = Stage::new()?;
    let governed = stage.governed();
    let attacks = ATTACKS.iter().filter(|attack| attack.when == When::Before);
    let waiting = attacks.map(|attack| stage.battery.begin(attack, &governed)).collect::<Result<Vec<_>>>()?;
    stage.start_agent()?;
    let finished = waiting.into_iter().map(|waiting| stage.battery.finish(waiting));
    let rows = finished.collect::<Result<Vec<_>>>()?;
    open::compare(&rows, stage.asks_programs()?)?;
    stage.shows_no_secret(&rows)
}

#[test]
#[ignore = "needs root: cargo xtask test e2e"]
fn a_live_host_is_attacked_on_request_and_signs_what_came_of_it() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.start_agent()?;
    let agent = stage.agent()?;
    let output = agent.attempt(&["doctor", "--attack"])?;
    let report = String::from_utf8(output.stdout)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("report");
    let path_text = path.display().to_string();
    let verify = |text: &str| -> Result<std::process::Output> {
        std::fs::write(&path, text)?;
        agent.attempt(&["doctor", "--verify", &path_text])
    };
    let verified = verify(&report)?;
    let shown = String::from_utf8(verified.stdout)?;
    ensure!(verified.status.success(), "the report does not verify:\n{report}");
    for line in ["tcp                        stopped (connect EPERM)", "proxy-port                 stopped"] {
        ensure!(shown.contains(line), "no {line:?} in the report:\n{shown}");
    }
    let whitewashed = report.replacen("PASSED THROUGH", "stopped", 1);
    ensure!(whitewashed != report, "nothing was open at all:\n{report}");
    ensure!(verify(&whitewashed)?.status.code() == Some(1), "a changed report verifies");
    agent.shows_no_secret("")
}
