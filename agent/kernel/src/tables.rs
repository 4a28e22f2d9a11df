//! The kernel's maps, as user space writes and reads them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage};
use tidegate_abi::{
    ALL_USERS, Agent, COUNTERS, Destination, DestinationKey, GENERATION_SLOTS, Generation, Handoff,
    HandoffKey, Label, Listeners, MAX_SUBJECTS, Stamp, SubUser, SubUserKey, SubjectDigest, SubjectKey,
    SubjectKind,
};

use crate::KernelError;
use crate::cgroup::Hierarchy;
use crate::cgroup_tables::CgroupTables;
use crate::rules::{Change, Compiled, SubjectBits};

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
    listeners: HashMap<MapData, u64, Listeners>,
    labels: HashMap<MapData, u32, Label>,
    bits: Array<MapData, SubjectDigest>,
    listening: SkStorage<MapData, u64>,
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
            listeners: take(object, "LISTENERS")?,
            labels: take(object, "LABELS")?,
            bits: take(object, "SUBJECT_BITS")?,
            listening: take(object, "LISTENING")?,
        })
    }

    /// Number of the active generation.
    pub(crate) fn active(&self) -> Result<u32, KernelError> {
        self.active.get(&0, 0).map(|number| number as u32).map_err(named("ACTIVE"))
    }

    /// Writes a generation and makes it the active one. The one before stays in the tables until the next swap, so that
    /// a program that is still deciding by it finds all of it.
    ///
    /// # Errors
    ///
    /// After an error the active generation is unchanged.
    pub(crate) fn swap(&mut self, compiled: &mut Compiled, hierarchy: &Hierarchy) -> Result<(), KernelError> {
        let (active, number) = (self.active()?, compiled.generation.number);
        self.forget_all_but(active)?;
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
        let slot = compiled.generation.number % GENERATION_SLOTS;
        self.generations.set(slot, compiled.generation, 0).map_err(named("GENERATIONS"))?;
        self.active.set(0, u64::from(number), 0).map_err(named("ACTIVE"))?;
        // One that was being made when the first look was taken.
        for (id, subjects) in self.cgroups.find(&mut compiled.governed, hierarchy)? {
            let key = SubjectKey { generation: number, kind: SubjectKind::Cgroup as u32, id };
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

    /// Where to send connections that are made in a network namespace.
    pub(crate) fn set_listeners(&mut self, netns: u64, listeners: Listeners) -> Result<(), KernelError> {
        self.listeners.insert(netns, listeners, 0).map_err(named("LISTENERS"))
    }

    /// Marks a listener as the agent's, until it is closed.
    pub(crate) fn mark_listener(&mut self, listener: &impl AsRawFd) -> Result<(), KernelError> {
        self.listening.insert(listener, 1, 0).map_err(named("LISTENING"))
    }

    /// Where connections of a network namespace are sent.
    pub(crate) fn listeners(&self, netns: u64) -> Result<Option<Listeners>, KernelError> {
        found(self.listeners.get(&netns, 0), "LISTENERS")
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

    /// Nowhere, from now on.
    pub(crate) fn forget_listeners(&mut self, netns: u64) -> Result<(), KernelError> {
        self.listeners.remove(&netns).or_else(gone).map_err(named("LISTENERS"))
    }

    /// Nowhere but in this namespace, from now on.
    pub(crate) fn forget_listeners_but(&mut self, own: u64) -> Result<(), KernelError> {
        let others: Vec<u64> =
            self.listeners.keys().filter_map(Result::ok).filter(|netns| *netns != own).collect();
        others.into_iter().try_for_each(|netns| self.forget_listeners(netns))
    }

    /// Ids of labelled processes.
    pub(crate) fn labelled_processes(&self) -> Vec<u32> {
        self.labels.keys().filter_map(Result::ok).collect()
    }

    /// Labels a process that the programs haven't met; false if they have, for then they know it better.
    pub(crate) fn label(&mut self, pid: u32, subjects: u64) -> Result<bool, KernelError> {
        match self.labels.insert(pid, Label { subjects, started: 0 }, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(named("LABELS")(error)),
        }
    }

    /// Adds to a process's label, which it gets if it has none. True if that changed anything. What the programs add
    /// meanwhile may be lost: they look again at each of the process's next steps.
    fn add_label(&mut self, pid: u32, label: Label) -> Result<bool, KernelError> {
        let before = self.labelled(pid)?.unwrap_or(Label { subjects: 0, ..label });
        let after = Label { subjects: before.subjects | label.subjects, ..before };
        if after == before {
            return Ok(false);
        }
        self.labels.insert(pid, after, 0).map_err(named("LABELS"))?;
        Ok(true)
    }

    /// The label of a process.
    pub(crate) fn labelled(&self, pid: u32) -> Result<Option<Label>, KernelError> {
        found(self.labels.get(&pid, 0), "LABELS")
    }

    /// Takes a label away.
    pub(crate) fn unlabel(&mut self, pid: u32) -> Result<(), KernelError> {
        self.labels.remove(&pid).or_else(gone).map_err(named("LABELS"))
    }
}

/// Connections that were redirected and not yet accepted.
pub(crate) struct HandoffTable {
    entries: HashMap<MapData, HandoffKey, Handoff>,
    /// How many were taken, by user and in all, since the maps were made.
    taken: HashMap<MapData, u32, u64>,
}

impl HandoffTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { entries: take(object, "HANDOFFS")?, taken: take(object, "TAKEN")? })
    }

    /// Looks an entry up and deletes it. It is counted first: an agent that is killed in between lets its user have one more,
    /// and not one less for good.
    pub(crate) fn remove(&mut self, key: &HandoffKey) -> Result<Option<Handoff>, KernelError> {
        let Some(handoff) = found(self.entries.get(key, 0), "HANDOFFS")? else { return Ok(None) };
        let user = handoff.identity.owner;
        self.count(user, |taken| taken.saturating_add(1))?;
        if let Err(error) = self.entries.remove(key) {
            // Its connection has ended meanwhile, and the programs have counted that.
            self.count(user, |taken| taken.saturating_sub(1))?;
            gone(error).map_err(named("HANDOFFS"))?;
        }
        Ok(Some(handoff))
    }

    /// Changes how many were taken of a user's and in all; nobody else writes that.
    fn count(&mut self, user: u32, change: fn(u64) -> u64) -> Result<(), KernelError> {
        for user in [user, ALL_USERS] {
            let taken = found(self.taken.get(&user, 0), "TAKEN")?.unwrap_or(0);
            self.taken.insert(user, change(taken), 0).map_err(named("TAKEN"))?;
        }
        Ok(())
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.keys().filter(Result::is_ok).count()
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

/// Labels that programs with maps of another layout gave. Labels and the subjects of their bits are what such programs
/// hand on, so their form is the same in every layout.
pub(crate) struct OtherLabels {
    labels: HashMap<MapData, u32, Label>,
    bits: Array<MapData, SubjectDigest>,
}

impl OtherLabels {
    /// Opens them where they are pinned; none if they aren't both there.
    ///
    /// # Errors
    ///
    /// They have another form after all.
    pub(crate) fn open(labels: &Path, bits: &Path) -> Result<Option<Self>, KernelError> {
        if !labels.exists() || !bits.exists() {
            return Ok(None);
        }
        let pinned = |map: &'static str, path: &Path| MapData::from_pin(path).map_err(named(map));
        Ok(Some(Self {
            labels: Map::HashMap(pinned("LABELS", labels)?).try_into().map_err(named("LABELS"))?,
            bits: Map::Array(pinned("SUBJECT_BITS", bits)?).try_into().map_err(named("SUBJECT_BITS"))?,
        }))
    }

    /// Gives the same processes the same subjects here, by this side's bits. Answers how many labels that changed.
    pub(crate) fn copy_to(
        &self,
        tables: &mut RuleTables,
        bits: &mut SubjectBits,
    ) -> Result<usize, KernelError> {
        let mut translated = Vec::new();
        for digest in subject_bits(&self.bits)? {
            translated.push(bits.index(digest).ok_or_else(|| {
                KernelError::Rules(
                    "no bit is left for a subject of an earlier agent: `tidegate detach` frees all".into(),
                )
            })?);
        }
        let mut changed = 0;
        for (pid, label) in self.labels.iter().filter_map(Result::ok) {
            let set = |(index, _): &(usize, &usize)| label.subjects >> index & 1 == 1;
            let subjects = translated.iter().enumerate().filter(set).fold(0, |all, (_, bit)| all | 1 << bit);
            changed += usize::from(tables.add_label(pid, Label { subjects, ..label })?);
        }
        Ok(changed)
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
