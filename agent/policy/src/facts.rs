//! What a rule asks of the process itself, as the kernel and procfs tell it.

use std::sync::Arc;

use crate::{Process, matcher::Globs};

/// What a rule asks of the process; without any of it, any process will do.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Paths of executables.
    pub(crate) executables: Option<Globs>,
    /// SHA-256 of executables, in lower-case hexadecimal.
    pub(crate) sha256: Option<Vec<Arc<str>>>,
    /// Units of the system's service manager.
    pub(crate) units: Option<Globs>,
    /// Container ids.
    pub(crate) containers: Option<Globs>,
    /// Ids of images that containers were made from.
    pub(crate) images: Option<Vec<Arc<str>>>,
}

impl Facts {
    /// Whether the process is what is asked for; else what it is for others of. What cannot be told of a process is
    /// nothing that a rule grants on, and everything that it takes away on.
    pub(crate) fn are_of(&self, process: &Process, grants: bool) -> Result<(), &'static str> {
        // With its cgroup it is known that a process is in no unit or container.
        let placed = process.cgroup.is_some();
        let may_be_boxed = process.container.is_some() || !placed;
        let globs = |globs: &Option<Globs>, fact: &Option<Arc<str>>, known: bool| match (globs, fact) {
            (None, _) => true,
            (Some(globs), Some(fact)) => globs.matches(fact),
            (Some(_), None) => !grants && !known,
        };
        let digest = match (&self.sha256, &process.executable_sha256) {
            (None, _) => true,
            (Some(digests), Some(digest)) => digests.contains(digest),
            (Some(_), None) => !grants,
        };
        let image = match (&self.images, &process.image) {
            (None, _) => true,
            (Some(images), Some(image)) if images.contains(image) => true,
            // What is within that container, or what it was made from, nobody can tell.
            (Some(_), image) => {
                !grants && (process.claimed_container.is_some() || image.is_none() && may_be_boxed)
            }
        };
        let judged = [
            (globs(&self.executables, &process.executable, false), "executables"),
            (digest, "executables, by their digest"),
            (globs(&self.units, &process.unit, placed), "units"),
            (
                globs(&self.containers, &process.container, placed) || !grants && self.claims(process),
                "containers",
            ),
            (image, "containers, by their image"),
        ];
        judged.into_iter().find(|(is, _)| !is).map_or(Ok(()), |(_, what)| Err(what))
    }

    /// Whether the process is in such a container by a name that its account may have made up.
    fn claims(&self, process: &Process) -> bool {
        let claimed = process.claimed_container.as_ref();
        self.containers.as_ref().zip(claimed).is_some_and(|(globs, id)| globs.matches(id))
    }

    /// Whether every process that is what `other` asks for is what this asks for, as far as can be told from what is
    /// written.
    pub(crate) fn cover(&self, other: &Self) -> bool {
        let globs = |ours: &Option<Globs>, theirs: &Option<Globs>| match (ours, theirs) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => ours.written == theirs.written,
            (Some(_), None) => false,
        };
        let digests = |ours: &Option<Vec<Arc<str>>>, theirs: &Option<Vec<Arc<str>>>| match (ours, theirs) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => theirs.iter().all(|digest| ours.contains(digest)),
            (Some(_), None) => false,
        };
        globs(&self.executables, &other.executables)
            && digests(&self.sha256, &other.sha256)
            && globs(&self.units, &other.units)
            && globs(&self.containers, &other.containers)
            && digests(&self.images, &other.images)
    }
}
