//! The capabilities that a running agent keeps, and why. `tidegate.service` bounds the unit by these and those of the start.

use caps::{CapSet, Capability, CapsHashSet};

/// What is needed after the start.
pub(super) const KEPT: [(Capability, &str); 6] = [
    (Capability::CAP_BPF, "reading and writing the programs' maps"),
    (Capability::CAP_NET_ADMIN, "destroying sockets that were open before their process was governed"),
    (Capability::CAP_SYS_ADMIN, "entering the network namespaces of governed processes"),
    (Capability::CAP_NET_BIND_SERVICE, "listeners at ports below 1024"),
    (Capability::CAP_SYS_PTRACE, "reading in /proc who connects"),
    (Capability::CAP_DAC_READ_SEARCH, "executables that only their owner may read, and cgroups by their id"),
];

/// Gives up all others, for good.
pub(super) fn keep() -> Result<(), String> {
    let kept: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    let held = caps::read(None, CapSet::Permitted).map_err(|error| error.to_string())?;
    let left: CapsHashSet = kept.intersection(&held).copied().collect();
    // The bounding set first: to change it takes a capability that goes with the others.
    for capability in caps::read(None, CapSet::Bounding).map_err(|error| error.to_string())? {
        if !left.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|error| error.to_string())?;
        }
    }
    set(CapSet::Inheritable, &CapsHashSet::new())?;
    set(CapSet::Effective, &left)?;
    set(CapSet::Permitted, &left)
}

fn set(which: CapSet, capabilities: &CapsHashSet) -> Result<(), String> {
    caps::set(None, which, capabilities).map_err(|error| error.to_string())
}
