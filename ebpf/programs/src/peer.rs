//! getpeername answers what the client asked for, not the listener that it was sent to.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use tidegate_abi::CONNECTED;

use crate::ALLOW;
use crate::endpoint::Endpoint;
use crate::maps::STAMPS;

/// IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx) {
        // SAFETY: getpeername4 may rewrite the address.
        unsafe { original.write_v4(ctx.sock_addr) };
    }
    ALLOW
}

/// IPv6 sockets, also to IPv4-mapped addresses.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx) {
        // SAFETY: getpeername6 may rewrite the address.
        unsafe { original.write_v6(ctx.sock_addr) };
    }
    ALLOW
}

#[inline(always)]
fn original(ctx: &SockAddrContext) -> Option<Endpoint> {
    // SAFETY: the hook's own context, which always has a socket.
    let stamp = unsafe { STAMPS.get((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) }?;
    (stamp.redirected == CONNECTED).then(|| Endpoint::new(&stamp.handoff.address, stamp.handoff.port))
}
