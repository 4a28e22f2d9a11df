//! The kernel's maps, as user space writes and reads them.

mod handoffs;
mod labels;
mod listeners;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage};
use tidegate_abi::{
    Agent, COUNTERS, Destination, DestinationKey, GENERATION_SLOTS, Generation, Handoff, HandoffKey,
    MAX_SUBJECTS, Stamp, SubUser, SubUserKey, SubjectDigest, SubjectKey, SubjectKind,
};

pub(crate) use self::handoffs::HandoffTable;
pub(crate) use self::labels::{LabelTable, OtherLabels};
pub(crate) use self::listeners::ListenerTable;
use crate::KernelError;
use crate::cgroup::Hierarchy;
use crate::cgroup_tables::CgroupTables;
use crate::governed::Governed;
use crate::rules::{Change, Compiled};

/// `BPF_NOEXIST`: insert only.
const NOEXIST: u64 = 1;

/// The tables of rules: a new generation is written beside the active one and then made active by one word.
pub(crate) struct RuleTables {
    active: Array<MapData, u64>,
    generations: Array<MapData, Generation>,
    subjects: HashMap<MapData, SubjectKey, u64>,
    sub_users: LpmTrie<MapData, SubUserKey, SubUser>,
    cgroups: CgroupTables,
    destinations: LpmTrie<MapData, DestinationKey, Destination>,
    bits: Array<MapData, SubjectDigest>,
}

impl RuleTables {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            active: take(object, "ACTIVE")?,
            generations: take(object, "GENERATIONS")?,
            subjects: take(object, "SUBJECTS")?,
            sub_users: take(object, "SUB_USERS")?,
            cgroups: CgroupTables::take(object)?,
            destinations: take(object, "DESTINATIONS")?,
            bits: take(object, "SUBJECT_BITS")?,
        })
    }

    /// Number of the active generation.
    pub(crate) fn active(&self) -> Result<u32, KernelError> {
        self.active.get(&0, 0).map(|number| number as u32).map_err(named("ACTIVE"))
    }

    /// Writes a generation beside the active one. That one stays in the tables until the next is written, so that a program
    /// that is still deciding by it finds all of it.
    ///
    /// # Errors
    ///
    /// What was written counts for nothing.
    pub(crate) fn write(
        &mut self,
        compiled: &mut Compiled,
        hierarchy: &Hierarchy,
    ) -> Result<(), KernelError> {
        let number = compiled.generation.number;
        self.forget_all_but(self.active()?)?;
        // From here on the programs look after cgroups that are made; those that are there come next.
        self.cgroups.write(&compiled.governed, number)?;
        self.cgroups.find(&mut compiled.governed, hierarchy)?;
        for (key, subjects) in compiled.governed.ids(number) {
            self.subjects.insert(key, subjects, 0).map_err(named("SUBJECTS"))?;
        }
        for (bits, key, user) in compiled.governed.sub_users(number) {
            self.sub_users.insert(&Key::new(bits, key), user, 0).map_err(named("SUB_USERS"))?;
        }
        for (bits, key, entry) in &compiled.destinations {
            self.destinations.insert(&Key::new(*bits, *key), entry, 0).map_err(named("DESTINATIONS"))?;
        }
        let slot = number % GENERATION_SLOTS;
        self.generations.set(slot, compiled.generation, 0).map_err(named("GENERATIONS"))
    }

    /// Makes a generation that was written the active one.
    pub(crate) fn activate(&mut self, number: u32) -> Result<(), KernelError> {
        self.active.set(0, u64::from(number), 0).map_err(named("ACTIVE"))
    }

    /// Finds cgroups of the active generation that were being made when it was written.
    pub(crate) fn find_cgroups(
        &mut self,
        governed: &mut Governed,
        hierarchy: &Hierarchy,
    ) -> Result<(), KernelError> {
        let generation = self.active()?;
        for (id, subjects) in self.cgroups.find(governed, hierarchy)? {
            let key = SubjectKey { generation, kind: SubjectKind::Cgroup as u32, id };
            self.subjects.insert(key, subjects, 0).map_err(named("SUBJECTS"))?;
        }
        Ok(())
    }

    /// Changes destinations of the active generation, what is added first.
    pub(crate) fn change(&mut self, change: &Change) -> Result<(), KernelError> {
        for (bits, key, entry) in &change.written {
            self.destinations.insert(&Key::new(*bits, *key), entry, 0).map_err(named("DESTINATIONS"))?;
        }
        for (bits, key) in &change.removed {
            self.destinations.remove(&Key::new(*bits, *key)).or_else(gone).map_err(named("DESTINATIONS"))?;
        }
        Ok(())
    }

    fn forget_all_but(&mut self, number: u32) -> Result<(), KernelError> {
        let stale: Vec<SubjectKey> =
            self.subjects.keys().filter_map(Result::ok).filter(|key| key.generation != number).collect();
        for key in stale {
            self.subjects.remove(&key).or_else(gone).map_err(named("SUBJECTS"))?;
        }
        let stale: Vec<Key<SubUserKey>> = self
            .sub_users
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.data().generation != number)
            .collect();
        for key in stale {
            self.sub_users.remove(&key).or_else(gone).map_err(named("SUB_USERS"))?;
        }
        self.cgroups.forget_all_but(number)?;
        let stale: Vec<Key<DestinationKey>> = self
            .destinations
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.data().generation != number)
            .collect();
        for key in stale {
            self.destinations.remove(&key).or_else(gone).map_err(named("DESTINATIONS"))?;
        }
        Ok(())
    }

    /// Digests of the subjects that bits were given to, in the order of the bits.
    pub(crate) fn subject_bits(&self) -> Result<Vec<SubjectDigest>, KernelError> {
        subject_bits(&self.bits)
    }

    /// Keeps which subject each bit stands for.
    pub(crate) fn keep_subject_bits(&mut self, digests: &[SubjectDigest]) -> Result<(), KernelError> {
        for (index, digest) in (0..).zip(digests) {
            self.bits.set(index, digest, 0).map_err(named("SUBJECT_BITS"))?;
        }
        Ok(())
    }
}

/// Stamps of sockets.
pub(crate) struct StampTable(SkStorage<MapData, Stamp>);

impl StampTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        take(object, "STAMPS").map(Self)
    }

    /// Whether a socket is stamped.
    pub(crate) fn has(&self, socket: &impl AsRawFd) -> Result<bool, KernelError> {
        match self.0.get(socket, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(named("STAMPS")(error)),
        }
    }

    /// Stamps a socket, unless a program has done it meanwhile.
    pub(crate) fn set(&mut self, socket: &impl AsRawFd, stamp: &Stamp) -> Result<(), KernelError> {
        match self.0.insert(socket, stamp, NOEXIST) {
            Err(error) if errno(&error) != Some(libc::EEXIST) => Err(named("STAMPS")(error)),
            _ => Ok(()),
        }
    }
}

/// Who sent the DNS questions of late.
pub(crate) struct AskerTable(HashMap<MapData, HandoffKey, Handoff>);

impl AskerTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        take(object, "ASKERS").map(Self)
    }

    /// Whoever last sent a question between these two ends.
    pub(crate) fn get(&self, key: &HandoffKey) -> Result<Option<Handoff>, KernelError> {
        match self.0.get(key, 0) {
            Ok(asker) => Ok(Some(asker)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(named("ASKERS")(error)),
        }
    }
}

/// What the programs counted.
pub(crate) struct CounterTable(PerCpuArray<MapData, u64>);

impl CounterTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        take(object, "COUNTERS").map(Self)
    }

    /// Sums over all CPUs.
    pub(crate) fn sums(&self) -> Result<[u64; COUNTERS], KernelError> {
        let mut sums = [0; COUNTERS];
        for (index, sum) in sums.iter_mut().enumerate() {
            let values = self.0.get(&(index as u32), 0).map_err(named("COUNTERS"))?;
            *sum = values.iter().sum();
        }
        Ok(sums)
    }
}

/// The agent, as the programs know it.
pub(crate) struct AgentTable(Array<MapData, Agent>);

impl AgentTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        take(object, "AGENT").map(Self)
    }

    /// What the programs know.
    pub(crate) fn get(&self) -> Result<Agent, KernelError> {
        self.0.get(&0, 0).map_err(named("AGENT"))
    }

    /// Tells them.
    pub(crate) fn set(&mut self, agent: Agent) -> Result<(), KernelError> {
        self.0.set(0, agent, 0).map_err(named("AGENT"))
    }
}

fn subject_bits(bits: &Array<MapData, SubjectDigest>) -> Result<Vec<SubjectDigest>, KernelError> {
    let mut digests = Vec::new();
    for index in 0..MAX_SUBJECTS {
        let digest = bits.get(&index, 0).map_err(named("SUBJECT_BITS"))?;
        if digest == SubjectDigest::default() {
            break;
        }
        digests.push(digest);
    }
    Ok(digests)
}

/// Writes what is new, then removes what is gone.
pub(crate) fn replace_all<K: aya::Pod + Ord, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    entries: &BTreeMap<K, V>,
) -> Result<(), MapError> {
    let before: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for (key, value) in entries {
        map.insert(key, value, 0)?;
    }
    for key in before.iter().filter(|key| !entries.contains_key(key)) {
        map.remove(key)?;
    }
    Ok(())
}

pub(crate) fn found<T>(result: Result<T, MapError>, map: &'static str) -> Result<Option<T>, KernelError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(named(map)(error)),
    }
}

pub(crate) fn take<M>(object: &mut Ebpf, map: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    object.take_map(map).ok_or(KernelError::Missing(map))?.try_into().map_err(named(map))
}

pub(crate) fn named(map: &'static str) -> impl Fn(MapError) -> KernelError {
    move |error| KernelError::Map { map, error }
}

/// Deleting what is gone already is no error.
pub(crate) fn gone(error: MapError) -> Result<(), MapError> {
    match error {
        MapError::KeyNotFound => Ok(()),
        error if errno(&error) == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => io::Error::raw_os_error(&error.io_error),
        _ => None,
    }
}
