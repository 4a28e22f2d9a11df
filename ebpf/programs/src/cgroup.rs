//! Cgroups that rules name, by path or as a unit: they may be made long after the rules were loaded, and while no agent runs.
//!
//! What is made is looked up for the generation that is active and the one that may be being written. Everything in such a
//! cgroup is then governed as in one that was there before.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tidegate_abi::{
    CGROUP_PATH_BYTES, CgroupPath, Counter, SubjectKey, SubjectKind, UNIT_NAME_BYTES, UnitKind, UnitName,
};

use crate::count::count;
use crate::maps::{CGROUP_PATHS, SLICES, SUBJECTS, UNITS};
use crate::rules;
use crate::task::{HOST, Task};

const SERVICE: u64 = u64::from_be_bytes(*b".service");
const SCOPE: u64 = u64::from_be_bytes(*b"\0\0.scope");
const SLICE: u64 = u64::from_be_bytes(*b"\0\0.slice");
/// The last six of eight bytes.
const LAST_SIX: u64 = 0xffff_ffff_ffff;

/// A cgroup that is named by its path.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_made(ctx: RawTracePointContext) -> i32 {
    let Some(id) = node(Task(ctx.arg::<*const u8>(0))).and_then(id) else { return 0 };
    let mut path = CgroupPath { generation: 0, reserved: 0, path: [0; CGROUP_PATH_BYTES] };
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_kernel_str_bytes(ctx.arg::<*const u8>(1), &mut path.path) };
    // One that doesn't fit isn't named.
    if !read.is_ok_and(|read| read.len() < CGROUP_PATH_BYTES - 1) {
        return 0;
    }
    for generation in generations() {
        path.generation = generation;
        // SAFETY: copied at once.
        if let Some(subjects) = unsafe { CGROUP_PATHS.get(&path) }.copied() {
            govern(generation, id, subjects);
        }
    }
    0
}

/// A cgroup that is named as a unit: one that lies in slices only.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn unit_made(ctx: RawTracePointContext) -> i32 {
    let _ = unit(Task(ctx.arg::<*const u8>(0)));
    0
}

#[inline(always)]
fn unit(cgroup: Task) -> Option<()> {
    let host = HOST.load();
    let node = node(cgroup)?;
    let parent = id(Task(node.field::<*const u8>(host.kernfs_parent)?))?;
    // SAFETY: only its presence counts.
    unsafe { SLICES.get(parent) }?;
    let mut unit = UnitName { generation: 0, kind: 0, name: [0; UNIT_NAME_BYTES] };
    let name = node.field::<*const u8>(host.kernfs_name)?;
    // SAFETY: the helper checks the address.
    let length = unsafe { bpf_probe_read_kernel_str_bytes(name, &mut unit.name) }.ok()?.len();
    // A shorter one has no ending and something before it; a longer one isn't named.
    if length < 7 || length >= UNIT_NAME_BYTES - 1 {
        return None;
    }
    let kind = kind(u64::from_be(Task(name.wrapping_add(length).wrapping_sub(8)).field::<u64>(0)?))?;
    let id = id(node)?;
    if matches!(kind, UnitKind::Slice) {
        let _ = SLICES.insert(id, 1, 0);
    }
    unit.kind = kind as u32;
    for generation in generations() {
        unit.generation = generation;
        if let Some(subjects) = UNITS.get(&Key::new(UnitName::ALL_BITS, unit)).copied() {
            govern(generation, id, subjects);
        }
    }
    Some(())
}

/// A cgroup's id goes with it.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: RawTracePointContext) -> i32 {
    let Some(id) = node(Task(ctx.arg::<*const u8>(0))).and_then(id) else { return 0 };
    let _ = SLICES.remove(id);
    for generation in generations() {
        let _ = SUBJECTS.remove(SubjectKey { generation, kind: SubjectKind::Cgroup as u32, id });
    }
    0
}

/// The active generation, and the one that comes next.
#[inline(always)]
fn generations() -> [u32; 2] {
    let active = rules::number();
    [active, active.wrapping_add(1)]
}

/// By the last eight bytes of a unit's name.
#[inline(always)]
fn kind(ending: u64) -> Option<UnitKind> {
    match (ending, ending & LAST_SIX) {
        (SERVICE, _) => Some(UnitKind::Service),
        (_, SCOPE) => Some(UnitKind::Scope),
        (_, SLICE) => Some(UnitKind::Slice),
        _ => None,
    }
}

#[inline(always)]
fn govern(generation: u32, id: u64, subjects: u64) {
    let key = SubjectKey { generation, kind: SubjectKind::Cgroup as u32, id };
    // SAFETY: copied at once.
    let known = unsafe { SUBJECTS.get(key) }.copied().unwrap_or(0);
    if SUBJECTS.insert(key, known | subjects, 0).is_err() {
        count(Counter::LabelsFull);
    }
}

/// A cgroup's node in its file system; none in a hierarchy of cgroup v1, where ids are others.
#[inline(always)]
fn node(cgroup: Task) -> Option<Task> {
    let host = HOST.load();
    let root = Task(cgroup.field::<*const u8>(host.cgroup_root)?);
    let hierarchy: u32 = root.field(host.root_hierarchy)?;
    if hierarchy != 0 {
        return None;
    }
    cgroup.field::<*const u8>(host.cgroup_kn).map(Task)
}

#[inline(always)]
fn id(node: Task) -> Option<u64> {
    node.field(HOST.load().kernfs_id)
}
