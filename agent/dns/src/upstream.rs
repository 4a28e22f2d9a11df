//! The name servers that the agent asks, and the host's own table of names.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::rr::{RData, RecordType};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use thiserror::Error;

/// How long one server may take for one try.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tries of each server.
const TRIES: usize = 2;
/// Addresses that one name may have.
const MOST: usize = 32;
/// Answers that are remembered.
const REMEMBERED: u64 = 4096;
/// How long a name that doesn't exist, or a server's silence about it, is remembered at most.
const NOTHING_FOR: Duration = Duration::from_secs(30);

/// What a name was found to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its addresses, of the family asked for, aliases followed; none if it has other records only.
    pub addresses: Vec<IpAddr>,
    /// How long they may be kept.
    pub ttl: Duration,
}

/// Why nothing is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// No such name.
    #[error("no such name")]
    NoSuchName,
    /// No server answered, or none usefully.
    #[error("{0}")]
    Failed(String),
}

/// Where addresses of names come from.
pub trait Lookup: Send + Sync {
    /// The addresses of a name; `v6` chooses the family.
    fn lookup(&self, name: &str, v6: bool) -> impl Future<Output = Result<Found, LookupError>> + Send;
}

/// Name servers over UDP, and TCP where needed, with the host's table (`/etc/hosts`) before them.
#[derive(Clone)]
pub struct Upstream(TokioResolver);

impl Upstream {
    /// Asks these servers; without any, those of the host's `resolv.conf`, as it is now.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, LookupError> {
        let failed = |error: &dyn std::fmt::Display| LookupError::Failed(error.to_string());
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()
                .map_err(|error| failed(&format_args!("/etc/resolv.conf: {error}")))?
        } else {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        set(builder.options_mut());
        builder.build().map(Self).map_err(|error| failed(&error))
    }

    /// Every address of a name, of both families.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let (v4, v6) = tokio::join!(self.lookup(name, false), self.lookup(name, true));
        let mut addresses: Vec<IpAddr> =
            [&v4, &v6].into_iter().flatten().flat_map(|found| found.addresses.clone()).collect();
        addresses.sort();
        addresses.dedup();
        match (addresses.is_empty(), v4, v6) {
            (true, Err(error), _) | (true, _, Err(error)) => Err(error),
            (true, Ok(_), Ok(_)) => Err(LookupError::Failed("the name has no address".into())),
            (false, ..) => Ok(addresses),
        }
    }
}

fn set(options: &mut ResolverOpts) {
    options.timeout = PATIENCE;
    options.attempts = TRIES;
    options.cache_size = REMEMBERED;
    options.use_hosts_file = ResolveHosts::Always;
    options.preserve_intermediates = false;
    options.positive_max_ttl = Some(crate::LONGEST_TTL);
    options.negative_max_ttl = Some(NOTHING_FOR);
}

/// A name as it is asked: one of several labels as it stands, since the host's search list would put what a process wrote into
/// questions to other zones. A single label is the bundle's own, and means what it means on this host.
fn absolute(name: &str) -> String {
    if name.contains('.') && !name.ends_with('.') { format!("{name}.") } else { name.to_owned() }
}

impl Lookup for Upstream {
    async fn lookup(&self, name: &str, v6: bool) -> Result<Found, LookupError> {
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let found = match self.0.lookup(absolute(name), kind).await {
            Ok(found) => found,
            Err(error) if error.is_nx_domain() => return Err(LookupError::NoSuchName),
            Err(error) if error.is_no_records_found() => {
                return Ok(Found { addresses: Vec::new(), ttl: NOTHING_FOR });
            }
            Err(error) => return Err(LookupError::Failed(error.to_string())),
        };
        let addresses = found.answers().iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        Ok(Found {
            addresses: addresses.take(MOST).collect(),
            ttl: found.valid_until().saturating_duration_since(Instant::now()).min(crate::LONGEST_TTL),
        })
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_search_list_is_put_behind_a_name_that_a_process_may_have_written() {
        assert_eq!(absolute("x.internal"), "x.internal.");
        assert_eq!(absolute("x.internal."), "x.internal.");
        assert_eq!(absolute("db"), "db");
    }
}
