//! The agent, which may be gone: the programs outlive it.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use tidegate_abi::{Agent, LIFE_SIGN_LIMIT, NS_PER_TICK};

use crate::maps::AGENT;
use crate::task;

/// Whether the current task is the agent's own, and not one that got its process id after it.
#[inline(always)]
pub fn is_current() -> bool {
    match AGENT.get(0) {
        Some(agent) => agent.process == task::process() && agent.started == task::started() / NS_PER_TICK,
        None => false,
    }
}

/// Whether the agent accepts connections: it said so, and has shown a sign of life since.
#[inline(always)]
pub fn is_serving() -> bool {
    let Some(agent) = AGENT.get_ptr(0) else { return false };
    // SAFETY: a value of the map; aligned words that user space replaces whole.
    let Agent { seen, serving, .. } = unsafe { agent.read_volatile() };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    serving != 0 && now.saturating_sub(seen) < LIFE_SIGN_LIMIT
}
