//! The agent, which may be gone: the programs outlive it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_lookup_tcp, bpf_sk_release};
use aya_ebpf::programs::SockAddrContext;
use tidegate_abi::{Agent, LIFE_SIGN_LIMIT, NS_PER_TICK};

use crate::endpoint::Endpoint;
use crate::maps::{AGENT, LISTENING};
use crate::task;

/// `BPF_F_CURRENT_NETNS`: the network namespace of the hook's socket.
const CURRENT_NAMESPACE: u64 = u64::MAX;

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

/// Whether a listener of the agent's is there, on loopback in the namespace of the hook's socket. It goes with the agent, or
/// with whoever keeps it for the next one.
#[inline(always)]
pub fn listens(ctx: &SockAddrContext, listener: &Endpoint) -> bool {
    let [_, _, _, last] = listener.words;
    let dport = listener.port.to_be();
    // All of the union is written: the verifier wants no byte of the stack unknown.
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: listener.words,
                daddr: listener.words,
                sport: 0,
                dport,
            },
        },
    };
    let mut length = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>();
    if listener.is_v4() {
        tuple.__bindgen_anon_1.ipv4 =
            bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr: last, daddr: last, sport: 0, dport };
        length = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>();
    }
    // SAFETY: the hook's own context, and a tuple as long as said.
    let socket =
        unsafe { bpf_sk_lookup_tcp(ctx.as_ptr(), &raw mut tuple, length as u32, CURRENT_NAMESPACE, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket that is held until it is released here, once.
    unsafe {
        let marked = LISTENING.get(socket.cast()).is_some();
        bpf_sk_release(socket.cast());
        marked
    }
}
