//! Commands about bundles. They need neither root nor an agent.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tidegate_policy::{Identity, Policy, Principal, Process};

use super::{Exit, counted};
use crate::{bundle, protocols::Protocols};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate check policies/demo")]
pub(super) struct Check {
    /// Directory of the bundle
    bundle: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate test policies/demo")]
pub(super) struct Test {
    /// Directory of the bundle
    bundle: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate explain policies/demo --as subject=ci --executable /usr/bin/psql --on shop \\
      --do 'DELETE FROM public.orders'")]
pub(super) struct Explain {
    /// Directory of the bundle
    bundle: PathBuf,
    /// Who is asking: subject=NAME; may be repeated
    #[arg(long = "as", value_name = "subject=NAME", required = true, value_parser = subject)]
    subjects: Vec<String>,
    /// Path of the executable that asks
    #[arg(long, value_name = "PATH")]
    executable: Option<String>,
    /// SHA-256 of it, in hexadecimal
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    sha256: Option<String>,
    /// Unit of the system's service manager that it runs in
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Id of the container that it runs in, made by root
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Id of the image that this container was made from, as `sha256:...`
    #[arg(long, value_name = "ID", requires = "container")]
    image: Option<String>,
    /// The issuer that says who asks
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// What it says: NAME=VALUE; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", requires = "issuer", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// A group that it says the asker is in; may be repeated
    #[arg(long = "group", value_name = "GROUP", requires = "issuer")]
    groups: Vec<String>,
    /// The resource
    #[arg(long, value_name = "RESOURCE")]
    on: String,
    /// What is asked, in the resource's own words: a statement, or `GET /path`
    #[arg(long = "do", visible_alias = "sql", value_name = "TEXT")]
    text: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self) -> Result<Exit> {
        let protocols = Protocols::built_in();
        let checked = bundle::load(&self.bundle, &protocols)
            .and_then(|policy| bundle::configure(&policy, &protocols).map(|_| policy));
        match checked {
            Ok(policy) => {
                let subjects = counted(policy.subjects.len(), "subject");
                let resources = counted(policy.resources.len(), "resource");
                let mut out = io::stdout().lock();
                writeln!(out, "bundle {:?} is sound: {subjects}, {resources}", policy.name)?;
                writeln!(out, "digest {}", policy.digest)?;
                Ok(Exit::Done)
            }
            Err(error) => {
                let mut complaints = io::stderr().lock();
                error.problems().iter().try_for_each(|problem| writeln!(complaints, "{problem}"))?;
                Ok(Exit::Failed)
            }
        }
    }
}

impl Test {
    pub(super) fn run(&self) -> Result<Exit> {
        let protocols = Protocols::built_in();
        let policy = bundle::load(&self.bundle, &protocols)?;
        let reports = policy.test(&|resource, text| protocols.shape(resource, text));
        ensure!(
            !reports.is_empty(),
            "bundle {:?} has no cases: write what it should decide under `cases:`, as policies/demo/cases.yaml does",
            policy.name
        );
        let failed = reports.iter().filter(|report| !report.passed()).count();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&reports)?)?;
        } else {
            reports.iter().try_for_each(|report| writeln!(out, "{report}"))?;
            writeln!(out, "{} passed, {failed} failed", reports.len() - failed)?;
        }
        Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
    }
}

impl Explain {
    pub(super) fn run(&self) -> Result<Exit> {
        let protocols = Protocols::built_in();
        let policy = bundle::load(&self.bundle, &protocols)?;
        let known: Vec<_> = policy.subjects.iter().map(|subject| &*subject.name).collect();
        if let Some(unknown) = self.subjects.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("the bundle has no subject {unknown:?}; it has: {}", known.join(", "));
        }
        let resource =
            policy.resource(&self.on).with_context(|| format!("the bundle has no resource {:?}", self.on))?;
        let shape = protocols.shape(resource, &self.text)?;
        let principal = Principal {
            subjects: self.subjects.iter().map(|name| name.as_str().into()).collect(),
            process: self.process(),
            identities: self.identity(&policy)?.into_iter().collect(),
            ..Principal::default()
        };
        let explanation = policy.explain(&principal, &self.on, &shape);
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&explanation)?)?;
        } else {
            write!(out, "{explanation}")?;
            if let Some(supposes) = protocols.find(&resource.protocol).and_then(|known| known.supposes) {
                writeln!(out, "note: decided on the text alone: {supposes}")?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Explain {
    /// Of a process that is somewhere it is known that it is in no other unit and container.
    fn process(&self) -> Process {
        let fact = |given: &Option<String>| given.as_deref().map(Into::into);
        let placed = self.unit.is_some() || self.container.is_some();
        Process {
            executable: fact(&self.executable),
            executable_sha256: fact(&self.sha256),
            unit: fact(&self.unit),
            container: fact(&self.container),
            image: fact(&self.image),
            cgroup: placed.then(|| "/".into()),
            ..Process::default()
        }
    }

    fn identity(&self, policy: &Policy) -> Result<Option<Identity>> {
        let Some(issuer) = &self.issuer else { return Ok(None) };
        let known: Vec<_> = policy.issuers.iter().map(|known| &*known.name).collect();
        ensure!(
            known.contains(&issuer.as_str()),
            "the bundle has no issuer {issuer:?}; it has: {}",
            known.join(", ")
        );
        let claims = self.claims.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        let subject = self.claims.iter().find(|(name, _)| name == "sub").map_or("", |(_, value)| value);
        Ok(Some(Identity {
            issuer: issuer.as_str().into(),
            url: "".into(),
            account: None,
            subject: subject.into(),
            groups: self.groups.iter().map(|group| group.as_str().into()).collect(),
            expires: i64::MAX,
            claims: claims.collect(),
        }))
    }
}

/// Prints the JSON Schema of bundle files.
pub(super) fn schema() -> Result<Exit> {
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&tidegate_policy::schema())?)?;
    Ok(Exit::Done)
}

fn subject(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("subject", name)) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("write subject=NAME, with a subject of the bundle".into()),
    }
}

fn digest(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write what `sha256sum` prints before the path".into())
    }
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, with the name of a claim".into()),
    }
}
