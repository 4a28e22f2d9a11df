//! Whom the kernel governs, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::yaml::At;

/// A set of processes that are governed, chosen by any of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Subject")]
pub(crate) struct RawSubject {
    /// User names or decimal user ids.
    pub(crate) users: Option<At<List<String>>>,
    /// Group names or decimal group ids.
    pub(crate) groups: Option<At<List<String>>>,
    /// Paths within the cgroup v2 hierarchy, whether they are there yet or not; descendants count.
    pub(crate) cgroups: Option<At<List<String>>>,
    /// Units of the system's service manager: `ci.service`, `ci@*.service` for all instances, `docker-*.scope` for what
    /// Docker runs. A `*` stands right before the ending.
    pub(crate) units: Option<At<List<String>>>,
    /// Runtimes whose containers are governed, all of them, with the cgroups that they make as root. Rootless ones are their
    /// account's.
    pub(crate) containers: Option<At<List<Runtime>>>,
}

impl RawSubject {
    /// Whether it names anything; what can't be read counts as named, as it is reported already.
    pub(crate) fn chooses(&self) -> bool {
        fn names<T>(list: Option<&At<List<T>>>) -> bool {
            list.is_some_and(|list| list.get().is_none_or(|list| !list.is_empty()))
        }
        [&self.users, &self.groups, &self.cgroups, &self.units].into_iter().any(|list| names(list.as_ref()))
            || names(self.containers.as_ref())
    }
}

/// A container runtime, by the units and cgroups that it makes.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Runtime {
    /// Docker.
    Docker,
    /// containerd, under Kubernetes or nerdctl.
    Containerd,
    /// CRI-O, under Kubernetes.
    CriO,
    /// Podman.
    Podman,
}

impl Runtime {
    /// The units of its containers where the service manager makes their cgroups (`--cgroup-manager=systemd`, the default on
    /// most hosts).
    pub(crate) fn units(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["docker-*.scope"],
            Self::Containerd => &["cri-containerd-*.scope", "nerdctl-*.scope"],
            Self::CriO => &["crio-*.scope"],
            Self::Podman => &["libpod-*.scope"],
        }
    }

    /// The cgroups that its containers lie in where it makes them itself (`cgroupfs`).
    pub(crate) fn cgroups(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["/docker"],
            Self::Containerd | Self::CriO => &["/kubepods"],
            Self::Podman => &["/libpod_parent"],
        }
    }
}
