//! What an identity adds to a connection, with the host's own processes.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{
    issuer::{Stub, issuer},
    minted::{Signer, claims},
    processes::UID,
};
use crate::{
    Beneficiary, ProcessId, Registry,
    host::{Host, Procfs},
};

/// Unless `TIDEGATE_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 200;

/// A process with this token in its environment, once its program has begun.
fn job(token: Option<&str>) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "echo begun; read line"]).envs(token.map(|token| ("CI_TOKEN", token)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    child
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

async fn timed(registry: &Registry, id: ProcessId, known: bool) -> Duration {
    let since = Instant::now();
    let identified = registry.identify(id, UID).await;
    let took = since.elapsed();
    assert_eq!(!identified.now.borrow().is_empty(), known);
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_hardly_waits_for_its_identity() {
    let signer = Signer::rsa("one");
    let stub = Stub::start(&[&signer]).await;
    let issuer = issuer(&stub.url, Some(&stub));
    let fresh = || {
        let registry = Registry::new(None, Handle::current(), Box::new(|_| ())).unwrap();
        registry.adopt(registry.prepare(std::slice::from_ref(&issuer)).unwrap());
        registry
    };
    let registry = fresh();
    let procfs = Arc::new(Procfs::open().unwrap());
    let (mut first, mut bound, mut none) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cold, mut presented) = (Vec::new(), Vec::new());
    let asked = std::env::var("TIDEGATE_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    for round in 0..asked.unwrap_or(ROUNDS).max(1) {
        let child = job(Some(&signer.sign(&claims(&issuer, &format!("job-{round}")))));
        let id = procfs.seen(child.id()).unwrap().id;
        first.push(timed(&registry, id, true).await);
        bound.push(timed(&registry, id, true).await);
        end(child);
        let child = job(None);
        let id = procfs.seen(child.id()).unwrap().id;
        none.push(timed(&registry, id, false).await);
        let token = signer.sign(&claims(&issuer, &format!("presented-{round}")));
        let since = Instant::now();
        registry.present(id, Beneficiary::Caller, None, token.as_bytes()).await.unwrap();
        presented.push(since.elapsed());
        end(child);
        let child = job(Some(&signer.sign(&claims(&issuer, &format!("cold-{round}")))));
        cold.push(timed(&fresh(), procfs.seen(child.id()).unwrap().id, true).await);
        end(child);
    }
    let (first, bound, none) = (median(first), median(bound), median(none));
    let (cold, presented) = (median(cold), median(presented));
    println!("| a connection of | takes longer by |\n|---|---:|");
    for (what, time) in [
        ("a process whose identity is bound already", bound),
        ("a process with a token that is found, verified and bound", first),
        ("the same, where the issuer and its keys must be asked for first", cold),
        ("a process without a token", none),
        ("(what `tidegate present` waits for the agent, once)", presented),
    ] {
        println!("| {what} | {:.2} ms |", time.as_secs_f64() * 1e3);
    }
    assert!(bound < Duration::from_millis(50) && none < Duration::from_millis(50));
}
