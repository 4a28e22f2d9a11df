//! Sticky labels: which subjects a process belongs to, kept over fork, exec, setuid and a change of cgroup.
//!
//! Keyed by thread group, because a process's threads share memory and descriptors. Inherited at fork, looked at again
//! wherever a process may have become a subject's, dropped when the leader's task is freed: by then all its threads are
//! gone, while at the leader's exit they need not be.

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_send_signal,
};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tidegate_abi::{
    Counter, Generation, LOOKS_AT_CGROUPS, LOOKS_AT_GROUPS, LOOKS_AT_USERS, Label, MAX_CGROUP_DEPTH,
    SubjectKey, SubjectKind,
};

use crate::count::count;
use crate::maps::{LABELS, SUBJECTS, UNIX_PEERS};
use crate::task::{self, Task};
use crate::{agent, namespace, rules, subuser};

const SIGKILL: u32 = 9;

/// How a task stands to the active rules.
pub enum Standing {
    /// Neither it nor its socket is any active subject's.
    Free,
    /// It is governed.
    Governed {
        /// Number of the generation to decide by.
        generation: u32,
        /// The task's own subjects, active or not.
        task: u64,
        /// Active subjects of task and socket.
        subjects: u64,
    },
    /// It is governed but can't be labelled, or the rules won't hold still: nothing is allowed.
    Unknown,
}

/// The label table is full.
struct Full;

/// How the current task stands, with a socket that carries the subjects `socket`.
#[inline(always)]
pub fn standing(socket: u64) -> Standing {
    if agent::is_current() {
        return Standing::Free;
    }
    // One swap of the rules may come between; a second within the same run is as good as never settling.
    for _ in 0..2 {
        let Ok(generation) = rules::active() else { continue };
        let Ok(task) = of_current(&generation) else { return Standing::Unknown };
        let subjects = (task | socket) & generation.subjects;
        if subjects != 0 {
            return Standing::Governed { generation: generation.number, task, subjects };
        }
        // Had the rules been swapped meanwhile, misses among the old ones would prove nothing.
        if rules::number() == generation.number {
            return Standing::Free;
        }
    }
    Standing::Unknown
}

/// Subjects of the current process: those of its label and those it has become. The label is brought up to date.
#[inline(always)]
fn of_current(generation: &Generation) -> Result<u64, Full> {
    let process = task::process();
    let Some(label) = LABELS.get_ptr_mut(process) else {
        let subjects = classify(generation);
        if subjects != 0 {
            write(process, Label { subjects, started: task::started() })?;
        }
        return Ok(subjects);
    };
    // SAFETY: a value of the map, deleted only when the last task of the process is freed; the current task is one of them.
    // It is changed in place and only ever grows, so that no other thread sees it without a subject it had.
    unsafe {
        (*label).subjects |= classify(generation);
        if (*label).started == 0 {
            (*label).started = task::started();
        }
        Ok((*label).subjects)
    }
}

#[inline(always)]
fn write(process: u32, label: Label) -> Result<(), Full> {
    LABELS.insert(process, label, 0).map_err(|_| {
        count(Counter::LabelsFull);
        Full
    })
}

/// Subjects that the current task belongs to by user, group and cgroup.
#[inline(always)]
fn classify(generation: &Generation) -> u64 {
    if generation.subjects == 0 {
        return 0;
    }
    let (uid, gid) = task::ids();
    let mut subjects = subuser::of(generation, uid).map_or(0, |user| user.subjects);
    if generation.looks & LOOKS_AT_USERS != 0 {
        subjects |= chosen(generation, SubjectKind::User, u64::from(uid));
    }
    if generation.looks & LOOKS_AT_GROUPS != 0 {
        subjects |= chosen(generation, SubjectKind::Group, u64::from(gid));
    }
    if generation.looks & LOOKS_AT_CGROUPS != 0 {
        // SAFETY: no arguments.
        subjects |= chosen(generation, SubjectKind::Cgroup, unsafe { bpf_get_current_cgroup_id() });
        for level in 0..MAX_CGROUP_DEPTH {
            // SAFETY: the helper answers zero for a level that isn't there.
            let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
            if id == 0 {
                break;
            }
            subjects |= chosen(generation, SubjectKind::Cgroup, id);
        }
    }
    subjects
}

#[inline(always)]
fn chosen(generation: &Generation, kind: SubjectKind, id: u64) -> u64 {
    let key = SubjectKey { generation: generation.number, kind: kind as u32, id };
    // SAFETY: copied at once; entries of a generation don't change while it is active.
    unsafe { SUBJECTS.get(key) }.copied().unwrap_or(0)
}

/// A process gets its parent's label before it first runs. Its id may have been another's: an old label goes.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_forked(ctx: RawTracePointContext) -> i32 {
    let child = Task(ctx.arg::<*const u8>(1));
    let Some(process) = child.led_process() else { return 0 };
    if agent::is_current() {
        return 0;
    }
    // Even while the rules are being swapped the label that is there is inherited.
    let generation = rules::active().unwrap_or_default();
    let inherited = match of_current(&generation) {
        Ok(0) => {
            let _ = LABELS.remove(process);
            return 0;
        }
        Ok(subjects) => write(process, Label { subjects, started: child.started() }),
        Err(Full) => Err(Full),
    };
    if inherited.is_err() {
        unlabelled();
    }
    0
}

/// A process that became a subject's by setuid is labelled before its new program runs.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_executed(_ctx: RawTracePointContext) -> i32 {
    if agent::is_current() {
        return 0;
    }
    let generation = rules::active().unwrap_or_default();
    match of_current(&generation) {
        // Long before it connects, so that it needn't be refused.
        Ok(subjects) if subjects & generation.subjects != 0 => namespace::seen(task::netns()),
        Ok(_) => {}
        Err(Full) => unlabelled(),
    }
    0
}

/// The label goes with the process that it was given to, and not with a later one of the same id.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn process_freed(ctx: RawTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*const u8>(0));
    let Some(process) = task.led_process() else { return 0 };
    // SAFETY: read at once.
    if unsafe { UNIX_PEERS.get(process) }.is_some_and(|peer| peer.identity.started == task.started()) {
        let _ = UNIX_PEERS.remove(process);
    }
    // SAFETY: copied at once.
    let Some(label) = unsafe { LABELS.get(process) }.copied() else { return 0 };
    if label.started == 0 || label.started == task.started() {
        let _ = LABELS.remove(process);
    }
    0
}

/// A governed process that can't be labelled, or whose child can't, must not run on: a later setuid would set it free.
#[inline(always)]
fn unlabelled() {
    // SAFETY: the signal goes to the current process.
    let _ = unsafe { bpf_send_signal(SIGKILL) };
}
