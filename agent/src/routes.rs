//! Which resource a destination is, and what answers there.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use rustls::ServerConfig;
use tidegate_dns::Upstream;
use tidegate_gate::Server;
use tidegate_policy::{Address, Host, Policy, Resource};
use tokio::task::JoinSet;

use crate::{
    authority::{Authority, AuthorityError, Within},
    bundle::{BundleError, Servers},
    error::Error,
    protocols::Protocols,
};

/// Certificates for addresses of one resource's ranges that are kept.
const MOST_OF_RANGES: usize = 256;

/// What serves one resource.
pub(crate) struct Route {
    /// The resource.
    pub(crate) resource: Arc<Resource>,
    /// Its protocol, configured for it.
    pub(crate) server: Arc<dyn Server>,
    /// What to answer TLS with.
    tls: Tls,
}

/// What to answer TLS with: one certificate for all names and addresses of a resource, and one for each address of its
/// ranges that was asked for.
struct Tls {
    named: Arc<ServerConfig>,
    authority: Arc<Authority>,
    names: Vec<Arc<str>>,
    addresses: Vec<IpAddr>,
    alpn: &'static [&'static [u8]],
    /// By address. What is forgotten is made again.
    of_ranges: Mutex<HashMap<IpAddr, Arc<ServerConfig>>>,
}

/// Destinations and the resources they are. No destination is two resources.
#[derive(Default)]
pub(crate) struct Routes(Vec<(IpNet, u16, Arc<Route>)>);

/// The addresses of a bundle's host names, as they were when it was loaded.
#[derive(Debug, Default)]
pub(crate) struct Resolved(BTreeMap<Arc<str>, Vec<IpAddr>>);

impl Routes {
    /// Makes a route to every address of every resource.
    pub(crate) fn build(
        servers: Servers,
        resolved: &Resolved,
        protocols: &Protocols,
        authority: &Arc<Authority>,
    ) -> Result<Self, Error> {
        let mut routes = Vec::new();
        for (resource, server) in servers {
            let alpn = protocols.find(&resource.protocol).map_or(&[][..], |registered| registered.alpn);
            let (mut names, addresses) = names(&resource, resolved, authority.within())?;
            names.extend(server.names());
            let tls = Tls::new(authority, names, addresses, alpn)?;
            let route = Arc::new(Route { resource: resource.clone(), server, tls });
            for address in &resource.addresses {
                let Some(port) = address.port else { continue };
                routes.extend(resolved.nets(&address.host).into_iter().map(|net| (net, port, route.clone())));
            }
        }
        let clashes = clashes(&routes);
        if !clashes.is_empty() {
            return Err(BundleError::Unusable(clashes).into());
        }
        Ok(Self(routes))
    }

    /// The resource that a destination is.
    pub(crate) fn choose(&self, destination: SocketAddr) -> Option<&Arc<Route>> {
        let address = destination.ip().to_canonical();
        let found = |(net, port, _): &&(IpNet, u16, _)| *port == destination.port() && net.contains(&address);
        self.0.iter().find(found).map(|(_, _, route)| route)
    }

    /// The route to a resource.
    pub(crate) fn to(&self, resource: &str) -> Option<&Arc<Route>> {
        self.0.iter().find(|(.., route)| *route.resource.name == *resource).map(|(.., route)| route)
    }
}

impl Route {
    /// What to answer TLS with at this destination.
    pub(crate) fn tls(&self, destination: IpAddr) -> Arc<ServerConfig> {
        self.tls.at(destination.to_canonical())
    }
}

impl Tls {
    fn new(
        authority: &Arc<Authority>,
        names: Vec<Arc<str>>,
        addresses: Vec<IpAddr>,
        alpn: &'static [&'static [u8]],
    ) -> Result<Self, AuthorityError> {
        let named = authority.server_config(&names, &addresses, alpn)?;
        Ok(Self { named, authority: authority.clone(), names, addresses, alpn, of_ranges: Mutex::default() })
    }

    fn at(&self, address: IpAddr) -> Arc<ServerConfig> {
        let is_named = self.addresses.contains(&address) || address.is_loopback();
        if is_named || !self.authority.within().has_address(address) {
            return self.named.clone();
        }
        let mut of_ranges = self.of_ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_ranges.get(&address) {
            return known.clone();
        }
        match self.authority.server_config(&self.names, &[address], self.alpn) {
            Ok(minted) => {
                if of_ranges.len() >= MOST_OF_RANGES {
                    of_ranges.clear();
                }
                of_ranges.insert(address, minted.clone());
                minted
            }
            Err(error) => {
                tracing::error!(%error, %address, "no certificate could be made for an address of a range");
                self.named.clone()
            }
        }
    }
}

impl Resolved {
    /// Looks up every host name of the policy, all at once.
    pub(crate) async fn of(policy: &Policy, upstream: &Upstream) -> Result<Self, BundleError> {
        let mut lookups = JoinSet::new();
        let addresses = policy.resources.iter().flat_map(|resource| &resource.addresses);
        for address in addresses.chain(policy.passes.iter().flat_map(|pass| &pass.to)) {
            if let Host::Name(name) = &address.host {
                let (name, upstream) = (name.clone(), upstream.clone());
                lookups.spawn(async move { (name.clone(), upstream.addresses(&name).await) });
            }
        }
        let (mut resolved, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, found) in lookups.join_all().await {
            match found {
                Ok(addresses) => _ = resolved.insert(name, addresses),
                Err(error) => problems.push(format!("host name {name:?} does not resolve: {error}")),
            }
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(Self(resolved)) } else { Err(BundleError::Unusable(problems)) }
    }

    /// Where a host is.
    pub(crate) fn nets(&self, host: &Host) -> Vec<IpNet> {
        match host {
            Host::Net(net) => vec![*net],
            Host::Name(name) => self.0.get(name).into_iter().flatten().copied().map(IpNet::from).collect(),
        }
    }
}

/// What clients may call a resource. The addresses of ranges are not among it: they are many. Nor are those that a name has
/// now and the authority may not vouch for.
fn names(
    resource: &Resource,
    resolved: &Resolved,
    within: &Within,
) -> Result<(Vec<Arc<str>>, Vec<IpAddr>), AuthorityError> {
    let mut names: Vec<Arc<str>> = resource.tls.server_name.clone().into_iter().collect();
    let mut addresses = Vec::new();
    for Address { host, .. } in &resource.addresses {
        match host {
            Host::Name(name) => names.push(name.clone()),
            Host::Net(net) if within.has_net(net) => {}
            Host::Net(net) => {
                return Err(AuthorityError::Outside { what: net.to_string(), within: within.to_string() });
            }
        }
        let single = |net: &IpNet| net.prefix_len() == net.max_prefix_len() && within.has_net(net);
        addresses.extend(resolved.nets(host).iter().filter(|net| single(net)).map(IpNet::addr));
    }
    Ok((names, addresses))
}

/// Destinations that would be two resources, which only shows once names are resolved.
fn clashes(routes: &[(IpNet, u16, Arc<Route>)]) -> Vec<String> {
    let mut clashes = Vec::new();
    for (at, (net, port, route)) in routes.iter().enumerate() {
        for (other_net, other_port, other) in routes.iter().skip(at + 1) {
            let overlap = net.contains(other_net) || other_net.contains(net);
            if port == other_port && overlap && route.resource.name != other.resource.name {
                let (one, two) = (&route.resource.name, &other.resource.name);
                clashes.push(format!("{net} port {port} is both resource {one:?} and resource {two:?}"));
            }
        }
    }
    clashes
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        authority::tests::{folder, handshake},
        bundle,
        test_support::{BUNDLE, protocols, write_bundle},
    };

    async fn routes(text: &str) -> Result<Routes, Error> {
        let (directory, state) = (write_bundle(text), tempfile::tempdir().unwrap());
        let policy = bundle::load(directory.path(), &protocols())?;
        let servers = bundle::configure(&policy, &protocols())?;
        let authority = Arc::new(Authority::open(&folder(state.path(), &[]), SystemTime::now())?);
        let upstream = Upstream::new(&[]).unwrap();
        Routes::build(servers, &Resolved::of(&policy, &upstream).await?, &protocols(), &authority)
    }

    fn chosen(routes: &Routes, destination: &str) -> Option<String> {
        routes.choose(destination.parse().unwrap()).map(|route| route.resource.name.to_string())
    }

    #[tokio::test]
    async fn a_destination_is_chosen_by_address_range_and_resolved_name_on_its_port() {
        let text = BUNDLE.replace("\"127.0.0.1:7\"", "\"192.0.2.0/24:7\", \"localhost:8\"");
        let routes = routes(&text).await.unwrap();
        for destination in ["192.0.2.9:7", "127.0.0.1:8", "[::ffff:192.0.2.9]:7"] {
            assert_eq!(chosen(&routes, destination).as_deref(), Some("echo"), "{destination}");
        }
        for destination in ["192.0.2.9:8", "192.0.3.9:7", "127.0.0.1:7"] {
            assert_eq!(chosen(&routes, destination), None, "{destination}");
        }
    }

    #[tokio::test]
    async fn each_address_of_a_range_has_a_certificate_that_bears_it_and_is_made_once() {
        let state = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(&folder(state.path(), &[]), SystemTime::now()).unwrap());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let tls =
            Tls::new(&authority, vec!["db.internal".into()], vec![address("198.51.100.7")], &[]).unwrap();
        assert!(Arc::ptr_eq(&tls.at(address("198.51.100.7")), &tls.at(address("127.0.0.1"))));
        assert!(Arc::ptr_eq(&tls.at(address("192.0.2.9")), &tls.at(address("192.0.2.9"))));
        for name in ["192.0.2.9", "192.0.2.10", "198.51.100.7"] {
            handshake(state.path(), tls.at(address(name)), name).await.unwrap();
            handshake(state.path(), tls.at(address(name)), "db.internal").await.unwrap();
        }
        assert!(handshake(state.path(), tls.at(address("192.0.2.9")), "192.0.2.10").await.is_err());
    }

    #[tokio::test]
    async fn what_the_authority_may_not_vouch_for_is_told_unless_a_name_stands_for_it() {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(&folder(state.path(), &["internal"]), SystemTime::now()).unwrap();
        let within = authority.within();
        let resource = |address: &str| {
            let directory = write_bundle(&BUNDLE.replace("127.0.0.1:7", address));
            bundle::load(directory.path(), &protocols()).unwrap().resources.remove(0)
        };
        let resolved = Resolved([("db.internal".into(), vec!["192.0.2.7".parse().unwrap()])].into());
        for address in ["192.0.2.7:7", "192.0.2.0/24:7"] {
            let error = names(&resource(address), &resolved, within).unwrap_err().to_string();
            assert!(error.contains("no certificate for 192.0.2."), "{error}");
        }
        let named = names(&resource("db.internal:7"), &resolved, within).unwrap();
        assert_eq!(named, (vec!["db.internal".into()], vec![]));
        let authority = Arc::new(authority);
        let tls = Tls::new(&authority, named.0, named.1, &[]).unwrap();
        handshake(state.path(), tls.at("192.0.2.7".parse().unwrap()), "db.internal").await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_told() {
        let text = BUNDLE.replace("127.0.0.1:7", "nowhere.invalid:7");
        let error = routes(&text).await.err().unwrap().to_string();
        assert!(error.contains("host name \"nowhere.invalid\" does not resolve"), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_resolves_into_another_resource_is_told() {
        let second = "\n  twin: {protocol: echo, addresses: [\"localhost:7\"], credential: echo}\nrules:";
        let text = BUNDLE.replace("\nrules:", second).replace("resources: [echo]", "resources: [\"*\"]");
        let error = routes(&text).await.err().unwrap().to_string();
        assert!(error.contains("is both resource \"echo\" and resource \"twin\""), "{error}");
    }
}
