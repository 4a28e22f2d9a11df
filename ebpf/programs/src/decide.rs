//! The one decision: may this subject go there, and which way.

use aya_ebpf::btf_maps::lpm_trie::Key;
use tidegate_abi::{Destination, DestinationKey};

use crate::endpoint::Endpoint;
use crate::maps::DESTINATIONS;

/// What a governed process speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, the only one that the gate serves.
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

/// What becomes of a connection or datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it was meant to, untouched.
    Pass,
    /// It goes to the gate.
    Redirect,
    /// It doesn't go.
    Refuse,
}

/// Decides for IPv4, IPv6 and IPv4-mapped destinations alike; `destination` is what was [meant](Endpoint::meant).
///
/// A declared resource wins over a pass. UDP to a declared resource is refused, so that clients fall back to TCP.
#[inline(always)]
pub fn decide(generation: u32, subjects: u64, transport: Transport, destination: &Endpoint) -> Verdict {
    let here = rules(generation, destination.port, destination);
    let anywhere = rules(generation, 0, destination);
    let redirect = (here.redirect | anywhere.redirect) != 0;
    let pass = (here.pass | anywhere.pass) & subjects != 0;
    match transport {
        Transport::Tcp if redirect => Verdict::Redirect,
        Transport::Udp if redirect => Verdict::Refuse,
        _ if pass => Verdict::Pass,
        _ => Verdict::Refuse,
    }
}

/// All rules for one port. User space has merged each prefix with those that contain it.
#[inline(always)]
fn rules(generation: u32, port: u16, destination: &Endpoint) -> Destination {
    let data = DestinationKey { generation, port, address: destination.address(), reserved: 0 };
    DESTINATIONS.get(&Key::new(DestinationKey::ALL_BITS, data)).copied().unwrap_or_default()
}
