//! What this kernel can do, found by trying it.

use aya::programs::ProgramType;
use aya::sys::is_program_supported;

use crate::btf::{CgroupLayout, TaskLayout};
use crate::cgroup::Hierarchy;
use crate::kernel::own_netns_cookie;
use crate::{KernelError, programs};

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What the agent needs it for.
    pub feature: &'static str,
    /// Why it is missing; none if it is there.
    pub missing: Option<String>,
}

/// Tries everything that [`Kernel::load`](crate::Kernel::load) needs, and leaves nothing behind: programs are loaded and
/// verified, not attached.
pub fn probe() -> Vec<Probe> {
    let types = [
        ("bpf: socket-address programs (connect, bind, sendmsg, getpeername)", ProgramType::CgroupSockAddr),
        ("bpf: socket programs (creation, ports)", ProgramType::CgroupSock),
        ("bpf: packet programs (guard)", ProgramType::CgroupSkb),
        ("bpf: socket-option programs", ProgramType::CgroupSockopt),
        ("bpf: socket-operation programs (hand-off)", ProgramType::SockOps),
        ("bpf: raw tracepoints (labels)", ProgramType::RawTracePoint),
    ];
    let mut probes = vec![
        tried("cgroup v2 hierarchy", || Hierarchy::find().map(drop)),
        tried("kernel type information (BTF)", || {
            TaskLayout::of_running_kernel()?;
            CgroupLayout::of_running_kernel().map(drop)
        }),
        tried("network-namespace cookie", || own_netns_cookie().map(drop)),
    ];
    for (feature, kind) in types {
        let missing = match is_program_supported(kind) {
            Ok(true) => None,
            Ok(false) => Some("the kernel refuses this type of program".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        probes.push(Probe { feature, missing });
    }
    probes.push(tried("maps, socket storage included", || programs::load_for_trial().map(drop)));
    for (feature, missing) in programs::try_each() {
        probes.push(Probe { feature, missing });
    }
    probes
}

fn tried(feature: &'static str, attempt: impl FnOnce() -> Result<(), KernelError>) -> Probe {
    Probe { feature, missing: attempt().err().map(|error| error.to_string()) }
}
