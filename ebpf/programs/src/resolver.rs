//! DNS of governed processes: whatever server they ask, the agent answers, and the answer seems to come from that server.
//!
//! The agent takes questions over UDP at the port where it listens for TCP. A socket of its own doesn't say who sent a
//! datagram, so the guard announces each one as it leaves.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use tidegate_abi::{HandoffKey, Listeners, Stamp};

use crate::ALLOW;
use crate::decide::Flow;
use crate::endpoint::Endpoint;
use crate::maps::{ASKERS, LISTENERS, STAMPS};

/// The port of DNS (RFC 1035, 4.2).
pub const PORT: u16 = 53;

/// Answers to IPv4 sockets.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let from = unsafe { Endpoint::asked_v4(ctx.sock_addr) };
    if let Some(asked) = asked(&ctx, &from) {
        // SAFETY: recvmsg4 may rewrite the address.
        unsafe { asked.write_v4(ctx.sock_addr) };
    }
    ALLOW
}

/// Answers to IPv6 sockets, also from IPv4-mapped addresses.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let from = unsafe { Endpoint::asked_v6(ctx.sock_addr) };
    if let Some(asked) = asked(&ctx, &from) {
        // SAFETY: recvmsg6 may rewrite the address.
        unsafe { asked.write_v6(ctx.sock_addr) };
    }
    ALLOW
}

/// The server that the socket asked last, if this datagram is the agent's.
#[inline(always)]
fn asked(ctx: &SockAddrContext, from: &Endpoint) -> Option<Endpoint> {
    // SAFETY: the hook's own context, which always has a socket.
    let stamp = unsafe { STAMPS.get((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) }?;
    let asked = Endpoint::new(&stamp.handoff.address, stamp.handoff.port);
    // What an IPv6 address would be written over an IPv4 one makes no sense to the caller.
    (is_asked(stamp, from) && asked.is_v4() == from.is_v4()).then_some(asked)
}

/// Announces a question that leaves for the agent: who sends it, and which server it was meant for.
#[inline(always)]
pub fn announce(stamp: &Stamp, flow: &Flow) {
    let key = HandoffKey {
        netns: stamp.netns,
        source: flow.source.address(),
        listener: flow.destination.address(),
        source_port: flow.source.port,
        listener_port: flow.destination.port,
        reserved: 0,
    };
    let mut asker = stamp.handoff;
    // SAFETY: no arguments.
    asker.connected_at = unsafe { bpf_ktime_get_boot_ns() };
    // Without an entry the agent doesn't answer, and the process asks again.
    let _ = ASKERS.insert(key, asker, 0);
}

/// Whether this is the agent's end, for a socket that was sent there.
#[inline(always)]
pub fn is_asked(stamp: &Stamp, endpoint: &Endpoint) -> bool {
    if stamp.redirected == 0 {
        return false;
    }
    // SAFETY: copied at once.
    let Some(Listeners { v4, v6 }) = unsafe { LISTENERS.get(stamp.netns) }.copied() else { return false };
    let port = if endpoint.is_v4() { v4 } else { v6 };
    port != 0 && endpoint.port == port && endpoint.is_loopback()
}
