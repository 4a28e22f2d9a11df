//! What ebpf/shield and user space share. `ebpf/shield/abi.h` is the same in C, and asserts the same.

/// Bytes of a file's or folder's name that the shield looks at; `NAME_MAX` is 255.
pub const NAME_BYTES: usize = 64;

/// Most names of shielded files, and most folders of theirs; most listeners that may be talked to.
pub const MAX_SHIELD_ENTRIES: usize = 1024;

/// Most files and folders of the agent's own.
pub const MAX_OWN_FILES: usize = 64;

/// `sizeof(sun_path)` (unix(7)).
pub const SUN_PATH_BYTES: usize = 108;

/// Data of a longest-prefix key: all of the folder (zeros for any), then the beginning of the name. A whole name has the
/// zero behind it in the prefix. Endings of names are written backwards, in a table of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FileName {
    /// Name of the folder, zero-padded.
    pub folder: [u8; NAME_BYTES],
    /// Name of the file, zero-padded.
    pub name: [u8; NAME_BYTES],
}

/// A file or folder of the agent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FileId {
    /// The filesystem's device, as the kernel itself writes it: major number times 2^20, plus minor.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// Nobody governed writes, removes or replaces it, or anything below it.
pub const KEEP: u64 = 1;
/// As [`KEEP`], and nobody governed opens it.
pub const HIDE: u64 = 2;

/// The name that a Unix socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct UnixName {
    /// Bytes of an abstract name, with its leading zero; zero for a path.
    pub abstract_length: u32,
    /// The path or name, zero-padded.
    pub path: [u8; SUN_PATH_BYTES],
}

/// Who may talk to the listener of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnixAllowed {
    /// The subjects.
    pub subjects: u64,
    /// The filesystem that it must be bound on, as in [`FileId::device`].
    pub device: u64,
}

/// The path of a Unix socket, as a system call gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixPath {
    /// Its bytes; zero if there is none.
    pub length: u32,
    /// Zero-padded.
    pub path: [u8; SUN_PATH_BYTES],
}

/// Where a connect to a Unix socket of some name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixWay {
    /// Who may talk to the listener itself.
    pub subjects: u64,
    /// The agent's own socket that it leads to, whoever asks; none if it leads to what it names.
    pub listener: UnixPath,
}

/// A process that was sent to the agent's own Unix sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnixPeer {
    /// As it was when it was sent there last.
    pub identity: crate::Identity,
    /// How often it was. What came of it the agent counts itself.
    pub sent: u64,
}

/// What the shield refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ShieldEventKind {
    /// Opening or receiving a shielded file. Text: folder and name.
    File = 1,
    /// Renaming or linking one, or a folder of theirs.
    Rename = 2,
    /// Touching one of the agent's own.
    OwnFile = 3,
    /// Talking to a Unix socket. Text: its name; detail: bytes of an abstract one.
    Unix = 4,
    /// A socket of a family that isn't served. Detail: family in the upper half, then type, then protocol.
    Family = 5,
    /// Taking a socket that nobody governed made. Detail: family in the upper half.
    Received = 6,
    /// Tracing a process, or reading its memory. Detail: its id.
    Trace = 7,
    /// A signal to the agent. Detail: which.
    Signal = 8,
    /// The bpf system call. Detail: its command.
    Bpf = 9,
    /// io_uring: somebody else's credentials (detail 0), or a driver's command (1).
    Uring = 10,
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ShieldEvent {
    /// Active subjects of the process.
    pub subjects: u64,
    /// Its cgroup.
    pub cgroup: u64,
    /// By kind.
    pub detail: u64,
    /// [`ShieldEventKind`].
    pub kind: u32,
    /// Process id (thread group).
    pub tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Command name, NUL-padded.
    pub command: [u8; 16],
    /// By kind; NUL-padded.
    pub text: [u8; 2 * NAME_BYTES],
}

const _: () = {
    use core::mem::{offset_of, size_of};

    assert!(size_of::<FileName>() == 128 && offset_of!(FileName, name) == 64);
    assert!(size_of::<FileId>() == 16);
    assert!(size_of::<UnixName>() == 112);
    assert!(size_of::<UnixAllowed>() == 16);
    assert!(size_of::<UnixPath>() == 112 && offset_of!(UnixPath, path) == 4);
    assert!(size_of::<UnixWay>() == 120 && offset_of!(UnixWay, listener) == 8);
    assert!(size_of::<UnixPeer>() == 64 && offset_of!(UnixPeer, sent) == 56);
    assert!(size_of::<ShieldEvent>() == 184 && offset_of!(ShieldEvent, text) == 56);
};
