//! The server and the ways to it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::User;
use serde_json::json;
use tempfile::TempDir;
use tidegate_tests::{
    Account, Agent, CLIENTS, Certificates, Process, Settings, governed_uid, random, ungoverned_uid,
};

use crate::bench::hop::{Hop, free_address, listening};

const BUNDLE: (&str, &str) = ("bundle.yaml", include_str!("bundle.yaml"));

/// What is masked; the other gate's bundle doesn't have this file.
const MASKS: (&str, &str) = ("masks.yaml", include_str!("masks.yaml"));

/// All hops, and what runs behind them.
pub(crate) struct Hops {
    hops: Vec<Hop>,
    _agents: [Agent; 2],
    _others: [Process; 3],
    _directory: TempDir,
}

/// The server, as hops must know it.
struct Server {
    address: SocketAddr,
    certificates: Certificates,
    directory: PathBuf,
}

impl Hops {
    /// Starts everything.
    pub(crate) fn start(binary: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("tidegate-bench-")?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let owner = User::from_name("www-data")?.context("there is no user www-data")?;
        let server = Server {
            address: free_address()?,
            certificates: Certificates::make(directory.path(), &owner)?,
            directory: directory.path().to_owned(),
        };
        let nginx = server.start()?;
        let (haproxy, haproxy_address) = server.haproxy()?;
        let (mitmproxy, mitmproxy_address) = server.mitmproxy()?;
        let (plain, masked) = (governed_uid(), governed_uid());
        // An agent for each, so that neither pays for what the other's sessions left.
        let agents = [server.agent(binary, plain, &[])?, server.agent(binary, masked, &[MASKS])?];
        let hop = |name, uid, address, process| Hop {
            name,
            address,
            account: Account::new(uid, address, ""),
            process,
        };
        let gate = |agent: &Agent| anyhow::Ok(Some(agent.process()?.id()));
        let [unmasking, masking] = &agents;
        let hops = vec![
            hop("direct", ungoverned_uid(), server.address, None),
            hop("haproxy", ungoverned_uid(), haproxy_address, Some(haproxy.id())),
            hop("mitmproxy", ungoverned_uid(), mitmproxy_address, Some(mitmproxy.id())),
            hop("tidegate", plain, server.address, gate(unmasking)?),
            hop("tidegate-masked", masked, server.address, gate(masking)?),
        ];
        Ok(Self { hops, _agents: agents, _others: [haproxy, mitmproxy, nginx], _directory: directory })
    }

    /// All hops.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Hop> {
        self.hops.iter()
    }

    /// All hops; another one first in each round, so that none is always after the same.
    pub(crate) fn in_turn(&self, round: usize) -> impl Iterator<Item = &Hop> {
        let count = self.hops.len();
        self.hops.iter().cycle().skip(round % count).take(count)
    }
}

impl Server {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a configuration and says where it is.
    fn configured(&self, name: &str, text: &str, address: SocketAddr) -> Result<PathBuf> {
        let Certificates { authority, certificate, key } = &self.certificates;
        let text = text
            .replace("${directory}", &self.directory.display().to_string())
            .replace("${address}", &address.to_string())
            .replace("${port}", &self.address.port().to_string())
            .replace("${certificate}", &certificate.display().to_string())
            .replace("${key}", &key.display().to_string())
            .replace("${pair}", &self.path("pair.pem").display().to_string())
            .replace("${ca}", &authority.display().to_string());
        fs::write(self.path(name), text)?;
        Ok(self.path(name))
    }

    /// nginx, with a body of 1 KiB and one of 100.
    fn start(&self) -> Result<Process> {
        for name in ["files", "temporary"] {
            fs::create_dir(self.path(name))?;
            fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o777))?;
        }
        let pair = [fs::read(&self.certificates.certificate)?, fs::read(&self.certificates.key)?].concat();
        fs::write(self.path("pair.pem"), pair)?;
        for (name, size) in [("small.json", 1024), ("large.json", 100 * 1024)] {
            fs::write(self.path("files").join(name), people(size))?;
        }
        let configuration = self.configured("nginx.conf", include_str!("nginx.conf"), self.address)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(configuration).arg("-e").arg(self.path("log"));
        listening(&mut command, self.address)
    }

    fn haproxy(&self) -> Result<(Process, SocketAddr)> {
        let address = free_address()?;
        let configuration = self.configured("haproxy.cfg", include_str!("haproxy.cfg"), address)?;
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(configuration);
        Ok((listening(&mut command, address)?, address))
    }

    fn mitmproxy(&self) -> Result<(Process, SocketAddr)> {
        let address = free_address()?;
        let set = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new(format!("{CLIENTS}/mitmproxy/bin/mitmdump"));
        command
            .args(["--quiet", "--mode", &format!("reverse:https://{}", self.address)])
            .args(["--listen-host", &address.ip().to_string(), "--listen-port", &address.port().to_string()])
            .args(["--set", &set("confdir", &self.path("mitmproxy"))])
            .args(["--set", &set("ssl_verify_upstream_trusted_ca", &self.certificates.authority)]);
        Ok((listening(&mut command, address)?, address))
    }

    fn agent(&self, binary: &Path, uid: u32, more: &[(&str, &str)]) -> Result<Agent> {
        let (name, text) = BUNDLE;
        let text = text
            .replace("${account}", &uid.to_string())
            .replace("${port}", &self.address.port().to_string())
            .replace("${ca}", &self.certificates.authority.display().to_string());
        let bundle: Vec<_> = std::iter::once((name, text.as_str())).chain(more.iter().copied()).collect();
        Agent::start(&Settings {
            binary,
            bundle: &bundle,
            credentials: &[("web.password", &random("bench")?)],
        })
    }
}

/// JSON of about so many bytes, as an API answers.
fn people(size: usize) -> String {
    let person = |number: usize| {
        json!({
            "id": number,
            "name": format!("Person {number}"),
            "email": format!("person{number}@example.com"),
            "card": "4111111111111111",
            "address": {"street": "High Street", "number": number % 100, "city": "Harbour"},
            "tags": ["customer", "newsletter"],
            "active": !number.is_multiple_of(3),
        })
    };
    let mut people = Vec::new();
    let mut length = 2;
    while length < size {
        let person = person(people.len()).to_string();
        length += person.len() + 1;
        people.push(person);
    }
    format!("[{}]", people.join(","))
}
