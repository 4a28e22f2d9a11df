//! The bits that stand for subjects.

use std::sync::Arc;

use tidegate_abi::{MAX_SUBJECTS, SubjectDigest};

use crate::KernelError;

/// Which bit of a label stands for which subject. A bit keeps its meaning for as long as the programs are attached, because
/// labels and stamps outlive a bundle and an agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubjectBits {
    subjects: Vec<Subject>,
}

/// A subject that has a bit.
#[derive(Debug, Clone)]
struct Subject {
    digest: SubjectDigest,
    /// Unknown while only an earlier agent has named it.
    name: Option<Arc<str>>,
}

impl SubjectBits {
    /// As an earlier agent gave them.
    pub(crate) fn adopted(digests: Vec<SubjectDigest>) -> Self {
        Self { subjects: digests.into_iter().map(|digest| Subject { digest, name: None }).collect() }
    }

    /// Digests of the subjects' names, in the order of the bits.
    pub(crate) fn digests(&self) -> Vec<SubjectDigest> {
        self.subjects.iter().map(|subject| subject.digest).collect()
    }

    /// The bit of a subject, allotted if it has none.
    pub(super) fn allot(&mut self, name: &Arc<str>) -> Result<u64, KernelError> {
        let index = self.index(digest(name)).ok_or_else(|| {
            KernelError::Rules(format!(
                "subject {name:?} is one too many: at most {MAX_SUBJECTS} different subjects fit until `tidegate detach` \
                 or the next boot"
            ))
        })?;
        if let Some(subject) = self.subjects.get_mut(index) {
            subject.name = Some(Arc::clone(name));
        }
        Ok(1 << index)
    }

    /// The bit's number of a subject, given one if it has none; none if all are given.
    pub(crate) fn index(&mut self, digest: SubjectDigest) -> Option<usize> {
        if let Some(index) = self.subjects.iter().position(|known| known.digest == digest) {
            return Some(index);
        }
        if self.subjects.len() >= MAX_SUBJECTS as usize {
            return None;
        }
        self.subjects.push(Subject { digest, name: None });
        Some(self.subjects.len() - 1)
    }

    pub(super) fn get(&self, name: &str) -> Option<u64> {
        let known = |subject: &Subject| subject.name.as_deref() == Some(name);
        self.subjects.iter().position(known).map(|index| 1 << index)
    }

    /// The bits of declared subjects that a rule about `what` names.
    pub(crate) fn all_of(&self, names: &[Arc<str>], what: &str) -> Result<u64, KernelError> {
        names.iter().try_fold(0, |bits, name| {
            let bit = self.get(name).ok_or_else(|| {
                KernelError::Rules(format!("{what} is for subject {name:?}, which is not declared"))
            })?;
            Ok(bits | bit)
        })
    }

    /// Names of the subjects in a set, in the order they were first seen.
    pub(crate) fn names(&self, subjects: u64) -> Vec<Arc<str>> {
        let set = |(index, _): &(usize, &Subject)| subjects >> index & 1 == 1;
        self.subjects.iter().enumerate().filter(set).filter_map(|(_, subject)| subject.name.clone()).collect()
    }
}

fn digest(name: &str) -> SubjectDigest {
    let mut bytes = SubjectDigest::default();
    bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes()).as_ref());
    bytes
}
