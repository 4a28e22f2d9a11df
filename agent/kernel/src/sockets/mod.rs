//! Sockets that governed processes opened before they were governed: no hook saw them made, and the guard doesn't know
//! them. They are ended; what can't be is stamped, so that the guard knows it from then on.
//!
//! A socket counts as a process's by the descriptors of its threads. One that the process shares with an ungoverned process
//! is that one's and stays, such as the connection that an SSH login came by; unless a governed user made it, or whoever was
//! in a governed cgroup. One that nobody holds, on its way between processes or io_uring's, counts by those alone. One that
//! is closed, and only sends what it had been given, is left to end by itself.

mod diag;
mod holders;
mod iterators;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::AddressFamily;

pub use self::diag::Protocol;
use self::diag::{Diag, Id};
use self::holders::Holders;
pub(crate) use self::iterators::Iterators;
use crate::KernelError;
use crate::cgroup::Hierarchy;
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

/// A socket as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    /// In this process's user namespace.
    uid: u32,
    /// Zero if it is closed, or not accepted yet.
    inode: u64,
    /// The cgroup that it was made in; zero if that isn't told.
    cgroup: u64,
    /// Whether it carries a stamp, where that is told.
    stamped: Option<bool>,
    handle: Handle,
}

/// What a socket is known by to whoever ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handle {
    Id(Id),
    Cookie(u64),
}

/// What became of older sockets.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Those that were found.
    pub(crate) older: Vec<OlderSocket>,
    /// What could not be looked at, or done.
    pub(crate) trouble: Vec<KernelError>,
}

/// Whose sockets are older ones.
pub(crate) struct Whose<'a> {
    pub(crate) governed: &'a Governed,
    pub(crate) hierarchy: &'a Hierarchy,
}

/// Ends and stamps older sockets. `subjects_of` knows the active subjects of a process. Without `iterators` it is done by
/// sock_diag. What goes wrong with one namespace or socket keeps no other from its end.
pub(crate) fn end_older(
    stamps: &mut StampTable,
    mut iterators: Option<&mut Iterators>,
    subjects_of: impl Fn(u32) -> u64,
    whose: &Whose<'_>,
) -> Ended {
    let mut all = Ended::default();
    for _ in 0..MAX_PASSES {
        let mut pass = Ended::default();
        if let Err(error) = pass.run(stamps, iterators.as_deref_mut(), &subjects_of, whose) {
            pass.trouble.push(error);
        }
        let done = !pass.older.iter().any(|socket| socket.ended);
        all.older.extend(pass.older);
        // What was mended meanwhile is no trouble.
        all.trouble = pass.trouble;
        if done {
            break;
        }
    }
    all
}

impl Ended {
    fn run(
        &mut self,
        stamps: &mut StampTable,
        mut iterators: Option<&mut Iterators>,
        subjects_of: impl Fn(u32) -> u64,
        whose: &Whose<'_>,
    ) -> Result<(), KernelError> {
        let mut holders = Holders::find(subjects_of)?;
        holders.look_for(stamps)?;
        for namespace in holders.namespaces()? {
            let iterators = iterators.as_deref_mut();
            match inside(namespace, || end_here(iterators, &holders, whose)) {
                Ok(older) => self.older.extend(older),
                Err(error) => self.trouble.push(error),
            }
        }
        // Not before: the guard would drop the resets that tell the other ends.
        self.trouble.extend(holders.stamp(stamps));
        Ok(())
    }
}

impl Whose<'_> {
    /// Whether a governed user made the socket, or whoever was in a governed cgroup; of one that nobody holds also whether a
    /// user did of whom governed processes run, where groups are governed: no socket tells the group.
    fn made(&self, socket: &Listed, holders: &Holders, places: &mut HashMap<u64, u64>) -> bool {
        let Self { governed, hierarchy } = self;
        let by_group =
            || governed.names_groups() && holders.is_loose(socket.inode) && holders.runs_as(socket.uid);
        let mut in_place = || {
            let lineage =
                |id: &u64| hierarchy.path(*id).map_or(0, |path| governed.of_place(&path, hierarchy));
            *places.entry(socket.cgroup).or_insert_with_key(lineage) != 0
        };
        governed.of_user(socket.uid) != 0
            || by_group()
            || socket.cgroup != 0 && governed.names_cgroups() && in_place()
    }
}

/// Ends the older sockets of the thread's network namespace.
fn end_here(
    mut iterators: Option<&mut Iterators>,
    holders: &Holders,
    whose: &Whose<'_>,
) -> io::Result<Vec<OlderSocket>> {
    let (mut found, mut places) = (Vec::new(), HashMap::new());
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut listed = match iterators.as_deref() {
            Some(iterators) => iterators.list(protocol)?,
            None => list_by_diag(protocol)?,
        };
        listed.retain(|socket| {
            socket.inode != 0 && holders.is_older(socket, || whose.made(socket, holders, &mut places))
        });
        let ended = match iterators.as_deref_mut() {
            Some(iterators) => end_by_iterator(iterators, protocol, listed)?,
            None => end_by_diag(listed)?,
        };
        found.extend(ended.into_iter().map(|(socket, ended)| OlderSocket {
            pid: holders.holder(socket.inode),
            uid: socket.uid,
            protocol: socket.protocol,
            local: socket.local,
            remote: socket.remote,
            ended,
        }));
    }
    Ok(found)
}

/// Ends these. Answers those that were still there, which this always ends.
fn end_by_iterator(
    iterators: &mut Iterators,
    protocol: Protocol,
    sockets: Vec<Listed>,
) -> io::Result<Vec<(Listed, bool)>> {
    let cookie = |socket: &Listed| match socket.handle {
        Handle::Cookie(cookie) => Some(cookie),
        Handle::Id(_) => None,
    };
    let cookies: Vec<u64> = sockets.iter().filter_map(cookie).collect();
    let ended = iterators.end(protocol, &cookies)?;
    let was_there = |socket: &Listed| cookie(socket).is_some_and(|cookie| ended.contains(&cookie));
    Ok(sockets.into_iter().filter(was_there).map(|socket| (socket, true)).collect())
}

fn list_by_diag(protocol: Protocol) -> io::Result<Vec<Listed>> {
    let diag = Diag::open()?;
    let mut listed = diag.list(AddressFamily::Inet, protocol)?;
    listed.extend(diag.list(AddressFamily::Inet6, protocol)?);
    Ok(listed)
}

/// Ends these. Answers those that were still there, and whether the kernel could end them.
fn end_by_diag(sockets: Vec<Listed>) -> io::Result<Vec<(Listed, bool)>> {
    let diag = Diag::open()?;
    let mut found = Vec::new();
    for socket in sockets {
        let Handle::Id(id) = &socket.handle else { continue };
        match diag.destroy(socket.protocol, id) {
            Ok(true) => found.push((socket, true)),
            // It was gone already.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, local = %socket.local, "an older socket can't be ended");
                found.push((socket, false));
            }
        }
    }
    Ok(found)
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
