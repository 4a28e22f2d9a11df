//! Every map, in one place.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use tidegate_abi as abi;

/// The agent and its last sign of life, in its only slot.
#[btf_map]
pub static AGENT: Array<abi::Agent, 1> = Array::new();

/// Which subject a bit stands for. The programs don't look at it: it is here to be kept with what carries the bits.
#[btf_map]
pub static SUBJECT_BITS: Array<abi::SubjectDigest, { abi::MAX_SUBJECTS as usize }> = Array::new();

/// Number of the active generation, in its only slot.
#[btf_map]
pub static ACTIVE: Array<u64, 1> = Array::new();

/// The generations, in slot `number % GENERATION_SLOTS`.
#[btf_map]
pub static GENERATIONS: Array<abi::Generation, { abi::GENERATION_SLOTS as usize }> = Array::new();

/// Who is governed.
#[btf_map]
pub static SUBJECTS: HashMap<abi::SubjectKey, u64, { abi::MAX_SUBJECT_IDS }> = HashMap::new();

/// Whose sub-uids are governed.
#[btf_map]
pub static SUB_USERS: LpmTrie<abi::SubUserKey, abi::SubUser, { abi::MAX_SUB_USERS }> = LpmTrie::new();

/// Cgroups that rules name, there or not, with their subjects.
#[btf_map]
pub static CGROUP_PATHS: HashMap<abi::CgroupPath, u64, { abi::MAX_CGROUP_NAMES }> = HashMap::new();

/// Units that rules name, with their subjects.
#[btf_map]
pub static UNITS: LpmTrie<abi::UnitName, u64, { abi::MAX_CGROUP_NAMES }> = LpmTrie::new();

/// Ids of the cgroups that are slices and lie in slices only, the root among them: where units are.
#[btf_map]
pub static SLICES: HashMap<u64, u64, { abi::MAX_SLICES }> = HashMap::new();

/// What is done with which destination.
#[btf_map]
pub static DESTINATIONS: LpmTrie<abi::DestinationKey, abi::Destination, { abi::MAX_DESTINATIONS }> =
    LpmTrie::new();

/// Labelled processes, by thread-group id.
#[btf_map]
pub static LABELS: HashMap<u32, abi::Label, { abi::MAX_LABELS }> = HashMap::new();

/// Where the agent listens, by network-namespace cookie.
#[btf_map]
pub static LISTENERS: HashMap<u64, abi::Listeners, { abi::MAX_LISTENERS }> = HashMap::new();

/// Redirected connections that the agent hasn't accepted yet. Never LRU: an entry must not vanish under load.
#[btf_map]
pub static HANDOFFS: HashMap<abi::HandoffKey, abi::Handoff, { abi::MAX_HANDOFFS }> = HashMap::new();

/// How many hand-offs of each user, and of all, were made and ended.
#[btf_map]
pub static WAITING: HashMap<u32, abi::Waiting, { abi::MAX_WAITERS }> = HashMap::new();

/// How many hand-offs of each user, and of all, the agent took. Only the agent writes it.
#[btf_map]
pub static TAKEN: HashMap<u32, u64, { abi::MAX_WAITERS }> = HashMap::new();

/// Who was sent to the agent by a Unix socket, by thread-group id. The agent learns that id from the kernel when it accepts.
#[btf_map]
pub static UNIX_PEERS: HashMap<u32, abi::shield::UnixPeer, { abi::MAX_LABELS }> = HashMap::new();

/// Namespaces that governed processes were seen in and the agent doesn't listen in.
#[btf_map]
pub static NAMESPACES: RingBuf<abi::NamespaceSeen, { abi::NAMESPACES_BYTES }> = RingBuf::new();

/// When the agent was last told of a namespace, in ns since boot. LRU: what is lost is only told again.
#[btf_map]
pub static TOLD: LruHashMap<u64, u64, { abi::MAX_LISTENERS }> = LruHashMap::new();

/// Who sent the DNS questions of late, by the two ends that the agent sees. LRU: what is lost is only asked again.
#[btf_map]
pub static ASKERS: LruHashMap<abi::HandoffKey, abi::Handoff, { abi::MAX_ASKERS }> = LruHashMap::new();

/// What happened, per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { abi::COUNTERS }> = PerCpuArray::new();

/// Keeps refusals from flooding the log, per CPU.
#[btf_map]
pub static LOG_BUDGET: PerCpuArray<abi::LogBudget, 1> = PerCpuArray::new();

/// Stamps of governed sockets. Sockets accepted from a stamped listener inherit its stamp.
#[btf_map]
pub static STAMPS: SocketStorage<abi::Stamp, { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize }> =
    SocketStorage::new();

/// The hand-off that a socket answers for, at either end.
#[btf_map]
pub static PENDING: SocketStorage<abi::Pending, { BPF_F_NO_PREALLOC as usize }> = SocketStorage::new();

/// Marks the agent's own listeners: whoever takes their ports after it has no such mark.
#[btf_map]
pub static LISTENING: SocketStorage<u64, { BPF_F_NO_PREALLOC as usize }> = SocketStorage::new();

/// One at a governed process's Unix socket whose last connect was sent to the agent. The programs here don't look at it.
#[btf_map]
pub static UNIX_SENT: SocketStorage<u64, { BPF_F_NO_PREALLOC as usize }> = SocketStorage::new();

/// Storage that lives and dies with a socket. aya's own takes only one kind of context and no flags.
#[repr(C)]
pub struct SocketStorage<T, const FLAGS: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the fields are never read: they only describe the map to the loader.
unsafe impl<T, const FLAGS: usize> Sync for SocketStorage<T, FLAGS> {}

impl<T, const FLAGS: usize> SocketStorage<T, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The socket's value, if it has one.
    ///
    /// # Safety
    ///
    /// `socket` is what the kernel gave the program as a socket, and not null.
    #[inline(always)]
    pub unsafe fn get<'a>(&'static self, socket: *mut c_void) -> Option<&'a mut T> {
        // SAFETY: the map is ours, the socket is vouched for by the caller.
        unsafe { self.storage(socket, 0) }
    }

    /// The socket's value, zeroed if it had none; none if memory ran out.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    #[inline(always)]
    pub unsafe fn get_or_create<'a>(&'static self, socket: *mut c_void) -> Option<&'a mut T> {
        // SAFETY: as above.
        unsafe { self.storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
    }

    #[inline(always)]
    unsafe fn storage<'a>(&'static self, socket: *mut c_void, flags: u64) -> Option<&'a mut T> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the helper checks both pointers and answers null or a value of this map, which lives as long as the
        // socket does.
        unsafe { bpf_sk_storage_get(map, socket, core::ptr::null_mut(), flags).cast::<T>().as_mut() }
    }
}
