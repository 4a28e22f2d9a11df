//! What a frame on the wire tells: whether an attacker's byte left the host in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What gives an attack away.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// Only the text counts, and a handshake does not.
    pub(crate) by_text: bool,
    /// Text that the attack sends.
    pub(crate) token: String,
    /// Multicast group that it joins.
    pub(crate) group4: Ipv4Addr,
    /// Its IPv6 counterpart.
    pub(crate) group6: Ipv6Addr,
}

/// Addresses that allowed traffic may have on the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed(pub(crate) Vec<IpAddr>);

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Says what leaked, if anything. `frame` is an Ethernet frame that came from the attacked host.
///
/// The host itself also talks (ARP, neighbour discovery, resets of calls that nobody takes): that is no leak.
pub(crate) fn leak(frame: &[u8], marks: &Marks, allowed: &Allowed) -> Option<String> {
    let body = frame.get(ETHERNET..)?;
    match u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?) {
        IPV4 => {
            let to = address4(body, 16)?;
            let header = usize::from(body.first()? & 0xf) * 4;
            packet(IpAddr::V4(to), *body.get(9)?, body.get(header..)?, body, marks, allowed)
        }
        IPV6 => {
            let to = Ipv6Addr::from(<[u8; 16]>::try_from(body.get(24..40)?).ok()?);
            let (protocol, segment) = behind_extensions(*body.get(6)?, body.get(40..)?)?;
            packet(IpAddr::V6(to), protocol, segment, body, marks, allowed)
        }
        _ => holds(body, marks.token.as_bytes()).then(|| "a frame of another protocol".to_owned()),
    }
}

fn packet(
    to: IpAddr,
    protocol: u8,
    segment: &[u8],
    whole: &[u8],
    marks: &Marks,
    allowed: &Allowed,
) -> Option<String> {
    if holds(whole, &marks.group4.octets()) || holds(whole, &marks.group6.octets()) {
        return Some("a membership report".to_owned());
    }
    if allowed.0.contains(&to) {
        return None;
    }
    if holds(whole, marks.token.as_bytes()) {
        return Some(format!("its text, sent to {to}"));
    }
    match protocol {
        TCP => {
            let flags = segment.get(13)?;
            (flags & 0x02 != 0 && !marks.by_text).then(|| format!("a TCP handshake with {to}"))
        }
        UDP | ICMP | ICMPV6 => None,
        _ => (!to.is_multicast()).then(|| format!("a packet of IP protocol {protocol} to {to}")),
    }
}

/// The transport's protocol number and bytes, behind extension headers (RFC 8200, section 4).
fn behind_extensions(mut protocol: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    // Hop-by-hop options, routing, destination options.
    while matches!(protocol, 0 | 43 | 60) {
        let length = (usize::from(*rest.get(1)?) + 1) * 8;
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
    Some((protocol, rest))
}

fn address4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
}

/// Whether these bytes are somewhere in it.
pub(crate) fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    !wanted.is_empty() && bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks {
            by_text: false,
            token: "tg00112233445566".into(),
            group4: Ipv4Addr::new(239, 1, 2, 3),
            group6: "ff15::1234:5678:9abc:def0".parse().unwrap(),
        }
    }

    /// An IPv4 packet in a frame.
    fn ipv4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        frame[12] = 8;
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 1]);
        frame.extend(to);
        frame.extend(payload);
        frame
    }

    fn told(frame: &[u8]) -> bool {
        leak(frame, &marks(), &Allowed(vec![IpAddr::from([198, 18, 0, 3])])).is_some()
    }

    #[test]
    fn the_text_is_a_leak_unless_it_was_allowed_to_go_there() {
        let payload = b"\0\0\0\0\0\0\0\0tg00112233445566";
        assert!(told(&ipv4([198, 18, 0, 2], UDP, payload)));
        assert!(told(&ipv4([255, 255, 255, 255], UDP, payload)));
        assert!(!told(&ipv4([198, 18, 0, 3], UDP, payload)));
        assert!(!told(&ipv4([198, 18, 0, 2], UDP, b"something else")));
    }

    #[test]
    fn a_handshake_is_a_leak_and_a_reset_is_none() {
        let segment = |flags: u8| [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        assert!(told(&ipv4([198, 18, 0, 2], TCP, &segment(0x02))));
        assert!(told(&ipv4([198, 18, 0, 2], TCP, &segment(0x12))));
        assert!(!told(&ipv4([198, 18, 0, 2], TCP, &segment(0x14))));
    }

    #[test]
    fn a_membership_report_of_the_attacks_own_group_is_a_leak() {
        assert!(told(&ipv4([224, 0, 0, 22], 2, &[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3])));
        assert!(!told(&ipv4([224, 0, 0, 22], 2, &[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 9, 9, 9])));
    }

    #[test]
    fn what_hides_behind_a_routing_header_is_seen() {
        let mut frame = vec![0; ETHERNET];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame.extend([0x60, 0, 0, 0, 0, 44, 43, 64]);
        frame.extend([0; 16]);
        frame.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        let mut header = [0; 24];
        header[..2].copy_from_slice(&[TCP, 2]);
        frame.extend(header);
        frame.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
        assert!(told(&frame));
    }

    #[test]
    fn a_frame_cut_anywhere_is_read_without_harm() {
        let whole = ipv4([198, 18, 0, 2], TCP, &[0x02; 20]);
        for length in 0..whole.len() {
            leak(&whole[..length], &marks(), &Allowed::default());
        }
    }
}
