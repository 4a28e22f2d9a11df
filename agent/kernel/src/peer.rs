//! Who is at the other end of a Unix socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use procfs::process::Process;

/// The process that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/pid/stat`, field 22).
    pub started: u64,
    /// Its effective user id when it connected.
    pub uid: u32,
}

/// The process that connected this socket, by SO_PEERCRED and its pidfd. Where the kernel has no SO_PEERPIDFD (before
/// 6.5), the process that has the id now counts if it is of the same user.
///
/// # Errors
///
/// The process has ended, or its id is another's by now.
pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the process that connected has ended");
    let credentials = getsockopt(&socket.as_fd(), PeerCredentials)?;
    let id = credentials.pid();
    let (descriptor, exact) = match peer_descriptor(socket.as_fd().as_raw_fd()) {
        Ok(descriptor) => (descriptor, true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => (open(id)?, false),
        Err(_) => return Err(gone()),
    };
    let process = Process::new(id).map_err(|_| gone())?;
    let started = process.stat().map_err(|_| gone())?.starttime;
    let same_user = exact || process.status().is_ok_and(|status| status.euid == credentials.uid());
    // While the described process lives, its id is nobody else's: what was read is of this one.
    if has_ended(&descriptor)? || !same_user {
        return Err(gone());
    }
    let pid = u32::try_from(id).map_err(|_| gone())?;
    Ok(Peer { pid, started, uid: credentials.uid() })
}

fn peer_descriptor(socket: RawFd) -> io::Result<OwnedFd> {
    let mut descriptor: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: the option writes one descriptor, for which there is room, and its length is told.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two numbers and returns a new descriptor or an error.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let opened = RawFd::try_from(opened).map_err(io::Error::other)?;
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// A pidfd is readable once its process has ended.
fn has_ended(descriptor: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_peer_is_the_process_that_connected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.started, Process::myself().unwrap().stat().unwrap().starttime);
    }

    #[test]
    fn a_peer_that_left_its_socket_to_a_child_and_ended_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let script = "import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
if os.fork(): os._exit(0)
s.send(b'x'); sys.stdin.read()";
        let mut parent =
            Command::new("python3").args(["-c", script]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let input = parent.stdin.take().unwrap();
        parent.wait().unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut &accepted, &mut byte).unwrap();
        assert_eq!(peer(&accepted).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(input);
    }
}
