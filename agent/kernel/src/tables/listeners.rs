//! Where the agent listens, as the programs know it.

use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, SkStorage};
use tidegate_abi::Listeners;

use super::{found, gone, named, take};
use crate::KernelError;

/// The agent's listeners: their ports by network namespace, and their marks.
pub(crate) struct ListenerTable {
    ports: HashMap<MapData, u64, Listeners>,
    marked: SkStorage<MapData, u64>,
}

impl ListenerTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { ports: take(object, "LISTENERS")?, marked: take(object, "LISTENING")? })
    }

    /// Where to send connections that are made in a network namespace.
    pub(crate) fn set(&mut self, netns: u64, ports: Listeners) -> Result<(), KernelError> {
        self.ports.insert(netns, ports, 0).map_err(named("LISTENERS"))
    }

    /// Where connections of a network namespace are sent.
    pub(crate) fn get(&self, netns: u64) -> Result<Option<Listeners>, KernelError> {
        found(self.ports.get(&netns, 0), "LISTENERS")
    }

    /// Nowhere, from now on.
    pub(crate) fn forget(&mut self, netns: u64) -> Result<(), KernelError> {
        self.ports.remove(&netns).or_else(gone).map_err(named("LISTENERS"))
    }

    /// Nowhere but in this namespace, from now on.
    pub(crate) fn forget_all_but(&mut self, own: u64) -> Result<(), KernelError> {
        let others: Vec<u64> =
            self.ports.keys().filter_map(Result::ok).filter(|netns| *netns != own).collect();
        others.into_iter().try_for_each(|netns| self.forget(netns))
    }

    /// Marks a listener as the agent's, until it is closed.
    pub(crate) fn mark(&mut self, listener: &impl AsRawFd) -> Result<(), KernelError> {
        self.marked.insert(listener, 1, 0).map_err(named("LISTENING"))
    }
}
