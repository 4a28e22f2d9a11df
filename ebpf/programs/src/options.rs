//! Socket options that lead packets elsewhere than the address says, or send some of their own.

use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use tidegate_abi::Counter;

use crate::count::count;
use crate::{ALLOW, REFUSE, log, rules, stamp};

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_IPV6: i32 = 41;

/// Of longer values the kernel shows programs only the first page.
const MOST_SHOWN: i32 = 4096;

/// A governed process sets an option on a socket of its own. Those that come with a single message fire no hook: the guard
/// sees what they do.
#[cgroup_sockopt(setsockopt)]
pub fn option_set(ctx: SockoptContext) -> i32 {
    // SAFETY: the hook's own context; the fields are readable.
    let (level, name, socket, length) = unsafe {
        let asked = ctx.sockopt;
        (
            (&raw const (*asked).level).read_volatile(),
            (&raw const (*asked).optname).read_volatile(),
            (*asked).__bindgen_anon_1.sk,
            (&raw const (*asked).optlen).read_volatile(),
        )
    };
    // SAFETY: the hook always has a socket.
    if leads_astray(level, name) && is_governed(unsafe { stamp::carried(socket.cast()) }) {
        count(Counter::Refused);
        log::option(&ctx, level, name);
        return REFUSE;
    }
    if length > MOST_SHOWN {
        // SAFETY: the field is writable; zero makes the kernel take the value from the caller, all of it.
        unsafe { (&raw mut (*ctx.sockopt).optlen).write_volatile(0) };
    }
    ALLOW
}

/// Whether any of these subjects is an active one, or that can't be said.
#[inline(always)]
fn is_governed(subjects: u64) -> bool {
    if subjects == 0 {
        return false;
    }
    for _ in 0..2 {
        if let Ok(generation) = rules::active() {
            return subjects & generation.subjects != 0;
        }
    }
    true
}

/// Source routes, other interfaces, other hops, other policies, forged states, and group memberships, whose reports carry
/// bytes of the caller's choice (include/uapi/linux/in.h, in6.h, tcp.h; asm-generic/socket.h).
#[inline(always)]
fn leads_astray(level: i32, name: i32) -> bool {
    match level {
        SOL_IP => matches!(
            name,
            4 // IP_OPTIONS
                | 16 | 17 // IP_IPSEC_POLICY, IP_XFRM_POLICY
                | 19 // IP_TRANSPARENT
                | 32 // IP_MULTICAST_IF
                | 35 | 37..=39 | 41 // IP_ADD_MEMBERSHIP, IP_(UN)BLOCK_SOURCE, IP_ADD_SOURCE_MEMBERSHIP, IP_MSFILTER
                | 42..=44 | 46 | 48 // MCAST_JOIN_GROUP, MCAST_(UN)BLOCK_SOURCE, MCAST_JOIN_SOURCE_GROUP, MCAST_MSFILTER
                | 50 // IP_UNICAST_IF
        ),
        SOL_IPV6 => matches!(
            name,
            6 // IPV6_2292PKTOPTIONS
                | 9 // IPV6_NEXTHOP
                | 17 // IPV6_MULTICAST_IF
                | 20 | 27 // IPV6_JOIN_GROUP, IPV6_JOIN_ANYCAST
                | 34 | 35 // IPV6_IPSEC_POLICY, IPV6_XFRM_POLICY
                | 42
                ..=44 | 46 | 48 // as for IPv4
                | 50 // IPV6_PKTINFO
                | 54 | 55 | 57 | 59 // IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS
                | 75 | 76 // IPV6_TRANSPARENT, IPV6_UNICAST_IF
        ),
        // SO_DONTROUTE, SO_BINDTODEVICE, SO_MARK, SO_BINDTOIFINDEX
        SOL_SOCKET => matches!(name, 5 | 25 | 36 | 62),
        // TCP_REPAIR: a connection that no handshake made.
        SOL_TCP => name == 19,
        _ => false,
    }
}
