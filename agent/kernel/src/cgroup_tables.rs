//! The kernel's maps of cgroups that rules name.

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};
use tidegate_abi::{CgroupPath, UnitName};

use crate::KernelError;
use crate::cgroup::Hierarchy;
use crate::governed::Governed;
use crate::tables::{gone, named, take};
use crate::unit;

/// By path and by unit, and where units are.
pub(crate) struct CgroupTables {
    paths: HashMap<MapData, CgroupPath, u64>,
    units: LpmTrie<MapData, UnitName, u64>,
    slices: HashMap<MapData, u64, u64>,
}

impl CgroupTables {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            paths: take(object, "CGROUP_PATHS")?,
            units: take(object, "UNITS")?,
            slices: take(object, "SLICES")?,
        })
    }

    /// Writes what a generation names.
    pub(crate) fn write(&mut self, governed: &Governed, generation: u32) -> Result<(), KernelError> {
        for (path, subjects) in governed.paths(generation) {
            self.paths.insert(path, subjects, 0).map_err(named("CGROUP_PATHS"))?;
        }
        for (bits, unit, subjects) in governed.units(generation) {
            self.units.insert(&Key::new(bits, unit), subjects, 0).map_err(named("UNITS"))?;
        }
        Ok(())
    }

    /// Has `governed` find its cgroups among those that are there, and answers with them. The programs know of each slice
    /// before what is in it is looked at.
    pub(crate) fn find(
        &mut self,
        governed: &mut Governed,
        hierarchy: &Hierarchy,
    ) -> Result<Vec<(u64, u64)>, KernelError> {
        let mut found = Vec::new();
        if !governed.names_cgroups() {
            return Ok(found);
        }
        hierarchy.walk(|path, id| {
            if unit::are_slices(path) {
                self.slices.insert(id, 1, 0).map_err(named("SLICES"))?;
            }
            found.extend(governed.found(path, id).map(|subjects| (id, subjects)));
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes what other generations name.
    pub(crate) fn forget_all_but(&mut self, generation: u32) -> Result<(), KernelError> {
        let stale: Vec<CgroupPath> =
            self.paths.keys().filter_map(Result::ok).filter(|path| path.generation != generation).collect();
        for path in stale {
            self.paths.remove(&path).or_else(gone).map_err(named("CGROUP_PATHS"))?;
        }
        let stale: Vec<Key<UnitName>> = self
            .units
            .keys()
            .filter_map(Result::ok)
            .filter(|unit| unit.data().generation != generation)
            .collect();
        for unit in stale {
            self.units.remove(&unit).or_else(gone).map_err(named("UNITS"))?;
        }
        Ok(())
    }
}
