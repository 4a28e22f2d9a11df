//! The kernel's maps, as user space writes and reads them.

use std::io;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use tidegate_abi::{
    COUNTERS, Destination, DestinationKey, GENERATION_SLOTS, Generation, Handoff, HandoffKey, Label,
    Listeners, SubjectKey,
};

use crate::KernelError;
use crate::rules::Compiled;

/// `BPF_NOEXIST`: insert only.
const NOEXIST: u64 = 1;

/// The tables of rules: a new generation is written beside the active one and then made active by one word.
pub(crate) struct RuleTables {
    active: Array<MapData, u64>,
    generations: Array<MapData, Generation>,
    subjects: HashMap<MapData, SubjectKey, u64>,
    destinations: LpmTrie<MapData, DestinationKey, Destination>,
    listeners: HashMap<MapData, u64, Listeners>,
    labels: HashMap<MapData, u32, Label>,
}

impl RuleTables {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            active: take(object, "ACTIVE")?,
            generations: take(object, "GENERATIONS")?,
            subjects: take(object, "SUBJECTS")?,
            destinations: take(object, "DESTINATIONS")?,
            listeners: take(object, "LISTENERS")?,
            labels: take(object, "LABELS")?,
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
    pub(crate) fn swap(&mut self, compiled: &Compiled) -> Result<(), KernelError> {
        let active = self.active()?;
        self.forget_all_but(active)?;
        for (key, subjects) in &compiled.subjects {
            self.subjects.insert(key, subjects, 0).map_err(named("SUBJECTS"))?;
        }
        for (bits, key, entry) in &compiled.destinations {
            self.destinations.insert(&Key::new(*bits, *key), entry, 0).map_err(named("DESTINATIONS"))?;
        }
        let slot = compiled.generation.number % GENERATION_SLOTS;
        self.generations.set(slot, compiled.generation, 0).map_err(named("GENERATIONS"))?;
        self.active.set(0, u64::from(compiled.generation.number), 0).map_err(named("ACTIVE"))
    }

    fn forget_all_but(&mut self, number: u32) -> Result<(), KernelError> {
        let stale: Vec<SubjectKey> =
            self.subjects.keys().filter_map(Result::ok).filter(|key| key.generation != number).collect();
        for key in stale {
            self.subjects.remove(&key).or_else(gone).map_err(named("SUBJECTS"))?;
        }
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

    /// Labels a process that the programs haven't met; false if they have, for then they know it better.
    pub(crate) fn label(&mut self, pid: u32, subjects: u64) -> Result<bool, KernelError> {
        match self.labels.insert(pid, Label { subjects, started: 0 }, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(named("LABELS")(error)),
        }
    }

    /// The label of a process.
    pub(crate) fn labelled(&self, pid: u32) -> Result<Option<Label>, KernelError> {
        match self.labels.get(&pid, 0) {
            Ok(label) => Ok(Some(label)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(named("LABELS")(error)),
        }
    }

    /// Takes a label away.
    pub(crate) fn unlabel(&mut self, pid: u32) -> Result<(), KernelError> {
        self.labels.remove(&pid).or_else(gone).map_err(named("LABELS"))
    }
}

/// Connections that were redirected and not yet accepted.
pub(crate) struct HandoffTable(HashMap<MapData, HandoffKey, Handoff>);

impl HandoffTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        take(object, "HANDOFFS").map(Self)
    }

    /// Looks an entry up and deletes it.
    pub(crate) fn remove(&mut self, key: &HandoffKey) -> Result<Option<Handoff>, KernelError> {
        let handoff = match self.0.get(key, 0) {
            Ok(handoff) => handoff,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(named("HANDOFFS")(error)),
        };
        self.0.remove(key).or_else(gone).map_err(named("HANDOFFS"))?;
        Ok(Some(handoff))
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.keys().filter(Result::is_ok).count()
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

fn take<M>(object: &mut Ebpf, map: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    object.take_map(map).ok_or(KernelError::Missing(map))?.try_into().map_err(named(map))
}

fn named(map: &'static str) -> impl Fn(MapError) -> KernelError {
    move |error| KernelError::Map { map, error }
}

/// Deleting what is gone already is no error.
fn gone(error: MapError) -> Result<(), MapError> {
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
