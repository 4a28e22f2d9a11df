//! The names that are answered, and who is asked for them.

use std::net::{IpAddr, SocketAddr};

use super::{Loader, list, resources::host_name};
use crate::{Address, Dns, NamePattern, problem::Position, raw::RawFile};

/// The port of DNS.
const PORT: u16 = 53;

impl Loader<'_> {
    pub(super) fn dns(&self, raw: &[RawFile]) -> Dns {
        let mut dns = Dns::default();
        for section in raw.iter().filter_map(|file| file.dns.as_ref()?.get()) {
            for (at, text) in list(section.allow.as_ref()) {
                match pattern(text) {
                    Some(pattern) => dns.allow.push(pattern),
                    None => self.problems.report_with(
                        at,
                        format!("{text:?} is not a name that can be answered"),
                        "write db.internal, or *.internal for the names one label below; nothing wider",
                    ),
                }
            }
            for (at, text) in list(section.servers.as_ref()) {
                match server(text) {
                    Some(server) => dns.servers.push(server),
                    None => self.problems.report_with(
                        at,
                        format!("{text:?} is not a name server's address"),
                        "write 10.0.0.2, 10.0.0.2:5353 or [2001:db8::2]:53",
                    ),
                }
            }
        }
        dns
    }

    /// Port 53 is the agent's own: a server that is asked directly carries anything anywhere.
    pub(super) fn not_dns(&self, at: Position, address: &Address) {
        if address.port == Some(PORT) {
            self.problems.report_with(
                at,
                "port 53 always goes to the agent's own resolver",
                "name what may be asked for under `dns: {allow: [...]}`; names of resources and passes already may be",
            );
        }
    }
}

fn pattern(text: &str) -> Option<NamePattern> {
    match text.strip_prefix("*.") {
        Some(zone) => host_name(zone).map(NamePattern::Below),
        None => host_name(text).map(NamePattern::Name),
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT))).ok()?;
    (parsed.port() != 0 && !parsed.ip().is_unspecified()).then_some(parsed)
}
