//! Network namespaces that governed processes are in and the agent is not yet: it is told of them.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use tidegate_abi::{NamespaceSeen, TOLD_AGAIN_AFTER};

use crate::maps::{LISTENERS, NAMESPACES, TOLD};
use crate::{subuser, task};

/// Tells of the namespace with this cookie, if the agent doesn't listen there and was not told just now.
#[inline(always)]
pub fn seen(netns: u64) {
    // SAFETY: only its presence counts.
    if netns == 0 || unsafe { LISTENERS.get(netns) }.is_some() {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: copied at once.
    if let Some(told) = unsafe { TOLD.get(netns) }.copied()
        && now.saturating_sub(told) < TOLD_AGAIN_AFTER
    {
        return;
    }
    // What can't be told now is told at the next occasion; until then connections are refused.
    let (uid, _) = task::ids();
    let event = NamespaceSeen { netns, pid: task::process(), uid: subuser::owner(uid) };
    if NAMESPACES.output(event, 0).is_ok() {
        let _ = TOLD.insert(netns, now, 0);
    }
}
