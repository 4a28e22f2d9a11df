//! What the programs cost: connects, data, memory, and the verifier's work. Prints the rows of a table.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aya::maps::MapData;
use aya::programs::loaded_programs;
use nix::sys::socket::{setsockopt, sockopt::Linger};
use tidegate_kernel::Kernel;

use crate::common::{GOVERNED, Gate, TestPins, UNGOVERNED, passes};

/// How often everything is measured; the median counts.
const ROUNDS: &str = "TIDEGATE_SPEED_ROUNDS";
/// Connects of one measurement.
const CONNECTS: &str = "TIDEGATE_SPEED_CONNECTS";
/// Where the client connects.
const TO: &str = "TIDEGATE_SPEED_TO";

/// Bytes that the client sends over one connection.
const SENT: usize = 256 << 20;

/// What one client measured: ns of a connect, and bytes a second.
#[derive(Debug, Clone, Copy)]
struct Measured {
    connect: f64,
    rate: f64,
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Takes connections and reads them to their end, until the process ends.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        for mut stream in listener.incoming().flatten() {
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    });
    address
}

/// This very program where every account can run it.
struct Copied(#[expect(dead_code, reason = "removed when dropped")] tempfile::TempDir, PathBuf);

impl Copied {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("client");
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        Self(folder, path)
    }

    fn measure(&self, uid: u32, to: SocketAddr) -> Measured {
        let mut command = Command::new(&self.1);
        command.args(["--ignored", "--exact", "speed::client", "--nocapture", "--test-threads", "1"]);
        let output = command.uid(uid).gid(uid).current_dir("/").env(TO, to.to_string()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.split_once("MEASURED ")).expect("the client measured").1;
        let (connect, rate) = line.split_once(' ').unwrap();
        Measured { connect: connect.parse().unwrap(), rate: rate.parse().unwrap() }
    }
}

#[test]
#[ignore = "a measurement's client"]
fn client() {
    let Some(to) = std::env::var(TO).ok().and_then(|to| to.parse::<SocketAddr>().ok()) else { return };
    let mut connects = Vec::new();
    for _ in 0..setting(CONNECTS, 2_000) {
        let begun = Instant::now();
        let stream = TcpStream::connect(to).unwrap();
        connects.push(begun.elapsed().as_nanos() as f64);
        // Ended by a reset, so that no port is kept.
        setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    }
    let (mut stream, block) = (TcpStream::connect(to).unwrap(), vec![0; 64 << 10]);
    let begun = Instant::now();
    for _ in 0..SENT / block.len() {
        stream.write_all(&block).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read(&mut [0]);
    println!("MEASURED {} {}", median(connects), SENT as f64 / begun.elapsed().as_secs_f64());
}

/// Ids of all programs of this kernel.
fn programs() -> HashSet<u32> {
    loaded_programs().filter_map(Result::ok).map(|program| program.id()).collect()
}

/// Bytes that the kernel gave the maps that are pinned below here.
fn map_memory(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            bytes += map_memory(&entry.path());
        } else if let Ok(map) = MapData::from_pin(entry.path()) {
            let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
            let text = std::fs::read_to_string(info).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    bytes
}

#[tokio::test]
#[ignore = "a measurement: cargo xtask bench kernel"]
async fn what_the_programs_cost() {
    let (server, copied) = (serve(), Copied::new());
    let (mut without, mut with, mut direct, mut passed) = (vec![], vec![], vec![], vec![]);
    let (mut loaded, mut adopted) = (vec![], vec![]);
    let seconds = |duration: Duration| duration.as_secs_f64();
    for _ in 0..setting(ROUNDS, 5) {
        without.push(copied.measure(UNGOVERNED, server));
        let pins = TestPins::new();
        let begun = Instant::now();
        let kernel = Kernel::load(pins.hold()).unwrap();
        loaded.push(seconds(begun.elapsed()));
        let gate = Gate::with(kernel, pins, |_| passes("127.0.0.1", server.port(), "governed")).await;
        with.push(copied.measure(UNGOVERNED, server));
        direct.push(copied.measure(UNGOVERNED, server));
        passed.push(copied.measure(GOVERNED, server));
        let pins = gate.die();
        let begun = Instant::now();
        let kernel = Kernel::load(pins.hold()).unwrap();
        adopted.push(seconds(begun.elapsed()));
        assert!(kernel.adopted());
        drop(kernel);
    }
    let of = |all: &[Measured], part: fn(&Measured) -> f64| median(all.iter().map(part).collect());
    let connect = |all: &[Measured]| of(all, |one| one.connect) / 1e3;
    let rate = |all: &[Measured]| of(all, |one| one.rate) / f64::from(1 << 20);
    println!("| connect, nobody governed, no programs | {:.1} µs |", connect(&without));
    println!("| connect of the ungoverned, with the programs | {:.1} µs |", connect(&with));
    println!("| that costs | {:+.1} % |", 100.0 * (connect(&with) / connect(&without) - 1.0));
    println!("| connect of a governed process to what is passed | {:.1} µs |", connect(&passed));
    println!("| data of the ungoverned | {:.0} MB/s |", rate(&direct));
    println!("| data of a governed process to what is passed | {:.0} MB/s |", rate(&passed));
    println!("| loading and attaching anew | {:.0} ms |", 1e3 * median(loaded));
    println!("| loading and taking over | {:.0} ms |", 1e3 * median(adopted));
    sizes();
}

/// Rows of memory and of instructions.
fn sizes() {
    let (before, pins) = (programs(), TestPins::new());
    let kernel = Kernel::load(pins.hold()).unwrap();
    println!("| memory of the maps | {:.1} MiB |", map_memory(pins.path()) as f64 / f64::from(1 << 20));
    for program in loaded_programs().filter_map(Result::ok).filter(|program| !before.contains(&program.id()))
    {
        let name = program.name_as_str().unwrap_or_default().to_owned();
        if let Some(instructions) = program.verified_instruction_count() {
            println!("| verifier: `{name}` | {instructions} instructions |");
        }
    }
    drop(kernel);
}
