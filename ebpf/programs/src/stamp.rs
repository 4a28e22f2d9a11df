//! What a socket of a governed process carries, from its creation or its first use by such a process on.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use tidegate_abi::Stamp;

use crate::maps::STAMPS;
use crate::task;

/// The subjects that a socket carries; none if it was never a governed process's.
///
/// # Safety
///
/// `socket` is what the kernel gave the program as a socket, and not null.
#[inline(always)]
pub unsafe fn carried(socket: *mut c_void) -> u64 {
    // SAFETY: vouched for by the caller.
    unsafe { STAMPS.get(socket) }.map_or(0, |stamp| stamp.handoff.identity.subjects)
}

/// The stamp of a socket that a process of the subjects `task` uses, made if there is none. None if memory ran out.
///
/// # Safety
///
/// `ctx` is the context of a hook on sockets or their addresses, `socket` its socket and not null.
#[inline(always)]
pub unsafe fn stamp<'a>(ctx: *mut c_void, socket: *mut c_void, task: u64) -> Option<&'a mut Stamp> {
    // SAFETY: vouched for by the caller.
    let stamp = unsafe { STAMPS.get_or_create(socket) }?;
    if stamp.netns == 0 {
        // SAFETY: vouched for by the caller.
        stamp.netns = unsafe { bpf_get_netns_cookie(ctx) };
        task::identify(&mut stamp.handoff.identity);
    }
    stamp.handoff.identity.subjects |= task;
    Some(stamp)
}
