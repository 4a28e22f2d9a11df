//! Which ways are open, and the comparison with what happened.

use anyhow::{Result, ensure};
use tidegate_attacks::{ATTACKS, Layer, Outcome, Row};

/// When an attack was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// With the agent alive.
    Alive,
    /// After it was killed.
    Dead,
}

/// Ways that are open with the agent alive, and why. Whoever closes one takes it from here.
const OPEN: &[(&str, &str)] = &[
    ("source-route-tcp", NO_OPTIONS),
    ("source-route-udp", NO_OPTIONS),
    ("source-route-ancillary", NO_GUARD),
    ("routing-header-tcp", NO_OPTIONS),
    ("routing-header-ancillary", NO_GUARD),
    ("device-after-connect", NO_OPTIONS),
    ("device-udp", NO_OPTIONS),
    ("device-by-index", NO_OPTIONS),
    ("unicast-interface", NO_OPTIONS),
    ("packet-info", NO_GUARD),
    ("packet-info-v6", NO_GUARD),
    ("igmp-join", NO_OPTIONS),
    ("igmp-join-any-family", NO_OPTIONS),
    ("mld-join", NO_OPTIONS),
    ("callback", NO_BIND),
    ("callback-unbound", NO_GUARD),
    ("before-tcp", NO_CLEARANCE),
    ("before-tcp-loopback", NO_CLEARANCE),
    ("before-udp-connected", NO_CLEARANCE),
    ("before-listener", NO_CLEARANCE),
];

const NO_OPTIONS: &str = "no hook of setsockopt()";
const NO_GUARD: &str = "no guard on the packets that leave";
const NO_BIND: &str = "no hook of bind()";
const NO_CLEARANCE: &str = "the agent's start leaves older sockets as they are";

/// Ways that are closed once the agent was killed, although its programs go with it.
const CLOSED_WHEN_DEAD: &[&str] = &["device-before-connect"];

/// An error that lists each row that is not what it should be.
pub(crate) fn compare(phase: Phase, rows: &[Row]) -> Result<()> {
    let mut wrong = Vec::new();
    for row in rows {
        let open = open(phase, row);
        let known = open.map_or(String::new(), |why| format!(" [known to be open: {why}]"));
        println!("{:<26} {}{known}", row.name, row.outcome);
        let problem = match (&row.outcome, open) {
            (Outcome::Passed { .. }, None) => "got through",
            (Outcome::Stopped { .. }, Some(_)) => "is stopped, and the table says that it is open",
            (Outcome::Inexpressible { .. }, None) if !may_be_missing(row) => "could not be tried",
            _ => continue,
        };
        wrong.push(format!("{} ({}) {problem}: {}", row.name, row.tries, row.outcome));
    }
    ensure!(wrong.is_empty(), "{} of {} attacks:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}

fn open(phase: Phase, row: &Row) -> Option<&'static str> {
    let listed = OPEN.iter().find(|(name, _)| *name == row.name).map(|(_, why)| *why);
    listed.or(match row.layer {
        Layer::Shield => Some("there are no LSM programs"),
        Layer::Outside => Some("nothing closes it"),
        Layer::Permissions | Layer::Agent => None,
        _ if phase == Phase::Dead && !CLOSED_WHEN_DEAD.contains(&row.name) => {
            Some("the programs go with the agent")
        }
        _ => None,
    })
}

/// Some kernels lack what it needs.
fn may_be_missing(row: &Row) -> bool {
    ATTACKS.iter().any(|attack| attack.name == row.name && attack.needs.is_some())
}
