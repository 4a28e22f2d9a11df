//! Which resource a destination is, and what answers there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    bundle::Servers,
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
pub(crate) struct Routes {
    by_destination: Vec<(IpNet, u16, Arc<Route>)>,
    /// Of every resource, those that have no address yet included.
    all: Vec<Arc<Route>>,
}

/// The addresses of a bundle's host names, as they were when it was loaded.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    addresses: BTreeMap<Arc<str>, Vec<IpAddr>>,
    /// Why names have no address, or not all that they were told to have.
    pub(crate) trouble: Vec<String>,
}

impl Routes {
    /// Makes a route to every address of every resource.
    pub(crate) fn build(
        servers: Servers,
        resolved: &Resolved,
        protocols: &Protocols,
        authority: &Arc<Authority>,
    ) -> Result<Self, Error> {
        let mut routes = Self::default();
        for (resource, server) in servers {
            let alpn = protocols.find(&resource.protocol).map_or(&[][..], |registered| registered.alpn);
            let (mut names, addresses) = names(&resource, resolved, authority.within())?;
            names.extend(server.names());
            let tls = Tls::new(authority, names, addresses, alpn)?;
            let route = Arc::new(Route { resource: resource.clone(), server, tls });
            for address in &resource.addresses {
                let Some(port) = address.port else { continue };
                let nets = resolved.nets(&address.host).into_iter();
                routes.by_destination.extend(nets.map(|net| (net, port, route.clone())));
            }
            routes.all.push(route);
        }
        Ok(routes)
    }

    /// The resource that a destination is.
    pub(crate) fn choose(&self, destination: SocketAddr) -> Option<&Arc<Route>> {
        let address = destination.ip().to_canonical();
        let found = |(net, port, _): &&(IpNet, u16, _)| *port == destination.port() && net.contains(&address);
        self.by_destination.iter().find(found).map(|(_, _, route)| route)
    }

    /// The route to a resource.
    pub(crate) fn to(&self, resource: &str) -> Option<&Arc<Route>> {
        self.all.iter().find(|route| *route.resource.name == *resource)
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
    /// Looks up every host name of the policy, all at once. What can't be told now may be when somebody asks for the name: it is
    /// no reason for everything else not to come into force.
    pub(crate) async fn of(policy: &Policy, upstream: &Upstream) -> Self {
        let mut lookups = JoinSet::new();
        let addresses = policy.resources.iter().flat_map(|resource| &resource.addresses);
        for address in addresses.chain(policy.passes.iter().flat_map(|pass| &pass.to)) {
            if let Host::Name(name) = &address.host {
                let (name, upstream) = (name.clone(), upstream.clone());
                lookups.spawn(async move { (name.clone(), upstream.addresses(&name).await) });
            }
        }
        let mut resolved = Self::default();
        for (name, found) in lookups.join_all().await {
            match found {
                Ok(addresses) => _ = resolved.addresses.insert(name, addresses),
                Err(error) => {
                    let told = "until somebody asks for it and it does, it leads nowhere";
                    resolved.trouble.push(format!("host name {name:?} does not resolve: {error}; {told}"));
                }
            }
        }
        resolved.trouble.sort();
        resolved.trouble.dedup();
        resolved.settle(&policy.resources);
        resolved
    }

    /// Whoever answers for a name doesn't choose which resource another's addresses are: an address that the bundle gives to
    /// a resource stays that one's, and what names of two resources have on one port is neither's.
    fn settle(&mut self, resources: &[Arc<Resource>]) {
        let mut disputed = BTreeSet::new();
        for (resource, name, port) in resources.iter().flat_map(named) {
            let others = || resources.iter().filter(|other| other.name != resource.name);
            for address in self.addresses.get(name).into_iter().flatten() {
                let has = |other: &&Arc<Resource>| {
                    let hosts = other.addresses.iter().filter(|address| address.port == Some(port));
                    hosts.flat_map(|host| self.nets(&host.host)).any(|net| net.contains(address))
                };
                if let Some(other) = others().find(has) {
                    let (one, two) = (&resource.name, &other.name);
                    let told = format!(
                        "{address} port {port} is not resource {one:?}, as its name {name:?} says: it is {two:?}'s, too"
                    );
                    disputed.insert((name.clone(), *address, told));
                }
            }
        }
        for (name, disputed, told) in disputed {
            if let Some(addresses) = self.addresses.get_mut(&name) {
                addresses.retain(|address| *address != disputed);
            }
            self.trouble.push(told);
        }
    }

    /// Where a host is.
    pub(crate) fn nets(&self, host: &Host) -> Vec<IpNet> {
        match host {
            Host::Net(net) => vec![*net],
            Host::Name(name) => {
                self.addresses.get(name).into_iter().flatten().copied().map(IpNet::from).collect()
            }
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

/// The names that a resource has, and on which ports.
fn named(resource: &Arc<Resource>) -> impl Iterator<Item = (&Arc<Resource>, &Arc<str>, u16)> {
    resource.addresses.iter().filter_map(move |address| match (&address.host, address.port) {
        (Host::Name(name), Some(port)) => Some((resource, name, port)),
        _ => None,
    })
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

    async fn routes(text: &str) -> Result<(Routes, Vec<String>), Error> {
        let (directory, state) = (write_bundle(text), tempfile::tempdir().unwrap());
        let policy = bundle::load(directory.path(), &protocols())?;
        let servers = bundle::configure(&policy, &protocols())?;
        let authority = Arc::new(Authority::open(&folder(state.path(), &[]), SystemTime::now())?);
        let upstream = Upstream::new(&[]).unwrap();
        let resolved = Resolved::of(&policy, &upstream).await;
        Ok((Routes::build(servers, &resolved, &protocols(), &authority)?, resolved.trouble))
    }

    fn chosen(routes: &Routes, destination: &str) -> Option<String> {
        routes.choose(destination.parse().unwrap()).map(|route| route.resource.name.to_string())
    }

    #[tokio::test]
    async fn a_destination_is_chosen_by_address_range_and_resolved_name_on_its_port() {
        let text = BUNDLE.replace("\"127.0.0.1:7\"", "\"192.0.2.0/24:7\", \"localhost:8\"");
        let (routes, trouble) = routes(&text).await.unwrap();
        assert!(trouble.is_empty(), "{trouble:?}");
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
        let resolved = resolved(&[("db.internal", "192.0.2.7")]);
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
    async fn a_name_that_does_not_resolve_is_told_and_the_rest_is_as_it_should_be() {
        let text = BUNDLE.replace("\"127.0.0.1:7\"", "\"nowhere.invalid:7\", \"192.0.2.9:7\"");
        let (routes, trouble) = routes(&text).await.unwrap();
        assert!(trouble[0].contains("host name \"nowhere.invalid\" does not resolve"), "{trouble:?}");
        assert_eq!(chosen(&routes, "192.0.2.9:7").as_deref(), Some("echo"));
    }

    #[tokio::test]
    async fn a_resource_without_an_address_yet_is_found_by_its_name() {
        let (routes, _) = routes(&BUNDLE.replace("127.0.0.1:7", "nowhere.invalid:7")).await.unwrap();
        assert!(routes.to("echo").is_some());
    }

    #[tokio::test]
    async fn a_name_that_resolves_into_another_resource_doesn_t_have_its_address() {
        let second = "\n  twin: {protocol: echo, addresses: [\"localhost:7\"], credential: echo}\nrules:";
        let text = BUNDLE.replace("\nrules:", second).replace("resources: [echo]", "resources: [\"*\"]");
        let (routes, trouble) = routes(&text).await.unwrap();
        let told = "127.0.0.1 port 7 is not resource \"twin\", as its name \"localhost\" says: it is \"echo\"'s, too";
        assert_eq!(trouble, [told]);
        assert_eq!(chosen(&routes, "127.0.0.1:7").as_deref(), Some("echo"));
    }

    #[test]
    fn what_names_of_two_resources_have_on_one_port_is_neither_s() {
        let of = |name: &str, port| {
            let directory = write_bundle(&BUNDLE.replace("127.0.0.1:7", &format!("{name}:{port}")));
            let resource = bundle::load(directory.path(), &protocols()).unwrap().resources.remove(0);
            Arc::new(Resource { name: format!("{name}:{port}").into(), ..Resource::clone(&resource) })
        };
        let resources = [of("one.internal", 7), of("two.internal", 7), of("three.internal", 8)];
        let told = ["one.internal", "two.internal", "three.internal"].map(|name| (name, "192.0.2.7"));
        let mut resolved = resolved(&[&told[..], &[("two.internal", "192.0.2.8")]].concat());
        resolved.settle(&resources);
        assert_eq!(resolved.trouble.len(), 2, "{:?}", resolved.trouble);
        let nets = resources.iter().map(|resource| resolved.nets(&resource.addresses[0].host));
        assert_eq!(nets.map(|nets| nets.len()).collect::<Vec<_>>(), [0, 1, 1]);
    }

    fn resolved(told: &[(&str, &str)]) -> Resolved {
        let mut resolved = Resolved::default();
        for (name, address) in told {
            resolved.addresses.entry((*name).into()).or_default().push(address.parse().unwrap());
        }
        resolved
    }
}
