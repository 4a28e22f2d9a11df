//! The few commands of bpf(2) that aya has no way to: opening a pinned link, giving it another program, and pinning the
//! link of a program on socket options.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `BPF_OBJ_GET` (include/uapi/linux/bpf.h).
const OBJ_GET: libc::c_long = 7;
/// `BPF_OBJ_PIN`.
const OBJ_PIN: libc::c_long = 6;
/// `BPF_LINK_CREATE`.
const LINK_CREATE: libc::c_long = 28;
/// `BPF_LINK_UPDATE`.
const LINK_UPDATE: libc::c_long = 29;

/// `BPF_CGROUP_SETSOCKOPT`.
const CGROUP_SETSOCKOPT: u32 = 22;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` and `BPF_OBJ_PIN` read.
#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct CreateAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct UpdateAttributes {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Opens what is pinned at a path; none if nothing is.
pub(crate) fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attributes are as long as said, and the path in them outlives the call.
    let opened =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw mut attributes, size_of::<ObjectAttributes>()) };
    match i32::try_from(opened) {
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
    }
}

/// Attaches a program to setsockopt() in a cgroup, by a link that is pinned at a path.
pub(crate) fn pin_setsockopt_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    path: &Path,
) -> io::Result<()> {
    let mut attributes = CreateAttributes {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_SETSOCKOPT,
        flags: 0,
    };
    // SAFETY: the attributes are as long as said, and hold two open descriptors.
    let created = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw mut attributes, size_of::<CreateAttributes>())
    };
    let link = match i32::try_from(created) {
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => unsafe { OwnedFd::from_raw_fd(descriptor) },
        _ => return Err(io::Error::last_os_error()),
    };
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        pathname: name.as_ptr() as u64,
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        file_flags: 0,
    };
    // SAFETY: the attributes are as long as said; the path and the descriptor in them outlive the call.
    let pinned =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_PIN, &raw mut attributes, size_of::<ObjectAttributes>()) };
    if pinned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a program in the place of a link's own, in one step.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = UpdateAttributes {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attributes are as long as said, and hold two open descriptors.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_UPDATE, &raw mut attributes, size_of::<UpdateAttributes>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
