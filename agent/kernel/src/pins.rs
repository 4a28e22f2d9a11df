//! Where the programs, their links and their maps stay while no agent runs: a private directory of a BPF file system.
//!
//! In it is a directory for each layout of the maps: what is adopted was written by programs and an agent that mean the
//! same by it. A link that is pinned keeps its program attached, whoever lives or dies.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::KernelError;

/// Names the layout of the maps of this build. Whoever shares a map with the programs must be built with the same.
pub const LAYOUT: &str = env!("TIDEGATE_LAYOUT");

/// Where the BPF file system belongs (<https://systemd.io>, and the kernel's own convention).
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

/// Nobody but root may look in.
const PRIVATE: u32 = 0o700;

/// The directory of pins, held by one agent: nobody else can hold it at the same time.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    layout: String,
    /// Locked until dropped.
    _lock: File,
}

/// What was taken down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Programs that were attached.
    pub links: usize,
    /// Maps that were kept.
    pub maps: usize,
}

impl Pins {
    /// Takes hold of the directory, which is made if it is missing; the BPF file system is mounted if need be.
    ///
    /// # Errors
    ///
    /// [`KernelError::Busy`] if another agent holds it; [`KernelError::Pins`] if it isn't private to root, or doesn't lie on
    /// a BPF file system.
    pub fn hold(root: &Path) -> Result<Self, KernelError> {
        Self::hold_layout(root, LAYOUT)
    }

    /// As [`hold`](Self::hold), for maps of another layout: as an agent of another version would.
    pub fn hold_layout(root: &Path, layout: &str) -> Result<Self, KernelError> {
        prepare(root)?;
        let lock = File::open(root).map_err(failed(root))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => KernelError::Busy(root.to_owned()),
            TryLockError::Error(error) => failed(root)(error),
        })?;
        Ok(Self { root: root.to_owned(), layout: layout.to_owned(), _lock: lock })
    }

    /// Whether anything may be attached by pins of this directory.
    ///
    /// # Errors
    ///
    /// The caller may not look there: only root may.
    pub fn exist(root: &Path) -> Result<bool, KernelError> {
        root.try_exists().map_err(failed(root))
    }

    /// Takes everything down: what was governed no longer is.
    pub fn remove(&self) -> Result<Removed, KernelError> {
        let mut removed = Removed::default();
        for layout in directories(&self.root)? {
            removed += remove_layout(&layout)?;
        }
        fs::remove_dir(&self.root).map_err(failed(&self.root))?;
        Ok(removed)
    }

    /// A directory for the pins of this layout that are of one kind, made if it is missing. Names may not contain dots: the
    /// BPF file system keeps those for itself.
    pub fn folder(&self, kind: &str) -> Result<PathBuf, KernelError> {
        let path = self.root.join(&self.layout).join(kind);
        DirBuilder::new().recursive(true).mode(PRIVATE).create(&path).map_err(failed(&path))?;
        Ok(path)
    }

    /// Where the maps are.
    pub(crate) fn maps(&self) -> Result<PathBuf, KernelError> {
        self.folder(MAPS)
    }

    /// Where the links are.
    pub(crate) fn links(&self) -> Result<PathBuf, KernelError> {
        self.folder(LINKS)
    }

    /// What agents with maps of other layouts left behind.
    pub(crate) fn others(&self) -> Result<Vec<OtherLayout>, KernelError> {
        let own = self.root.join(&self.layout);
        let others = directories(&self.root)?.into_iter().filter(|path| *path != own);
        Ok(others.map(OtherLayout).collect())
    }
}

const MAPS: &str = "maps";
const LINKS: &str = "links";

/// Pins whose maps have another layout. Their programs are attached beside this agent's own.
#[derive(Debug)]
pub(crate) struct OtherLayout(PathBuf);

impl OtherLayout {
    /// Where a map of theirs is.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.0.join(MAPS).join(name)
    }

    /// Detaches them.
    pub(crate) fn remove(self) -> Result<Removed, KernelError> {
        remove_layout(&self.0)
    }
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.links += other.links;
        self.maps += other.maps;
    }
}

/// What attaches goes before what is looked at: programs that still run find their maps.
fn remove_layout(layout: &Path) -> Result<Removed, KernelError> {
    let links = remove_all(&layout.join(LINKS))?;
    let mut removed = Removed { links, maps: 0 };
    for kind in directories(layout)? {
        let count = remove_all(&kind)?;
        if kind.ends_with(MAPS) {
            removed.maps += count;
        } else {
            removed.links += count;
        }
    }
    fs::remove_dir(layout).map_err(failed(layout))?;
    Ok(removed)
}

/// Removes a directory of pins. Answers how many there were.
fn remove_all(directory: &Path) -> Result<usize, KernelError> {
    let mut count = 0;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed(directory))?,
    };
    for entry in entries {
        let path = entry.map_err(failed(directory))?.path();
        fs::remove_file(&path).map_err(failed(&path))?;
        count += 1;
    }
    fs::remove_dir(directory).map_err(failed(directory))?;
    Ok(count)
}

fn directories(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed(directory))).collect()
}

fn prepare(root: &Path) -> Result<(), KernelError> {
    let refused = |problem: &str| KernelError::Pins { path: root.to_owned(), problem: problem.to_owned() };
    let parent = root.parent().ok_or_else(|| refused("it is no directory that could be made"))?;
    if root.to_string_lossy().contains('.') {
        return Err(refused("a BPF file system has no names with dots in them"));
    }
    if parent == Path::new(BPF_FILE_SYSTEM) {
        mount_if_missing(parent)?;
    }
    if !is_bpf(parent)? {
        return Err(refused(
            "it does not lie on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`",
        ));
    }
    match DirBuilder::new().mode(PRIVATE).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(root)(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(root).map_err(failed(root))?;
    if !found.is_dir() || found.uid() != 0 || found.mode() & 0o077 != 0 {
        return Err(refused("it is not a directory of root's that nobody else may look into: remove it"));
    }
    Ok(())
}

/// Two agents that start together must not mount one above the other.
fn mount_if_missing(place: &Path) -> Result<(), KernelError> {
    if is_bpf(place)? {
        return Ok(());
    }
    let directory = File::open(place).map_err(failed(place))?;
    directory.lock().map_err(failed(place))?;
    if is_bpf(place)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=700"))
        .map_err(|errno| failed(place)(errno.into()))
}

fn is_bpf(path: &Path) -> Result<bool, KernelError> {
    statfs(path)
        .map(|found| found.filesystem_type() == BPF_FS_MAGIC)
        .map_err(|errno| failed(path)(errno.into()))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> KernelError {
    let path = path.to_owned();
    move |error| KernelError::Pins { path: path.clone(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_on_no_bpf_file_system_is_refused_with_advice() {
        let error = Pins::hold(Path::new("/proc/tidegate")).unwrap_err().to_string();
        assert!(error.contains("/proc/tidegate") && error.contains("mount -t bpf"), "{error}");
    }

    #[test]
    fn a_name_that_the_bpf_file_system_would_refuse_is_refused_with_the_reason() {
        let error = Pins::hold(Path::new("/sys/fs/bpf/tide.gate")).unwrap_err().to_string();
        assert!(error.contains("dots"), "{error}");
    }
}
