//! What a cgroup path says of where a process runs: its systemd unit, its container.
//!
//! The forms are those of systemd (systemd.slice(5)), Docker, containerd, CRI-O, Podman and Kubernetes with either of the
//! two cgroup drivers. Whoever a cgroup was delegated to names what lies in it, and that may be a governed account.

use crate::unit::are_slices;

/// Hex digits of a container id.
const ID_LENGTH: usize = 64;

/// What runtimes put before a container id in a systemd scope or service.
const SCOPE_PREFIXES: [&str; 6] =
    ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-", "containerd-"];

/// Endings of units that hold processes.
const UNIT_ENDINGS: [&str; 2] = [".service", ".scope"];

/// The unit of the system's service manager that a cgroup path lies in, of those that hold processes; none outside any. The
/// units of a user's own manager are all its `user@UID.service`.
pub fn unit(path: &str) -> Option<&str> {
    let unit = parts(path).find(|part| !are_slices(part))?;
    is_unit(unit).then_some(unit)
}

/// Ids of the containers that a process is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Containers<'a> {
    /// As only root can have named it; the outermost, if containers nest.
    pub certain: Option<&'a str>,
    /// The next, by a name that its account may have made up.
    pub claimed: Option<&'a str>,
}

/// The containers that a cgroup path lies in, of which this many components were named by root alone.
pub fn containers(path: &str, by_root: usize) -> Containers<'_> {
    let mut ids = parts(path).enumerate().filter_map(|(at, part)| Some((at, container_id(part)?)));
    match ids.next() {
        Some((at, id)) if at < by_root => {
            Containers { certain: Some(id), claimed: ids.next().map(|(_, id)| id) }
        }
        first => Containers { certain: None, claimed: first.map(|(_, id)| id) },
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn is_unit(part: &str) -> bool {
    UNIT_ENDINGS.iter().any(|ending| part.strip_suffix(ending).is_some_and(|name| !name.is_empty()))
}

fn container_id(part: &str) -> Option<&str> {
    let name = UNIT_ENDINGS.iter().find_map(|ending| part.strip_suffix(ending)).unwrap_or(part);
    let prefixed = SCOPE_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    // containerd without a driver of Kubernetes' writes `kubepods-...slice:cri-containerd:ID`.
    let last = name.rsplit(':').next().unwrap_or(name);
    let id = prefixed.unwrap_or(last);
    // libpod-payload-ID and libpod-conmon-ID: the monitor is outside the container.
    let id = id.strip_prefix("payload-").unwrap_or(id);
    (id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
        .then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1a9c0de5b74d2286c1f0a9b8e7d6c5b4a39281706f5e4d3c2b1a0918273645";

    fn with_id(path: &str) -> String {
        path.replace("ID", ID)
    }

    /// Where root named all of the path.
    fn container(path: &str) -> Option<&str> {
        containers(path, usize::MAX).certain
    }

    #[test]
    fn containers_of_every_runtime_are_named() {
        for path in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/system.slice/docker-ID.scope/init",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "/machine.slice/libpod-ID.scope",
            "/libpod_parent/libpod-ID",
            "/machine.slice/libpod-payload-ID",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1f.slice/crio-ID.scope",
            "/kubepods/besteffort/pod7b1c/ID",
            "/kubepods-burstable-pod1f.slice:cri-containerd:ID",
            "/system.slice/containerd.service/kubepods-burstable-pod1f.slice:cri-containerd:ID",
            "/system.slice/nerdctl-ID.scope",
            "/default/ID",
        ] {
            assert_eq!(container(&with_id(path)), Some(ID), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for path in [
            "/",
            "",
            "/system.slice/sshd.service",
            "/system.slice/docker.service",
            "/system.slice/docker-ID0.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/docker/3f1a9c0de5b7",
            "/kubepods.slice/kubepods-pod3f1a9c0d_e5b7_4d22_86c1_f0a9b8e7d6c5.slice",
        ] {
            assert_eq!(container(&with_id(path)), None, "{path}");
        }
    }

    #[test]
    fn an_id_in_upper_case_is_no_container_id() {
        assert_eq!(container(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn the_outermost_container_counts_and_the_next_is_a_claim() {
        let inner = "a".repeat(64);
        let path = format!("/docker/{ID}/docker/{inner}/docker/{}", "b".repeat(64));
        let nested = Containers { certain: Some(ID), claimed: Some(&inner) };
        assert_eq!(containers(&path, usize::MAX), nested);
        assert_eq!(containers(&path, 2), nested);
    }

    #[test]
    fn a_container_in_a_cgroup_that_an_account_was_given_is_a_claim() {
        let path = with_id("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID.scope");
        // Root made user@1000.service, and gave it to the user.
        assert_eq!(containers(&path, 3), Containers { certain: None, claimed: Some(ID) });
        assert_eq!(containers(&path, 0), Containers { certain: None, claimed: Some(ID) });
        assert_eq!(containers("/system.slice/ci.service", 2), Containers::default());
    }

    #[test]
    fn what_a_user_calls_a_unit_is_none_of_the_systems() {
        for forged in ["app.slice/ci.service", "ci.service", "system.slice/ci.service", "ci.slice/ci.scope"] {
            let path = format!("/user.slice/user-1000.slice/user@1000.service/{forged}");
            assert_eq!(unit(&path), Some("user@1000.service"), "{path}");
        }
        for forged in ["/docker/ID/ci.service", "/ci/ci.service", "/x/system.slice/ci.service"] {
            assert_eq!(unit(forged), None, "{forged}");
        }
    }

    #[test]
    fn units_are_services_and_scopes() {
        for (path, expected) in [
            ("/system.slice/sshd.service", Some("sshd.service")),
            ("/system.slice/actions.runner.acme.service", Some("actions.runner.acme.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service",
                Some("user@1000.service"),
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("user@1000.service")),
            ("/system.slice/ssh.service/delegated/leaf", Some("ssh.service")),
            ("/user.slice", None),
            ("/.service", None),
            ("/", None),
        ] {
            assert_eq!(unit(path), expected, "{path}");
        }
    }
}
