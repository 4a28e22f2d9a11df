//! All canaries together, and whether one of them saw an attack.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    frame::{Allowed, Marks, holds, leak},
    loopback::Loopback,
    manifest::Place,
    wire::{LINK_LOCAL, Wire},
};

/// How long bytes may be under way once the attack has ended. Local delivery takes microseconds; membership reports
/// wait for a timer of a few milliseconds.
const UNDER_WAY: Duration = Duration::from_millis(120);

/// Canary servers on loopback and behind a wire. They take part in nothing else.
#[derive(Debug)]
pub struct Canary {
    wire: Wire,
    loopback: Loopback,
    other: Ipv4Addr,
    allowed: Allowed,
}

impl Canary {
    /// Sets them up. Needs root; leaves nothing behind when it is dropped, or the process killed.
    pub fn new() -> Result<Self> {
        let [a, b, c, d] = random()?;
        let other = Ipv4Addr::new(127, 64 | (a & 0x3f), b, c.clamp(1, 254));
        let loopback = Loopback::new(other)?;
        let wire = Wire::new(u16::from_be_bytes([c ^ a, d]), &[loopback.port, 53])?;
        let mut allowed: Vec<IpAddr> = vec![wire.passed.into(), wire.declared.into()];
        allowed.extend(wire.passed6.map(IpAddr::V6));
        Ok(Self { wire, loopback, other, allowed: Allowed(allowed) })
    }

    /// Destinations that a bundle must pass to the attacker for the attacks on what is passed.
    pub fn passed(&self) -> Vec<SocketAddr> {
        let port = self.loopback.port;
        let mut passed = vec![
            SocketAddr::from((self.wire.passed, port)),
            SocketAddr::from((Ipv4Addr::LOCALHOST, self.loopback.passed_port)),
        ];
        passed.extend(self.wire.passed6.map(|address| SocketAddr::from((address, port))));
        passed
    }

    /// A destination that a bundle may declare as a resource's. Nothing listens there.
    pub fn declared(&self) -> SocketAddr {
        SocketAddr::from((self.wire.declared, 5432))
    }

    /// Settings of an attack: where it finds the canaries from its place.
    pub(crate) fn settings(&self, place: Place) -> BTreeMap<&'static str, String> {
        let end = match place {
            Place::Host => &self.wire.host,
            Place::Pod => &self.wire.pod_end,
        };
        let mut settings = BTreeMap::from([
            ("WIRE4", end.far.to_string()),
            ("NEAR4", end.near.to_string()),
            ("INTERFACE", end.interface.clone()),
            ("LINK6", LINK_LOCAL.to_string()),
            ("LO4", Ipv4Addr::LOCALHOST.to_string()),
            ("LO4_OTHER", self.other.to_string()),
            ("PORT", self.loopback.port.to_string()),
            ("DNS", "53".into()),
            ("QUIC", "443".into()),
        ]);
        settings.extend(end.far6.map(|address| ("WIRE6", address.to_string())));
        if self.loopback.v6 {
            settings.insert("LO6", Ipv6Addr::LOCALHOST.to_string());
        }
        settings
    }

    /// Settings of the destinations that the bundle passes.
    pub(crate) fn passed_settings(&self) -> BTreeMap<&'static str, String> {
        let mut settings = BTreeMap::from([
            ("PASSED4", self.wire.passed.to_string()),
            ("PASSED_PORT", self.loopback.passed_port.to_string()),
        ]);
        settings.extend(self.wire.passed6.map(|address| ("PASSED6", address.to_string())));
        settings
    }

    /// The namespace of attackers in a pod.
    pub(crate) fn pod(&self) -> PathBuf {
        self.wire.pod.path()
    }

    /// Calls an attacker that listens on the host.
    pub(crate) fn call(&self, port: u16) -> Result<Option<TcpStream>> {
        self.wire.call(port)
    }

    /// Forgets what has arrived so far.
    pub(crate) fn clear(&mut self) {
        while self.wire.frame().is_some() {}
        self.loopback.clear();
    }

    /// Says what arrived of the attack with these marks, as soon as something does.
    pub(crate) fn look(&mut self, marks: &Marks) -> Result<Option<String>> {
        let deadline = Instant::now() + UNDER_WAY;
        loop {
            while let Some(frame) = self.wire.frame() {
                if let Some(what) = leak(&frame, marks, &self.allowed) {
                    return Ok(Some(what));
                }
            }
            if let Some(what) = self.loopback.look(|bytes| holds(bytes, marks.token.as_bytes())) {
                return Ok(Some(what));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let descriptors = self.loopback.descriptors().chain([self.wire.packets()]);
            let mut waiting: Vec<_> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
        }
    }
}

/// Marks that no other attack has.
pub(crate) fn marks(by_text: bool) -> Result<Marks> {
    let bytes: [u8; 15] = random()?;
    let [a, b, c, d, e, f, g, group @ ..] = bytes;
    let [h, i, j, k, l, m, n, o] = group;
    Ok(Marks {
        by_text,
        token: format!("tg{}", hex::encode([a, b, c, d, e, f, g])),
        group4: Ipv4Addr::new(239, h, i, j.max(1)),
        group6: Ipv6Addr::from([0xff, 0x15, 0, 0, 0, 0, 0, 0, h, i, j, k, l, m, n, o]),
    })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    use std::io::Read;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
