//! What the kernel lets the agent enforce, found by trying.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use tidegate_kernel::cgroup::remove;
use tidegate_kernel::{Feature, Found, Tier, features};

use crate::common::Cgroup;

fn cgroups_of_trials(root: &str) -> usize {
    let entries = std::fs::read_dir(root).unwrap().flatten();
    // Other tests' processes may be trying too.
    let own = format!("tidegate-trial-{}-", std::process::id());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
}

#[test]
#[ignore = "needs root: cargo xtask test kernel"]
fn a_kernel_that_runs_the_agent_has_the_recommended_tier_and_trying_leaves_nothing_behind() {
    let cgroup = Cgroup::new();
    let found = features();
    let missing: Vec<&Found> = found
        .iter()
        .filter(|found| found.missing.is_some() && found.feature.tier() <= Tier::Recommended)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(Tier::of(&found) >= Tier::Recommended);
    assert_eq!(cgroups_of_trials(cgroup.root()), 0);
}

#[test]
#[ignore = "needs root: cargo xtask test kernel"]
fn what_a_killed_agent_tried_in_is_removed_by_the_next_one_and_what_a_living_one_tries_in_is_not() {
    let cgroup = Cgroup::new();
    let own = std::process::id();
    // This process, and one of the same id that started at another time.
    let started = std::fs::read_to_string("/proc/self/stat").unwrap();
    let started = started.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap();
    let of = |start: &str| Path::new(cgroup.root()).join(format!("tidegate-trial-{own}-{start}-77"));
    let (living, killed) = (of(started), of("1"));
    std::fs::create_dir(&living).unwrap();
    std::fs::create_dir(&killed).unwrap();
    features();
    let (living_is_there, killed_is_there) = (living.exists(), killed.exists());
    for left in [&living, &killed].into_iter().filter(|path| path.exists()) {
        std::fs::remove_dir(left).unwrap();
    }
    assert!(living_is_there && !killed_is_there);
}

#[test]
#[ignore = "needs root: cargo xtask test kernel"]
fn a_cgroup_is_removed_once_its_last_process_has_ended_and_not_while_it_lives() {
    let cgroup = Cgroup::new();
    let folder = Path::new(cgroup.inner());
    let mut process = Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(folder.join("cgroup.procs"), process.id().to_string()).unwrap();
    assert_eq!(remove(folder).unwrap_err().kind(), ErrorKind::ResourceBusy);
    process.kill().unwrap();
    process.wait().unwrap();
    remove(folder).unwrap();
    std::fs::create_dir(folder).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test kernel"]
fn lsm_programs_are_found_where_the_module_is_on_and_their_absence_has_a_remedy() {
    let found = features();
    let lsm = found.iter().find(|found| found.feature == Feature::Lsm).unwrap();
    let on = std::fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|list| list.trim().split(',').any(|module| module == "bpf"));
    match &lsm.missing {
        None => {}
        Some(missing) => {
            assert!(!on, "the module is on, and yet: {missing:?}");
            assert!(missing.remedy.contains("bpf"), "{missing:?}");
        }
    }
}
