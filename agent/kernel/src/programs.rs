//! Loads the programs and attaches them at the root of the cgroup hierarchy.

use std::os::fd::AsFd as _;

use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError, RawTracePoint, SockOps};
use aya::{Ebpf, EbpfLoader};
use tidegate_abi::Host;

use crate::KernelError;
use crate::btf::TaskLayout;
use crate::cgroup::Hierarchy;

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tidegate-programs"));

/// Which toolchain compiled the programs.
pub const TOOLCHAIN: &str = env!("TIDEGATE_EBPF_TOOLCHAIN");

/// Programs on raw tracepoints: name, tracepoint.
const TRACEPOINTS: [(&str, &str); 3] = [
    ("process_freed", "sched_process_free"),
    ("process_executed", "sched_process_exec"),
    ("process_forked", "sched_process_fork"),
];

/// Programs on socket addresses.
const SOCKET_ADDRESSES: [&str; 6] =
    ["getpeername4", "getpeername6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

const TCP_EVENT: &str = "tcp_event";
const SOCKET_CREATED: &str = "socket_created";

/// Creates the maps and relocates the programs; nothing runs yet.
pub(crate) fn load() -> Result<Ebpf, KernelError> {
    let layout = TaskLayout::of_running_kernel()?;
    let host = Host {
        agent: std::process::id(),
        task_pid: layout.pid,
        task_tgid: layout.tgid,
        task_group_leader: layout.group_leader,
        task_start_boottime: layout.start_boottime,
    };
    Ok(EbpfLoader::new().override_global("HOST", &host, true).load(OBJECT)?)
}

/// Loads every program into the kernel, then attaches them, what others rely on first: labels before stamps, the
/// hand-off before what redirects to it. They detach when `object` is dropped.
pub(crate) fn attach(object: &mut Ebpf, hierarchy: &Hierarchy) -> Result<(), KernelError> {
    for (program, tracepoint) in TRACEPOINTS {
        let tracing: &mut RawTracePoint = find(object, program)?;
        tracing.load().and_then(|()| tracing.attach(tracepoint)).map_err(named(program))?;
    }
    let cgroup = hierarchy.directory().as_fd();
    let mode = CgroupAttachMode::Single;

    let events: &mut SockOps = find(object, TCP_EVENT)?;
    events.load().and_then(|()| events.attach(cgroup, mode)).map_err(named(TCP_EVENT))?;

    let creation: &mut CgroupSock = find(object, SOCKET_CREATED)?;
    creation.load().and_then(|()| creation.attach(cgroup, mode)).map_err(named(SOCKET_CREATED))?;

    for program in SOCKET_ADDRESSES {
        let addresses: &mut CgroupSockAddr = find(object, program)?;
        addresses.load().and_then(|()| addresses.attach(cgroup, mode)).map_err(named(program))?;
    }
    Ok(())
}

fn find<'a, P>(object: &'a mut Ebpf, program: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    object.program_mut(program).ok_or(KernelError::Missing(program))?.try_into().map_err(named(program))
}

fn named(program: &'static str) -> impl Fn(ProgramError) -> KernelError {
    move |error| KernelError::Program { program, error }
}

/// Loads each program without attaching it; says what the verifier has against it.
pub(crate) fn try_each() -> Vec<(&'static str, Option<String>)> {
    let mut object = match load() {
        Ok(object) => object,
        Err(error) => return vec![("programs", Some(error.to_string()))],
    };
    // The programs write to the log's ring buffer, so it must live while they are loaded.
    let _logs = object.take_map("AYA_LOGS");
    let tracing = TRACEPOINTS.map(|(program, _)| {
        (
            program,
            find(&mut object, program)
                .and_then(|found: &mut RawTracePoint| found.load().map_err(named(program))),
        )
    });
    let addresses = SOCKET_ADDRESSES.map(|program| {
        (
            program,
            find(&mut object, program)
                .and_then(|found: &mut CgroupSockAddr| found.load().map_err(named(program))),
        )
    });
    let events =
        find(&mut object, TCP_EVENT).and_then(|found: &mut SockOps| found.load().map_err(named(TCP_EVENT)));
    let creation = find(&mut object, SOCKET_CREATED)
        .and_then(|found: &mut CgroupSock| found.load().map_err(named(SOCKET_CREATED)));
    tracing
        .into_iter()
        .chain(addresses)
        .chain([(TCP_EVENT, events), (SOCKET_CREATED, creation)])
        .map(|(program, result)| (program, result.err().map(|error| error.to_string())))
        .collect()
}
