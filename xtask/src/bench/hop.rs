//! One way to a server, and what the process in between takes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use tidegate_tests::{Account, Process};

/// A way to the server.
#[derive(Debug)]
pub(crate) struct Hop {
    /// As reports name it.
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Whose clients go this way.
    pub(crate) account: Account,
    /// The process in between, if there is one.
    pub(crate) process: Option<u32>,
}

impl Hop {
    /// CPU time that its process has taken so far, all threads; 0 if there is none. (proc_pid_stat(5))
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let Some(id) = self.process else { return Ok(0.0) };
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The second field is a name in parentheses, which may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / system(SysconfVar::CLK_TCK)?)
    }

    /// Memory its process has in use; 0 if there is none. (proc_pid_statm(5))
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        let Some(id) = self.process else { return Ok(0.0) };
        let statm = fs::read_to_string(format!("/proc/{id}/statm"))?;
        let pages: f64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
        Ok(pages * system(SysconfVar::PAGE_SIZE)?)
    }
}

fn system(variable: SysconfVar) -> Result<f64> {
    let value = sysconf(variable)?.context("a system constant")?;
    Ok(f64::from(u32::try_from(value)?))
}

/// Starts a server and waits until it takes connections.
pub(crate) fn listening(command: &mut Command, address: SocketAddr) -> Result<Process> {
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(std::io::stderr()))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        ensure!(process.ended()?.is_none(), "{command:?} ended at its start");
        ensure!(Instant::now() < deadline, "{command:?} does not listen on {address}");
        std::thread::yield_now();
    }
    Ok(process)
}

/// Where nobody listens on loopback.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
