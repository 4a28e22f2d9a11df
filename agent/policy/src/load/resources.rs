//! Subjects, resources and passes.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Loader, entries, list, readable, texts};
use crate::{
    Address, Host, Pass, Resource, Subject, TlsMode, UnixAddress, UpstreamTls,
    policy::Places,
    problem::Position,
    raw::{List, RawFile, RawResource, RawTls, Runtime},
    rule::Names,
    yaml::At,
};

/// How long connecting and signing in may take where a resource doesn't say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A unit's name is shorter, in bytes: the kernel programs look at no more.
const LONGEST_UNIT: usize = 120;
/// What a Unix socket's path follows among addresses.
const UNIX: &str = "unix:";
/// The longest that it may say.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

impl Loader<'_> {
    pub(super) fn subjects(&self, raw: &[RawFile]) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for (at, name, subject) in raw.iter().flat_map(|file| entries(file.subjects.as_ref())) {
            let of_containers = |names: fn(Runtime) -> &'static [&'static str]| {
                let runtimes = list(subject.containers.as_ref()).map(|(_, runtime)| *runtime);
                runtimes.flat_map(names).map(|name| Arc::from(*name))
            };
            if !subject.chooses() {
                self.problems.report_with(
                    at,
                    format!("subject {name:?} chooses no process"),
                    "name `users:`, `groups:`, `cgroups:`, `units:` or `containers:`",
                );
            }
            subjects.push(Subject {
                name: name.into(),
                users: texts(subject.users.as_ref()),
                groups: texts(subject.groups.as_ref()),
                cgroups: texts(subject.cgroups.as_ref())
                    .into_iter()
                    .chain(of_containers(Runtime::cgroups))
                    .collect(),
                units: self
                    .units(subject.units.as_ref())
                    .into_iter()
                    .chain(of_containers(Runtime::units))
                    .collect(),
            });
        }
        subjects
    }

    fn units(&self, raw: Option<&At<List<String>>>) -> Vec<Arc<str>> {
        for (at, unit) in list(raw) {
            if !is_unit(unit) {
                let text = format!("{unit:?} is no unit that processes are in");
                self.problems.report_with(
                    at,
                    text,
                    "write ci.service, or ci@*.service for all that begin so",
                );
            }
        }
        texts(raw)
    }

    /// The name of a credential; one that no file can have is reported.
    pub(super) fn credential(&self, raw: Option<&At<String>>) -> Option<Arc<str>> {
        let (at, name) = raw.and_then(|raw| Some((raw.at, raw.get()?)))?;
        if !Resource::is_credential_name(name) {
            self.problems.report_with(
                at,
                format!("{name:?} cannot be the name of a credential"),
                "it is the beginning of its files' names: letters, digits, `-`, `_` and `.`, and first a letter or digit",
            );
        }
        Some(name.as_str().into())
    }

    /// An issuer's name; one that is not declared is reported.
    fn issuer_of(&self, raw: Option<&At<String>>) -> Option<Arc<str>> {
        let (at, name) = raw.and_then(|raw| Some((raw.at, raw.get()?)))?;
        self.declared("issuer", at, name, &self.issuers).then(|| name.as_str().into())
    }

    pub(super) fn resources(&self, raw: &[RawFile]) -> Vec<Resource> {
        let mut taken: Vec<(Address, Position, &str)> = Vec::new();
        let mut shared: Vec<(PathBuf, Position, &str)> = Vec::new();
        let mut resources = Vec::new();
        for (at, name, resource) in raw.iter().flat_map(|file| entries(file.resources.as_ref())) {
            self.known_protocol(resource);
            let addresses = self.addresses(&resource.addresses);
            let sockets = self.sockets(&resource.addresses, &addresses);
            for (at, socket) in &sockets {
                self.unshared(*at, socket, name, &shared);
                shared.push((socket.clone(), *at, name));
            }
            for (at, address) in &addresses {
                if address.port.is_none() {
                    self.problems.report_with(*at, "a resource's address needs a port", "write host:port");
                }
                self.not_dns(*at, address);
                self.free(*at, address, name, &taken);
                taken.push((address.clone(), *at, name));
            }
            resources.push(Resource {
                name: name.into(),
                protocol: resource.protocol.get().map_or("", String::as_str).into(),
                addresses: addresses.into_iter().map(|(_, address)| address).collect(),
                sockets: sockets.into_iter().map(|(_, socket)| socket).collect(),
                tls: self.tls(resource.tls.as_ref()),
                credential: self.credential(resource.credential.as_ref()),
                identity: self.issuer_of(resource.identity.as_ref()),
                connect_timeout: self.connect_timeout(resource.connect_timeout.as_ref()),
                options: options(resource).map(|(_, name, value)| (name.to_owned(), value.clone())).collect(),
                folder: self.problems.path(at).parent().map_or_else(PathBuf::new, Path::to_path_buf),
            });
        }
        resources
    }

    /// Where each resource and each of its options is written.
    pub(super) fn places(&self, raw: &[RawFile]) -> HashMap<Arc<str>, Places> {
        let named = raw.iter().flat_map(|file| entries(file.resources.as_ref()));
        let place = |at| self.problems.exact_place(at);
        let places = named.map(|(at, name, resource)| {
            let options = options(resource).map(|(at, option, _)| (option.to_owned(), place(at)));
            (name.into(), Places { whole: place(at), options: options.collect() })
        });
        places.collect()
    }

    pub(super) fn passes(&self, raw: &[RawFile], resources: &[Arc<Resource>]) -> Vec<Pass> {
        let mut passes = Vec::new();
        for (_, pass) in raw.iter().flat_map(|file| list(file.passes.as_ref())) {
            let subjects = match self.names("subject", &pass.subjects, &self.subjects) {
                Names::All => self.subjects.keys().map(|name| name.as_str().into()).collect(),
                Names::These(names) => names,
            };
            for (at, _) in unix(&pass.to) {
                self.problems.report_with(at, "a Unix socket is no address to pass", "name it under `unix:`");
            }
            let to = self.addresses(&pass.to);
            for (at, address) in &to {
                self.not_dns(*at, address);
                let bypassed =
                    |resource: &&Arc<Resource>| resource.addresses.iter().any(|at| at.overlaps(address));
                if let Some(resource) = resources.iter().find(bypassed) {
                    self.problems.report_with(
                        *at,
                        format!("this would pass connections to resource {:?} by the gate", resource.name),
                        "narrow it down, or name a port",
                    );
                }
            }
            passes.push(Pass { subjects, to: to.into_iter().map(|(_, address)| address).collect() });
        }
        passes
    }

    fn known_protocol(&self, resource: &RawResource) {
        let Some(protocol) = resource.protocol.get() else { return };
        if !self.vocabularies.iter().any(|known| known.protocol == protocol) {
            let known = self.vocabularies.iter().map(|known| known.protocol);
            self.problems.unknown(
                resource.protocol.at,
                format!("unknown protocol {protocol:?}"),
                protocol,
                known,
            );
        }
    }

    fn free(&self, at: Position, address: &Address, name: &str, taken: &[(Address, Position, &str)]) {
        if let Some((_, first, other)) = taken.iter().find(|(other, ..)| other.overlaps(address)) {
            let place = self.problems.place(*first);
            let message = if *other == name {
                format!("this address is listed already, at {place}")
            } else {
                format!("this address is also resource {other:?}, at {place}; a destination is one resource")
            };
            self.problems.report(at, message);
        }
    }

    fn addresses(&self, raw: &At<List<String>>) -> Vec<(Position, Address)> {
        let listed = raw.get().map_or(&[][..], Vec::as_slice);
        if raw.get().is_some() && listed.is_empty() {
            self.problems.report(raw.at, "no address is listed");
        }
        let mut addresses = Vec::new();
        for (at, text) in readable(listed).filter(|(_, text)| !text.starts_with(UNIX)) {
            match address(text) {
                Ok(address) => addresses.push((at, address)),
                Err(why) => self.problems.report_with(
                    at,
                    format!("{text:?} is not an address: {why}"),
                    "write host:port, 10.2.0.0/16:5432 or [2001:db8::1]:5432",
                ),
            }
        }
        addresses
    }

    /// The Unix sockets among a resource's addresses.
    fn sockets(&self, raw: &At<List<String>>, addresses: &[(Position, Address)]) -> Vec<(Position, PathBuf)> {
        let single = |address: &Address| match &address.host {
            Host::Net(net) => net.prefix_len() == net.max_prefix_len(),
            Host::Name(_) => true,
        };
        let mut sockets = Vec::new();
        for (at, path) in unix(raw) {
            if !addresses.first().is_some_and(|(_, address)| single(address)) {
                self.problems.report_with(
                    at,
                    "a Unix socket needs the address of its server before it: the gate connects there",
                    "list host:port first, and no range",
                );
            }
            match self.unix_address(at, path) {
                Some(UnixAddress::Path(path)) => sockets.push((at, path)),
                Some(UnixAddress::Abstract(_)) => {
                    self.problems.report(at, "a resource's Unix socket has a path, and no abstract name");
                }
                None => {}
            }
        }
        sockets
    }

    fn unshared(&self, at: Position, socket: &Path, name: &str, shared: &[(PathBuf, Position, &str)]) {
        if let Some((_, first, other)) = shared.iter().find(|(known, ..)| known == socket) {
            let place = self.problems.place(*first);
            let message = if *other == name {
                format!("this Unix socket is listed already, at {place}")
            } else {
                format!("this Unix socket is also resource {other:?}, at {place}; a socket is one resource")
            };
            self.problems.report(at, message);
        }
    }

    fn tls(&self, raw: Option<&At<RawTls>>) -> UpstreamTls {
        let Some((at, raw)) = raw.and_then(|raw| Some((raw.at, raw.get()?))) else {
            return UpstreamTls::default();
        };
        let default = raw.ca.is_some().then_some(TlsMode::VerifyFull);
        let mode = raw.mode.as_ref().and_then(At::get).copied().or(default);
        if raw.ca.is_some() && !matches!(mode, Some(TlsMode::VerifyCa | TlsMode::VerifyFull)) {
            self.problems.report_with(
                raw.mode.as_ref().map_or(at, |mode| mode.at),
                "a `ca` is named, but this mode verifies nothing",
                "use verify-full, or leave `ca` out",
            );
        }
        UpstreamTls {
            mode,
            ca: raw.ca.as_ref().and_then(At::get).map(Into::into),
            server_name: raw.server_name.as_ref().and_then(At::get).map(|name| name.as_str().into()),
        }
    }

    fn connect_timeout(&self, raw: Option<&At<String>>) -> Duration {
        raw.and_then(|raw| self.duration(raw, LONGEST_TIMEOUT)).unwrap_or(CONNECT_TIMEOUT)
    }

    /// A duration with its unit, more than nothing and no longer than `longest`; any other is reported.
    pub(super) fn duration(&self, raw: &At<String>, longest: Duration) -> Option<Duration> {
        let text = raw.get()?;
        let parsed =
            text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
        match parsed {
            Some(duration) if duration.is_zero() || duration > longest => {
                let longest = longest.as_secs();
                self.problems.report(raw.at, format!("{text:?} is not between nothing and {longest}s"));
                None
            }
            Some(duration) => Some(duration),
            None => {
                let hint = "write a number and its unit: 500ms, 10s, 2m";
                self.problems.report_with(raw.at, format!("{text:?} is not a duration"), hint);
                None
            }
        }
    }
}

fn options(resource: &RawResource) -> impl Iterator<Item = (Position, &str, &serde_json::Value)> {
    entries(resource.options.as_ref())
}

/// The Unix sockets that are listed, by what follows `unix:`.
fn unix(raw: &At<List<String>>) -> impl Iterator<Item = (Position, &str)> {
    let listed = raw.get().map_or(&[][..], Vec::as_slice);
    readable(listed).filter_map(|(at, text)| Some((at, text.strip_prefix(UNIX)?)))
}

/// Reads `host`, `host:port`, `cidr:port`, `[v6]:port` or `[v6 cidr]:port`.
fn address(text: &str) -> Result<Address, String> {
    let (written, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => {
            (host, Some(port.strip_prefix(':').ok_or("expected a port after the bracket")?))
        }
        None if text.matches(':').count() > 1 => (text, None),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port != 0 => Some(port),
        Some(_) => return Err("its port is not between 1 and 65535".into()),
    };
    Ok(Address { host: host(written)?, port })
}

fn host(written: &str) -> Result<Host, String> {
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(Host::Net(address.to_canonical().into()));
    }
    if written.contains('/') {
        let net: IpNet = written.parse().map_err(|_| "its range is not valid".to_owned())?;
        if net.trunc() != net {
            return Err(format!("bits are set past the prefix; the range is {}", net.trunc()));
        }
        return Ok(Host::Net(net));
    }
    if written.contains(':') || written.chars().all(|char| char.is_ascii_digit() || char == '.') {
        return Err("its host is not valid".into());
    }
    host_name(written).map(Host::Name).ok_or_else(|| "its host is not a name".into())
}

/// A host's name in lower case and without a final dot (RFC 1123, 2.1, and underscores); none if it isn't one.
pub(super) fn host_name(written: &str) -> Option<Arc<str>> {
    let label = |label: &str| {
        let fits = !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
        fits && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = written.strip_suffix('.').unwrap_or(written);
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase().into())
}

/// Whether this is the name of a service, scope or slice, with at most one `*`, right before its ending.
fn is_unit(text: &str) -> bool {
    let stem = [".service", ".scope", ".slice"].into_iter().find_map(|ending| text.strip_suffix(ending));
    stem.is_some_and(|stem| {
        let start = stem.strip_suffix('*').unwrap_or(stem);
        !stem.is_empty() && !start.contains(['*', '/']) && text.len() < LONGEST_UNIT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_ranges_and_names_with_ports() {
        let net = |text: &str| Host::Net(text.parse().unwrap());
        let parsed = |text: &str| address(text).map(|address| (address.host, address.port));
        assert_eq!(parsed("10.1.2.3:5432"), Ok((net("10.1.2.3/32"), Some(5432))));
        assert_eq!(parsed("10.2.0.0/16:5432"), Ok((net("10.2.0.0/16"), Some(5432))));
        assert_eq!(parsed("192.0.2.0/24"), Ok((net("192.0.2.0/24"), None)));
        assert_eq!(parsed("[::1]:5432"), Ok((net("::1/128"), Some(5432))));
        assert_eq!(parsed("[2001:db8::/32]:443"), Ok((net("2001:db8::/32"), Some(443))));
        assert_eq!(parsed("2001:db8::/32"), Ok((net("2001:db8::/32"), None)));
        assert_eq!(parsed("::ffff:10.1.2.3"), Ok((net("10.1.2.3/32"), None)));
        assert_eq!(parsed("DB.internal:5432"), Ok((Host::Name("db.internal".into()), Some(5432))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":5432",
            "db:0",
            "db:99999",
            "db:x",
            "[::1",
            "[::1]5432",
            "10.0.0.1/8:1",
            "10.0.0:1",
            "a b:1",
            "-a:1",
        ] {
            assert!(address(text).is_err(), "{text:?} was read");
        }
    }
}
