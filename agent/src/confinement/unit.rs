//! The service's unit says from outside what the agent says of itself.

use std::collections::BTreeSet;

use caps::Capability;
use nix::libc;

use super::{calls::FAMILIES, capabilities::KEPT};

static UNIT: &str = include_str!("../../tidegate.service");
static ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");
static CALLS: &str = include_str!("calls.rs");
/// The group of that name as systemd 252 has it: `systemd-analyze syscall-filter`.
static SYSTEM_SERVICE: &str = include_str!("system-service.txt");

/// Loading programs, raising limits, and giving up the others.
const START: [Capability; 3] =
    [Capability::CAP_PERFMON, Capability::CAP_SYS_RESOURCE, Capability::CAP_SETPCAP];

/// The words of a setting that is there once.
fn setting(name: &str) -> BTreeSet<&'static str> {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let values: Vec<&str> = lines.collect();
    assert_eq!(values.len(), 1, "{name} is set {} times", values.len());
    values[0].split_whitespace().collect()
}

#[test]
fn the_unit_bounds_the_capabilities_by_those_of_the_start_and_those_that_are_kept() {
    let kept = KEPT.iter().map(|(capability, _)| *capability);
    let needed: BTreeSet<String> = kept.chain(START).map(|capability| capability.to_string()).collect();
    let bounded: BTreeSet<String> =
        setting("CapabilityBoundingSet").into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(bounded, needed);
}

#[test]
fn the_capabilities_that_are_kept_are_those_that_the_architecture_lists() {
    let rows = ARCHITECTURE.lines().filter_map(|line| line.strip_prefix("| `CAP_")?.split_once('`'));
    let listed: BTreeSet<String> = rows.map(|(name, _)| format!("CAP_{name}")).collect();
    assert_eq!(listed, KEPT.iter().map(|(capability, _)| capability.to_string()).collect());
}

#[test]
fn the_unit_lets_through_every_call_that_the_agent_may_make() {
    let mut allowed = setting("SystemCallFilter");
    assert!(allowed.remove("@system-service"));
    allowed.extend(SYSTEM_SERVICE.split_whitespace());
    let names = CALLS.split("libc::SYS_").skip(1);
    let names = names.filter_map(|rest| rest.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next());
    let called: BTreeSet<&str> = names.collect();
    assert!(called.len() > 100, "{called:?}");
    assert_eq!(called.difference(&allowed).collect::<Vec<_>>(), [&""; 0]);
}

#[test]
fn the_unit_lets_the_agent_make_the_cgroup_that_it_tries_the_kernel_in() {
    assert!(!UNIT.lines().any(|line| line.starts_with("ProtectControlGroups=")), "no tier can be told");
}

#[test]
fn the_unit_lets_the_agent_make_sockets_of_the_families_that_it_may() {
    let names = FAMILIES.iter().map(|family| match *family {
        libc::AF_UNIX => "AF_UNIX",
        libc::AF_INET => "AF_INET",
        libc::AF_INET6 => "AF_INET6",
        libc::AF_NETLINK => "AF_NETLINK",
        other => panic!("the unit's name of family {other} is not known here"),
    });
    assert_eq!(setting("RestrictAddressFamilies"), names.collect());
}
