//! Which processes hold which sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use procfs::process::{FDTarget, Process};
use tidegate_abi::Stamp;

use super::Listed;
use crate::KernelError;
use crate::tables::StampTable;

/// `PIDFD_THREAD` (include/uapi/linux/pidfd.h).
const PIDFD_THREAD: i32 = libc::O_EXCL;

/// A descriptor of another process.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    process: u32,
    /// The thread that has it: not all of a process need have the same ones.
    thread: u32,
    number: i32,
}

/// Who holds one socket.
#[derive(Debug, Default)]
struct Holding {
    /// A governed process's descriptor.
    governed: Option<Descriptor>,
    /// Subjects of all governed processes that hold it.
    subjects: u64,
    /// Whether an ungoverned process holds it too.
    shared: bool,
    /// Whether it carried a stamp already: it was made, or used, under the rules.
    stamped: bool,
}

/// The sockets of all processes but the agent's own.
#[derive(Debug)]
pub(super) struct Holders {
    /// By inode.
    sockets: HashMap<u64, Holding>,
    /// Governed processes.
    governed: Vec<u32>,
    /// Real users of these, but root.
    users: HashSet<u32>,
}

impl Holders {
    pub(super) fn find(subjects_of: impl Fn(u32) -> u64) -> Result<Self, KernelError> {
        let processes = procfs::process::all_processes().map_err(|error| KernelError::System {
            what: "the list of running processes",
            error: io::Error::other(error),
        })?;
        let mut holders = Self { sockets: HashMap::new(), governed: Vec::new(), users: HashSet::new() };
        for process in processes.flatten() {
            let Ok(pid) = u32::try_from(process.pid) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let subjects = subjects_of(pid);
            holders.take(&process, pid, pid, subjects);
            if subjects == 0 {
                continue;
            }
            holders.governed.push(pid);
            holders.users.extend(process.status().ok().map(|status| status.ruid).filter(|uid| *uid != 0));
            // Other threads may have descriptors of their own (unshare(2)), and go on when the first has ended.
            for task in process.tasks().into_iter().flatten().flatten().filter(|task| task.tid != task.pid) {
                let folder = format!("/proc/{pid}/task/{}", task.tid).into();
                if let (Ok(thread), Ok(tid)) = (Process::new_with_root(folder), u32::try_from(task.tid)) {
                    holders.take(&thread, pid, tid, subjects);
                }
            }
        }
        Ok(holders)
    }

    /// Takes note of the sockets that a process or one of its threads holds. It may end at any point of this.
    fn take(&mut self, of: &Process, process: u32, thread: u32, subjects: u64) {
        for found in of.fd().into_iter().flatten().flatten() {
            if let FDTarget::Socket(inode) = found.target {
                let descriptor = Descriptor { process, thread, number: found.fd };
                self.sockets.entry(inode).or_default().add(descriptor, subjects);
            }
        }
    }

    /// Whether this is a socket of governed processes that no hook has seen. `made`: whether somebody governed made it.
    pub(super) fn is_older(&self, socket: &Listed, made: impl FnOnce() -> bool) -> bool {
        let holding = self.sockets.get(&socket.inode);
        if socket.stamped.unwrap_or_else(|| holding.is_some_and(|holding| holding.stamped)) {
            return false;
        }
        match holding {
            Some(holding) if holding.governed.is_some() => !holding.shared || made(),
            Some(_) => false,
            None => made(),
        }
    }

    /// Whether no process holds it.
    pub(super) fn is_loose(&self, inode: u64) -> bool {
        !self.sockets.contains_key(&inode)
    }

    /// Whether a governed process runs as this user, who isn't root.
    pub(super) fn runs_as(&self, uid: u32) -> bool {
        self.users.contains(&uid)
    }

    /// A governed process that holds it.
    pub(super) fn holder(&self, inode: u64) -> Option<u32> {
        self.sockets.get(&inode)?.governed.map(|descriptor| descriptor.process)
    }

    /// Finds out which sockets are stamped already.
    pub(super) fn look_for(&mut self, stamps: &StampTable) -> Result<(), KernelError> {
        for holding in self.sockets.values_mut() {
            if let Some((_, socket)) = holding.governed_ip_socket() {
                holding.stamped = stamps.has(&socket)?;
            }
        }
        Ok(())
    }

    /// Stamps the IP sockets that only governed processes hold. Whoever leaves no memory for the stamp of a socket has it
    /// forget whom it was connected to; where it can't be made to, that is told.
    pub(super) fn stamp(&self, stamps: &mut StampTable) -> Vec<KernelError> {
        let mut trouble = Vec::new();
        for holding in self.sockets.values().filter(|holding| !holding.stamped && !holding.shared) {
            let Some((pid, socket)) = holding.governed_ip_socket() else { continue };
            let mut stamp = Stamp { netns: netns(&socket), ..Stamp::default() };
            stamp.handoff.identity.subjects = holding.subjects;
            stamp.handoff.identity.tgid = pid;
            let Err(error) = stamps.set(&socket, &stamp) else { continue };
            tracing::warn!(pid, %error, "a socket that was open before can't be stamped: it is disconnected");
            if let Err(error) = disconnect(&socket) {
                trouble
                    .push(KernelError::System { what: "disconnecting a socket that was open before", error });
            }
        }
        trouble
    }

    /// The network namespaces of the governed processes, and the agent's own.
    pub(super) fn namespaces(&self) -> Result<Vec<File>, KernelError> {
        let failed = |error| KernelError::System { what: "this process's network namespace", error };
        let mut found = BTreeMap::new();
        let own = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        found.insert(own.metadata().map_err(failed)?.ino(), own);
        for pid in &self.governed {
            if let Ok(namespace) = File::open(format!("/proc/{pid}/ns/net"))
                && let Ok(metadata) = namespace.metadata()
            {
                found.entry(metadata.ino()).or_insert(namespace);
            }
        }
        Ok(found.into_values().collect())
    }
}

impl Holding {
    fn add(&mut self, descriptor: Descriptor, subjects: u64) {
        if subjects == 0 {
            self.shared = true;
        } else {
            self.governed.get_or_insert(descriptor);
            self.subjects |= subjects;
        }
    }

    /// The governed process that holds it, and the socket; none if it isn't one of IP, or closed by now.
    fn governed_ip_socket(&self) -> Option<(u32, OwnedFd)> {
        let descriptor = self.governed?;
        let socket = borrow(descriptor).ok()?;
        is_ip(&socket).then_some((descriptor.process, socket))
    }
}

/// Another process's descriptor, as one of ours (pidfd_getfd(2)). One that the first thread doesn't have can be had from
/// Linux 6.9 on (`PIDFD_THREAD`).
fn borrow(Descriptor { process, thread, number }: Descriptor) -> io::Result<OwnedFd> {
    let flags = if thread == process { 0 } else { PIDFD_THREAD };
    // SAFETY: the call takes two integers.
    let thread = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })?;
    // SAFETY: the first descriptor is open, the second need not be.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, thread.as_raw_fd(), number, 0) })
}

/// Has a socket forget whom it is connected to, as connect(2) does with `AF_UNSPEC`, and a listener end. What it sends from
/// then on passes the hooks first.
fn disconnect(socket: &impl AsRawFd) -> io::Result<()> {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the address readable and as long as said.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the call answered a fresh descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_ip(socket: &impl AsRawFd) -> bool {
    matches!(option::<i32>(socket, libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6))
}

/// Cookie of the socket's network namespace; zero if it can't be had, and then nobody listens there.
fn netns(socket: &impl AsRawFd) -> u64 {
    option(socket, libc::SO_NETNS_COOKIE).unwrap_or(0)
}

/// An integer option of a socket.
fn option<T: Copy + Default>(socket: &impl AsRawFd, name: i32) -> Option<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and value and length are valid for writes of their sizes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    };
    (result == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::super::{Handle, Protocol};
    use super::*;

    fn own(socket: &impl AsRawFd) -> Descriptor {
        let process = std::process::id();
        Descriptor { process, thread: process, number: socket.as_raw_fd() }
    }

    fn holders(holding: Holding) -> Holders {
        Holders { sockets: HashMap::from([(7, holding)]), governed: vec![10], users: HashSet::new() }
    }

    fn held(governed: bool, shared: bool, stamped: bool) -> Holding {
        let descriptor = Descriptor { process: 10, thread: 10, number: 3 };
        Holding { governed: governed.then_some(descriptor), subjects: u64::from(governed), shared, stamped }
    }

    fn listed(inode: u64, stamped: Option<bool>) -> Listed {
        let nowhere = "0.0.0.0:0".parse().unwrap();
        Listed {
            protocol: Protocol::Tcp,
            local: nowhere,
            remote: nowhere,
            uid: 0,
            inode,
            cgroup: 0,
            stamped,
            handle: Handle::Cookie(0),
        }
    }

    #[test]
    fn a_governed_processs_socket_is_older_unless_stamped_or_shared() {
        let held_by = |holding, made| holders(holding).is_older(&listed(7, None), || made);
        assert!(held_by(held(true, false, false), false));
        assert!(!held_by(held(true, false, true), true));
        assert!(!held_by(held(true, true, false), false));
        assert!(!holders(held(true, false, false)).is_older(&listed(7, Some(true)), || true));
    }

    #[test]
    fn a_shared_socket_that_somebody_governed_made_is_older() {
        assert!(holders(held(true, true, false)).is_older(&listed(7, None), || true));
    }

    #[test]
    fn what_nobody_holds_counts_by_who_made_it_and_what_only_others_hold_does_not() {
        let holders_of_another = holders(held(true, false, false));
        assert!(holders_of_another.is_older(&listed(8, None), || true));
        assert!(!holders_of_another.is_older(&listed(8, None), || false));
        assert!(!holders_of_another.is_older(&listed(8, Some(true)), || true));
        assert!(!holders(held(false, true, false)).is_older(&listed(7, None), || true));
    }

    #[test]
    fn a_descriptor_of_this_process_can_be_borrowed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let borrowed = borrow(own(&socket)).unwrap();
        assert!(is_ip(&borrowed));
        assert_ne!(netns(&borrowed), 0);
        assert!(!is_ip(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn a_socket_that_is_disconnected_sends_nothing_more() {
        let server = UdpSocket::bind("[::1]:0").unwrap();
        let connected = UdpSocket::bind("[::1]:0").unwrap();
        connected.connect(server.local_addr().unwrap()).unwrap();
        disconnect(&connected).unwrap();
        assert!(connected.send(b"x").is_err());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        disconnect(&stream).unwrap();
        assert!(std::io::Write::write(&mut stream, b"x").is_err());
    }
}
