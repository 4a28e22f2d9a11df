//! The kernel's own iterators over its sockets (`ebpf/sockets`), where it lets programs end what they find (Linux 6.5).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, MapError};
use libbpf_rs::{Object, ObjectBuilder};

use super::diag::Protocol;
use super::{Handle, Listed};
use crate::pins::Pins;
use crate::tables::named;
use crate::{KernelError, btf};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.bpf.o"));

/// What they call of the kernel's.
const KERNEL_FUNCTION: &str = "bpf_sock_destroy";

/// Bytes of one socket in what an iterator says.
const ENTRY: usize = 72;

/// Sockets that are ended at a time: fewer than fit into the map of those that are to be.
const TURN: usize = 32_768;

/// The iterators, pinned: each is a file that is read in the network namespace that it is about.
pub(crate) struct Iterators {
    folder: PathBuf,
    doomed: HashMap<MapData, u64, u64>,
}

impl Iterators {
    /// Loads them, in the place of those that an earlier agent left.
    ///
    /// # Errors
    ///
    /// The kernel lacks them, or refuses a program.
    pub(crate) fn load(pins: &Pins) -> Result<Self, KernelError> {
        if btf::function(KERNEL_FUNCTION).is_none() {
            return Err(KernelError::Sockets(
                "the kernel lets no program end them: Linux 6.5 does".to_owned(),
            ));
        }
        let folder = pins.folder("iterators")?;
        let place = folder.join("doomed");
        for left in fs::read_dir(&folder).map_err(failed)? {
            fs::remove_file(left.map_err(failed)?.path()).map_err(failed)?;
        }
        let object = load(&place, &pins.maps()?.join("STAMPS")).map_err(refused)?;
        for program in object.progs_mut() {
            let path = folder.join(program.name());
            program.attach().and_then(|mut link| link.pin(path)).map_err(refused)?;
        }
        let doomed = Map::HashMap(MapData::from_pin(place).map_err(named("DOOMED"))?);
        Ok(Self { folder, doomed: doomed.try_into().map_err(named("DOOMED"))? })
    }

    /// The sockets of a protocol in the thread's network namespace that can send without asking a hook again.
    pub(super) fn list(&self, protocol: Protocol) -> io::Result<Vec<Listed>> {
        let said = self.read(protocol)?;
        Ok(said.chunks_exact(ENTRY).filter_map(|one| entry(one, protocol)).collect())
    }

    /// Ends sockets of a protocol in the thread's network namespace, as by a reset. Answers the cookies of those that were
    /// still there.
    pub(super) fn end(&mut self, protocol: Protocol, cookies: &[u64]) -> io::Result<Vec<u64>> {
        let mut ended = Vec::new();
        for cookies in cookies.chunks(TURN) {
            let tried = self.try_to_end(protocol, cookies);
            for cookie in cookies {
                match self.doomed.remove(cookie) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => tracing::debug!(%error, "a socket's entry was not removed"),
                }
            }
            ended.extend(tried?);
        }
        Ok(ended)
    }

    fn try_to_end(&mut self, protocol: Protocol, cookies: &[u64]) -> io::Result<Vec<u64>> {
        for cookie in cookies {
            self.doomed.insert(cookie, 0, 0).map_err(io::Error::other)?;
        }
        self.read(protocol)?;
        let was_ended = |cookie: &&u64| self.doomed.get(cookie, 0).is_ok_and(|ended| ended != 0);
        Ok(cookies.iter().filter(was_ended).copied().collect())
    }

    /// Runs an iterator over all sockets.
    fn read(&self, protocol: Protocol) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(match protocol {
            Protocol::Tcp => "each_tcp",
            Protocol::Udp => "each_udp",
        }))
    }
}

fn load(doomed: &Path, stamps: &Path) -> Result<Object, libbpf_rs::Error> {
    let mut object = ObjectBuilder::default().open_memory(OBJECT)?;
    for mut map in object.maps_mut() {
        match map.name().to_str() {
            Some("DOOMED") => map.set_pin_path(doomed)?,
            Some("STAMPS") => map.reuse_pinned_map(stamps)?,
            _ => {}
        }
    }
    object.load()
}

/// `struct listed` of `ebpf/sockets`.
fn entry(bytes: &[u8], protocol: Protocol) -> Option<Listed> {
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
    };
    Some(Listed {
        protocol,
        local: SocketAddr::new(address(16)?, half(48)?),
        remote: SocketAddr::new(address(32)?, half(50)?),
        uid: word(52)?,
        inode: long(8)?,
        cgroup: long(56)?,
        stamped: Some(long(64)? != 0),
        handle: Handle::Cookie(long(0)?),
    })
}

fn failed(error: io::Error) -> KernelError {
    KernelError::Sockets(error.to_string())
}

fn refused(error: libbpf_rs::Error) -> KernelError {
    KernelError::Sockets(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::programs;

    /// Pins of this test's own, removed at the end.
    struct Own(Pins);

    impl Own {
        fn new() -> Self {
            let place = format!("/sys/fs/bpf/tidegate-iterators-{}", std::process::id());
            Self(Pins::hold(Path::new(&place)).unwrap())
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            self.0.remove().unwrap();
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test kernel"]
    fn sockets_are_listed_and_ended_by_the_kernels_own_iterators_where_it_has_them() {
        let own = Own::new();
        let _maps = programs::load(&own.0).unwrap();
        let mut iterators = match Iterators::load(&own.0) {
            Ok(iterators) => iterators,
            Err(error) => {
                assert!(error.to_string().contains("Linux 6.5"), "{error}");
                return println!("not on this kernel: {error}");
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (connected, other) = (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        connected.connect(other.local_addr().unwrap()).unwrap();
        let find = |iterators: &Iterators, protocol, local: SocketAddr| {
            iterators.list(protocol).unwrap().into_iter().find(|socket| socket.local == local)
        };
        let tcp = find(&iterators, Protocol::Tcp, listener.local_addr().unwrap()).unwrap();
        assert_eq!((tcp.uid, tcp.remote.port()), (nix::unistd::getuid().as_raw(), 0));
        let udp = find(&iterators, Protocol::Udp, connected.local_addr().unwrap()).unwrap();
        assert_eq!(udp.remote, other.local_addr().unwrap());
        assert!(tcp.inode != 0 && udp.inode != 0);
        assert!(
            find(&iterators, Protocol::Udp, other.local_addr().unwrap()).is_none(),
            "it is not connected"
        );
        let (Handle::Cookie(tcp), Handle::Cookie(udp)) = (tcp.handle, udp.handle) else {
            panic!("no cookies")
        };
        // More than can be told of at once, of which one is there.
        let gone = u64::MAX - 70_000..u64::MAX;
        assert_eq!(iterators.end(Protocol::Tcp, &gone.chain([tcp]).collect::<Vec<_>>()).unwrap(), [tcp]);
        assert_eq!(iterators.end(Protocol::Udp, &[udp]).unwrap(), [udp]);
        assert!(listener.accept().is_err() && connected.send(b"x").is_err());
    }

    #[test]
    fn a_cut_entry_is_no_socket_at_any_length() {
        for length in 0..ENTRY {
            assert_eq!(entry(&vec![2; length], Protocol::Tcp), None, "{length}");
        }
    }
}
