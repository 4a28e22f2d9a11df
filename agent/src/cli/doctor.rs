//! `tidegate doctor`: what this host lets the agent enforce, what that leaves open, and whether it is so.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tidegate_attacks::{ATTACKS, Attack, Layer};
use tidegate_kernel::{Feature, Found, Probe, Tier};

use super::{Exit, attack};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Needs root. Exit codes:
  0  the agent works here, and nothing is open that another kernel would close
  1  the agent cannot work here; an attack got through that this tier closes; a report does not verify
  3  --attack: no agent is running
  4  the agent works here, and something is open that another kernel would close

Examples:
  tidegate doctor
  tidegate doctor --attack > report
  tidegate doctor --verify report --key log/key.pub")]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Attack the running agent as a throwaway account that it governs, and print a signed report
    #[arg(long)]
    attack: bool,
    /// The governed user whose label the attacker takes [default: the bundle's first]
    #[arg(long = "as", value_name = "USER", requires = "attack")]
    user: Option<String>,
    /// Check the signature of a report, and print what it says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["attack", "json"])]
    verify: Option<PathBuf>,
    /// The public key of the host's log [default: this host's]
    #[arg(long, value_name = "FILE", requires = "verify")]
    key: Option<PathBuf>,
}

/// What was found, and what follows from it.
pub(super) struct Findings {
    /// What the kernel lets the agent enforce.
    pub(super) tier: Tier,
    features: Vec<Found>,
    programs: Vec<Probe>,
}

/// The findings as JSON has them.
#[derive(Serialize)]
struct Shown<'a> {
    tier: String,
    works: bool,
    features: Vec<Tried<'a>>,
    programs: Vec<Tried<'a>>,
    open: Vec<Open>,
}

#[derive(Serialize)]
struct Tried<'a> {
    feature: String,
    missing: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

/// A way that is open.
#[derive(Serialize)]
struct Open {
    name: &'static str,
    tries: &'static str,
    /// None if nothing closes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<String>,
}

impl Doctor {
    pub(super) fn run(&self, config: &Config) -> Result<Exit> {
        if let Some(report) = &self.verify {
            return attack::verify(config, report, self.key.as_deref());
        }
        let findings = Findings::look();
        if self.attack {
            return attack::run(config, self.user.as_deref(), self.json, &findings);
        }
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&findings.shown())?)?;
        } else {
            findings.show(&mut out)?;
        }
        Ok(findings.exit())
    }
}

impl Findings {
    /// Tries everything.
    fn look() -> Self {
        let features = tidegate_kernel::features();
        Self { tier: Tier::of(&features), features, programs: tidegate_kernel::probe() }
    }

    fn works(&self) -> bool {
        self.tier > Tier::Refuse && self.programs.iter().all(|probe| probe.missing.is_none())
    }

    fn exit(&self) -> Exit {
        if !self.works() {
            Exit::Failed
        } else if self.tier < Tier::Full {
            Exit::Open
        } else {
            Exit::Done
        }
    }

    /// Whether this host leaves a way open whatever the agent does.
    pub(super) fn leaves_open(&self, layer: Layer) -> bool {
        match layer {
            Layer::Outside => true,
            Layer::Shield => self.misses(Feature::Lsm).is_some(),
            Layer::Names => {
                self.misses(Feature::Lsm).is_some() && self.misses(Feature::UnixConnects).is_some()
            }
            _ => false,
        }
    }

    fn misses(&self, feature: Feature) -> Option<&str> {
        let found = self.features.iter().find(|found| found.feature == feature)?;
        found.missing.as_ref().map(|missing| missing.remedy.as_str())
    }

    fn open(&self) -> Vec<Open> {
        let open = |attack: &Attack| {
            self.leaves_open(attack.layer).then(|| Open {
                name: attack.name,
                tries: attack.tries,
                closed_by: match attack.layer {
                    Layer::Outside => None,
                    _ => self.misses(Feature::Lsm).map(str::to_owned),
                },
            })
        };
        ATTACKS.iter().filter_map(open).collect()
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            tier: self.tier.to_string(),
            works: self.works(),
            features: self.features.iter().map(Tried::from).collect(),
            programs: self.programs.iter().map(Tried::from).collect(),
            open: self.open(),
        }
    }

    fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "tier: {}\n", self.tier)?;
        writeln!(out, "What was tried:")?;
        for found in &self.features {
            show_line(out, &found.feature.to_string(), found.missing.as_ref().map(|missing| &*missing.why))?;
            if let Some(missing) = &found.missing {
                writeln!(out, "           needed: {}", missing.remedy)?;
            }
        }
        writeln!(out, "\nWhat the agent needs:")?;
        for probe in &self.programs {
            show_line(out, probe.feature, probe.missing.as_deref())?;
        }
        let open = self.open();
        writeln!(out, "\nWhat is open on this host ({}):", open.len())?;
        for way in &open {
            let why = if way.closed_by.is_none() { " (nothing closes it: see the threat model)" } else { "" };
            writeln!(out, "  {:<26} {}{why}", way.name, way.tries)?;
        }
        let mut closed_by: Vec<_> = open.iter().filter_map(|way| way.closed_by.as_deref()).collect();
        closed_by.dedup();
        for remedy in closed_by {
            writeln!(out, "\nTo close the others: {remedy}")?;
        }
        if !self.works() {
            writeln!(out, "\nThe agent cannot work on this host.")?;
        }
        Ok(())
    }
}

fn show_line(out: &mut impl Write, what: &str, missing: Option<&str>) -> io::Result<()> {
    match missing {
        None => writeln!(out, "  ok       {what}"),
        Some(why) => writeln!(out, "  MISSING  {what}: {why}"),
    }
}

impl<'a> From<&'a Found> for Tried<'a> {
    fn from(found: &'a Found) -> Self {
        let missing = found.missing.as_ref();
        Self {
            feature: found.feature.to_string(),
            missing: missing.map(|missing| &*missing.why),
            remedy: missing.map(|missing| &*missing.remedy),
        }
    }
}

impl<'a> From<&'a Probe> for Tried<'a> {
    fn from(probe: &'a Probe) -> Self {
        Self { feature: probe.feature.to_owned(), missing: probe.missing.as_deref(), remedy: None }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_kernel::Missing;

    use super::*;

    fn findings(missing: &[Feature]) -> Findings {
        let found = |feature| Found {
            feature,
            missing: missing
                .contains(&feature)
                .then(|| Missing { why: "refused".into(), remedy: "lsm=bpf on the command line".into() }),
        };
        let features: Vec<_> = Feature::ALL.into_iter().map(found).collect();
        Findings { tier: Tier::of(&features), features, programs: vec![] }
    }

    #[test]
    fn the_exit_code_says_whether_it_works_and_whether_something_is_open() {
        assert_eq!(findings(&[]).exit(), Exit::Done);
        assert_eq!(findings(&[Feature::Lsm]).exit(), Exit::Open);
        assert_eq!(findings(&[Feature::Connects]).exit(), Exit::Failed);
        let refused = Probe { feature: "a program", missing: Some("the verifier refuses it".into()) };
        assert_eq!(Findings { programs: vec![refused], ..findings(&[]) }.exit(), Exit::Failed);
    }

    #[test]
    fn what_is_open_is_named_with_what_would_close_it() {
        let open = findings(&[Feature::Lsm]).open();
        let named = |name: &str| open.iter().find(|way| way.name == name);
        assert!(named("unix-stream").is_none());
        assert_eq!(named("vsock").unwrap().closed_by.as_deref(), Some("lsm=bpf on the command line"));
        assert!(findings(&[]).open().iter().all(|way| way.closed_by.is_none()));
        assert_eq!(named("named-pipe").unwrap().closed_by, None);
        assert!(named("tcp").is_none());
        let older = findings(&[Feature::Lsm, Feature::UnixConnects]).open();
        assert!(older.iter().any(|way| way.name == "unix-stream"));
        let mut shown = Vec::new();
        findings(&[Feature::Lsm]).show(&mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("needed: lsm=bpf on the command line"), "{shown}");
    }
}
