//! Offsets in the running kernel's structures, from its BTF (Documentation/bpf/btf.rst).
//!
//! The raw tracepoints hand over a `struct task_struct`, whose layout is each kernel build's own.

use std::fs;
use std::path::Path;

use crate::KernelError;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC: u32 = 12;
/// Anonymous structures nest a few levels at most (randomised layouts, unions).
const MAX_NESTING: u32 = 8;

/// Offsets of the fields that the programs read, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskLayout {
    pub(crate) pid: u32,
    pub(crate) tgid: u32,
    pub(crate) group_leader: u32,
    pub(crate) start_boottime: u32,
    /// The way to the cookie of a task's network namespace; none before Linux 5.14.
    pub(crate) netns: Option<NetnsLayout>,
}

/// Offsets on the way from a cgroup to its id and name, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CgroupLayout {
    pub(crate) root: u32,
    pub(crate) hierarchy: u32,
    pub(crate) node: u32,
    pub(crate) id: u32,
    pub(crate) name: u32,
    pub(crate) parent: u32,
}

/// Offsets on the way from a task to its network namespace's cookie, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetnsLayout {
    pub(crate) nsproxy: u32,
    pub(crate) net_ns: u32,
    pub(crate) cookie: u32,
}

impl TaskLayout {
    /// Of the running kernel.
    pub(crate) fn of_running_kernel() -> Result<Self, KernelError> {
        let path = Path::new(VMLINUX);
        let failed = |problem: String| KernelError::Types { path: path.to_owned(), problem };
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&bytes).map_err(|problem| failed(problem.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let types = Types::parse(bytes).ok_or("not BTF of this machine's byte order, or cut short")?;
        let task = types.find_struct("task_struct").ok_or("it has no struct task_struct")?;
        Ok(Self {
            pid: types.offset(task, "pid", 0).ok_or("task_struct has no pid")?,
            tgid: types.offset(task, "tgid", 0).ok_or("task_struct has no tgid")?,
            group_leader: types.offset(task, "group_leader", 0).ok_or("task_struct has no group_leader")?,
            start_boottime: types
                .offset(task, "start_boottime", 0)
                .ok_or("task_struct has no start_boottime")?,
            netns: Self::netns(&types, task),
        })
    }

    fn netns(types: &Types<'_>, task: &[u8]) -> Option<NetnsLayout> {
        Some(NetnsLayout {
            nsproxy: types.offset(task, "nsproxy", 0)?,
            net_ns: types.offset(types.find_struct("nsproxy")?, "net_ns", 0)?,
            cookie: types.offset(types.find_struct("net")?, "net_cookie", 0)?,
        })
    }
}

impl CgroupLayout {
    /// Of the running kernel.
    pub(crate) fn of_running_kernel() -> Result<Self, KernelError> {
        let path = Path::new(VMLINUX);
        let failed = |problem: String| KernelError::Types { path: path.to_owned(), problem };
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let found = Types::parse(&bytes).and_then(|types| Self::find(&types));
        found.ok_or_else(|| failed("it does not know a cgroup's root, node, name or parent".to_owned()))
    }

    fn find(types: &Types<'_>) -> Option<Self> {
        let cgroup = types.find_struct("cgroup")?;
        let node = types.find_struct("kernfs_node")?;
        Some(Self {
            root: types.offset(cgroup, "root", 0)?,
            hierarchy: types.offset(types.find_struct("cgroup_root")?, "hierarchy_id", 0)?,
            node: types.offset(cgroup, "kn", 0)?,
            id: types.offset(node, "id", 0)?,
            name: types.offset(node, "name", 0)?,
            // Renamed in Linux 6.15.
            parent: types.offset(node, "parent", 0).or_else(|| types.offset(node, "__parent", 0))?,
        })
    }
}

/// Type id of a function of the running kernel; none if it has none of this name.
pub(crate) fn function(name: &str) -> Option<u32> {
    let bytes = fs::read(VMLINUX).ok()?;
    let types = Types::parse(&bytes)?;
    let mut functions =
        types.types.iter().map(|ty| word(ty, 4).map(kind) == Some(KIND_FUNC) && types.is_named(ty, name));
    // Type ids count from one.
    functions.position(|found| found).and_then(|index| u32::try_from(index + 1).ok())
}

/// The types of a BTF blob, each as its bytes from `struct btf_type` on. Type ids count from one.
struct Types<'a> {
    types: Vec<&'a [u8]>,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)? as usize..)?;
        let section = |offset: usize| -> Option<&'a [u8]> {
            let from = word(bytes, offset)? as usize;
            body.get(from..from.checked_add(word(bytes, offset + 4)? as usize)?)
        };
        let strings = section(16)?;
        let mut rest = section(8)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            types.push(rest);
            rest = rest.get(12 + trailer(word(rest, 4)?)?..)?;
        }
        Some(Self { types, strings })
    }

    fn find_struct(&self, name: &str) -> Option<&'a [u8]> {
        self.types
            .iter()
            .copied()
            .find(|ty| word(ty, 4).map(kind) == Some(KIND_STRUCT) && self.is_named(ty, name))
    }

    /// Offset of a member in bytes, looked for in anonymous members too.
    fn offset(&self, ty: &[u8], name: &str, nesting: u32) -> Option<u32> {
        if nesting > MAX_NESTING {
            return None;
        }
        let info = word(ty, 4)?;
        if kind(info) != KIND_STRUCT && kind(info) != KIND_UNION {
            return None;
        }
        for index in 0..(info & 0xffff) as usize {
            let member = ty.get(12 + index * 12..)?;
            let bits = word(member, 8)?;
            // With the kind flag, the high byte is a bitfield's width.
            let bits = if info >> 31 == 1 { bits & 0x00ff_ffff } else { bits };
            if self.is_named(member, name) {
                return (bits % 8 == 0).then_some(bits / 8);
            }
            if word(member, 0)? == 0 {
                let inner = (word(member, 4)? as usize).checked_sub(1).and_then(|id| self.types.get(id));
                if let Some(offset) = inner.and_then(|inner| self.offset(inner, name, nesting + 1)) {
                    return offset.checked_add(bits / 8);
                }
            }
        }
        None
    }

    /// Whether the type or member, which both begin with the offset of their name, is called so.
    fn is_named(&self, named: &[u8], name: &str) -> bool {
        let string = word(named, 0).and_then(|offset| self.strings.get(offset as usize..));
        string.is_some_and(|string| {
            string.strip_prefix(name.as_bytes()).is_some_and(|end| end.first() == Some(&0))
        })
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow a `struct btf_type` with this `info`.
fn trailer(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match kind(info) {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * count,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * count,
        _ => return None,
    })
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0task_struct\0pid\0tgid\0group_leader\0start_boottime\0";

    fn name(text: &str) -> u32 {
        let wanted = [b"\0", text.as_bytes(), b"\0"].concat();
        STRINGS.windows(wanted.len()).position(|window| window == wanted).unwrap() as u32 + 1
    }

    fn blob(types: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let length = types.len() as u32 * 4;
        for header in [24, 0, length, length, STRINGS.len() as u32] {
            bytes.extend(header.to_ne_bytes());
        }
        for word in types {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(STRINGS);
        bytes
    }

    fn task() -> Vec<u32> {
        vec![
            // 1: an int, 32 bits.
            0,
            1 << 24,
            4,
            32,
            // 2: an anonymous struct with tgid at 4 and group_leader at 8.
            0,
            KIND_STRUCT << 24 | 2,
            16,
            name("tgid"),
            1,
            32,
            name("group_leader"),
            1,
            64,
            // 3: task_struct with the kind flag: pid at 0, the anonymous struct at 16, start_boottime at 40.
            name("task_struct"),
            1 << 31 | KIND_STRUCT << 24 | 3,
            64,
            name("pid"),
            1,
            0,
            0,
            2,
            128,
            name("start_boottime"),
            1,
            320,
        ]
    }

    #[test]
    fn members_of_anonymous_structs_count_from_the_outer_one() {
        let layout = TaskLayout::parse(&blob(&task())).unwrap();
        assert_eq!(
            layout,
            TaskLayout { pid: 0, tgid: 20, group_leader: 24, start_boottime: 40, netns: None }
        );
    }

    #[test]
    fn a_cut_blob_is_refused_at_every_length() {
        let whole = blob(&task());
        for length in 0..whole.len() {
            assert!(TaskLayout::parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_missing_member_is_named() {
        let mut types = task();
        let last = types.len() - 3;
        types[last] = name("pid");
        assert_eq!(TaskLayout::parse(&blob(&types)).unwrap_err(), "task_struct has no start_boottime");
    }
}
