//! A loaded bundle.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{Principal, Shape, Verdict, Vocabulary};

/// A loaded bundle: everything it says, checked and compiled.
#[derive(Debug)]
pub struct Policy {
    /// The bundle's name.
    pub name: Arc<str>,
    /// SHA-256 over the bundle's files, lower-case hex, as the loader computed it.
    pub digest: Arc<str>,
    /// Whom the kernel governs.
    pub subjects: Vec<Subject>,
    /// Where connections are taken to the gate.
    pub resources: Vec<Arc<Resource>>,
    /// Where governed processes may connect without the gate.
    pub passes: Vec<Pass>,
}

impl Policy {
    /// Loads a bundle from the text of its files; every problem found is returned, not only the first.
    pub fn load(_files: &[SourceFile], _vocabularies: &[&'static Vocabulary]) -> Result<Self, Vec<Problem>> {
        unimplemented!()
    }

    /// Decides one action. Total: what no rule allows is denied.
    pub fn decide(&self, _principal: &Principal, _resource: &str, _shape: &Shape) -> Verdict {
        unimplemented!()
    }
}

/// One file of a bundle.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path as shown in problems.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Something wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A set of processes that are governed, chosen by any of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Name within the bundle.
    pub name: Arc<str>,
    /// User names or decimal user ids.
    pub users: Vec<Arc<str>>,
    /// Group names or decimal group ids; membership counts, not only the primary group.
    pub groups: Vec<Arc<str>>,
    /// Paths within the cgroup v2 hierarchy; descendants count.
    pub cgroups: Vec<Arc<str>>,
}

/// A named upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Name within the bundle.
    pub name: Arc<str>,
    /// The protocol spoken there.
    pub protocol: Arc<str>,
    /// Destinations that are this resource.
    pub addresses: Vec<Address>,
    /// TLS towards the upstream.
    pub tls: UpstreamTls,
    /// Name of the credential to sign in with.
    pub credential: Arc<str>,
    /// How long connecting and signing in may take.
    pub connect_timeout: Duration,
    /// The protocol's own options.
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// A destination: where, and on which port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host.
    pub host: Host,
    /// TCP port; none for any (passes only).
    pub port: Option<u16>,
}

/// Where a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address or a range of them.
    Net(IpNet),
    /// A name, resolved by the agent when the bundle is loaded.
    Name(Arc<str>),
}

impl Host {
    /// Whether the address lies in this range; names never match, their addresses are looked up by the agent.
    pub fn contains(&self, address: IpAddr) -> bool {
        matches!(self, Self::Net(net) if net.contains(&address))
    }
}

/// TLS towards an upstream, with the meaning of libpq's `sslmode`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// How much is asked of the upstream.
    pub mode: TlsMode,
    /// PEM file of the authorities that are trusted; none for the system's.
    pub ca: Option<PathBuf>,
    /// The name the upstream's certificate must bear, if not the host it is reached by.
    pub server_name: Option<Arc<str>>,
}

/// How much TLS is asked of an upstream (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the upstream offers it, unverified.
    #[default]
    Prefer,
    /// Always, unverified.
    Require,
    /// Always, by a trusted authority.
    VerifyCa,
    /// Always, by a trusted authority and for the right name. The default where a resource names a `ca`.
    VerifyFull,
}

/// Destinations that subjects may connect to without the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Names of the subjects.
    pub subjects: Vec<Arc<str>>,
    /// Destinations.
    pub to: Vec<Address>,
}
