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
use tidegate_kernel::{Kernel, LAYOUT};

use crate::common::{GOVERNED, Gate, TestPins, UNGOVERNED, passes};

/// How often everything is measured; the median counts.
const ROUNDS: &str = "TIDEGATE_SPEED_ROUNDS";
/// Connects of one measurement.
const CONNECTS: &str = "TIDEGATE_SPEED_CONNECTS";
/// Where the client connects.
const TO: &str = "TIDEGATE_SPEED_TO";

/// The program that hand-offs are offered and ended by.
const SOCK_OPS: &str = "tcp_event";

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

/// What one round measured.
struct Round {
    without: Measured,
    with: Measured,
    /// Without the program that the kernel tells of every connection's states.
    fewer: Measured,
    passed: Measured,
    loaded: Duration,
    adopted: Duration,
}

impl Round {
    /// What comes first changes from round to round: whatever else the machine does, or warms up to, is in each.
    async fn of(number: usize, copied: &Copied, server: SocketAddr) -> Self {
        let bare = || copied.measure(UNGOVERNED, server);
        let even = number.is_multiple_of(2);
        let early = even.then(bare);
        let (pins, begun) = (TestPins::new(), Instant::now());
        let kernel = Kernel::load(pins.hold()).unwrap();
        let loaded = begun.elapsed();
        let gate = Gate::with(kernel, pins, |_| passes("127.0.0.1", server.port(), "governed")).await;
        let governed = || copied.measure(GOVERNED, server);
        let (with, passed) = if even {
            (bare(), governed())
        } else {
            let passed = governed();
            (bare(), passed)
        };
        std::fs::remove_file(gate.pins_path().join(LAYOUT).join("links").join(SOCK_OPS)).unwrap();
        let fewer = bare();
        let (pins, begun) = (gate.die(), Instant::now());
        let kernel = Kernel::load(pins.hold()).unwrap();
        let adopted = begun.elapsed();
        assert!(kernel.adopted());
        drop((kernel, pins));
        Self { without: early.unwrap_or_else(bare), with, fewer, passed, loaded, adopted }
    }

    /// What a connect costs more than without any programs, in percent.
    fn more(&self, measured: Measured) -> f64 {
        100.0 * (measured.connect / self.without.connect - 1.0)
    }
}

#[tokio::test]
#[ignore = "a measurement: cargo xtask bench kernel"]
async fn what_the_programs_cost() {
    let (server, copied) = (serve(), Copied::new());
    let mut rounds = Vec::new();
    for number in 0..setting(ROUNDS, 5) {
        rounds.push(Round::of(number, &copied, server).await);
    }
    let of = |part: &dyn Fn(&Round) -> f64| median(rounds.iter().map(part).collect());
    let connect = |part: fn(&Round) -> Measured| of(&|round| part(round).connect / 1e3);
    let rate = |part: fn(&Round) -> Measured| of(&|round| part(round).rate / f64::from(1 << 20));
    println!("| connect, nobody governed, no programs | {:.1} µs |", connect(|round| round.without));
    println!("| connect of the ungoverned, with the programs | {:.1} µs |", connect(|round| round.with));
    println!("| that costs | {:+.1} % |", of(&|round| round.more(round.with)));
    println!(
        "| connect of the ungoverned, with all but `{SOCK_OPS}` | {:.1} µs |",
        connect(|round| round.fewer)
    );
    println!("| that costs, with all but `{SOCK_OPS}` | {:+.1} % |", of(&|round| round.more(round.fewer)));
    println!("| connect of a governed process to what is passed | {:.1} µs |", connect(|round| round.passed));
    println!("| data of the ungoverned | {:.0} MB/s |", rate(|round| round.with));
    println!("| data of a governed process to what is passed | {:.0} MB/s |", rate(|round| round.passed));
    println!("| loading and attaching anew | {:.0} ms |", of(&|round| 1e3 * round.loaded.as_secs_f64()));
    println!("| loading and taking over | {:.0} ms |", of(&|round| 1e3 * round.adopted.as_secs_f64()));
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
