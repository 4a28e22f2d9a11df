//! The eBPF programs: label processes, stamp their sockets, send their connections to the gate and their DNS questions to
//! the resolver, let nothing else out.
//!
//! Only contexts that are stable UAPI, and raw tracepoints whose `task_struct` offsets user space reads from the
//! running kernel's BTF. Everything fails closed: what can't be looked up, kept or understood is refused.
// Elsewhere than in the kernel it is only looked at, beside crates that bring the standard library.
#![cfg_attr(target_arch = "bpf", no_std)]
// aya-ebpf uses the same feature.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]

mod agent;
mod bind;
mod cgroup;
mod connect;
mod count;
mod decide;
mod endpoint;
mod guard;
mod handoff;
mod label;
mod log;
mod maps;
mod namespace;
mod neighbour;
mod options;
mod packet;
mod peer;
mod quota;
mod resolver;
mod rules;
mod socket;
mod stamp;
mod subuser;
mod task;

/// Index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK_INTERFACE: u32 = 1;

/// Answer of a cgroup program: go on.
const ALLOW: i32 = 1;
/// Answer of a cgroup program: the system call fails with EPERM, the packet is dropped.
const REFUSE: i32 = 0;

/// The kernel gives tracing helpers only to programs that declare a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
