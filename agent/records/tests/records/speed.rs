//! How long a write takes. Run with `--release -- --ignored --nocapture`.

use std::time::Instant;

use tidegate_gate::{Records, policy::Effect};

use crate::common::*;

#[test]
#[ignore = "a measurement"]
fn nanoseconds_of_a_statement_and_of_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let mut record = store.open(opening("ann", "shop")).unwrap();
    let text = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;";
    let begun = Instant::now();
    for id in 1..=STATEMENTS {
        record.write(&action(id, text, Effect::Allow)).unwrap();
        record.note(&outcome(id, 1));
    }
    println!("{:?} for an action and its outcome", begun.elapsed() / STATEMENTS as u32);
    record.close("done");
    let begun = Instant::now();
    for _ in 0..SESSIONS {
        session(&store, 0).close("done");
    }
    println!("{:?} to open and close a session", begun.elapsed() / SESSIONS);
}

const STATEMENTS: u64 = 200_000;
const SESSIONS: u32 = 5_000;

#[test]
#[ignore = "a measurement"]
fn bytes_of_an_idle_session() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let resident = || -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    drop(session(&store, 10));
    let before = resident();
    let idle: Vec<_> = (0..IDLE).map(|_| session(&store, 10)).collect();
    println!("{} bytes for each of {} idle sessions", (resident() - before) / IDLE, idle.len());
}

/// Each holds a descriptor.
const IDLE: u64 = 800;
