//! Where sockets are sent: connect and sendmsg, for IPv4 and IPv6.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use tidegate_abi::{ASKING, CONNECTED, Counter, Listeners, Stamp};

use crate::count::count;
use crate::decide::{Flow, Transport, Verdict, decide};
use crate::endpoint::Endpoint;
use crate::label::{Standing, standing};
use crate::log::{self, Reason};
use crate::maps::{LISTENERS, STAMPS};
use crate::{ALLOW, LOOPBACK_INTERFACE, REFUSE, agent, quota, resolver, stamp, task};

/// IPv4 sockets, TCP Fast Open included.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let asked = unsafe { Endpoint::asked_v4(ctx.sock_addr) };
    match connect(&ctx, &asked) {
        Ok(Some(actual)) => {
            // SAFETY: connect4 may rewrite the address.
            unsafe { actual.write_v4(ctx.sock_addr) };
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(reason) => refuse(&ctx, reason, &asked),
    }
}

/// IPv6 sockets, also to IPv4-mapped addresses.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let asked = unsafe { Endpoint::asked_v6(ctx.sock_addr) };
    match connect(&ctx, &asked) {
        Ok(Some(actual)) => {
            // SAFETY: connect6 may rewrite the address.
            unsafe { actual.write_v6(ctx.sock_addr) };
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(reason) => refuse(&ctx, reason, &asked),
    }
}

/// Datagrams of unconnected sockets; also of IPv6 sockets to IPv4 addresses.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let asked = unsafe { Endpoint::asked_v4(ctx.sock_addr) };
    match send(&ctx, &asked) {
        Ok(Some(actual)) => {
            // SAFETY: sendmsg4 may rewrite the address.
            unsafe { actual.write_v4(ctx.sock_addr) };
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(reason) => refuse(&ctx, reason, &asked),
    }
}

/// Datagrams of unconnected IPv6 sockets.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's own context.
    let asked = unsafe { Endpoint::asked_v6(ctx.sock_addr) };
    match send(&ctx, &asked) {
        Ok(Some(actual)) => {
            // SAFETY: sendmsg6 may rewrite the address.
            unsafe { actual.write_v6(ctx.sock_addr) };
            ALLOW
        }
        Ok(None) => ALLOW,
        Err(reason) => refuse(&ctx, reason, &asked),
    }
}

/// Where the connection really goes; none to leave the call as it is.
#[inline(always)]
fn connect(ctx: &SockAddrContext, asked: &Endpoint) -> Result<Option<Endpoint>, Reason> {
    // SAFETY: the hook's socket, which is never null.
    let carried = match unsafe { STAMPS.get(socket(ctx).cast()) } {
        Some(stamp) => {
            stamp.redirected = 0;
            stamp.handoff.identity.subjects
        }
        None => 0,
    };
    let Some(governed) = judge(ctx, carried, || transport(ctx), asked)? else { return Ok(None) };
    let Governed { verdict, task, stamp, destination } = governed;
    match verdict {
        Verdict::Pass => {
            count(Counter::Passed);
            Ok(Some(destination))
        }
        Verdict::Redirect | Verdict::Ask => redirect(ctx, stamp, task, &destination, CONNECTED).map(Some),
        Verdict::Refuse => Err(Reason::Undeclared),
    }
}

/// Where the datagram really goes; none to leave the call as it is. The gate takes no datagrams but DNS.
#[inline(always)]
fn send(ctx: &SockAddrContext, asked: &Endpoint) -> Result<Option<Endpoint>, Reason> {
    // SAFETY: the hook's socket, which is never null.
    let carried = unsafe { stamp::carried(socket(ctx).cast()) };
    // Only UDP sockets come here as governed ones; the protocol of others is refused.
    let udp = || match transport(ctx)? {
        Transport::Udp => Ok(Transport::Udp),
        Transport::Tcp => Err(Reason::Protocol),
    };
    match judge(ctx, carried, udp, asked)? {
        None => Ok(None),
        // IPv6 sockets that are connected to an IPv4 address come here with each datagram.
        Some(Governed { stamp, .. }) if resolver::is_asked(stamp, asked) => Ok(None),
        Some(Governed { verdict: Verdict::Pass, destination, .. }) => {
            count(Counter::Passed);
            Ok(Some(destination))
        }
        Some(Governed { verdict: Verdict::Ask, task, stamp, destination }) => {
            redirect(ctx, stamp, task, &destination, ASKING).map(Some)
        }
        Some(_) => Err(Reason::Undeclared),
    }
}

/// What is decided of a governed process's or socket's connection or datagram.
struct Governed<'a> {
    verdict: Verdict,
    /// The process's own subjects.
    task: u64,
    /// The socket's stamp.
    stamp: &'a mut Stamp,
    /// Where it was meant to go.
    destination: Endpoint,
}

/// Decides, and makes sure that the socket is stamped, so that the guard knows it. None if nobody is governed here.
#[inline(always)]
fn judge<'a>(
    ctx: &SockAddrContext,
    carried: u64,
    transport: impl FnOnce() -> Result<Transport, Reason>,
    asked: &Endpoint,
) -> Result<Option<Governed<'a>>, Reason> {
    let (generation, task, subjects) = match standing(carried) {
        Standing::Free => return Ok(None),
        Standing::Governed { generation, task, subjects } => (generation, task, subjects),
        Standing::Unknown => return Err(Reason::Unknown),
    };
    // SAFETY: the hook's own context and socket, which is never null.
    let stamp = unsafe { stamp::stamp(ctx.as_ptr(), socket(ctx).cast(), task) }.ok_or(Reason::NoMemory)?;
    let destination = asked.meant();
    let flow = Flow { transport: transport()?, source: destination.unspecified(), destination };
    // SAFETY: the hook's own context.
    let verdict = unsafe { decide(ctx.as_ptr(), generation, subjects, &flow) };
    Ok(Some(Governed { verdict, task, stamp, destination }))
}

/// The listener to go to instead. The stamp remembers who meant to go where, for the hand-off and for getpeername.
#[inline(always)]
fn redirect(
    ctx: &SockAddrContext,
    stamp: &mut Stamp,
    task: u64,
    destination: &Endpoint,
    redirected: u64,
) -> Result<Endpoint, Reason> {
    // SAFETY: the hook's socket, which is never null; the field is readable.
    let interface = unsafe { (&raw const (*socket(ctx)).bound_dev_if).read_volatile() };
    // Bound to another interface, the loopback address would be asked for on the wire.
    if interface != 0 && interface != LOOPBACK_INTERFACE {
        return Err(Reason::BoundToInterface);
    }
    if !agent::is_serving() {
        return Err(Reason::NoAgent);
    }
    // SAFETY: copied at once.
    let listeners: Listeners = unsafe { LISTENERS.get(stamp.netns) }.copied().ok_or(Reason::NoListener)?;
    let port = if destination.is_v4() { listeners.v4 } else { listeners.v6 };
    if port == 0 {
        return Err(Reason::NoListener);
    }
    let listener = destination.loopback(port);
    if !agent::listens(ctx, &listener) {
        return Err(Reason::NoAgent);
    }
    if task != 0 {
        task::identify(&mut stamp.handoff.identity);
    }
    if redirected == CONNECTED && quota::room(stamp.handoff.identity.owner).is_none() {
        count(Counter::HandoffsFull);
        return Err(Reason::TooMany);
    }
    // SAFETY: the hook's own context; no arguments.
    unsafe {
        stamp.handoff.cookie = bpf_get_socket_cookie(ctx.as_ptr());
        stamp.handoff.connected_at = bpf_ktime_get_boot_ns();
    }
    stamp.handoff.address = destination.address();
    stamp.handoff.port = destination.port;
    stamp.handoff.arrived = 0;
    stamp.redirected = stamp.redirected.max(redirected);
    count(Counter::Redirected);
    Ok(listener)
}

#[inline(always)]
fn transport(ctx: &SockAddrContext) -> Result<Transport, Reason> {
    // SAFETY: the hook's own context; the field is readable.
    Transport::of(unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() }).ok_or(Reason::Protocol)
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the hook's own context, which always has a socket.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn refuse(ctx: &SockAddrContext, reason: Reason, asked: &Endpoint) -> i32 {
    count(Counter::Refused);
    log::destination(ctx, reason, asked);
    REFUSE
}
