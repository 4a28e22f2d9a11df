//! Facts of the current task, and of tasks that a tracepoint names.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_task};
use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
};
use tidegate_abi::{Host, Identity};

use crate::subuser;

/// Set by user space before loading.
#[unsafe(no_mangle)]
pub static HOST: Global<Host> = Global::new(Host {
    task_pid: 0,
    task_tgid: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_nsproxy: 0,
    nsproxy_net_ns: 0,
    net_cookie: 0,
    cgroup_root: 0,
    root_hierarchy: 0,
    cgroup_kn: 0,
    kernfs_id: 0,
    kernfs_name: 0,
    kernfs_parent: 0,
});

/// Process id of the current task.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Real user and group id of the current task.
#[inline(always)]
pub fn ids() -> (u32, u32) {
    let ids = bpf_get_current_uid_gid();
    (ids as u32, (ids >> 32) as u32)
}

/// Start of the current process (not thread) in ns since boot; zero if it can't be read.
#[inline(always)]
pub fn started() -> u64 {
    let host = HOST.load();
    // SAFETY: no arguments; the answer is only ever read through a checking helper.
    let task = Task(unsafe { bpf_get_current_task() } as *const u8);
    match task.field::<*const u8>(host.task_group_leader) {
        Some(leader) => Task(leader).started(),
        None => 0,
    }
}

/// Cookie of the current task's network namespace; zero if it can't be read, or the kernel has no such thing in its BTF.
#[inline(always)]
pub fn netns() -> u64 {
    let host = HOST.load();
    if host.net_cookie == 0 {
        return 0;
    }
    // SAFETY: no arguments; the answer is only ever read through a checking helper.
    let task = Task(unsafe { bpf_get_current_task() } as *const u8);
    let cookie = || {
        let proxy = Task(task.field::<*const u8>(host.task_nsproxy)?);
        let net = Task(proxy.field::<*const u8>(host.nsproxy_net_ns)?);
        net.field::<u64>(host.net_cookie)
    };
    cookie().unwrap_or(0)
}

/// Who the current task is. `subjects` is left to the caller.
#[inline(always)]
pub fn identify(identity: &mut Identity) {
    (identity.uid, identity.gid) = ids();
    identity.owner = subuser::owner(identity.uid);
    identity.tgid = process();
    identity.started = started();
    // SAFETY: no arguments.
    identity.cgroup = unsafe { bpf_get_current_cgroup_id() };
    if let Ok(command) = bpf_get_current_comm() {
        identity.command = command;
    }
}

/// A `struct task_struct` of the running kernel, or another of its structures.
#[derive(Clone, Copy)]
pub struct Task(pub *const u8);

impl Task {
    /// The process, if this task is its thread-group leader.
    #[inline(always)]
    pub fn led_process(self) -> Option<u32> {
        let host = HOST.load();
        let thread: u32 = self.field(host.task_pid)?;
        let process: u32 = self.field(host.task_tgid)?;
        (thread == process).then_some(process)
    }

    /// Start of this task in ns since boot; zero if it can't be read.
    #[inline(always)]
    pub fn started(self) -> u64 {
        self.field(HOST.load().task_start_boottime).unwrap_or(0)
    }

    /// The field at an offset of the running kernel's; none if it can't be read.
    #[inline(always)]
    pub fn field<T>(self, offset: u32) -> Option<T> {
        // SAFETY: the helper checks the address; the offset is that of a field of type T, by the kernel's own BTF.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset as usize).cast::<T>()) }.ok()
    }
}
