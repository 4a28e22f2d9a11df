//! Servers on loopback that nobody may reach: an attack's bytes that arrive there went around the gate.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result, bail};

/// How often another port is tried.
const TRIES: usize = 50;
/// Most that is kept of one connection, in bytes.
const KEPT: usize = 4_096;

/// The servers. All have the same port, but for the one of names.
#[derive(Debug)]
pub(crate) struct Loopback {
    /// Their port.
    pub(crate) port: u16,
    /// The port of 127.0.0.1 that the bundle may pass; what arrives there was allowed.
    pub(crate) passed_port: u16,
    /// Whether ::1 is there.
    pub(crate) v6: bool,
    listeners: Vec<TcpListener>,
    sockets: Vec<UdpSocket>,
    accepted: Vec<(TcpStream, Vec<u8>)>,
    _passed: (TcpListener, UdpSocket),
}

impl Loopback {
    /// Starts them on 127.0.0.1, ::1 and `other`, which also has a server of names.
    pub(crate) fn new(other: Ipv4Addr) -> Result<Self> {
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        for _ in 0..TRIES {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), other.into()];
            addresses.extend(v6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            let tcp: Result<Vec<_>, _> = addresses.iter().map(|at| TcpListener::bind((*at, port))).collect();
            let udp: Result<Vec<_>, _> = addresses.iter().map(|at| UdpSocket::bind((*at, port))).collect();
            let (Ok(listeners), Ok(mut sockets)) = (tcp, udp) else { continue };
            sockets.push(UdpSocket::bind((other, 53)).with_context(|| format!("{other}, port 53"))?);
            listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
            sockets.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
            let passed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let passed_port = passed.local_addr()?.port();
            let passed = (passed, UdpSocket::bind((Ipv4Addr::LOCALHOST, passed_port))?);
            return Ok(Self { port, passed_port, v6, listeners, sockets, accepted: vec![], _passed: passed });
        }
        bail!("no port is free on all loopback addresses")
    }

    /// Ready when something arrived.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(AsFd::as_fd);
        let accepted = self.accepted.iter().map(|(stream, _)| stream.as_fd());
        listeners.chain(self.sockets.iter().map(AsFd::as_fd)).chain(accepted)
    }

    /// Takes in what has arrived; says so if anything did that `is_attack` knows, or a connection at all.
    pub(crate) fn look(&mut self, is_attack: impl Fn(&[u8]) -> bool) -> Option<String> {
        let mut seen = None;
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    seen = local(listener.local_addr(), "a connection");
                    self.accepted.push((stream, Vec::new()));
                }
            }
        }
        self.accepted.retain_mut(|(stream, bytes)| {
            let goes_on = take_in(stream, bytes);
            if is_attack(bytes) {
                seen = local(stream.local_addr(), "its text");
                bytes.clear();
            }
            goes_on
        });
        let mut datagram = [0; KEPT];
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(&mut datagram) {
                if datagram.get(..length).is_some_and(&is_attack) {
                    seen = local(socket.local_addr(), "its text in a datagram");
                }
            }
        }
        seen
    }

    /// Forgets whatever has arrived. Connections stay: one may be what an attack goes on with.
    pub(crate) fn clear(&mut self) {
        self.look(|_| false);
        self.accepted.iter_mut().for_each(|(_, bytes)| bytes.clear());
    }
}

/// Reads what is there; false when no more will come.
fn take_in(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; KEPT];
    while bytes.len() < KEPT {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => bytes.extend(buffer.get(..length).unwrap_or_default()),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    false
}

fn local(address: std::io::Result<std::net::SocketAddr>, what: &str) -> Option<String> {
    Some(match address {
        Ok(address) => format!("{what} at {address}"),
        Err(_) => what.to_owned(),
    })
}
