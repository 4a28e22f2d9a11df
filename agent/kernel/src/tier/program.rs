//! Programs of a few instructions that forbid one thing, loaded and attached by bpf(2).
//!
//! They are too small for a compiler, and must load on kernels that the real ones don't load on.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use crate::btf;
use crate::tier::tried::Errno;

const BPF_PROG_LOAD: i64 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_LINK_CREATE: i64 = 28;

const BPF_FUNC_GET_CURRENT_PID_TGID: i32 = 14;
const BPF_FUNC_GET_NETNS_COOKIE: i32 = 122;
const BPF_FUNC_SET_RETVAL: i32 = 187;

/// A kind of program (`enum bpf_prog_type`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Packets = 8,
    Sockets = 9,
    SocketEvents = 13,
    Addresses = 18,
    Options = 25,
    Lsm = 29,
}

/// Where in a cgroup a program runs (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Attachment {
    Egress = 1,
    SocketCreation = 2,
    SocketEvents = 3,
    Bind4 = 8,
    Connect4 = 10,
    Datagram4 = 14,
    SetOption = 22,
    LsmHook = 27,
    UnixConnect = 49,
}

impl Attachment {
    fn kind(self) -> Kind {
        match self {
            Self::Egress => Kind::Packets,
            Self::SocketCreation => Kind::Sockets,
            Self::SocketEvents => Kind::SocketEvents,
            Self::Bind4 | Self::Connect4 | Self::Datagram4 | Self::UnixConnect => Kind::Addresses,
            Self::SetOption => Kind::Options,
            Self::LsmHook => Kind::Lsm,
        }
    }
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// `r0 = value`.
const fn answer(value: i32) -> Instruction {
    instruction(0xb7, 0, 0, value)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, helper)
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0);

/// Instructions, not loaded yet.
#[derive(Debug)]
pub(super) struct Program(Vec<Instruction>);

impl Program {
    /// A cgroup program that refuses everything.
    pub(super) fn refuse() -> Self {
        Self(vec![answer(0), EXIT])
    }

    /// One that refuses with this error.
    pub(super) fn refuse_with(errno: Errno) -> Self {
        // r1 = -errno
        Self(vec![instruction(0xb7, 1, 0, -(errno as i32)), call(BPF_FUNC_SET_RETVAL), answer(0), EXIT])
    }

    /// One that asks for the network namespace of its socket.
    pub(super) fn namespace_cookie() -> Self {
        Self(vec![call(BPF_FUNC_GET_NETNS_COOKIE), answer(1), EXIT])
    }

    /// An LSM program that refuses one process, and leaves everybody else alone.
    pub(super) fn refuse_process(process: i32) -> Self {
        Self(vec![
            call(BPF_FUNC_GET_CURRENT_PID_TGID),
            // r0 >>= 32; if r0 != process, skip two.
            instruction(0x77, 0, 0, 32),
            instruction(0x55, 0, 2, process),
            answer(-(Errno::NotPermitted as i32)),
            EXIT,
            answer(0),
            EXIT,
        ])
    }

    /// Loads it without attaching it. The error is in words.
    pub(super) fn load(&self, kind: Kind) -> Result<OwnedFd, String> {
        let attachment =
            if matches!(kind, Kind::SocketEvents) { Attachment::SocketEvents } else { Attachment::Egress };
        self.load_as(kind, attachment, 0)
            .map_err(|error| format!("the kernel does not take the program: {error}"))
    }

    /// Runs it in a cgroup until the answer is dropped.
    pub(super) fn attach(&self, cgroup: BorrowedFd<'_>, to: Attachment) -> Result<OwnedFd, String> {
        let program = self
            .load_as(to.kind(), to, 0)
            .map_err(|error| format!("the kernel does not take the program: {error}"))?;
        // struct { prog_fd, target_fd, attach_type, flags }
        let attributes = [program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32, to as u32, 0];
        descriptor(BPF_LINK_CREATE, &attributes)
            .map_err(|error| format!("the program does not attach: {error}"))
    }

    /// Runs it on a security hook of the whole kernel until the answer is dropped.
    pub(super) fn attach_to_hook(&self, hook: &str) -> Result<OwnedFd, String> {
        let Some(function) = btf::function(hook) else { return Err(format!("the kernel has no {hook}")) };
        let program = self
            .load_as(Kind::Lsm, Attachment::LsmHook, function)
            .map_err(|error| format!("the kernel does not take LSM programs: {error}"))?;
        // struct { u64 name, u32 prog_fd, u32 padding }
        let attributes = [0, 0, program.as_raw_fd() as u32, 0];
        descriptor(BPF_RAW_TRACEPOINT_OPEN, &attributes)
            .map_err(|error| format!("the LSM program does not attach: {error}"))
    }

    fn load_as(&self, kind: Kind, to: Attachment, function: u32) -> io::Result<OwnedFd> {
        const LICENSE: &[u8] = b"GPL\0";
        let attributes = Load {
            kind: kind as u32,
            instructions: self.0.len() as u32,
            at: self.0.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            attachment: to as u32,
            function,
            ..Load::default()
        };
        descriptor(BPF_PROG_LOAD, &attributes)
    }
}

/// The part of `union bpf_attr` for loading, up to `attach_btf_id`.
#[repr(C)]
#[derive(Debug, Default)]
struct Load {
    kind: u32,
    instructions: u32,
    at: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attachment: u32,
    btf: u32,
    function_info_size: u32,
    function_info: u64,
    function_infos: u32,
    line_info_size: u32,
    line_info: u64,
    line_infos: u32,
    function: u32,
}

fn descriptor<T>(command: i64, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the commands it is called for answer with a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i64, attributes: &T) -> io::Result<i32> {
    // SAFETY: `attributes` is a prefix of `union bpf_attr` of the length that is given; the addresses in it are of values
    // that outlive the call, and as long as the kernel takes them to be.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
