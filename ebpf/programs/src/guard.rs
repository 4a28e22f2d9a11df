//! The guard: what of a governed socket's packets may leave.
//!
//! It judges the packet as it goes to an interface, after routing, address translation and every socket option, and knows
//! nothing of how the socket was connected. What it can't read is dropped.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use tidegate_abi::{Counter, Listeners, Stamp};

use crate::count::count;
use crate::decide::{Flow, Transport, Verdict, decide};
use crate::endpoint::Endpoint;
use crate::maps::{LISTENERS, STAMPS};
use crate::{ALLOW, LOOPBACK_INTERFACE, REFUSE, log, packet, resolver, rules};

/// Packets of IPv4 and IPv6 sockets. Packets without one are the kernel's own or forwarded; those of connections that are
/// being accepted come with their listener.
#[cgroup_skb(egress)]
pub fn packet_leaves(ctx: SkBuffContext) -> i32 {
    let socket = socket(&ctx);
    if socket.is_null() {
        return ALLOW;
    }
    // SAFETY: the packet's socket, checked for null.
    let Some(stamp) = (unsafe { STAMPS.get(socket.cast()) }) else { return ALLOW };
    // A swap of the rules meanwhile drops the packet, which TCP then sends again.
    let Ok(generation) = rules::active() else { return dropped(&ctx, stamp, None) };
    let subjects = stamp.handoff.identity.subjects & generation.subjects;
    if subjects == 0 {
        return ALLOW;
    }
    let mut flow = Flow::default();
    if packet::read(&ctx, &mut flow).is_none() {
        return dropped(&ctx, stamp, None);
    }
    if allows(&ctx, generation.number, subjects, stamp, &flow) {
        return ALLOW;
    }
    dropped(&ctx, stamp, Some(&flow))
}

#[inline(always)]
fn dropped(ctx: &SkBuffContext, stamp: &Stamp, flow: Option<&Flow>) -> i32 {
    count(Counter::Dropped);
    log::packet(ctx, stamp, flow);
    REFUSE
}

#[inline(always)]
fn socket(ctx: &SkBuffContext) -> *mut bpf_sock {
    // SAFETY: the hook's own context.
    let socket = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return socket;
    }
    // SAFETY: checked for null.
    unsafe { bpf_sk_fullsock(socket) }
}

#[inline(always)]
fn allows(ctx: &SkBuffContext, generation: u32, subjects: u64, stamp: &Stamp, flow: &Flow) -> bool {
    // SAFETY: the hook's own context.
    let interface = unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() };
    // Asked for on a wire, a loopback address is anybody's who answers.
    if flow.destination.is_on_loopback() && interface != LOOPBACK_INTERFACE {
        return false;
    }
    // SAFETY: copied at once.
    if let Some(listeners) = unsafe { LISTENERS.get(stamp.netns) }.copied() {
        if stamp.redirected != 0 && leads_to_the_agent(&listeners, flow) {
            if flow.transport == Transport::Udp {
                resolver::announce(stamp, flow);
            }
            return true;
        }
        // Whoever has taken the agent's port must not pass for the agent.
        if flow.source.is_on_loopback() && listeners.has(flow.source.port) {
            return false;
        }
    }
    // SAFETY: the hook's own context.
    unsafe { decide(ctx.as_ptr(), generation, subjects, flow) == Verdict::Pass }
}

/// Whether this goes to where the agent listens, over TCP for the gate, over UDP for the resolver.
#[inline(always)]
fn leads_to_the_agent(listeners: &Listeners, flow: &Flow) -> bool {
    let to: &Endpoint = &flow.destination;
    let port = if to.is_v4() { listeners.v4 } else { listeners.v6 };
    port != 0 && to.is_loopback() && to.port == port
}
