//! Sockets that governed processes opened before they were governed: no hook saw them made, and the guard doesn't know
//! them. They are ended; what can't be is stamped, so that the guard knows it from then on.
//!
//! A socket counts as a process's by its descriptors. One that the process shares with an ungoverned process is that one's
//! and stays, such as the connection that an SSH login came by; unless a governed user made it. One that nobody holds, on
//! its way between processes, counts by the user who made it. One that is closed, and only sends what it had been given,
//! is left to end by itself.

mod diag;
mod holders;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::AddressFamily;

pub use self::diag::Protocol;
use self::diag::{Diag, Listed};
use self::holders::Holders;
use crate::KernelError;
use crate::governed::Governed;
use crate::tables::StampTable;

/// Each pass can find sockets that were handed on during the one before.
const MAX_PASSES: usize = 8;

/// A socket that was open before its process was governed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderSocket {
    /// A process that held it; none if it was on its way between processes.
    pub pid: Option<u32>,
    /// The user who made it.
    pub uid: u32,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; unspecified for a listener.
    pub remote: SocketAddr,
    /// Whether it was ended. If the kernel can't, the guard drops what of its packets is not passed.
    pub ended: bool,
}

/// Ends and stamps older sockets. `subjects_of` knows the active subjects of a process, `governed` whose users are.
pub(crate) fn end_older(
    stamps: &mut StampTable,
    subjects_of: impl Fn(u32) -> u64,
    governed: &Governed,
) -> Result<Vec<OlderSocket>, KernelError> {
    let mut found = Vec::new();
    for _ in 0..MAX_PASSES {
        let mut holders = Holders::find(&subjects_of)?;
        holders.look_for(stamps)?;
        let mut passed = Vec::new();
        for namespace in holders.namespaces()? {
            passed.extend(inside(namespace, || end_here(&holders, governed))?);
        }
        // Not before: the guard would drop the resets that tell the other ends.
        holders.stamp(stamps)?;
        let ended = passed.iter().any(|socket| socket.ended);
        found.extend(passed);
        if !ended {
            break;
        }
    }
    Ok(found)
}

/// Ends the older sockets of the thread's network namespace.
fn end_here(holders: &Holders, governed: &Governed) -> io::Result<Vec<OlderSocket>> {
    let diag = Diag::open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for socket in diag.list(family, protocol)? {
                if socket.inode != 0 && holders.is_older(socket.inode, governed.of_user(socket.uid) != 0) {
                    found.extend(end(&diag, &socket, holders));
                }
            }
        }
    }
    Ok(found)
}

/// None if it was gone already.
fn end(diag: &Diag, socket: &Listed, holders: &Holders) -> Option<OlderSocket> {
    let ended = match diag.destroy(socket) {
        Ok(false) => return None,
        Ok(true) => true,
        Err(error) => {
            tracing::warn!(%error, local = %socket.local, "an older socket can't be ended");
            false
        }
    };
    Some(OlderSocket {
        pid: holders.holder(socket.inode),
        uid: socket.uid,
        protocol: socket.protocol,
        local: socket.local,
        remote: socket.remote,
        ended,
    })
}

/// Runs this in a network namespace.
fn inside<T: Send>(namespace: File, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T, KernelError> {
    let failed = |error| KernelError::System { what: "the sockets that were open before", error };
    let own = File::open("/proc/thread-self/ns/net").and_then(|own| own.metadata()).map_err(failed)?;
    if namespace.metadata().map_err(failed)?.ino() == own.ino() {
        return work().map_err(failed);
    }
    // A thread of its own, because the namespace is a thread's.
    let entered = thread::scope(|scope| {
        let entered = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread in its namespace failed")))
    });
    entered.map_err(failed)
}
