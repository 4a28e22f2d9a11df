//! What a cgroup path says of where a process runs: its systemd unit, its container.
//!
//! The forms are those of systemd (systemd.slice(5)), Docker, containerd, CRI-O, Podman and Kubernetes with either of the
//! two cgroup drivers. A path is only ever a hint that root on the host wrote; governed processes can't choose it.

/// Hex digits of a container id.
const ID_LENGTH: usize = 64;

/// What runtimes put before a container id in a systemd scope or service.
const SCOPE_PREFIXES: [&str; 6] =
    ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-", "containerd-"];

/// Endings of units that hold processes.
const UNIT_ENDINGS: [&str; 2] = [".service", ".scope"];

/// The systemd unit that a cgroup path lies in: for a user manager's units the innermost, as `systemctl --user` has it;
/// none outside any service or scope.
pub fn unit(path: &str) -> Option<&str> {
    parts(path).filter(|part| is_unit(part)).last()
}

/// The id of the container that a cgroup path lies in; the innermost, if containers nest.
pub fn container(path: &str) -> Option<&str> {
    parts(path).filter_map(container_id).last()
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
    fn the_innermost_container_counts() {
        let inner = "a".repeat(64);
        assert_eq!(container(&format!("/docker/{ID}/docker/{inner}")), Some(&*inner));
    }

    #[test]
    fn units_are_services_and_scopes() {
        for (path, expected) in [
            ("/system.slice/sshd.service", Some("sshd.service")),
            ("/system.slice/actions.runner.acme.service", Some("actions.runner.acme.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service", Some("vim.service")),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("init.scope")),
            ("/system.slice/ssh.service/delegated/leaf", Some("ssh.service")),
            ("/user.slice", None),
            ("/.service", None),
            ("/", None),
        ] {
            assert_eq!(unit(path), expected, "{path}");
        }
    }
}
