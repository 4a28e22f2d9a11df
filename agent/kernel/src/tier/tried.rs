//! A process that does one forbidden thing in a cgroup of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe2};

use crate::cgroup::Hierarchy;
use crate::tier::place::Place;
use crate::tier::program::{Attachment, Program};

/// The security hook of socket(2).
const SOCKET_HOOK: &str = "bpf_lsm_socket_create";
/// Length of the name of [`unix_server`], in bytes.
const NAME: usize = 24;

/// How an attempt is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    NotPermitted = libc::EPERM as isize,
    HostUnreachable = libc::EHOSTUNREACH as isize,
}

/// The forbidden thing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attempt {
    /// A UDP socket.
    Socket,
    /// A Unix socket.
    UnixSocket,
    /// A TCP connection to a port of 127.0.0.1.
    Connect(u16),
    /// A datagram to a port of 127.0.0.1.
    Datagram(u16),
    /// A port.
    Bind,
    /// A socket option.
    Option,
    /// A connection to a Unix socket of this abstract name.
    Unix([u8; NAME]),
}

/// Where attempts are made.
#[derive(Debug)]
pub(super) struct Trial {
    place: Place,
}

impl Trial {
    pub(super) fn new(hierarchy: &Hierarchy) -> io::Result<Self> {
        Ok(Self { place: Place::new(hierarchy)? })
    }

    /// Checks that an attempt succeeds, and fails once a program refuses it.
    pub(super) fn forbids(&self, at: Attachment, attempt: Attempt, errno: Errno) -> Result<(), String> {
        self.forbids_with(&Program::refuse(), at, attempt, errno)
    }

    /// The same with another program.
    pub(super) fn forbids_with(
        &self,
        program: &Program,
        at: Attachment,
        attempt: Attempt,
        errno: Errno,
    ) -> Result<(), String> {
        self.succeeds(attempt)?;
        let _attached = program.attach(self.place.directory.as_fd(), at)?;
        expect(self.run(attempt, |_| Ok(()))?, errno)
    }

    /// The same with an LSM program, which refuses the trying process and no other.
    pub(super) fn forbids_by_lsm(&self) -> Result<(), String> {
        self.succeeds(Attempt::UnixSocket)?;
        let mut attached = None;
        let failed = self.run(Attempt::UnixSocket, |process| {
            attached = Some(Program::refuse_process(process).attach_to_hook(SOCKET_HOOK)?);
            Ok(())
        })?;
        drop(attached);
        expect(failed, Errno::NotPermitted)
    }

    fn succeeds(&self, attempt: Attempt) -> Result<(), String> {
        match self.run(attempt, |_| Ok(()))? {
            0 => Ok(()),
            errno => {
                Err(format!("it fails without any program too: {}", io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// Makes the attempt in a process in the cgroup, once `prepare` has been told its id. Its errno; zero on success.
    fn run(&self, attempt: Attempt, prepare: impl FnOnce(i32) -> Result<(), String>) -> Result<i32, String> {
        let failed = |error: nix::Error| format!("a process to try with: {error}");
        let (wait, go): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        // SAFETY: the child calls nothing but async-signal-safe functions until it exits, and allocates nothing: this
        // process may have other threads.
        match unsafe { fork() }.map_err(failed)? {
            ForkResult::Child => self.child(attempt, wait.as_raw_fd(), go.as_raw_fd()),
            ForkResult::Parent { child } => {
                let prepared = prepare(child.as_raw());
                if prepared.is_ok() {
                    // If it is gone already, its status says so.
                    File::from(go).write_all(b"g").ok();
                } else {
                    drop(go);
                }
                let status = waitpid(child, None).map_err(failed)?;
                prepared?;
                match status {
                    WaitStatus::Exited(_, code) => Ok(code),
                    other => Err(format!("the process that tried it ended otherwise: {other:?}")),
                }
            }
        }
    }

    /// The child's whole life.
    fn child(&self, attempt: Attempt, wait: i32, go: i32) -> ! {
        let mut byte = 0_u8;
        // SAFETY: only async-signal-safe calls on descriptors that this process inherited and on values of its own.
        unsafe {
            // So that the end of the parent is seen.
            libc::close(go);
            if libc::read(wait, (&raw mut byte).cast(), 1) != 1
                || libc::write(self.place.processes.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                libc::_exit(libc::EXIT_FAILURE + 200);
            }
            libc::_exit(attempt.make())
        }
    }
}

fn expect(found: i32, errno: Errno) -> Result<(), String> {
    match found {
        0 => Err("the program runs, and nothing is refused".to_owned()),
        found if found == errno as i32 => Ok(()),
        found => Err(format!("it is refused otherwise: {}", io::Error::from_raw_os_error(found))),
    }
}

impl Attempt {
    /// Makes it; its errno, or zero. Async-signal-safe.
    ///
    /// # Safety
    ///
    /// None of its own: it is unsafe as every call it makes.
    unsafe fn make(self) -> i32 {
        // SAFETY: the addresses are of values of ours, with their true lengths; descriptors end with the process.
        let result = unsafe {
            match self {
                Self::Socket => libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
                Self::UnixSocket => libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
                Self::Connect(port) => {
                    let (address, length) = loopback(port);
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                    libc::connect(fd, (&raw const address).cast(), length)
                }
                Self::Datagram(port) => {
                    let (address, length) = loopback(port);
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
                    libc::sendto(fd, c"x".as_ptr().cast(), 1, 0, (&raw const address).cast(), length) as i32
                }
                Self::Bind => {
                    let (address, length) = loopback(0);
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                    libc::bind(fd, (&raw const address).cast(), length)
                }
                Self::Option => {
                    let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                    let one = 1;
                    libc::setsockopt(
                        fd,
                        libc::SOL_SOCKET,
                        libc::SO_KEEPALIVE,
                        (&raw const one).cast(),
                        size_of::<i32>() as libc::socklen_t,
                    )
                }
                Self::Unix(name) => {
                    let mut address: libc::sockaddr_un = core::mem::zeroed();
                    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
                    for (to, from) in address.sun_path.iter_mut().skip(1).zip(name) {
                        *to = from.cast_signed();
                    }
                    let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
                    let length = size_of::<libc::sa_family_t>() + 1 + NAME;
                    libc::connect(fd, (&raw const address).cast(), length as libc::socklen_t)
                }
            }
        };
        if result >= 0 {
            return 0;
        }
        // SAFETY: always valid for this thread.
        unsafe { *libc::__errno_location() }
    }
}

fn loopback(port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    };
    (address, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

/// A server on an abstract Unix socket, and its name.
pub(super) fn unix_server() -> io::Result<(UnixListener, [u8; NAME])> {
    let mut name = [b'.'; NAME];
    let text = format!("tidegate-trial-{}", std::process::id());
    name.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    let server = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    Ok((server, name))
}
