//! What the kernel lets the agent enforce, found by trying.

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
