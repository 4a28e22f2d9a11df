//! What the eBPF programs and user space must agree on, byte for byte.
//!
//! Every type is `repr(C)`, has no implicit padding (map keys are compared as bytes) and accepts any bit pattern.
//! Addresses are 16 bytes in network order, IPv4 as its IPv4-mapped form; ports are in host order.
#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

pub mod shield;
#[cfg(feature = "user")]
mod user;

/// An address in network order; IPv4 addresses in their IPv4-mapped form (RFC 4291, 2.5.5.2).
pub type Address = [u8; 16];

/// The first twelve bytes of every IPv4-mapped address.
pub const V4_MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Most subjects that can be told apart for as long as the programs are attached: one bit each of a label.
pub const MAX_SUBJECTS: u32 = 64;

/// Most labelled processes at one time.
pub const MAX_LABELS: usize = 65_536;

/// Most redirected connections that wait to be accepted.
pub const MAX_HANDOFFS: usize = 65_536;

/// Most redirected connections of one user that wait to be accepted: nobody fills the table, or a listener's queue, for the
/// others.
pub const MAX_HANDOFFS_PER_USER: u64 = 1_024;

/// Most users whose waiting connections are counted.
pub const MAX_WAITERS: usize = 16_384;

/// Stands for all users together where they are counted: no user has this id.
pub const ALL_USERS: u32 = u32::MAX;

/// Stands for the users together who found no room for a count of their own: no user has this id either.
pub const OTHER_USERS: u32 = u32::MAX - 1;

/// Most senders of DNS questions that are remembered, the latest ones.
pub const MAX_ASKERS: usize = 16_384;

/// Most user, group and cgroup ids of the old and the new generation together.
pub const MAX_SUBJECT_IDS: usize = 32_768;

/// Most destinations of the old and the new generation together.
pub const MAX_DESTINATIONS: usize = 131_072;

/// Most network namespaces that the agent listens in.
pub const MAX_LISTENERS: usize = 4_096;

/// Most prefixes of sub-uid ranges of the old and the new generation together.
pub const MAX_SUB_USERS: usize = 16_384;

/// Most cgroups that the old and the new generation together name by path, and most units.
pub const MAX_CGROUP_NAMES: usize = 2_048;

/// Most slices of the service manager's.
pub const MAX_SLICES: usize = 16_384;

/// How deep below the root a cgroup that is a subject may lie; processes may lie deeper.
pub const MAX_CGROUP_DEPTH: u32 = 32;

/// Slots of the generation table: the active generation and the one that is being written.
pub const GENERATION_SLOTS: u32 = 2;

/// What stays the same while the programs are loaded; set by user space before loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Host {
    /// Offset of `pid` in the running kernel's `struct task_struct`, in bytes.
    pub task_pid: u32,
    /// Offset of `tgid`.
    pub task_tgid: u32,
    /// Offset of `group_leader`.
    pub task_group_leader: u32,
    /// Offset of `start_boottime`.
    pub task_start_boottime: u32,
    /// Offset of `nsproxy`.
    pub task_nsproxy: u32,
    /// Offset of `net_ns` in `struct nsproxy`.
    pub nsproxy_net_ns: u32,
    /// Offset of `net_cookie` in `struct net`.
    pub net_cookie: u32,
    /// Offset of `root` in `struct cgroup`.
    pub cgroup_root: u32,
    /// Offset of `hierarchy_id` in `struct cgroup_root`.
    pub root_hierarchy: u32,
    /// Offset of `kn` in `struct cgroup`.
    pub cgroup_kn: u32,
    /// Offset of `id` in `struct kernfs_node`.
    pub kernfs_id: u32,
    /// Offset of `name`.
    pub kernfs_name: u32,
    /// Offset of `parent`, which newer kernels call `__parent`.
    pub kernfs_parent: u32,
}

/// How old the agent's last sign of life may be, in ns, for connections to be sent to it.
pub const LIFE_SIGN_LIMIT: u64 = 5_000_000_000;

/// Nanoseconds of one clock tick of `/proc/PID/stat` (`USER_HZ` is 100 wherever Linux runs).
pub const NS_PER_TICK: u64 = 10_000_000;

/// The agent, as the programs know it. It may be gone: the programs stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Agent {
    /// Start of its process in clock ticks since boot: its id may have passed to another since.
    pub started: u64,
    /// Its last sign of life, in ns since boot.
    pub seen: u64,
    /// Its process id in the initial pid namespace. That process is never governed.
    pub process: u32,
    /// One while it accepts connections.
    pub serving: u32,
}

/// What a subject's bit stands for: the SHA-256 of the subject's name, or zeroes for nothing yet.
pub type SubjectDigest = [u8; 32];

/// One generation of the rules, in slot `number % GENERATION_SLOTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Generation {
    /// Counts up from one; zero means that no rules were given yet.
    pub number: u32,
    /// [`LOOKS_AT_CGROUPS`] and the like: hosts whose rules name none don't look.
    pub looks: u32,
    /// The subjects that exist in this generation. Other bits of a label govern nothing.
    pub subjects: u64,
}

/// [`Generation::looks`]: there are subjects by cgroup or unit.
pub const LOOKS_AT_CGROUPS: u32 = 1;
/// [`Generation::looks`]: there are ranges of sub-uids.
pub const LOOKS_AT_SUB_USERS: u32 = 2;
/// [`Generation::looks`]: there are subjects by user.
pub const LOOKS_AT_USERS: u32 = 4;
/// [`Generation::looks`]: there are subjects by group.
pub const LOOKS_AT_GROUPS: u32 = 8;

/// The kind of id that a subject is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SubjectKind {
    /// Real user id in the initial user namespace.
    User = 1,
    /// Real group id.
    Group = 2,
    /// Id of a cgroup v2, or of any of its ancestors.
    Cgroup = 3,
}

/// Key of the subjects of a generation; the value is the set of subject bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SubjectKey {
    /// [`Generation::number`].
    pub generation: u32,
    /// [`SubjectKind`].
    pub kind: u32,
    /// The user, group or cgroup id.
    pub id: u64,
}

/// Data of a sub-uid's longest-prefix key: all of the generation, then a prefix of the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SubUserKey {
    /// [`Generation::number`].
    pub generation: u32,
    /// The user id, highest byte first.
    pub uid: [u8; 4],
}

impl SubUserKey {
    /// Bits before the user id.
    pub const FIXED_BITS: u32 = 32;
    /// Bits of a lookup.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 32;
}

/// Whom a sub-uid counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SubUser {
    /// The subjects that its user was named for.
    pub subjects: u64,
    /// The user.
    pub owner: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bytes of a cgroup's path that are looked at, with a NUL at least.
pub const CGROUP_PATH_BYTES: usize = 248;

/// Key of the cgroups that are named by path; the value is the set of subject bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupPath {
    /// [`Generation::number`].
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
    /// From the hierarchy's root, with a leading slash; NUL-padded.
    pub path: [u8; CGROUP_PATH_BYTES],
}

/// Bytes of a unit's name that are looked at, with a NUL at least.
pub const UNIT_NAME_BYTES: usize = 120;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum UnitKind {
    /// `.service`.
    Service = 1,
    /// `.scope`.
    Scope = 2,
    /// `.slice`.
    Slice = 3,
}

/// Data of a unit's longest-prefix key: all of generation and kind, then a prefix of the name, or all of it with its NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnitName {
    /// [`Generation::number`].
    pub generation: u32,
    /// [`UnitKind`].
    pub kind: u32,
    /// The name with its ending, NUL-padded.
    pub name: [u8; UNIT_NAME_BYTES],
}

impl UnitName {
    /// Bits before the name.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of a lookup.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 8 * UNIT_NAME_BYTES as u32;
}

/// What is known of a labelled process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Label {
    /// Subject bits. Bits are added, never taken away, until the process ends.
    pub subjects: u64,
    /// Start of the thread-group leader in ns since boot; zero when user space labelled it and the kernel hasn't met it
    /// since.
    pub started: u64,
}

/// Data of a destination's longest-prefix key: all of generation and port, then a prefix of the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DestinationKey {
    /// [`Generation::number`].
    pub generation: u32,
    /// Destination port; zero is the table of rules for any port.
    pub port: u16,
    /// The address.
    pub address: Address,
    /// Zero.
    pub reserved: u16,
}

impl DestinationKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 48;
    /// Bits of a lookup.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;
}

/// What all rules together say of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Destination {
    /// Subjects that may go there directly.
    pub pass: u64,
    /// One if TCP to it goes through the gate, whoever asks. Wins over `pass`.
    pub redirect: u64,
}

/// The agent's listeners in one network namespace: TCP for connections, UDP at the same ports for DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Listeners {
    /// Port on 127.0.0.1.
    pub v4: u16,
    /// Port on ::1.
    pub v6: u16,
}

impl Listeners {
    /// Whether the agent uses this port.
    pub fn has(&self, port: u16) -> bool {
        port == self.v4 || port == self.v6
    }
}

/// A network namespace that a governed process is in and the agent doesn't listen in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceSeen {
    /// Its cookie.
    pub netns: u64,
    /// The process, by its id in the initial pid namespace.
    pub pid: u32,
    /// Its real user id in the initial user namespace, or whose sub-uid that is.
    pub uid: u32,
}

/// Size of the ring that namespaces are told through, in bytes.
pub const NAMESPACES_BYTES: usize = 64 * 1024;

/// How soon a namespace is told again, in ns.
pub const TOLD_AGAIN_AFTER: u64 = 10_000_000;

/// The process that made or connected a socket, as the kernel saw it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// Subject bits of the process and of its socket.
    pub subjects: u64,
    /// Id of the cgroup v2.
    pub cgroup: u64,
    /// Start of the thread-group leader, ns since boot.
    pub started: u64,
    /// Process id (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// The user that this one counts as where connections are counted: itself, or whose sub-uid it is.
    pub owner: u32,
    /// Command name, NUL-padded.
    pub command: [u8; 16],
}

/// One redirected connection on its way to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Handoff {
    /// Who connected.
    pub identity: Identity,
    /// Cookie of the client's socket.
    pub cookie: u64,
    /// When the connect was decided, ns since boot.
    pub connected_at: u64,
    /// Where the client meant to connect.
    pub address: Address,
    /// The port it meant.
    pub port: u16,
    /// One if it counts among those of [`OTHER_USERS`].
    pub counts_as_other: u16,
    /// One once the listener's side of the connection exists, which from then on owns the entry.
    pub arrived: u32,
}

impl Handoff {
    /// Where it counts while it waits: its owner, or [`OTHER_USERS`].
    pub fn counted(&self) -> u32 {
        if self.counts_as_other == 0 { self.identity.owner } else { OTHER_USERS }
    }
}

/// Names one connection in one network namespace, by the two ends that the agent sees when it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandoffKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The client's address.
    pub source: Address,
    /// The listener's address.
    pub listener: Address,
    /// The client's port.
    pub source_port: u16,
    /// The listener's port.
    pub listener_port: u16,
    /// Zero.
    pub reserved: u32,
}

/// How many redirected connections of a user there were, as the programs know it. What the agent took of them it counts
/// itself, in a table of its own, so that neither writes what the other does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// Entries made.
    pub offered: u64,
    /// Entries that went with a socket, before the agent took them.
    pub ended: u64,
    /// What this version doesn't know.
    #[cfg(feature = "other-layout")]
    pub unknown: u64,
}

/// What a socket of a governed process carries, from its creation to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    /// The hand-off that the next connection makes; its identity is that of the governed process that made the socket, or
    /// used it first, until one connects.
    pub handoff: Handoff,
    /// Cookie of the network namespace that the socket belongs to; zero only in a stamp that is being made.
    pub netns: u64,
    /// Zero, or [`ASKING`], or [`CONNECTED`].
    pub redirected: u64,
}

/// [`Stamp::redirected`]: a datagram of the socket was sent to the agent.
pub const ASKING: u64 = 1;
/// [`Stamp::redirected`]: the socket's last connect was redirected to the agent.
pub const CONNECTED: u64 = 2;

/// Names the hand-off that a socket (either end) answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pending {
    /// The entry.
    pub key: HandoffKey,
    /// [`Handoff::cookie`] of the entry that is meant: the same key can name a later connection.
    pub cookie: u64,
    /// One for the listener's end, zero for the client's.
    pub listening: u64,
}

/// Indices of the per-CPU counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// TCP connects sent to the gate.
    Redirected = 0,
    /// Connects and datagrams that went where they were meant to: the bundle passes it, or it is the subject's own process
    /// on loopback.
    Passed = 1,
    /// Connects, datagrams, sockets, ports and socket options refused.
    Refused = 2,
    /// Processes or cgroups that could not be labelled: the table is full.
    LabelsFull = 3,
    /// Connections that could not be handed off: too many wait, of the user or in all.
    HandoffsFull = 4,
    /// Refusals that were not logged, to spare the log.
    Unlogged = 5,
    /// Packets of governed sockets that the guard dropped.
    Dropped = 6,
}

/// Number of [`Counter`]s.
pub const COUNTERS: usize = 7;

/// Refusals that are logged per CPU and second.
pub const LOGGED_PER_SECOND: u64 = 32;

/// How much was logged in the current second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LogBudget {
    /// Seconds since boot.
    pub second: u64,
    /// Lines written in it.
    pub lines: u64,
}

const _: () = {
    use core::mem::{align_of, offset_of, size_of};

    assert!(size_of::<Host>() == 52);
    assert!(size_of::<Agent>() == 24 && offset_of!(Agent, process) == 16);
    assert!(size_of::<Generation>() == 16 && offset_of!(Generation, subjects) == 8);
    assert!(size_of::<SubjectKey>() == 16 && offset_of!(SubjectKey, id) == 8);
    assert!(size_of::<Label>() == 16);
    assert!(size_of::<SubUserKey>() == 8 && size_of::<SubUser>() == 16);
    assert!(size_of::<CgroupPath>() == 256 && size_of::<UnitName>() == 128);
    assert!(size_of::<DestinationKey>() == 24 && align_of::<DestinationKey>() == 4);
    assert!(offset_of!(DestinationKey, port) == 4 && offset_of!(DestinationKey, address) == 6);
    assert!(offset_of!(DestinationKey, address) * 8 == DestinationKey::FIXED_BITS as usize);
    assert!(size_of::<Destination>() == 16);
    assert!(size_of::<Listeners>() == 4);
    assert!(size_of::<NamespaceSeen>() == 16);
    assert!(size_of::<Identity>() == 56 && offset_of!(Identity, command) == 40);
    assert!(size_of::<Handoff>() == 96);
    assert!(offset_of!(Handoff, address) == 72 && offset_of!(Handoff, port) == 88);
    assert!(offset_of!(Handoff, arrived) == 92);
    assert!(size_of::<HandoffKey>() == 48 && offset_of!(HandoffKey, source_port) == 40);
    assert!(size_of::<Stamp>() == 112 && offset_of!(Stamp, redirected) == 104);
    assert!(size_of::<Pending>() == 64);
    assert!(size_of::<Waiting>() == if cfg!(feature = "other-layout") { 24 } else { 16 });
    assert!(MAX_HANDOFFS_PER_USER * 16 <= MAX_HANDOFFS as u64);
    assert!(size_of::<LogBudget>() == 16);
    assert!(Counter::Dropped as usize + 1 == COUNTERS);
};
