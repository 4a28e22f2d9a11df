//! Who is asking.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Identity, Unproven};

/// Who is asking: what the kernel and procfs say of the process and, where a token was presented, what its issuer says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The bundle's subjects that the kernel's sticky label names. Never empty for a governed process.
    pub subjects: Vec<Arc<str>>,
    /// The process.
    pub process: Process,
    /// Who issuers say that it is, where tokens were presented and verified: at most one of an issuer.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub identities: Arc<[Identity]>,
    /// Tokens that are there for it and do not count.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub unproven: Arc<[Unproven]>,
}

impl Principal {
    /// What this issuer says of it.
    pub fn identity(&self, issuer: &str) -> Option<&Identity> {
        self.identities.iter().find(|identity| &*identity.issuer == issuer)
    }
}

fn is_empty<T>(list: &Arc<[T]>) -> bool {
    list.is_empty()
}

/// Facts about one process, held by pid and start time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/pid/stat`, field 22); none if it was gone before it was read.
    pub start_time: Option<u64>,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The user whose sub-uid that is (subuid(5)), if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_uid_of: Option<u32>,
    /// Whose sub-uid it is could not be told: `sub_uid_of` is the first id of the range that it is in, and it may be everybody's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owner_untold: bool,
    /// Real group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Name of the user who answers for it, if the host knows one.
    pub user: Option<Arc<str>>,
    /// The host says that this user has no name. Without it, and without a name, it could not be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nameless: bool,
    /// Command name as the kernel captured it at connect.
    pub command: Arc<str>,
    /// Path of the executable.
    pub executable: Option<Arc<str>>,
    /// SHA-256 of the executable, lower-case hex.
    pub executable_sha256: Option<Arc<str>>,
    /// Command line; arguments that look like secrets are shown as `***`.
    pub command_line: Vec<Arc<str>>,
    /// Path within the cgroup v2 hierarchy.
    pub cgroup: Option<Arc<str>>,
    /// Unit of the system's service manager, never of a user's own.
    pub unit: Option<Arc<str>>,
    /// Id of the outermost container, where only root can have named its cgroup.
    pub container: Option<Arc<str>>,
    /// Id of the image that this container was made from, as `sha256:` and lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Arc<str>>,
    /// Id of a container, or of the next within that one, by a name that its account may have made up: nothing is granted
    /// on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_container: Option<Arc<str>>,
    /// Executables of the ancestors, parent first.
    pub ancestry: Vec<Arc<str>>,
}

impl Process {
    /// The user id of whoever answers for it: a sub-uid counts as the user whose it is.
    pub fn account(&self) -> u32 {
        self.sub_uid_of.unwrap_or(self.uid)
    }

    /// As whom it counts where each has a share.
    pub fn sharer(&self) -> Sharer {
        Sharer::of(self.account(), self.container.as_ref())
    }
}

/// As whom a process counts where each has a share: of places, of time, of what a rule lets through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sharer {
    /// An account.
    Account(u32),
    /// A container that root made, by its id: whoever is root in it has as many user ids as they like.
    Container(Arc<str>),
}

impl Sharer {
    /// Of an account's process, and the container that it is in for certain.
    pub fn of(account: u32, container: Option<&Arc<str>>) -> Self {
        container.cloned().map_or(Self::Account(account), Self::Container)
    }
}

impl From<u32> for Sharer {
    fn from(account: u32) -> Self {
        Self::Account(account)
    }
}

impl fmt::Display for Sharer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(uid) => write!(f, "uid {uid}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_many_user_ids_in_a_container_that_root_made_has_one_share() {
        let process = |uid, container: Option<&str>| Process {
            uid,
            container: container.map(Into::into),
            ..Process::default()
        };
        assert_eq!(process(1, Some("4f2")).sharer(), process(2, Some("4f2")).sharer());
        assert_ne!(process(1, Some("4f2")).sharer(), process(1, Some("5a0")).sharer());
        assert_ne!(process(1, Some("4f2")).sharer(), process(1, None).sharer());
        // Whoever runs a container names it: such an id counts for nothing.
        let claimed = Process { claimed_container: Some("4f2".into()), ..process(1, None) };
        assert_eq!(claimed.sharer(), Sharer::Account(1));
        let sub_uid = Process { sub_uid_of: Some(7), ..process(100_001, None) };
        assert_eq!(sub_uid.sharer(), Sharer::Account(7));
    }
}
