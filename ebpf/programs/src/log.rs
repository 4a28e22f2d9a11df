//! Refusals in the agent's log: who, where to and why, but never more lines than a log can bear.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockContext, SockoptContext};
use aya_log_ebpf::warn;
use tidegate_abi::{Counter, LOGGED_PER_SECOND, Stamp};

use crate::count::count;
use crate::decide::Flow;
use crate::endpoint::Endpoint;
use crate::maps::LOG_BUDGET;
use crate::task;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Why a connection or datagram is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The bundle declares no such resource and passes no such destination.
    Undeclared,
    /// Neither TCP nor UDP.
    Protocol,
    /// The socket is bound to an interface, so the gate can't be reached through it.
    BoundToInterface,
    /// The agent is stopped, gone or stuck.
    NoAgent,
    /// The agent doesn't listen in this network namespace.
    NoListener,
    /// As many of the user's connections wait for the agent as may, or of all users'.
    TooMany,
    /// The process can't be labelled, or the rules changed too often to decide.
    Unknown,
    /// No memory for the stamp.
    NoMemory,
}

/// Logs a refused destination.
#[inline(always)]
pub fn destination(ctx: &SockAddrContext, reason: Reason, asked: &Endpoint) {
    if !within_budget() {
        return;
    }
    let (uid, _) = task::ids();
    let pid = task::process();
    let (to, port) = (asked.address(), asked.port);
    macro_rules! refused {
        ($why:literal) => {
            warn!(ctx, "refused pid {} uid {} to {:i} port {}: {}", pid, uid, to, port, $why)
        };
    }
    match reason {
        Reason::Undeclared => refused!("neither a declared resource nor passed"),
        Reason::Protocol => refused!("neither TCP nor UDP"),
        Reason::BoundToInterface => refused!("the socket is bound to an interface"),
        Reason::NoAgent => refused!("the agent is stopped, gone or stuck"),
        Reason::NoListener => refused!("the agent does not listen in this network namespace"),
        Reason::TooMany => refused!("too many connections wait for the agent"),
        Reason::Unknown => refused!("the process can't be labelled"),
        Reason::NoMemory => refused!("no memory for the socket's stamp"),
    }
}

/// Logs a socket that was refused at creation.
#[inline(always)]
pub fn socket(ctx: &SockContext, kind: u32, protocol: u32) {
    if !within_budget() {
        return;
    }
    let (uid, _) = task::ids();
    warn!(ctx, "refused pid {} uid {} a socket of type {} protocol {}", task::process(), uid, kind, protocol);
}

/// Logs an option that was refused to a socket.
#[inline(always)]
pub fn option(ctx: &SockoptContext, level: i32, name: i32) {
    if !within_budget() {
        return;
    }
    warn!(
        ctx,
        "refused uid {} the socket option {} of level {}: it leads packets elsewhere",
        task::ids().0,
        name,
        level
    );
}

/// Logs a port of the agent's that was refused.
#[inline(always)]
pub fn port(ctx: &impl EbpfContext, port: u16) {
    if !within_budget() {
        return;
    }
    let (uid, _) = task::ids();
    warn!(ctx, "refused pid {} uid {} port {}: it is the agent's", task::process(), uid, port);
}

/// Logs a packet that was dropped, by the process that made the socket.
#[inline(always)]
pub fn packet(ctx: &SkBuffContext, stamp: &Stamp, flow: Option<&Flow>) {
    if !within_budget() {
        return;
    }
    let (pid, uid) = (stamp.handoff.identity.tgid, stamp.handoff.identity.uid);
    match flow {
        Some(flow) => {
            let (to, port) = (flow.destination.address(), flow.destination.port);
            warn!(ctx, "dropped a packet of pid {} uid {} to {:i} port {}", pid, uid, to, port);
        }
        None => warn!(ctx, "dropped a packet of pid {} uid {}: neither plain TCP nor UDP", pid, uid),
    }
}

#[inline(always)]
fn within_budget() -> bool {
    let Some(budget) = LOG_BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own value; a lost update costs a line more or less. The helper takes no arguments.
    let (budget, now) = unsafe { (&mut *budget, bpf_ktime_get_boot_ns() / NS_PER_SECOND) };
    if budget.second != now {
        budget.second = now;
        budget.lines = 0;
    }
    budget.lines += 1;
    let within = budget.lines <= LOGGED_PER_SECOND;
    if !within {
        count(Counter::Unlogged);
    }
    within
}
