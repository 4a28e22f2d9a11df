//! Labels the processes that were there before the rules that govern them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use procfs::process::Process;
use tidegate_abi::SubjectKind;

use crate::KernelError;
use crate::cgroup::Hierarchy;
use crate::governed::Governed;
use crate::tables::LabelTable;

/// Each pass can find children that were born during the one before.
const MAX_PASSES: usize = 8;

/// A running process, as far as labelling goes.
struct Candidate {
    parent: u32,
    /// Clock ticks since boot.
    started: u64,
    /// Subjects of its own.
    subjects: u64,
}

/// Labels every running process that is a subject's, or a descendant of such a one, as if the kernel had seen it fork.
/// Returns how many were labelled.
pub(crate) fn label(
    labels: &LabelTable,
    governed: &Governed,
    hierarchy: &Hierarchy,
) -> Result<usize, KernelError> {
    let mut labelled = 0;
    if governed.is_empty() {
        return Ok(labelled);
    }
    for _ in 0..MAX_PASSES {
        let found = pass(labels, governed, hierarchy)?;
        labelled += found;
        if found == 0 {
            break;
        }
    }
    Ok(labelled)
}

fn pass(labels: &LabelTable, governed: &Governed, hierarchy: &Hierarchy) -> Result<usize, KernelError> {
    let candidates = candidates(governed, hierarchy)?;
    let mut labelled = 0;
    for (&pid, candidate) in &candidates {
        let subjects = inherited(&candidates, pid);
        if subjects == 0 || labels.get(pid)?.is_some() || !labels.give(pid, subjects)? {
            continue;
        }
        labelled += 1;
        // The id may have passed to another process before the label was there.
        if started(pid) != Some(candidate.started) {
            labels.withdraw(pid)?;
        }
    }
    Ok(labelled)
}

/// Every running process but the agent itself.
fn candidates(governed: &Governed, hierarchy: &Hierarchy) -> Result<HashMap<u32, Candidate>, KernelError> {
    let processes = procfs::process::all_processes().map_err(|error| KernelError::System {
        what: "the list of running processes",
        error: std::io::Error::other(error),
    })?;
    let mut candidates = HashMap::new();
    let mut cgroups = HashMap::new();
    for process in processes.flatten() {
        // A process may end at any point of this; then it needs no label.
        let (Ok(status), Ok(stat)) = (process.status(), process.stat()) else { continue };
        let Ok(pid) = u32::try_from(process.pid) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let mut subjects =
            governed.of_user(status.ruid) | governed.of_id(SubjectKind::Group, u64::from(status.rgid));
        if governed.names_cgroups()
            && let Some(path) = cgroup_of(&process)
        {
            subjects |= *cgroups.entry(path).or_insert_with_key(|path| governed.of_place(path, hierarchy));
        }
        let parent = u32::try_from(stat.ppid).unwrap_or(0);
        candidates.insert(pid, Candidate { parent, started: stat.starttime, subjects });
    }
    Ok(candidates)
}

/// Subjects of a process and its ancestors.
fn inherited(candidates: &HashMap<u32, Candidate>, pid: u32) -> u64 {
    let mut subjects = 0;
    let mut next = candidates.get(&pid);
    // A chain longer than there are processes would be a loop.
    for _ in 0..=candidates.len() {
        let Some(candidate) = next else { break };
        subjects |= candidate.subjects;
        next = candidates.get(&candidate.parent);
    }
    subjects
}

fn cgroup_of(process: &Process) -> Option<String> {
    let groups = process.cgroups().ok()?;
    groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname)
}

fn started(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    process.stat().ok().map(|stat| stat.starttime)
}

impl Governed {
    /// Subjects of the cgroup at a path and of all its ancestors.
    pub(crate) fn of_place(&self, path: &str, hierarchy: &Hierarchy) -> u64 {
        let full = hierarchy.root().join(path.trim_start_matches('/'));
        let depth = path.split('/').filter(|part| !part.is_empty()).count();
        let ids = full.ancestors().take(depth + 1).filter_map(|folder| fs::metadata(folder).ok());
        ids.fold(0, |all, found| all | self.of_id(SubjectKind::Cgroup, found.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_a_subject_inherit_however_deep() {
        let mut candidates = HashMap::new();
        for (pid, parent, subjects) in [(1, 0, 0), (10, 1, 0b1), (11, 10, 0), (12, 11, 0b10), (20, 1, 0)] {
            candidates.insert(pid, Candidate { parent, started: 0, subjects });
        }
        assert_eq!(inherited(&candidates, 12), 0b11);
        assert_eq!(inherited(&candidates, 11), 0b1);
        assert_eq!(inherited(&candidates, 20), 0);
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mut candidates = HashMap::new();
        candidates.insert(1, Candidate { parent: 2, started: 0, subjects: 1 });
        candidates.insert(2, Candidate { parent: 1, started: 0, subjects: 2 });
        assert_eq!(inherited(&candidates, 1), 3);
    }
}
