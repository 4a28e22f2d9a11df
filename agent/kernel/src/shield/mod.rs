//! The shield: LSM programs for what is no packet (files, Unix sockets, other processes), written in C (`ebpf/shield`).

mod attach;
mod events;
mod rules;
mod share;
mod tables;

use std::path::Path;

use aya::Ebpf;
use tidegate_abi::shield::{HIDE, KEEP};

pub(crate) use self::events::EventReader;
pub use self::events::{Refusal, Told};
pub(crate) use self::rules::{Compiled, unix_name};
pub use self::rules::{FileRule, ListenerName, NamePattern, UnixRule};
use self::tables::Tables;
use crate::KernelError;
use crate::pins::Pins;

/// The hooks that look at who listens on a Unix socket: a socket's own maker must be known for that.
const LISTENER_HOOKS: [&str; 3] = ["socket_post_create", "unix_stream_connect", "unix_may_send"];

/// The attached programs, as their agent has them. Dropped, they stay attached, as those of ebpf/programs do.
pub(crate) struct Shield {
    tables: Tables,
    /// Hooks that this kernel doesn't have.
    without: Vec<&'static str>,
    programs: Ebpf,
    events: Option<EventReader>,
}

/// What holds for a file or folder of the agent's own, and all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nobody governed writes, removes or replaces it.
    Keep,
    /// Nobody governed opens it either.
    Hide,
}

impl Shield {
    /// Attaches the programs, in the place of those that an earlier agent left.
    ///
    /// # Errors
    ///
    /// The kernel refuses a program.
    pub(crate) fn load(pins: &Pins) -> Result<Self, KernelError> {
        let (mut object, without) = attach::load(pins)?;
        let tables = Tables::take(&mut object)?;
        if !without.is_empty() {
            tracing::warn!(?without, "the shield does without hooks that this kernel lacks");
        }
        Ok(Self { tables, without, programs: object, events: None })
    }

    /// Makes their events tracing events, and tells of them, by a task on the current Tokio runtime.
    pub(crate) fn read_events(&mut self, told: Told) -> Result<(), KernelError> {
        if self.events.is_none() {
            self.events = Some(EventReader::start(tables::take(&mut self.programs, "EVENTS")?, told)?);
        }
        Ok(())
    }

    /// What is in force.
    pub(crate) fn now(&self) -> Result<Compiled, KernelError> {
        self.tables.now()
    }

    /// Puts the shield's part of the rules into force.
    pub(crate) fn replace(&mut self, rules: &Compiled) -> Result<(), KernelError> {
        self.tables.swap(rules)
    }

    /// Whether it decides who may talk to which Unix socket.
    pub(crate) fn looks_at_listeners(&self) -> bool {
        look_at_listeners(&self.without)
    }

    /// Protects a file or folder of the agent's own from everybody governed, whatever user they have become.
    pub(crate) fn protect(&mut self, path: &Path, protection: Protection) -> Result<(), KernelError> {
        let holds = match protection {
            Protection::Keep => KEEP,
            Protection::Hide => KEEP | HIDE,
        };
        self.tables.protect(path, holds)
    }

    /// Hooks that this kernel doesn't have.
    pub(crate) fn without(&self) -> &[&'static str] {
        &self.without
    }
}

fn look_at_listeners(without: &[&str]) -> bool {
    LISTENER_HOOKS.iter().all(|hook| !without.contains(hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shield_that_lacks_a_hook_on_unix_sockets_leaves_them_to_their_names() {
        assert!(look_at_listeners(&["uring_cmd"]));
        for hook in LISTENER_HOOKS {
            assert!(!look_at_listeners(&["uring_cmd", hook]), "{hook}");
        }
    }
}
