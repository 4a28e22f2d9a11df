//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

/// Why the kernel side could not be set up or asked. Every variant but [`Rules`](Self::Rules) is the host's to mend.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No cgroup v2 hierarchy to attach to.
    #[error("no cgroup v2 hierarchy is mounted: {0}")]
    Cgroup(String),
    /// The running kernel's types could not be read.
    #[error("the kernel's type information ({path}): {problem}; it needs CONFIG_DEBUG_INFO_BTF", path = path.display())]
    Types {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The programs were not accepted as a whole.
    #[error("loading the eBPF programs: {}", chain(.0))]
    Load(#[from] EbpfError),
    /// One program was not accepted; the text carries the verifier's log.
    #[error("the eBPF program {program}: {}", chain(.error))]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        error: ProgramError,
    },
    /// The programs don't have a map or program that user space expects.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("the eBPF map {map}: {}", chain(.error))]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        error: MapError,
    },
    /// The kernel's log lines can't be had.
    #[error("the eBPF programs' log: {0}")]
    Log(String),
    /// Another agent holds the directory of pins.
    #[error("another agent is running: it holds {}", .0.display())]
    Busy(PathBuf),
    /// Pins can't be kept or adopted.
    #[error("pins: {}: {problem}", path.display())]
    Pins {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The LSM programs can't be had.
    #[error("the shield: {0}")]
    Shield(String),
    /// Unix sockets can't be told by their names.
    #[error("Unix sockets: {0}")]
    Unix(String),
    /// The kernel's iterators over its sockets can't be had.
    #[error("sockets: {0}")]
    Sockets(String),
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The rules can't be put into the kernel.
    #[error("{0}")]
    Rules(String),
}

/// An error with all its causes: aya keeps the verifier's log in an inner one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        inner = cause.source();
    }
    text
}
