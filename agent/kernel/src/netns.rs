//! Network namespaces: which one a socket is in, which ones governed processes are in, sockets made inside them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use aya::maps::{MapData, RingBuf};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt,
    socket, sockopt,
};
use tidegate_abi::NamespaceSeen;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::KernelError;

/// Tries to find a port that is free over TCP and UDP.
const TRIES: usize = 16;

/// A namespace that a governed process is in and the agent doesn't listen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// Its cookie.
    pub cookie: u64,
    /// The process that was seen in it.
    pub pid: u32,
    /// The process's real user id.
    pub uid: u32,
}

/// The namespaces that the programs tell of.
pub struct Namespaces(AsyncFd<RingBuf<MapData>>);

impl Namespaces {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its descriptor and is moved into the `AsyncFd`, which deregisters before dropping it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        ring.map(Self).map_err(|error| KernelError::Log(error.to_string()))
    }

    /// The next one that is told of. An error ends all hope for more.
    pub async fn next(&mut self) -> io::Result<Namespace> {
        loop {
            if let Some(told) = self.0.get_mut().next()
                && let Some(seen) = told.first_chunk::<{ size_of::<NamespaceSeen>() }>()
            {
                // SAFETY: as many bytes as the type has, and any are a value of it.
                let seen = unsafe { std::mem::transmute::<[u8; 16], NamespaceSeen>(*seen) };
                return Ok(Namespace { cookie: seen.netns, pid: seen.pid, uid: seen.uid });
            }
            let mut ready = self.0.readable_mut().await?;
            ready.clear_ready();
        }
    }
}

/// Sockets on a namespace's own loopback: TCP, and UDP at the same ports.
#[derive(Debug)]
pub struct Inside {
    /// On 127.0.0.1.
    pub v4: (TcpListener, UdpSocket),
    /// On ::1; none if the namespace has no IPv6.
    pub v6: Option<(TcpListener, UdpSocket)>,
    /// Identifies the namespace among the files of `/proc/pid/ns`.
    pub inode: u64,
    /// Whether its loopback interface is up: until it is, nobody gets anywhere through it.
    pub is_up: bool,
}

/// Listens in a process's network namespace, on a thread that enters it and ends there: no other ever leaves the agent's.
///
/// # Errors
///
/// The process is gone, or in another namespace than this by now.
pub fn listen_inside(namespace: Namespace) -> io::Result<Inside> {
    let entered = thread::Builder::new().name("tidegate-netns".into()).spawn(move || {
        let file = File::open(format!("/proc/{}/ns/net", namespace.pid))?;
        let inode = file.metadata()?.ino();
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        let v4 = both(Ipv4Addr::LOCALHOST.into())?;
        if cookie(v4.1.as_fd())? != namespace.cookie {
            return Err(io::Error::other("the process is in another network namespace by now"));
        }
        let v6 = match both(Ipv6Addr::LOCALHOST.into()) {
            Ok(sockets) => Some(sockets),
            Err(error) if is_without_ipv6(&error) => None,
            Err(error) => return Err(error),
        };
        let is_up = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok();
        Ok(Inside { v4, v6, inode, is_up })
    })?;
    entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread that entered it failed")))
}

/// The network namespaces, by inode, of these processes.
pub fn of_processes(pids: &[u32]) -> std::collections::HashSet<u64> {
    let inode = |pid: &u32| std::fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|found| found.ino());
    pids.iter().filter_map(inode).collect()
}

/// Cookie of a socket's network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and value and length are valid for writes of their sizes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// TCP and UDP at the same port.
fn both(address: std::net::IpAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tried = 0;
    loop {
        tried += 1;
        let stream = bound(SocketAddr::new(address, 0), SockType::Stream)?;
        listen(&stream, Backlog::MAXCONN)?;
        let name: SockaddrStorage = getsockname(stream.as_raw_fd())?;
        let port = name.as_sockaddr_in().map(|name| name.port());
        let port = port.or_else(|| name.as_sockaddr_in6().map(|name| name.port())).unwrap_or_default();
        match bound(SocketAddr::new(address, port), SockType::Datagram) {
            Ok(datagram) => return Ok((stream.into(), datagram.into())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bound even while the loopback interface is down: what comes up later is listened on from the first moment.
fn bound(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, None)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let codes = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Namespace {
        let cookie = cookie(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()).unwrap();
        Namespace { cookie, pid: std::process::id(), uid: 0 }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test kernel"]
    fn a_namespace_is_listened_in_over_tcp_and_udp_at_one_port() {
        let inside = listen_inside(own()).unwrap();
        let port = inside.v4.0.local_addr().unwrap().port();
        assert_eq!(inside.v4.1.local_addr().unwrap().port(), port);
        assert!(inside.is_up && of_processes(&[std::process::id()]).contains(&inside.inode));
    }

    #[test]
    #[ignore = "needs root: cargo xtask test kernel"]
    fn a_process_that_is_elsewhere_by_now_is_not_mistaken() {
        let elsewhere = Namespace { cookie: own().cookie + 1, ..own() };
        assert!(listen_inside(elsewhere).is_err());
    }
}
