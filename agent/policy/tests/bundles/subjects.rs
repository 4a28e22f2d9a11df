//! Whom a bundle governs.

use tidegate_policy::{Policy, SourceFile, Subject};

use crate::common::{VOCABULARY, told};

fn subject(text: &str) -> Result<Subject, String> {
    let text = format!("tidegate: 1\nname: test\nsubjects: {{ci: {text}}}\n");
    let file = SourceFile { path: "b.yaml".into(), text };
    let mut policy = Policy::load(&[file], &[&VOCABULARY]).map_err(|problems| told(&problems))?;
    policy.subjects.pop().ok_or_else(|| "no subject".into())
}

#[test]
fn containers_are_the_units_and_cgroups_that_their_runtime_makes() {
    let docker = subject("{containers: [docker]}").unwrap();
    assert_eq!(docker.units, ["docker-*.scope".into()]);
    assert_eq!(docker.cgroups, ["/docker".into()]);
    let all = subject("{containers: [docker, containerd, cri-o, podman], units: [ci.slice]}").unwrap();
    for unit in ["ci.slice", "cri-containerd-*.scope", "nerdctl-*.scope", "crio-*.scope", "libpod-*.scope"] {
        assert!(all.units.contains(&unit.into()), "{unit}: {:?}", all.units);
    }
    for cgroup in ["/docker", "/kubepods", "/libpod_parent"] {
        assert!(all.cgroups.contains(&cgroup.into()), "{cgroup}: {:?}", all.cgroups);
    }
}

#[test]
fn a_runtime_that_is_not_known_is_told_with_those_that_are() {
    let problem = subject("{containers: [rkt]}").unwrap_err();
    assert!(problem.contains("rkt") && problem.contains("podman"), "{problem}");
    let nobody = subject("{containers: []}").unwrap_err();
    assert!(nobody.contains("chooses no process"), "{nobody}");
}
