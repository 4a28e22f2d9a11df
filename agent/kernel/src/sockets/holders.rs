//! Which processes hold which sockets.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use tidegate_abi::Stamp;

use crate::KernelError;
use crate::tables::StampTable;

/// Who holds one socket.
#[derive(Debug, Default)]
struct Holding {
    /// A governed process and its descriptor.
    governed: Option<(u32, i32)>,
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
}

impl Holders {
    pub(super) fn find(subjects_of: impl Fn(u32) -> u64) -> Result<Self, KernelError> {
        let processes = procfs::process::all_processes().map_err(|error| KernelError::System {
            what: "the list of running processes",
            error: io::Error::other(error),
        })?;
        let mut holders = Self { sockets: HashMap::new(), governed: Vec::new() };
        for process in processes.flatten() {
            let Ok(pid) = u32::try_from(process.pid) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let subjects = subjects_of(pid);
            if subjects != 0 {
                holders.governed.push(pid);
            }
            // A process may end at any point of this.
            for descriptor in process.fd().into_iter().flatten().flatten() {
                if let procfs::process::FDTarget::Socket(inode) = descriptor.target {
                    holders.sockets.entry(inode).or_default().add(pid, descriptor.fd, subjects);
                }
            }
        }
        Ok(holders)
    }

    /// Whether this is a socket of governed processes that no hook has seen. `by_user`: a governed user made it.
    pub(super) fn is_older(&self, inode: u64, by_user: bool) -> bool {
        match self.sockets.get(&inode) {
            Some(holding) if holding.governed.is_some() => !holding.stamped && (by_user || !holding.shared),
            Some(_) => false,
            None => by_user,
        }
    }

    /// A governed process that holds it.
    pub(super) fn holder(&self, inode: u64) -> Option<u32> {
        self.sockets.get(&inode)?.governed.map(|(pid, _)| pid)
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

    /// Stamps the IP sockets that only governed processes hold.
    pub(super) fn stamp(&self, stamps: &mut StampTable) -> Result<(), KernelError> {
        for holding in self.sockets.values().filter(|holding| !holding.stamped && !holding.shared) {
            if let Some((pid, socket)) = holding.governed_ip_socket() {
                let mut stamp = Stamp { netns: netns(&socket), ..Stamp::default() };
                stamp.handoff.identity.subjects = holding.subjects;
                stamp.handoff.identity.tgid = pid;
                stamps.set(&socket, &stamp)?;
            }
        }
        Ok(())
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
    fn add(&mut self, pid: u32, descriptor: i32, subjects: u64) {
        if subjects == 0 {
            self.shared = true;
        } else {
            self.governed.get_or_insert((pid, descriptor));
            self.subjects |= subjects;
        }
    }

    /// The governed process that holds it, and the socket; none if it isn't one of IP, or closed by now.
    fn governed_ip_socket(&self) -> Option<(u32, OwnedFd)> {
        let (pid, descriptor) = self.governed?;
        let socket = borrow(pid, descriptor).ok()?;
        is_ip(&socket).then_some((pid, socket))
    }
}

/// Another process's descriptor, as one of ours (pidfd_getfd(2)).
fn borrow(pid: u32, descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the first descriptor is open, the second need not be.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
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
    use super::*;

    fn holders(holding: Holding) -> Holders {
        Holders { sockets: HashMap::from([(7, holding)]), governed: vec![10] }
    }

    fn held(governed: bool, shared: bool, stamped: bool) -> Holding {
        Holding { governed: governed.then_some((10, 3)), subjects: u64::from(governed), shared, stamped }
    }

    #[test]
    fn a_governed_processs_socket_is_older_unless_stamped_or_shared() {
        assert!(holders(held(true, false, false)).is_older(7, false));
        assert!(!holders(held(true, false, true)).is_older(7, true));
        assert!(!holders(held(true, true, false)).is_older(7, false));
    }

    #[test]
    fn a_shared_socket_that_a_governed_user_made_is_older() {
        assert!(holders(held(true, true, false)).is_older(7, true));
    }

    #[test]
    fn what_nobody_holds_counts_by_its_user_and_what_only_others_hold_does_not() {
        assert!(holders(held(true, false, false)).is_older(8, true));
        assert!(!holders(held(true, false, false)).is_older(8, false));
        assert!(!holders(held(false, true, false)).is_older(7, true));
    }

    #[test]
    fn a_descriptor_of_this_process_can_be_borrowed() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let borrowed = borrow(std::process::id(), socket.as_raw_fd()).unwrap();
        assert!(is_ip(&borrowed));
        assert_ne!(netns(&borrowed), 0);
        assert!(!is_ip(&File::open("/dev/null").unwrap()));
    }
}
