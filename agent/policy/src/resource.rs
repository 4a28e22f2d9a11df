//! Whom a bundle governs, and the upstreams it names.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

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
    /// Units of the system's service manager, each with at most one `*`, right before the ending.
    pub units: Vec<Arc<str>>,
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
    /// Unix sockets that are it, too. The gate connects to the first of the addresses for them.
    pub sockets: Vec<PathBuf>,
    /// TLS towards the upstream.
    pub tls: UpstreamTls,
    /// Name of the credential to sign in with, if the gate signs in at all.
    pub credential: Option<Arc<str>>,
    /// The issuer whose subjects use it, each in their own name: nobody else does, and their tokens may be shown for it.
    pub identity: Option<Arc<str>>,
    /// How long connecting and signing in may take.
    pub connect_timeout: Duration,
    /// The protocol's own options.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The folder of the file that it is written in: where relative paths among its options lead from.
    pub folder: PathBuf,
}

impl Resource {
    /// Whether this can be the name of a credential: names of files begin with it, and it must lead nowhere else.
    pub fn is_credential_name(name: &str) -> bool {
        name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    }
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

    /// Whether a destination could be both, as far as can be known without resolving names.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Net(a), Self::Net(b)) => a.contains(b) || b.contains(a),
            (Self::Name(a), Self::Name(b)) => a == b,
            _ => false,
        }
    }
}

impl Address {
    /// Whether a destination could be both, as far as can be known without resolving names.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let same_port = match (self.port, other.port) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same_port && self.host.overlaps(&other.host)
    }
}

/// TLS towards an upstream, in the words of libpq's `sslmode`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// How much is asked of the upstream; none where the bundle leaves it to the protocol.
    pub mode: Option<TlsMode>,
    /// PEM file of the authorities that are trusted; none for the system's.
    pub ca: Option<PathBuf>,
    /// The name the upstream's certificate must bear, if not the host it is reached by.
    pub server_name: Option<Arc<str>>,
}

/// How much TLS is asked of an upstream (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the upstream lets nobody in without it, unverified.
    Allow,
    /// If the upstream offers it, and lets one in with it, unverified.
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
