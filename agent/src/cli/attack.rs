//! `tidegate doctor --attack`: the attacks on a live host, and a report that the host signs.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use nix::unistd::User;
use serde::Serialize;
use tidegate_attacks::{ATTACKS, Battery, Outcome, Row, Target, When};
use tidegate_policy::{Host, Policy};
use tidegate_records::{PublicKey, sign_statement, verify_statement};

use super::{Exit, doctor::Findings};
use crate::{
    admin::{self, Answer, Request, Status},
    bundle,
    config::Config,
    protocols::Protocols,
};

/// What the report is, in its first line.
const KIND: &str = "attack-report";

/// Everything that the report says.
#[derive(Serialize)]
struct Report<'a> {
    time: Timestamp,
    version: &'a str,
    kernel: String,
    tier: String,
    bundle: &'a str,
    digest: &'a str,
    governed_user: u32,
    passed: usize,
    passed_known: usize,
    stopped: usize,
    inexpressible: usize,
    attacks: &'a [Row],
}

/// Runs every attack that can be tried on a live agent.
pub(super) fn run(config: &Config, user: Option<&str>, json: bool, findings: &Findings) -> Result<Exit> {
    let socket = config.admin_socket();
    let status = match admin::ask(&socket, Request::Status) {
        Ok(Answer::Status(status)) => status,
        Ok(other) => anyhow::bail!("the agent answers with {other:?}"),
        Err(error) => {
            eprintln!("tidegate: no agent answers on {}: {error}", socket.display());
            return Ok(Exit::Unreachable);
        }
    };
    let policy = bundle::load(&config.bundle, &Protocols::built_in())?;
    let target = target(config, &status, &policy, user)?;
    let mut battery = Battery::new().context("setting up canaries")?;
    let tried = ATTACKS.iter().filter(|attack| matches!(attack.when, When::Any | When::Alive));
    let mut rows = Vec::new();
    for attack in tried {
        let row = battery.run(attack, &target)?;
        eprintln!("{:<26} {}", row.name, row.outcome);
        rows.push(row);
    }
    drop(battery);
    let report = Report::new(&status, findings, &target, &rows);
    let text = if json { serde_json::to_string(&report)? } else { report.text() };
    let note = sign_statement(&config.records(), KIND, &text).context("signing the report")?;
    io::stdout().lock().write_all(note.as_bytes())?;
    Ok(report.exit())
}

/// Checks a report, and prints its text.
pub(super) fn verify(config: &Config, report: &Path, key: Option<&Path>) -> Result<Exit> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let own = config.records().join("log/key.pub");
    let key = PublicKey::parse(&read(key.unwrap_or(&own))?)?;
    match verify_statement(&read(report)?, KIND, &key) {
        Ok(text) => {
            writeln!(io::stdout().lock(), "signed by {}\n{text}", key.name())?;
            Ok(Exit::Done)
        }
        Err(error) => {
            eprintln!("tidegate: {}: {error}", report.display());
            Ok(Exit::Failed)
        }
    }
}

fn target(config: &Config, status: &Status, policy: &Policy, user: Option<&str>) -> Result<Target> {
    let mut users = policy.subjects.iter().flat_map(|subject| &subject.users);
    let name = user
        .or_else(|| users.next().map(|name| &**name))
        .context("the bundle governs nobody by user; name a user that it governs in another way with --as")?;
    let governed = match name.parse() {
        Ok(id) => id,
        Err(_) => User::from_name(name)?.with_context(|| format!("there is no user {name:?}"))?.uid.as_raw(),
    };
    ensure!(governed != 0, "root cannot be governed");
    Ok(Target {
        governed,
        passes_canary: false,
        declared: declared(policy),
        proxy_port: Some(status.v4_port),
        agent: Some(status.pid),
        admin: Some(config.admin_socket()),
        state: Some(config.state.clone()),
        pins: Some(config.pins.clone()),
    })
}

/// The first destination of a resource that is an IPv4 address.
fn declared(policy: &Policy) -> Option<SocketAddr> {
    let mut addresses = policy.resources.iter().flat_map(|resource| &resource.addresses);
    addresses.find_map(|address| match (&address.host, address.port) {
        (Host::Net(net), Some(port)) if net.addr().is_ipv4() && net.prefix_len() == 32 => {
            Some(SocketAddr::new(IpAddr::V4(net.addr().to_string().parse().ok()?), port))
        }
        _ => None,
    })
}

impl<'a> Report<'a> {
    fn new(status: &'a Status, findings: &Findings, target: &Target, rows: &'a [Row]) -> Self {
        let passed = |row: &&Row| matches!(row.outcome, Outcome::Passed { .. });
        let of = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
        Self {
            time: Timestamp::now(),
            version: &status.version,
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| "unknown".into(), |name| name.release().to_string_lossy().into_owned()),
            tier: findings.tier.to_string(),
            bundle: &status.in_force.bundle,
            digest: &status.in_force.digest,
            governed_user: target.governed,
            passed: of(|outcome| matches!(outcome, Outcome::Passed { .. })),
            passed_known: rows.iter().filter(passed).filter(|row| findings.leaves_open(row.layer)).count(),
            stopped: of(|outcome| matches!(outcome, Outcome::Stopped { .. })),
            inexpressible: of(|outcome| matches!(outcome, Outcome::Inexpressible { .. })),
            attacks: rows,
        }
    }

    /// Its lines for people, none of them empty.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        _ = writeln!(text, "time     {}", self.time);
        _ = writeln!(text, "agent    {}, kernel {}, tier {}", self.version, self.kernel, self.tier);
        _ = writeln!(text, "bundle   {} ({}), user {}", self.bundle, self.digest, self.governed_user);
        _ = writeln!(
            text,
            "attacks  {} stopped, {} passed through ({} of them known to be open at this tier), {} not expressible here",
            self.stopped, self.passed, self.passed_known, self.inexpressible
        );
        for row in self.attacks {
            _ = writeln!(text, "{:<26} {}", row.name, row.outcome);
        }
        text
    }

    fn exit(&self) -> Exit {
        if self.passed > self.passed_known {
            Exit::Failed
        } else if self.passed > 0 {
            Exit::Open
        } else {
            Exit::Done
        }
    }
}
