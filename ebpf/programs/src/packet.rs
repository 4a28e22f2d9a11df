//! Reads a packet that is about to leave, as far as the guard must (RFC 791, RFC 8200).

use aya_ebpf::programs::SkBuffContext;

use crate::decide::{Flow, Transport};
use crate::endpoint::Endpoint;

const V4: u8 = 4;
const V6: u8 = 6;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
/// More fragments follow, or this is not the first one; not "don't fragment".
const FRAGMENTED: u16 = 0x3fff;
/// Extension headers that are read over; longer chains are refused.
const MAX_EXTENSIONS: u32 = 4;

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads from where to where it goes, into `flow`. None if that can't be said for sure: options or a routing header may lead
/// it elsewhere, a fragment has no ports, and of protocols only TCP and UDP are known.
#[inline(always)]
pub fn read(ctx: &SkBuffContext, flow: &mut Flow) -> Option<()> {
    let first: u8 = ctx.load(0).ok()?;
    match first >> 4 {
        V4 => read_v4(ctx, flow),
        V6 => read_v6(ctx, flow),
        _ => None,
    }
}

#[inline(always)]
fn read_v4(ctx: &SkBuffContext, flow: &mut Flow) -> Option<()> {
    let header: [u8; V4_HEADER] = ctx.load(0).ok()?;
    let options = usize::from(header[0] & 0xf) * 4 != V4_HEADER;
    if options || u16::from_be_bytes([header[6], header[7]]) & FRAGMENTED != 0 {
        return None;
    }
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    flow.transport = Transport::of(u32::from(header[9]))?;
    flow.source = Endpoint::v4(word(12), 0);
    flow.destination = Endpoint::v4(word(16), 0);
    read_ports(ctx, V4_HEADER, flow)
}

#[inline(always)]
fn read_v6(ctx: &SkBuffContext, flow: &mut Flow) -> Option<()> {
    let header: [u32; V6_HEADER / 4] = ctx.load(0).ok()?;
    let mut next = header[1].to_ne_bytes()[2];
    let mut offset = V6_HEADER;
    for _ in 0..MAX_EXTENSIONS {
        if next != HOP_BY_HOP && next != DESTINATION_OPTIONS {
            break;
        }
        let [following, length]: [u8; 2] = ctx.load(offset).ok()?;
        next = following;
        offset += (usize::from(length) + 1) * 8;
    }
    flow.transport = Transport::of(u32::from(next))?;
    flow.source = Endpoint { words: [header[2], header[3], header[4], header[5]], port: 0 };
    flow.destination = Endpoint { words: [header[6], header[7], header[8], header[9]], port: 0 };
    // On the wire such an address is not the IPv4 one that it is taken for everywhere else.
    if flow.source.is_v4() || flow.destination.is_v4() {
        return None;
    }
    read_ports(ctx, offset, flow)
}

/// Where TCP and UDP alike have them.
#[inline(always)]
fn read_ports(ctx: &SkBuffContext, offset: usize, flow: &mut Flow) -> Option<()> {
    let [from, to]: [u16; 2] = ctx.load(offset).ok()?;
    flow.source.port = u16::from_be(from);
    flow.destination.port = u16::from_be(to);
    Some(())
}
