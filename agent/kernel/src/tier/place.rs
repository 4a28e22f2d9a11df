//! The cgroups that attempts are made in.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use procfs::process::Process;

use crate::cgroup::{self, Hierarchy};

/// A name is this, then the maker's process id and its start in clock ticks since boot, then a number.
const PREFIX: &str = "tidegate-trial-";

/// A cgroup to try in; removed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// The cgroup, to attach programs to.
    pub(super) directory: File,
    /// Its `cgroup.procs`.
    pub(super) processes: File,
}

impl Place {
    pub(super) fn new(hierarchy: &Hierarchy) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let started = started(pid).ok_or_else(|| io::Error::other("/proc says nothing of this process"))?;
        let name = format!("{PREFIX}{pid}-{started}-{number}");
        // In the root nobody without CAP_DAC_OVERRIDE makes one, which the service is. Where a manager has what is below
        // its own for itself, the root is left.
        let own = hierarchy.root().join(own_cgroup()?.trim_start_matches('/'));
        for folder in [&own, hierarchy.root()] {
            sweep(folder);
        }
        let in_own = own.join(&name);
        let path = match fs::create_dir(&in_own) {
            Ok(()) => in_own,
            Err(_) if own != hierarchy.root() => {
                let in_root = hierarchy.root().join(&name);
                fs::create_dir(&in_root)?;
                in_root
            }
            Err(error) => return Err(error),
        };
        let opened = File::open(&path).and_then(|directory| {
            Ok((directory, OpenOptions::new().write(true).open(path.join("cgroup.procs"))?))
        });
        match opened {
            Ok((directory, processes)) => Ok(Self { path, directory, processes }),
            Err(error) => {
                remove(&path);
                Err(error)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Path of this process's own cgroup.
fn own_cgroup() -> io::Result<String> {
    let groups = Process::myself().and_then(|own| own.cgroups()).map_err(io::Error::other)?;
    let own = groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname);
    own.ok_or_else(|| io::Error::other("this process is in no cgroup v2"))
}

/// Removes what makers that were killed have left.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let maker = entry.file_name().to_str().and_then(maker);
        if maker.is_some_and(|(pid, start)| started(pid) != Some(start)) {
            remove(&entry.path());
        }
    }
}

/// Process id and start of whoever made a place of this name; none if it isn't one.
fn maker(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let maker = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let _number: u32 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(maker)
}

fn started(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    process.stat().ok().map(|stat| stat.starttime)
}

fn remove(path: &Path) {
    if let Err(error) = cgroup::remove(path) {
        tracing::warn!(path = %path.display(), %error, "a cgroup that was tried in could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_places_name_a_maker() {
        assert_eq!(maker("tidegate-trial-12-3456-0"), Some((12, 3456)));
        for other in ["tidegate-trial-12-0", "tidegate-trial-x-1-0", "tidegate-trial-1-2-3-4", "ci.slice"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
