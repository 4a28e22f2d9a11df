//! Loads, attaches and feeds the eBPF programs; turns accepted connections into origins; reads process facts.
//!
//! The only unsafe code in user space. Knows nothing of policies and protocols.

pub mod arguments;
mod beside;
mod bpf;
mod btf;
mod captured;
pub mod cgroup;
mod cgroup_tables;
mod digest;
mod directory;
mod error;
mod governed;
mod image;
pub mod inherited;
mod kernel;
mod log;
pub mod netns;
mod peer;
mod pins;
pub mod placement;
mod probe;
pub mod process;
mod programs;
mod rulebook;
mod rules;
mod running;
mod shield;
mod sockets;
mod sub_uids;
pub mod subjects;
mod tables;
mod tier;
mod unit;
mod unix;
pub mod users;

pub use captured::Captured;
pub use cgroup::Hierarchy;
pub use digest::{Unread, Version};
pub use directory::{Directory, Lookups};
pub use error::KernelError;
pub use kernel::{Counters, Kernel};
pub use peer::{Peer, peer};
pub use pins::{LAYOUT, Pins, Removed};
pub use probe::{Probe, probe};
pub use process::{Process, Processes};
pub use programs::TOOLCHAIN;
pub use rulebook::CaughtUp;
pub use rules::{Destination, Learned, PassRule, Rules, SubUids, SubjectRule};
pub use shield::{FileRule, ListenerName, NamePattern, Protection, Refusal, Told, UnixRule};
pub use sockets::{OlderSocket, Protocol};
pub use sub_uids::{Accounts, Owner};
pub use tier::{Feature, Found, Had, Missing, Required, Tier, features};
pub use unit::UnitPattern;
pub use unix::UnixResource;
