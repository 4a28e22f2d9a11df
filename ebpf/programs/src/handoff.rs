//! Hands the origin of a redirected connection to the agent.
//!
//! The entry is there before the SYN leaves, so the agent can't accept earlier. The client's end owns it until the
//! listener's end exists, then that one does: a client that sends and closes at once is still known when it is accepted,
//! and an entry goes with the last socket that could ask for it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
};
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use core::ffi::c_void;
use tidegate_abi::{Counter, HandoffKey, OTHER_USERS, Pending};

use crate::count::count;
use crate::endpoint::Endpoint;
use crate::maps::{HANDOFFS, PENDING, STAMPS};
use crate::quota;

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Offers, claims and drops hand-offs as connections come and go.
#[sock_ops]
pub fn tcp_event(ctx: SockOpsContext) -> u32 {
    // SAFETY: the hook's own context.
    let socket: *mut c_void = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast();
    if socket.is_null() {
        return 1;
    }
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => offer(&ctx, socket),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => claim(&ctx, socket),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => close(socket),
        _ => {}
    }
    1
}

/// The client's end is about to send its SYN: its source port is known.
#[inline(always)]
fn offer(ctx: &SockOpsContext, socket: *mut c_void) {
    // SAFETY: the hook's socket, checked for null.
    let Some(stamp) = (unsafe { STAMPS.get(socket) }) else { return };
    if stamp.redirected == 0 {
        return;
    }
    let Some((local, remote)) = ends(ctx) else { return };
    // SAFETY: as above.
    let Some(pending) = (unsafe { PENDING.get_or_create(socket) }) else { return };
    *pending = Pending { key: key(stamp.netns, &local, &remote), cookie: stamp.handoff.cookie, listening: 0 };
    // An earlier connection between the same ends, whose listener's end is gone without a word.
    // SAFETY: copied at once.
    if let Some(counted) = unsafe { HANDOFFS.get(pending.key) }.map(|earlier| earlier.counted()) {
        remove(&pending.key, counted);
    }
    // The connect found room, but others may have been as quick.
    let Some(counted) = quota::room(stamp.handoff.identity.owner) else {
        return count(Counter::HandoffsFull);
    };
    stamp.handoff.counts_as_other = u16::from(counted == OTHER_USERS);
    if HANDOFFS.insert(pending.key, &stamp.handoff, NOEXIST).is_err() {
        return count(Counter::HandoffsFull);
    }
    quota::offered(counted);
    watch(ctx);
}

/// The listener's end of a connection exists; if it was redirected, this end now answers for the entry.
#[inline(always)]
fn claim(ctx: &SockOpsContext, socket: *mut c_void) {
    let Some((local, remote)) = ends(ctx) else { return };
    if !local.is_loopback() {
        return;
    }
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let key = key(netns, &remote, &local);
    let Some(handoff) = HANDOFFS.get_ptr_mut(key) else { return };
    // SAFETY: the hook's socket, checked for null.
    let Some(pending) = (unsafe { PENDING.get_or_create(socket) }) else { return };
    // SAFETY: a value of the map. The listener can't have accepted this end, and so not taken the entry: the kernel holds
    // the socket's lock meanwhile.
    unsafe {
        *pending = Pending { key, cookie: (*handoff).cookie, listening: 1 };
        (*handoff).arrived = 1;
    }
    watch(ctx);
}

/// An end is gone. The entry goes with the end that answers for it, if it is still there and still the same.
#[inline(always)]
fn close(socket: *mut c_void) {
    // SAFETY: the hook's socket, checked for null.
    let Some(pending) = (unsafe { PENDING.get(socket) }) else { return };
    // SAFETY: read at once.
    let Some(handoff) = (unsafe { HANDOFFS.get(pending.key) }) else { return };
    if handoff.cookie == pending.cookie && (pending.listening != 0 || handoff.arrived == 0) {
        let counted = handoff.counted();
        remove(&pending.key, counted);
    }
}

/// Of this and the agent, only one removes an entry.
#[inline(always)]
fn remove(key: &HandoffKey, counted: u32) {
    if HANDOFFS.remove(key).is_ok() {
        quota::ended(counted);
    }
}

/// Asks to be told of this socket's changes of state.
#[inline(always)]
fn watch(ctx: &SockOpsContext) {
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

#[inline(always)]
fn key(netns: u64, client: &Endpoint, listener: &Endpoint) -> HandoffKey {
    HandoffKey {
        netns,
        source: client.address(),
        listener: listener.address(),
        source_port: client.port,
        listener_port: listener.port,
        reserved: 0,
    }
}

/// The socket's own and the other end. An IPv6 socket in an IPv4 connection keeps its IPv4 addresses in IPv4's fields
/// before it does in IPv6's.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> Option<(Endpoint, Endpoint)> {
    let local_port = ctx.local_port() as u16;
    let remote_port = u32::from_be(ctx.remote_port()) as u16;
    let v4 = || (Endpoint::v4(ctx.local_ip4(), local_port), Endpoint::v4(ctx.remote_ip4(), remote_port));
    match ctx.family() {
        AF_INET => Some(v4()),
        AF_INET6 => {
            let remote = Endpoint { words: words(ctx, true), port: remote_port };
            if remote.is_v4() {
                return Some(v4());
            }
            Some((Endpoint { words: words(ctx, false), port: local_port }, remote))
        }
        _ => None,
    }
}

#[inline(always)]
fn words(ctx: &SockOpsContext, remote: bool) -> [u32; 4] {
    // SAFETY: the hook's own context; the arrays have four words, read as wide as the verifier wants them.
    unsafe {
        let words = if remote { &raw const (*ctx.ops).remote_ip6 } else { &raw const (*ctx.ops).local_ip6 };
        let words = words.cast::<u32>();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}
