//! Loads the programs and attaches them at the root of the cgroup hierarchy, by links that are pinned.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::{fs, io};

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use tidegate_abi::Host;

use crate::btf::{CgroupLayout, NetnsLayout, TaskLayout};
use crate::cgroup::Hierarchy;
use crate::pins::Pins;
use crate::{KernelError, bpf};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-programs"));

/// Which toolchain compiled the programs.
pub const TOOLCHAIN: &str = env!("TIDEGATE_EBPF_TOOLCHAIN");

/// What a program is attached to.
#[derive(Debug, Clone, Copy)]
enum Hook {
    /// The raw tracepoint of this name.
    Tracepoint(&'static str),
    /// The root cgroup.
    Cgroup,
}

/// Every program, in the order in which they are attached, what others rely on first: labels before stamps, the guard
/// before the sockets that it judges, the hand-off before what redirects to it.
const PROGRAMS: &[(&str, Hook)] = &[
    ("process_freed", Hook::Tracepoint("sched_process_free")),
    ("cgroup_made", Hook::Tracepoint("cgroup_mkdir")),
    ("unit_made", Hook::Tracepoint("cgroup_mkdir")),
    ("cgroup_removed", Hook::Tracepoint("cgroup_rmdir")),
    ("process_executed", Hook::Tracepoint("sched_process_exec")),
    ("process_forked", Hook::Tracepoint("sched_process_fork")),
    ("packet_leaves", Hook::Cgroup),
    ("option_set", Hook::Cgroup),
    ("tcp_event", Hook::Cgroup),
    ("bind4", Hook::Cgroup),
    ("bind6", Hook::Cgroup),
    ("bound4", Hook::Cgroup),
    ("bound6", Hook::Cgroup),
    ("socket_created", Hook::Cgroup),
    ("getpeername4", Hook::Cgroup),
    ("getpeername6", Hook::Cgroup),
    ("recvmsg4", Hook::Cgroup),
    ("recvmsg6", Hook::Cgroup),
    ("sendmsg4", Hook::Cgroup),
    ("sendmsg6", Hook::Cgroup),
    ("connect4", Hook::Cgroup),
    ("connect6", Hook::Cgroup),
];

/// Creates the maps, or takes those that are pinned, and relocates the programs; nothing new runs yet.
pub(crate) fn load(pins: &Pins) -> Result<Ebpf, KernelError> {
    let maps = pins.maps()?;
    let host = host()?;
    let names = map_names()?;
    let mut loader = EbpfLoader::new();
    loader.override_global("HOST", &host, true);
    for name in &names {
        loader.map_pin_path(name, maps.join(name));
    }
    Ok(loader.load(OBJECT)?)
}

/// Loads every program into the kernel and puts it into force: in the place of its predecessor where a link is pinned, by
/// a new link where none is. At no moment is there neither.
pub(crate) fn attach(object: &mut Ebpf, hierarchy: &Hierarchy, pins: &Pins) -> Result<(), KernelError> {
    let links = pins.links()?;
    for &(name, hook) in PROGRAMS {
        let program = find(object, name)?;
        load_one(program).map_err(named(name))?;
        let place = links.join(name);
        match hook {
            Hook::Cgroup => replace(name, program, hierarchy, &place)?,
            Hook::Tracepoint(tracepoint) => {
                succeed(attach_to_tracepoint(program, tracepoint).map_err(named(name))?, &place)?;
            }
        }
    }
    forget_strangers(&links)
}

/// Puts the program into the pinned link, or attaches it by a new one.
fn replace(
    name: &'static str,
    program: &mut Program,
    hierarchy: &Hierarchy,
    place: &Path,
) -> Result<(), KernelError> {
    match bpf::open_pinned(place).map_err(pinning(place))? {
        Some(link) => {
            let descriptor = program.fd().map_err(named(name))?.as_fd();
            bpf::update_link(link.as_fd(), descriptor).map_err(pinning(place))
        }
        // aya gives no way from this kind's link to one that can be pinned.
        None if matches!(program, Program::CgroupSockopt(_)) => {
            let descriptor = program.fd().map_err(named(name))?.as_fd();
            bpf::pin_setsockopt_link(descriptor, hierarchy.directory().as_fd(), place).map_err(pinning(place))
        }
        None => pin(attach_to_cgroup(program, hierarchy).map_err(named(name))?, place),
    }
}

/// Puts a link in the place of a pinned one. A tracing program's link can't change its program: the new one is attached
/// before the old one goes.
pub(crate) fn succeed(link: FdLink, place: &Path) -> Result<(), KernelError> {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push("_next");
    let next = place.with_file_name(name);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pinning(&next)(error)),
        _ => {}
    }
    pin(link, &next)?;
    fs::rename(&next, place).map_err(pinning(place))
}

/// Links of programs that this build no longer has.
fn forget_strangers(links: &Path) -> Result<(), KernelError> {
    for entry in fs::read_dir(links).map_err(pinning(links))? {
        let entry = entry.map_err(pinning(links))?;
        if !PROGRAMS.iter().any(|(name, _)| entry.file_name() == *name) {
            fs::remove_file(entry.path()).map_err(pinning(links))?;
        }
    }
    Ok(())
}

fn attach_to_cgroup(program: &mut Program, hierarchy: &Hierarchy) -> Result<FdLink, ProgramError> {
    let (cgroup, mode) = (hierarchy.directory().as_fd(), CgroupAttachMode::Single);
    macro_rules! attached {
        ($program:expr, $($argument:expr),+) => {{
            let link = $program.attach($($argument),+)?;
            // Only a kernel older than 5.7 has cgroup links that can't be pinned.
            $program.take_link(link)?.try_into().map_err(|_| ProgramError::NotAttached)
        }};
    }
    match program {
        Program::CgroupSkb(program) => attached!(program, cgroup, CgroupSkbAttachType::Egress, mode),
        Program::SockOps(program) => attached!(program, cgroup, mode),
        Program::CgroupSock(program) => attached!(program, cgroup, mode),
        Program::CgroupSockAddr(program) => attached!(program, cgroup, mode),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_to_tracepoint(program: &mut Program, tracepoint: &str) -> Result<FdLink, ProgramError> {
    match program {
        Program::RawTracePoint(program) => {
            let link = program.attach(tracepoint)?;
            Ok(program.take_link(link)?.into())
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn pin(link: FdLink, place: &Path) -> Result<(), KernelError> {
    link.pin(place)
        .map(drop)
        .map_err(|error| KernelError::Pins { path: place.to_owned(), problem: error.to_string() })
}

fn find<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, KernelError> {
    object.program_mut(name).ok_or(KernelError::Missing(name))
}

fn host() -> Result<Host, KernelError> {
    let (layout, cgroup) = (TaskLayout::of_running_kernel()?, CgroupLayout::of_running_kernel()?);
    let netns = layout.netns.unwrap_or(NetnsLayout { nsproxy: 0, net_ns: 0, cookie: 0 });
    Ok(Host {
        task_pid: layout.pid,
        task_tgid: layout.tgid,
        task_group_leader: layout.group_leader,
        task_start_boottime: layout.start_boottime,
        task_nsproxy: netns.nsproxy,
        nsproxy_net_ns: netns.net_ns,
        net_cookie: netns.cookie,
        cgroup_root: cgroup.root,
        root_hierarchy: cgroup.hierarchy,
        cgroup_kn: cgroup.node,
        kernfs_id: cgroup.id,
        kernfs_name: cgroup.name,
        kernfs_parent: cgroup.parent,
    })
}

/// The maps that are kept; those of sections (`.rodata`) belong to one load of the programs.
fn map_names() -> Result<Vec<String>, KernelError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(aya::EbpfError::from)?;
    Ok(object.maps.into_keys().filter(|name| !name.starts_with('.')).collect())
}

fn named(program: &'static str) -> impl Fn(ProgramError) -> KernelError {
    move |error| KernelError::Program { program, error }
}

fn pinning(path: &Path) -> impl Fn(io::Error) -> KernelError {
    move |error| KernelError::Pins { path: path.to_owned(), problem: error.to_string() }
}

/// Creates the maps and relocates the programs, keeping nothing.
pub(crate) fn load_for_trial() -> Result<Ebpf, KernelError> {
    Ok(EbpfLoader::new().override_global("HOST", &host()?, true).load(OBJECT)?)
}

/// Loads each program without attaching or keeping anything; says what the verifier has against it.
pub(crate) fn try_each() -> Vec<(&'static str, Option<String>)> {
    let mut object = match load_for_trial() {
        Ok(object) => object,
        Err(error) => return vec![("programs", Some(error.to_string()))],
    };
    // The programs write to the log's ring buffer, so it must live while they are loaded.
    let _logs = object.take_map("AYA_LOGS");
    let mut tried = |&(name, _): &(&'static str, Hook)| {
        let result = find(&mut object, name).and_then(|program| load_one(program).map_err(named(name)));
        (name, result.err().map(|error| error.to_string()))
    };
    PROGRAMS.iter().map(&mut tried).collect()
}
