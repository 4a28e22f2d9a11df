//! The tier: what this kernel lets the agent enforce, found by forbidding something to a process made for it and seeing
//! whether it was stopped. Never by a version number.

mod place;
mod program;
mod required;
mod tried;

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;

pub use self::required::{Had, Required};
use crate::btf;
use crate::cgroup::Hierarchy;
use crate::tier::program::{Attachment, Kind, Program};
use crate::tier::tried::{Attempt, Errno, Trial};

/// A part of the kernel that enforcement stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Sockets are refused at their creation.
    Creation,
    /// Connects are refused.
    Connects,
    /// Datagrams are refused.
    Datagrams,
    /// Ports are refused.
    Ports,
    /// Socket options are refused.
    Options,
    /// Packets that leave are dropped.
    Packets,
    /// Connections are told apart by network namespace at the hand-off.
    NamespaceCookie,
    /// A refusal has an error code of its own.
    ReturnValues,
    /// Connects to Unix sockets are refused.
    UnixConnects,
    /// Open sockets can be destroyed by a program.
    DestroySockets,
    /// LSM programs refuse.
    Lsm,
}

/// A feature, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub feature: Feature,
    /// Why it is missing; none if it is there.
    pub missing: Option<Missing>,
}

/// A feature that isn't there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What was seen.
    pub why: String,
    /// What would make it be there.
    pub remedy: String,
}

/// How much is enforced on this kernel; each tier has all of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Not enough to start.
    Refuse,
    /// Sockets, connects, datagrams, ports, options and packets.
    Base,
    /// And the hand-off of every network namespace.
    Recommended,
    /// And error codes that tell the refused why.
    Hardened,
    /// And LSM programs, Unix sockets and the end of older sockets.
    Full,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Creation,
        Self::Connects,
        Self::Datagrams,
        Self::Ports,
        Self::Options,
        Self::Packets,
        Self::NamespaceCookie,
        Self::ReturnValues,
        Self::UnixConnects,
        Self::DestroySockets,
        Self::Lsm,
    ];

    /// The lowest tier that has it.
    pub fn tier(self) -> Tier {
        match self {
            Self::Creation
            | Self::Connects
            | Self::Datagrams
            | Self::Ports
            | Self::Options
            | Self::Packets => Tier::Base,
            Self::NamespaceCookie => Tier::Recommended,
            Self::ReturnValues => Tier::Hardened,
            Self::UnixConnects | Self::DestroySockets | Self::Lsm => Tier::Full,
        }
    }

    /// Which kernels have it.
    fn remedy(self) -> &'static str {
        match self.tier() {
            Tier::Refuse | Tier::Base => "Linux 5.10 or later with CONFIG_CGROUP_BPF",
            Tier::Recommended => "Linux 5.15 or later",
            Tier::Hardened => "Linux 6.1 or later",
            Tier::Full => "Linux 6.7 or later",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creation => "sockets are refused at their creation",
            Self::Connects => "connects are refused",
            Self::Datagrams => "datagrams are refused",
            Self::Ports => "ports are refused",
            Self::Options => "socket options are refused",
            Self::Packets => "packets that leave are dropped",
            Self::NamespaceCookie => "connections know their network namespace",
            Self::ReturnValues => "a refusal has an error code of its own",
            Self::UnixConnects => "connects to Unix sockets are refused",
            Self::DestroySockets => "open sockets can be destroyed by a program",
            Self::Lsm => "LSM programs refuse",
        })
    }
}

impl Tier {
    /// The highest tier that misses none of its features.
    pub fn of(found: &[Found]) -> Self {
        let misses =
            |tier: Self| found.iter().any(|found| found.missing.is_some() && found.feature.tier() == tier);
        let mut reached = Self::Refuse;
        for tier in [Self::Base, Self::Recommended, Self::Hardened, Self::Full] {
            if misses(tier) {
                break;
            }
            reached = tier;
        }
        reached
    }
}

impl Tier {
    /// What was not found of this tier and those below, with what would help.
    pub fn lacking(self, found: &[Found]) -> Vec<String> {
        let below = found.iter().filter(|found| found.feature.tier() <= self);
        let lacks = |Found { feature, missing }: &Found| {
            let Missing { why, remedy } = missing.as_ref()?;
            Some(format!("{feature} ({why}; it takes {remedy})"))
        };
        below.filter_map(lacks).collect()
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Base => "base",
            Self::Recommended => "recommended",
            Self::Hardened => "hardened",
            Self::Full => "full",
        })
    }
}

/// Tries every feature, in a cgroup and with processes of its own. Needs root; leaves nothing behind.
pub fn features() -> Vec<Found> {
    let trial = Hierarchy::find()
        .map_err(|error| error.to_string())
        .and_then(|hierarchy| Trial::new(&hierarchy).map_err(|error| format!("a cgroup to try in: {error}")));
    let tried = |feature: Feature| {
        let missing = match &trial {
            Ok(trial) => try_feature(feature, trial).err(),
            Err(why) => Some(why.clone()),
        };
        let missing = missing.map(|why| Missing { remedy: remedy(feature), why });
        Found { feature, missing }
    };
    Feature::ALL.into_iter().map(tried).collect()
}

fn try_feature(feature: Feature, trial: &Trial) -> Result<(), String> {
    match feature {
        Feature::Creation => trial.forbids(Attachment::SocketCreation, Attempt::Socket, Errno::NotPermitted),
        Feature::Connects => connects(trial, Program::refuse(), Errno::NotPermitted),
        Feature::Datagrams => datagrams(trial, Attachment::Datagram4),
        Feature::Ports => trial.forbids(Attachment::Bind4, Attempt::Bind, Errno::NotPermitted),
        Feature::Options => trial.forbids(Attachment::SetOption, Attempt::Option, Errno::NotPermitted),
        Feature::Packets => datagrams(trial, Attachment::Egress),
        Feature::NamespaceCookie => Program::namespace_cookie().load(Kind::SocketEvents).map(drop),
        Feature::ReturnValues => {
            connects(trial, Program::refuse_with(Errno::HostUnreachable), Errno::HostUnreachable)
        }
        Feature::UnixConnects => unix_connects(trial),
        Feature::DestroySockets => match btf::function("bpf_sock_destroy") {
            Some(_) => Ok(()),
            None => Err("the kernel has no bpf_sock_destroy".to_owned()),
        },
        Feature::Lsm => trial.forbids_by_lsm(),
    }
}

/// Forbids a connect to a server of ours, which must not notice any.
fn connects(trial: &Trial, program: Program, errno: Errno) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a server to connect to: {error}");
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    server.set_nonblocking(true).map_err(failed)?;
    let port = server.local_addr().map_err(failed)?.port();
    trial.forbids_with(&program, Attachment::Connect4, Attempt::Connect(port), errno)?;
    // The one that was tried without a program, and no other.
    let noticed = std::iter::from_fn(|| server.accept().ok()).count();
    if noticed == 1 { Ok(()) } else { Err(format!("{noticed} connections arrived instead of 1")) }
}

/// Forbids a datagram to a server of ours, which must not get it.
fn datagrams(trial: &Trial, attachment: Attachment) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a server to send to: {error}");
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    server.set_nonblocking(true).map_err(failed)?;
    let port = server.local_addr().map_err(failed)?.port();
    trial.forbids(attachment, Attempt::Datagram(port), Errno::NotPermitted)?;
    let mut byte = [0];
    let arrived = std::iter::from_fn(|| server.recv(&mut byte).ok()).count();
    if arrived == 1 { Ok(()) } else { Err(format!("{arrived} datagrams arrived instead of 1")) }
}

fn unix_connects(trial: &Trial) -> Result<(), String> {
    let (server, name) = tried::unix_server().map_err(|error| format!("a Unix server: {error}"))?;
    let outcome = trial.forbids(Attachment::UnixConnect, Attempt::Unix(name), Errno::NotPermitted);
    // It lives as long as it is tried.
    let _ = server.as_fd();
    outcome
}

/// What would make a missing feature be there.
fn remedy(feature: Feature) -> String {
    if feature != Feature::Lsm {
        return feature.remedy().to_owned();
    }
    match fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(list) => lsm_remedy(list.trim()),
        Err(_) => {
            "mount securityfs to see which security modules are on; `bpf` must be one of them".to_owned()
        }
    }
}

/// `list` is the security modules that are on, as the kernel shows them.
fn lsm_remedy(list: &str) -> String {
    if list.split(',').any(|module| module == "bpf") {
        "the BPF security module is on: lockdown or a filter of the host's keeps LSM programs out".to_owned()
    } else if list.is_empty() {
        "a kernel with CONFIG_BPF_LSM, and lsm=bpf on its command line".to_owned()
    } else {
        format!("lsm={list},bpf on the kernel's command line (and CONFIG_BPF_LSM)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(missing: &[Feature]) -> Vec<Found> {
        let found = |feature| Found {
            feature,
            missing: missing
                .contains(&feature)
                .then(|| Missing { why: "it is not there".to_owned(), remedy: "another kernel".to_owned() }),
        };
        Feature::ALL.into_iter().map(found).collect()
    }

    #[test]
    fn a_tier_is_reached_by_all_features_up_to_it() {
        assert_eq!(Tier::of(&without(&[])), Tier::Full);
        assert_eq!(Tier::of(&without(&[Feature::Lsm])), Tier::Hardened);
        assert_eq!(Tier::of(&without(&[Feature::ReturnValues])), Tier::Recommended);
        assert_eq!(Tier::of(&without(&[Feature::NamespaceCookie, Feature::Lsm])), Tier::Base);
        assert_eq!(Tier::of(&without(&[Feature::Packets])), Tier::Refuse);
    }

    #[test]
    fn what_a_tier_lacks_is_told_with_what_would_help_and_nothing_of_those_above() {
        let found = without(&[Feature::Packets, Feature::Lsm]);
        let expected = "packets that leave are dropped (it is not there; it takes another kernel)";
        assert_eq!(Tier::Base.lacking(&found), [expected]);
        assert_eq!(Tier::Full.lacking(&found).len(), 2);
    }

    #[test]
    fn the_remedy_for_missing_lsm_programs_is_the_command_line_to_use() {
        let remedy = lsm_remedy("lockdown,capability,yama");
        assert!(remedy.contains("lsm=lockdown,capability,yama,bpf"), "{remedy}");
        assert!(lsm_remedy("capability,bpf").contains("is on"));
    }
}
