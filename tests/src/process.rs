//! Processes that end with their owner.

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A started process. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
        Ok(Self(child))
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The process itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.0.id(), signal)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits for its end, for at most this long.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {} did not end within {limit:?}", self.0.id());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Has a process abort that may leave a core file of any size, as far as that is for root to say: how it ended.
pub fn crash(process: &mut Process) -> Result<ExitStatus> {
    let id = process.id().to_string();
    // Without CAP_SYS_RESOURCE a limit that the process has lowered for good stays.
    Command::new("prlimit").args(["--core=unlimited", "--pid", &id]).stderr(Stdio::null()).status()?;
    process.signal(Signal::SIGABRT)?;
    process.wait(Duration::from_secs(30))
}

/// Sends a signal to a process by its id.
pub(crate) fn signal_process(id: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(id).context("a process id")?);
    kill(pid, signal).with_context(|| format!("sending {signal} to process {id}"))
}

/// Runs a command to its end; an error with everything it printed if it fails.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("starting {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
    Ok(output)
}

/// Program and arguments, for messages.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
