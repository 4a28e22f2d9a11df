//! The shield's maps, as user space writes them.

use std::collections::BTreeMap;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use tidegate_abi::shield::{FileId, FileName, NAME_BYTES, UnixAllowed, UnixName};

use super::rules::{Compiled, file_id};
use crate::KernelError;
use crate::tables::replace_all;

pub(super) struct Tables {
    names: LpmTrie<MapData, FileName, u64>,
    endings: LpmTrie<MapData, FileName, u64>,
    folders: HashMap<MapData, [u8; NAME_BYTES], u64>,
    listeners: HashMap<MapData, UnixName, UnixAllowed>,
    own_files: HashMap<MapData, FileId, u64>,
}

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            names: take(object, "FILE_NAMES")?,
            endings: take(object, "FILE_ENDINGS")?,
            folders: take(object, "FILE_FOLDERS")?,
            listeners: take(object, "UNIX_ALLOWED")?,
            own_files: take(object, "OWN_FILES")?,
        })
    }

    /// What is in force.
    pub(super) fn now(&self) -> Result<Compiled, KernelError> {
        Ok(Compiled {
            names: names(&self.names).map_err(named("FILE_NAMES"))?,
            endings: names(&self.endings).map_err(named("FILE_ENDINGS"))?,
            folders: self.folders.iter().collect::<Result<_, _>>().map_err(named("FILE_FOLDERS"))?,
            listeners: self.listeners.iter().collect::<Result<_, _>>().map_err(named("UNIX_ALLOWED"))?,
        })
    }

    /// Writes what is new, then removes what is gone: in between the files of both are shielded.
    pub(super) fn swap(&mut self, rules: &Compiled) -> Result<(), KernelError> {
        replace_names(&mut self.names, &rules.names).map_err(named("FILE_NAMES"))?;
        replace_names(&mut self.endings, &rules.endings).map_err(named("FILE_ENDINGS"))?;
        replace_all(&mut self.folders, &rules.folders).map_err(named("FILE_FOLDERS"))?;
        replace_all(&mut self.listeners, &rules.listeners).map_err(named("UNIX_ALLOWED"))
    }

    pub(super) fn protect(&mut self, path: &Path, holds: u64) -> Result<(), KernelError> {
        let id = file_id(path)
            .map_err(|error| KernelError::Shield(format!("protecting {}: {error}", path.display())))?;
        self.own_files.insert(id, holds, 0).map_err(named("OWN_FILES"))
    }
}

/// Entries by prefix length in bits and name.
type Names = BTreeMap<(u32, FileName), u64>;

fn names(map: &LpmTrie<MapData, FileName, u64>) -> Result<Names, MapError> {
    let entries =
        map.iter().map(|entry| entry.map(|(key, subjects)| ((key.prefix_len(), key.data()), subjects)));
    entries.collect()
}

fn replace_names(map: &mut LpmTrie<MapData, FileName, u64>, entries: &Names) -> Result<(), MapError> {
    let before = names(map)?;
    for ((bits, name), subjects) in entries {
        map.insert(&Key::new(*bits, *name), subjects, 0)?;
    }
    for (bits, name) in before.keys().filter(|key| !entries.contains_key(key)) {
        map.remove(&Key::new(*bits, *name))?;
    }
    Ok(())
}

/// A map of the object, to be kept beside it.
pub(super) fn take<M>(object: &mut Ebpf, map: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    object.take_map(map).ok_or(KernelError::Missing(map))?.try_into().map_err(named(map))
}

fn named(map: &'static str) -> impl Fn(MapError) -> KernelError {
    move |error| KernelError::Map { map, error }
}
