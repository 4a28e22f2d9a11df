//! Who else is on loopback: a subject's own processes, or somebody who could be talked into sending on.

use core::ffi::c_void;
use core::mem::offset_of;

use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};

use crate::decide::{Flow, Transport};
use crate::stamp;

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// Whether what would receive this at the destination, in the context's network namespace, is a socket of one of these
/// subjects, or nobody.
///
/// # Safety
///
/// `ctx` is the context of a hook on socket addresses or packets.
#[inline(always)]
pub unsafe fn is_own(ctx: *mut c_void, subjects: u64, flow: &Flow) -> bool {
    // SAFETY: vouched for by the caller.
    let socket = unsafe { receiver(ctx, flow) };
    if socket.is_null() {
        return true;
    }
    // SAFETY: checked for null; released on the only way out.
    let carried = unsafe {
        let carried = stamp::carried(socket.cast());
        bpf_sk_release(socket.cast());
        carried
    };
    carried & subjects != 0
}

/// # Safety
///
/// As for [`is_own`].
#[inline(always)]
unsafe fn receiver(ctx: *mut c_void, flow: &Flow) -> *mut bpf_sock {
    let (from, to) = (&flow.source, &flow.destination);
    if to.is_v4() {
        let tuple = TupleV4 {
            saddr: from.words[3],
            daddr: to.words[3],
            sport: from.port.to_be(),
            dport: to.port.to_be(),
        };
        let length = offset_of!(TupleV4, dport) + size_of::<u16>();
        // SAFETY: the tuple is as long as said.
        unsafe { look_up(ctx, flow.transport, (&raw const tuple).cast_mut().cast(), length as u32) }
    } else {
        let tuple =
            TupleV6 { saddr: from.words, daddr: to.words, sport: from.port.to_be(), dport: to.port.to_be() };
        let length = offset_of!(TupleV6, dport) + size_of::<u16>();
        // SAFETY: the tuple is as long as said.
        unsafe { look_up(ctx, flow.transport, (&raw const tuple).cast_mut().cast(), length as u32) }
    }
}

/// # Safety
///
/// As for [`is_own`]; `tuple` has `length` bytes.
#[inline(always)]
unsafe fn look_up(
    ctx: *mut c_void,
    transport: Transport,
    tuple: *mut bpf_sock_tuple,
    length: u32,
) -> *mut bpf_sock {
    // SAFETY: vouched for by the caller.
    unsafe {
        match transport {
            Transport::Tcp => bpf_sk_lookup_tcp(ctx, tuple, length, CURRENT_NETNS, 0),
            Transport::Udp => bpf_sk_lookup_udp(ctx, tuple, length, CURRENT_NETNS, 0),
        }
    }
}
