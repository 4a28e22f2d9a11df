//! The agent's ports are nobody else's, least of all while the agent is down.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use core::ffi::c_void;
use tidegate_abi::Counter;

use crate::count::count;
use crate::label::{Standing, standing};
use crate::maps::LISTENERS;
use crate::{ALLOW, REFUSE, log, stamp};

/// A port of the caller's choice, IPv4.
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    asked(&ctx)
}

/// A port of the caller's choice, IPv6.
#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    asked(&ctx)
}

/// A port of the kernel's choice, IPv4.
#[cgroup_sock(post_bind4)]
pub fn bound4(ctx: SockContext) -> i32 {
    given(&ctx)
}

/// A port of the kernel's choice, IPv6.
#[cgroup_sock(post_bind6)]
pub fn bound6(ctx: SockContext) -> i32 {
    given(&ctx)
}

#[inline(always)]
fn asked(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the hook's own context, which always has a socket; the port is readable.
    let (port, carried) = unsafe {
        let port = (&raw const (*ctx.sock_addr).user_port).read_volatile();
        (u16::from_be(port as u16), stamp::carried((*ctx.sock_addr).__bindgen_anon_1.sk.cast()))
    };
    // SAFETY: the hook's own context.
    if !unsafe { is_refused(ctx.as_ptr(), port, carried) } {
        return ALLOW;
    }
    count(Counter::Refused);
    log::port(ctx, port);
    REFUSE
}

#[inline(always)]
fn given(ctx: &SockContext) -> i32 {
    // SAFETY: the hook's own context, which is the socket; the port is readable.
    let (port, carried) =
        unsafe { ((&raw const (*ctx.sock).src_port).read_volatile() as u16, stamp::carried(ctx.as_ptr())) };
    // SAFETY: the hook's own context.
    if !unsafe { is_refused(ctx.as_ptr(), port, carried) } {
        return ALLOW;
    }
    count(Counter::Refused);
    log::port(ctx, port);
    REFUSE
}

/// Whether this is a port of the agent's in the network namespace, and not the agent's or an ungoverned process's to take.
///
/// # Safety
///
/// `ctx` is the context of a hook on sockets or their addresses.
#[inline(always)]
unsafe fn is_refused(ctx: *mut c_void, port: u16, carried: u64) -> bool {
    // SAFETY: vouched for by the caller; the value is copied at once.
    let listeners = unsafe { LISTENERS.get(bpf_get_netns_cookie(ctx)).copied() };
    port != 0
        && listeners.is_some_and(|listeners| listeners.has(port))
        && !matches!(standing(carried), Standing::Free)
}
