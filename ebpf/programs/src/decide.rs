//! The one decision: may this subject go there, and which way.

use core::ffi::c_void;

use aya_ebpf::btf_maps::lpm_trie::Key;
use tidegate_abi::{Destination, DestinationKey};

use crate::endpoint::Endpoint;
use crate::maps::DESTINATIONS;
use crate::{neighbour, resolver};

/// What a governed process speaks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP, the only one that the gate serves.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    const TCP: u32 = 6;
    const UDP: u32 = 17;

    /// By IP protocol number; none for any other protocol, which governed processes may not use.
    #[inline(always)]
    pub fn of(protocol: u32) -> Option<Self> {
        match protocol {
            Self::TCP => Some(Self::Tcp),
            Self::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// What a governed process means to send, or a socket of its is sending.
#[derive(Default)]
pub struct Flow {
    /// How.
    pub transport: Transport,
    /// From where; of a socket that isn't bound yet, the unspecified address and port.
    pub source: Endpoint,
    /// Where to, as it was [meant](Endpoint::meant).
    pub destination: Endpoint,
}

/// What becomes of a connection, datagram or packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it was meant to, untouched.
    Pass,
    /// It goes to the gate.
    Redirect,
    /// It is a question that goes to the agent's resolver.
    Ask,
    /// It doesn't go.
    Refuse,
}

/// Decides for IPv4, IPv6 and IPv4-mapped destinations alike.
///
/// DNS goes to the agent whatever the rules say: a server that is asked directly is a tunnel. Else a declared resource wins
/// over a pass. UDP to a declared resource is refused, so that clients fall back to TCP. Beside what the bundle says, a
/// subject's processes may talk to each other on loopback, where nobody else is listening.
///
/// # Safety
///
/// `ctx` is the context of a hook on socket addresses or packets.
#[inline(always)]
pub unsafe fn decide(ctx: *mut c_void, generation: u32, subjects: u64, flow: &Flow) -> Verdict {
    let destination = &flow.destination;
    if destination.port == resolver::PORT {
        return if flow.transport == Transport::Tcp { Verdict::Redirect } else { Verdict::Ask };
    }
    let here = rules(generation, destination.port, destination);
    let anywhere = rules(generation, 0, destination);
    let redirect = (here.redirect | anywhere.redirect) != 0;
    let pass = (here.pass | anywhere.pass) & subjects != 0;
    match flow.transport {
        Transport::Tcp if redirect => Verdict::Redirect,
        Transport::Udp if redirect => Verdict::Refuse,
        _ if pass => Verdict::Pass,
        // SAFETY: vouched for by the caller.
        _ if destination.is_on_loopback() && unsafe { neighbour::is_own(ctx, subjects, flow) } => {
            Verdict::Pass
        }
        _ => Verdict::Refuse,
    }
}

/// All rules for one port. User space has merged each prefix with those that contain it.
#[inline(always)]
fn rules(generation: u32, port: u16, destination: &Endpoint) -> Destination {
    let data = DestinationKey { generation, port, address: destination.address(), reserved: 0 };
    DESTINATIONS.get(&Key::new(DestinationKey::ALL_BITS, data)).copied().unwrap_or_default()
}
