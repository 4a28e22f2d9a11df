//! What the kernel captured of a redirected connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tidegate_abi::{Handoff, HandoffKey, Identity};

use crate::UnixResource;
use crate::rulebook::Subjects;
use crate::rules::mapped;

/// What the kernel captured of a redirected connection, at its connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Where the client meant to connect; unspecified if that was a Unix socket.
    pub destination: SocketAddr,
    /// That Unix socket.
    pub socket: Option<UnixResource>,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start of the process in ns since boot; with the pid, its identity. Zero if it could not be read.
    pub started: u64,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The user whose sub-uid that is, if it is one.
    pub sub_uid_of: Option<u32>,
    /// Real group id.
    pub gid: u32,
    /// Id of the cgroup v2.
    pub cgroup_id: u64,
    /// Command name, as `/proc/pid/comm` has it.
    pub command: Arc<str>,
    /// When the connect was decided, in ns since boot.
    pub connected_at: u64,
    /// The subjects that the process or its socket belongs to, in the active rules.
    pub subjects: Vec<Arc<str>>,
}

impl Captured {
    /// The user id of whoever answers for the process: a sub-uid counts as the user whose it is.
    pub fn account(&self) -> u32 {
        self.sub_uid_of.unwrap_or(self.uid)
    }

    pub(crate) fn new(handoff: &Handoff, subjects: &Subjects) -> Self {
        let destination = SocketAddr::new(unmapped(handoff.address), handoff.port);
        Self::of(&handoff.identity, destination, handoff.connected_at, subjects)
    }

    /// A connection to a Unix socket that leads to the agent, at `now` in ns since boot.
    pub(crate) fn by_unix_socket(
        identity: &Identity,
        socket: UnixResource,
        now: u64,
        subjects: &Subjects,
    ) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { socket: Some(socket), ..Self::of(identity, nowhere, now, subjects) }
    }

    fn of(identity: &Identity, destination: SocketAddr, connected_at: u64, subjects: &Subjects) -> Self {
        let command = identity.command.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            destination,
            socket: None,
            pid: identity.tgid,
            started: identity.started,
            uid: identity.uid,
            sub_uid_of: (identity.owner != identity.uid).then_some(identity.owner),
            gid: identity.gid,
            cgroup_id: identity.cgroup,
            command: String::from_utf8_lossy(command).into(),
            connected_at,
            subjects: subjects.bits.names(identity.subjects & subjects.active),
        }
    }
}

/// The key of a connection between two ends, as the accepting side sees them.
pub(crate) fn key(netns: u64, client: SocketAddr, listener: SocketAddr) -> HandoffKey {
    HandoffKey {
        netns,
        source: mapped(client.ip()),
        listener: mapped(listener.ip()),
        source_port: client.port(),
        listener_port: listener.port(),
        reserved: 0,
    }
}

fn unmapped(address: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(address);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SubjectBits;

    #[test]
    fn an_ipv4_client_has_the_same_key_whether_seen_as_ipv4_or_mapped() {
        let listener: SocketAddr = "127.0.0.1:9000".parse().unwrap();
        let plain = key(1, "127.0.0.1:50000".parse().unwrap(), listener);
        let mapped = key(1, "[::ffff:127.0.0.1]:50000".parse().unwrap(), listener);
        assert_eq!(plain, mapped);
    }

    #[test]
    fn a_command_ends_at_its_first_nul() {
        let mut handoff = Handoff { port: 5432, ..Handoff::default() };
        handoff.address = mapped("10.0.0.1".parse().unwrap());
        handoff.identity.command = *b"psql\0stale bytes";
        let captured = Captured::new(&handoff, &Subjects { bits: SubjectBits::default(), active: 0 });
        assert_eq!(&*captured.command, "psql");
        assert_eq!(captured.destination, "10.0.0.1:5432".parse().unwrap());
    }
}
