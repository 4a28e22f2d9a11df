//! Labels of processes, and those that programs with maps of another layout gave.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData};
use tidegate_abi::{Label, SubjectDigest};

use super::{NOEXIST, errno, found, gone, named, subject_bits, take};
use crate::KernelError;

/// Which processes are labelled. It is locked for one call to the kernel at a time: whoever looks through all processes holds
/// up nobody.
pub(crate) struct LabelTable(Mutex<HashMap<MapData, u32, Label>>);

impl LabelTable {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(Mutex::new(take(object, "LABELS")?)))
    }

    /// Ids of labelled processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.labels().keys().filter_map(Result::ok).collect()
    }

    /// The label of a process.
    pub(crate) fn get(&self, pid: u32) -> Result<Option<Label>, KernelError> {
        found(self.labels().get(&pid, 0), "LABELS")
    }

    /// Labels a process that the programs haven't met; false if they have, for then they know it better.
    pub(crate) fn give(&self, pid: u32, subjects: u64) -> Result<bool, KernelError> {
        match self.labels().insert(pid, Label { subjects, started: 0 }, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(named("LABELS")(error)),
        }
    }

    /// Adds to a process's label, which it gets if it has none. True if that changed anything. What the programs add
    /// meanwhile may be lost: they look again at each of the process's next steps.
    fn add(&self, pid: u32, label: Label) -> Result<bool, KernelError> {
        let before = self.get(pid)?.unwrap_or(Label { subjects: 0, ..label });
        let after = Label { subjects: before.subjects | label.subjects, ..before };
        if after == before {
            return Ok(false);
        }
        self.labels().insert(pid, after, 0).map_err(named("LABELS"))?;
        Ok(true)
    }

    /// Takes a label away.
    pub(crate) fn withdraw(&self, pid: u32) -> Result<(), KernelError> {
        self.labels().remove(&pid).or_else(gone).map_err(named("LABELS"))
    }

    /// A panic while it was locked leaves it as the kernel has it, which is what counts.
    fn labels(&self) -> MutexGuard<'_, HashMap<MapData, u32, Label>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Digests of the subjects of their bits, in the order of these.
    pub(crate) fn subject_bits(&self) -> Result<Vec<SubjectDigest>, KernelError> {
        subject_bits(&self.bits)
    }

    /// Gives the same processes the same subjects here, where each of their bits is the one in `here`. Answers how many labels
    /// that changed.
    pub(crate) fn copy_to(&self, labels: &LabelTable, here: &[usize]) -> Result<usize, KernelError> {
        let mut changed = 0;
        for (pid, label) in self.labels.iter().filter_map(Result::ok) {
            let set = |(index, _): &(usize, &usize)| label.subjects >> index & 1 == 1;
            let subjects = here.iter().enumerate().filter(set).fold(0, |all, (_, bit)| all | 1 << bit);
            changed += usize::from(labels.add(pid, Label { subjects, ..label })?);
        }
        Ok(changed)
    }
}
