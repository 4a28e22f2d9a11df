//! Sockets at their creation: stamped for the gate, or refused.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use tidegate_abi::Counter;

use crate::count::count;
use crate::decide::Transport;
use crate::label::{Standing, standing};
use crate::log;
use crate::{ALLOW, REFUSE, namespace, stamp};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// Governed processes get TCP and UDP sockets only: MPTCP (so that runtimes fall back to TCP), raw, ping, SCTP, DCCP and
/// UDP-Lite sockets are refused, because not all of their traffic passes the other hooks.
#[cgroup_sock(sock_create)]
pub fn socket_created(ctx: SockContext) -> i32 {
    let subjects = match standing(0) {
        Standing::Free => return ALLOW,
        Standing::Governed { task, .. } => task,
        Standing::Unknown => return refuse(&ctx),
    };
    if !is_served(&ctx) {
        return refuse(&ctx);
    }
    // SAFETY: the hook's context is the new socket.
    let Some(stamp) = (unsafe { stamp::stamp(ctx.as_ptr(), ctx.as_ptr(), subjects) }) else {
        return refuse(&ctx);
    };
    namespace::seen(stamp.netns);
    ALLOW
}

#[inline(always)]
fn is_served(ctx: &SockContext) -> bool {
    let (kind, protocol) = kind_and_protocol(ctx);
    match Transport::of(protocol) {
        Some(Transport::Tcp) => kind == SOCK_STREAM,
        Some(Transport::Udp) => kind == SOCK_DGRAM,
        None => false,
    }
}

#[inline(always)]
fn kind_and_protocol(ctx: &SockContext) -> (u32, u32) {
    // SAFETY: the hook's own context; the fields are readable.
    unsafe {
        ((&raw const (*ctx.sock).type_).read_volatile(), (&raw const (*ctx.sock).protocol).read_volatile())
    }
}

#[inline(always)]
fn refuse(ctx: &SockContext) -> i32 {
    count(Counter::Refused);
    let (kind, protocol) = kind_and_protocol(ctx);
    log::socket(ctx, kind, protocol);
    REFUSE
}
