//! The kernel's socket tables over netlink (sock_diag(7), include/uapi/linux/inet_diag.h): listing and ending sockets of
//! one network namespace, that of the thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{Handle, Listed};

/// `SOCK_DIAG_BY_FAMILY`.
const LIST: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of a `struct inet_diag_sockid`.
const ID: usize = 48;
/// Bytes of a `struct inet_diag_msg`.
const ENTRY: usize = 72;

/// What the kernel sends at once fits well.
const BUFFER: usize = 64 * 1024;

/// `INET_DIAG_CGROUP_ID`, an attribute: the cgroup that a socket was made in (Linux 5.8).
const CGROUP_ID: u16 = 21;

/// `TCP_ESTABLISHED`; of UDP, a connected socket.
const ESTABLISHED: u8 = 1;
/// `TCP_TIME_WAIT`: no socket any more.
const TIME_WAIT: u8 = 6;

/// A protocol whose sockets can be listed and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// States whose sockets can send without asking a hook again: all of TCP, and connected ones of UDP.
    fn states(self) -> u32 {
        match self {
            Self::Tcp => !(1 << TIME_WAIT),
            Self::Udp => 1 << ESTABLISHED,
        }
    }
}

/// What names a socket in requests: its family and `struct inet_diag_sockid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    family: u8,
    id: [u8; ID],
}

/// A line to the kernel.
pub(super) struct Diag(OwnedFd);

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
        Ok(Self(socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkSockDiag)?))
    }

    /// The sockets of a protocol in IPv4 or IPv6 that can send without asking a hook again.
    pub(super) fn list(&self, family: AddressFamily, protocol: Protocol) -> io::Result<Vec<Listed>> {
        let family = family as u8;
        self.send(&request(LIST, NLM_F_DUMP, family, protocol, protocol.states(), &[0; ID]))?;
        let mut listed = Vec::new();
        loop {
            let answer = self.receive()?;
            for (kind, body) in Messages(&answer) {
                match kind {
                    NLMSG_DONE => return Ok(listed),
                    // The kernel has none of that family or protocol.
                    NLMSG_ERROR if errno(body) == libc::ENOENT => return Ok(listed),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(errno(body))),
                    _ => listed.extend(entry(body, protocol)),
                }
            }
        }
    }

    /// Ends a socket as by a reset; false if it is gone already.
    pub(super) fn destroy(&self, protocol: Protocol, socket: &Id) -> io::Result<bool> {
        self.send(&request(DESTROY, NLM_F_ACK, socket.family, protocol, u32::MAX, &socket.id))?;
        let answer = self.receive()?;
        let acknowledged = Messages(&answer).find(|(kind, _)| *kind == NLMSG_ERROR);
        match acknowledged.map(|(_, body)| errno(body)) {
            Some(0) => Ok(true),
            Some(libc::ENOENT) => Ok(false),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(io::Error::other("the kernel's answer makes no sense")),
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), request, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

fn request(kind: u16, flags: u16, family: u8, protocol: Protocol, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + 8 + ID);
    message.extend(((HEADER + 8 + ID) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, protocol.number(), 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(id);
    message
}

/// The messages of one datagram: type and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = word(self.0, 0)? as usize;
        let kind = u16::from_ne_bytes(self.0.get(4..6)?.try_into().ok()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The error that a `struct nlmsgerr` tells, positive; zero is success.
fn errno(body: &[u8]) -> i32 {
    word(body, 0).map_or(libc::EBADMSG, |error| (error as i32).saturating_neg())
}

fn entry(body: &[u8], protocol: Protocol) -> Option<Listed> {
    let (body, attributes) = body.split_at_checked(ENTRY)?;
    let family = *body.first()?;
    let id: [u8; ID] = body.get(4..4 + ID)?.try_into().ok()?;
    let port = |at: usize| Some(u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            let octets: [u8; 4] = id.get(at..at + 4)?.try_into().ok()?;
            return Some(Ipv4Addr::from(octets).into());
        }
        let octets: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
    };
    Some(Listed {
        protocol,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        uid: word(body, 64)?,
        inode: u64::from(word(body, 68)?),
        cgroup: attribute(attributes, CGROUP_ID).unwrap_or(0),
        stamped: None,
        handle: Handle::Id(Id { family, id }),
    })
}

/// The attribute of this kind (`struct nlattr`), if it is there and has eight bytes.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<u64> {
    loop {
        let [low, high, kind @ ..] = *attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if u16::from_ne_bytes(kind) == wanted {
            return Some(u64::from_ne_bytes(attributes.get(4..length)?.try_into().ok()?));
        }
        // A shorter one than its own header would never end.
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_and_a_connected_udp_socket_are_listed_and_an_unconnected_one_is_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (connected, unconnected) =
            (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        connected.connect(unconnected.local_addr().unwrap()).unwrap();
        let diag = Diag::open().unwrap();
        let listed = |family, protocol, local: SocketAddr| {
            diag.list(family, protocol).unwrap().into_iter().find(|socket| socket.local == local)
        };
        let listener = listed(AddressFamily::Inet, Protocol::Tcp, tcp.local_addr().unwrap()).unwrap();
        assert_eq!(listener.uid, nix::unistd::getuid().as_raw());
        assert_eq!(listener.remote.port(), 0);
        let found = listed(AddressFamily::Inet6, Protocol::Udp, connected.local_addr().unwrap()).unwrap();
        assert_eq!(found.remote, unconnected.local_addr().unwrap());
        assert!(found.inode != 0 && found.cgroup != 0);
        assert!(listed(AddressFamily::Inet6, Protocol::Udp, unconnected.local_addr().unwrap()).is_none());
    }

    #[test]
    fn a_cut_answer_is_no_socket_at_any_length() {
        for length in 0..ENTRY {
            assert_eq!(entry(&vec![2; length], Protocol::Tcp), None, "{length}");
            assert_eq!(Messages(&vec![0xff; length]).count(), 0, "{length}");
        }
    }
}
