//! The names of the bundle in force: what each stands for, and the addresses that it turned out to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tidegate_dns::{Directory, LONGEST_TTL, Standing};
use tidegate_kernel::{Destination, Learned, PassRule, Rules};
use tidegate_policy::{Dns, Host, NamePattern, Policy};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{origins::Enforcer, routes::Resolved};

/// How long an address stays reachable after it was last told: processes may keep an answer, and pool what they resolved.
const KEPT: Duration = LONGEST_TTL.saturating_mul(3);
/// Addresses that are remembered in all; those told least lately are forgotten.
const MOST: usize = 8192;
/// How often addresses that nobody was told of late are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What the names of one bundle stand for.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// Ports and names of resources, by host name.
    resources: BTreeMap<Arc<str>, Vec<(u16, Arc<str>)>>,
    /// Ports and subjects of passes, by host name.
    passes: BTreeMap<Arc<str>, Vec<PassUse>>,
    /// Names that are answered without being destinations.
    dns: Dns,
    /// What is a resource's since the bundle was loaded.
    declared: Vec<Declared>,
    /// What is passed, likewise.
    passed: Vec<(IpNet, Option<u16>)>,
}

impl Uses {
    /// Of a policy whose names were looked up.
    pub(crate) fn of(policy: &Policy, resolved: &Resolved) -> Self {
        let mut uses = Self { dns: policy.dns.clone(), ..Self::default() };
        for resource in &policy.resources {
            for address in &resource.addresses {
                let Some(port) = address.port else { continue };
                let name = match &address.host {
                    Host::Name(name) => Some(name),
                    Host::Net(_) => None,
                };
                let declared =
                    |net| Declared { net, port, resource: resource.name.clone(), name: name.cloned() };
                uses.declared.extend(resolved.nets(&address.host).into_iter().map(declared));
                if let Some(name) = name {
                    uses.resources.entry(name.clone()).or_default().push((port, resource.name.clone()));
                }
            }
        }
        for pass in &policy.passes {
            for address in &pass.to {
                uses.passed.extend(resolved.nets(&address.host).into_iter().map(|net| (net, address.port)));
                if let Host::Name(name) = &address.host {
                    let use_ = (address.port, pass.subjects.clone());
                    uses.passes.entry(name.clone()).or_default().push(use_);
                }
            }
        }
        uses
    }

    fn standing(&self, name: &str) -> Standing {
        let written =
            |pattern: &NamePattern| matches!(pattern, NamePattern::Name(_)) && pattern.matches(name);
        if self.is_destination(name) || self.dns.allow.iter().any(written) {
            Standing::Named
        } else if self.dns.allow.iter().any(|pattern| pattern.matches(name)) {
            Standing::Wildcard
        } else {
            Standing::Unknown
        }
    }

    /// Whether a resource or a pass has this name.
    fn is_destination(&self, name: &str) -> bool {
        self.resources.contains_key(name) || self.passes.contains_key(name)
    }

    /// The resource that the rules as loaded make of a destination.
    fn declared(&self, address: IpAddr, port: u16) -> Option<&Arc<str>> {
        self.declared_at(address, port).next().map(|found| &found.resource)
    }

    fn declared_at(&self, address: IpAddr, port: u16) -> impl Iterator<Item = &Declared> {
        self.declared.iter().filter(move |one| one.port == port && one.net.contains(&address))
    }
}

/// Addresses of a resource since the bundle was loaded.
#[derive(Debug)]
struct Declared {
    net: IpNet,
    port: u16,
    resource: Arc<str>,
    /// The name that had them; none where the bundle has the addresses themselves.
    name: Option<Arc<str>>,
}

/// A port, or any, and the subjects that reach it.
type PassUse = (Option<u16>, Vec<Arc<str>>);

/// The table. A name's address is in the kernel before it is in here, and in here before anybody is told.
#[derive(Clone)]
pub(crate) struct Names(Arc<Table>);

struct Table {
    enforcer: Arc<dyn Enforcer>,
    /// Whoever only reads waits for nobody: a change may wait for the kernel.
    state: ArcSwap<State>,
    /// Held by whoever changes it.
    turn: Arc<Mutex<()>>,
}

#[derive(Default)]
struct State {
    uses: Arc<Uses>,
    /// Until when an address of a name counts.
    learned: Addresses,
}

/// By name.
type Addresses = BTreeMap<(Arc<str>, IpAddr), Instant>;

impl Names {
    /// None yet.
    pub(crate) fn new(enforcer: Arc<dyn Enforcer>) -> Self {
        Self(Arc::new(Table { enforcer, state: ArcSwap::default(), turn: Arc::default() }))
    }

    /// Puts a bundle's rules into the kernel together with what is still known of its names. On an error the old ones
    /// count on.
    pub(crate) async fn install(&self, uses: Uses, rules: Rules) -> Result<(), String> {
        self.change(move |names| names.replace(uses, rules)).await
    }

    /// Makes one change after the other, off the threads that serve. Whoever waits for a turn has none of the few threads for
    /// what blocks: connections' origins are found on these.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (names, turn) = (self.clone(), self.0.turn.clone().lock_owned().await);
        let changed = spawn_blocking(move || {
            let _turn = turn;
            change(&names)
        });
        changed.await.unwrap_or_else(|_| Err("the agent is stopping".into()))
    }

    fn replace(&self, uses: Uses, mut rules: Rules) -> Result<(), String> {
        let learned = kept(&uses, &self.0.state.load().learned);
        rules.learned = destinations(&uses, &learned);
        self.0.enforcer.enforce(&rules)?;
        self.0.state.store(Arc::new(State { uses: Arc::new(uses), learned }));
        Ok(())
    }

    /// What enforces.
    pub(crate) fn enforcer(&self) -> &Arc<dyn Enforcer> {
        &self.0.enforcer
    }

    /// The resource whose name was found to have this address.
    pub(crate) fn resource(&self, destination: SocketAddr) -> Option<Arc<str>> {
        let state = self.0.state.load();
        let address = destination.ip().to_canonical();
        let names = state.learned.keys().filter(|(_, known)| *known == address);
        let mut uses = names.filter_map(|(name, _)| state.uses.resources.get(name)).flatten();
        uses.find(|(port, _)| *port == destination.port()).map(|(_, resource)| resource.clone())
    }

    /// The names that have a destination: by what they were told for, or had when the bundle was loaded. None where the bundle
    /// has the address itself, which is then everything that its resource is called.
    pub(crate) fn of(&self, destination: SocketAddr) -> Option<Arc<[Arc<str>]>> {
        let state = self.0.state.load();
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let declared = state.uses.declared_at(address, port).map(|one| one.name.clone());
        let mut names = declared.collect::<Option<BTreeSet<Arc<str>>>>()?;
        let has_port = |name: &Arc<str>| {
            state.uses.resources.get(name).is_some_and(|uses| uses.iter().any(|(own, _)| *own == port))
        };
        let learned = state.learned.keys().filter(|(name, known)| *known == address && has_port(name));
        names.extend(learned.map(|(name, _)| name.clone()));
        Some(names.into_iter().collect())
    }

    /// Forgets what nobody was told of late, from time to time, until dropped.
    pub(crate) async fn forget(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if let Err(error) = self.change(Self::sweep).await {
                tracing::error!(error, "addresses that no name has any more stay reachable for now");
            }
        }
    }

    fn sweep(&self) -> Result<(), String> {
        let state = self.0.state.load();
        let learned = kept(&state.uses, &state.learned);
        if learned.len() == state.learned.len() {
            return Ok(());
        }
        self.0.enforcer.learn(&destinations(&state.uses, &learned))?;
        self.know(&state, learned);
        Ok(())
    }

    fn know(&self, state: &State, learned: Addresses) {
        self.0.state.store(Arc::new(State { uses: state.uses.clone(), learned }));
    }

    /// Makes a name's addresses reachable.
    fn take(&self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
        let state = self.0.state.load();
        if !state.uses.is_destination(name) {
            return Ok(addresses);
        }
        let told = state.uses.acceptable(name, addresses)?;
        state.clash(name, &told)?;
        let (name, until) = (Arc::<str>::from(name), Instant::now() + KEPT);
        let mut learned = state.learned.clone();
        for address in &told {
            learned.insert((name.clone(), *address), until);
        }
        while learned.len() > MOST
            && let Some(oldest) = learned.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            learned.remove(&oldest);
        }
        if !learned.keys().eq(state.learned.keys()) {
            self.0.enforcer.learn(&destinations(&state.uses, &learned))?;
        }
        self.know(&state, learned);
        Ok(told)
    }
}

impl State {
    /// A destination is one resource, whatever a name server says.
    fn clash(&self, name: &str, addresses: &[IpAddr]) -> Result<(), String> {
        for (port, resource) in self.uses.resources.get(name).into_iter().flatten() {
            for address in addresses {
                let learned = self.learned.keys().filter(|(_, known)| known == address);
                let others = learned.filter_map(|(other, _)| self.uses.resources.get(other)).flatten();
                let others = others.filter(|(other_port, _)| other_port == port).map(|(_, other)| other);
                if let Some(other) = self
                    .uses
                    .declared(*address, *port)
                    .into_iter()
                    .chain(others)
                    .find(|other| *other != resource)
                {
                    return Err(format!(
                        "{address} port {port} would be resource {resource:?} and is resource {other:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Uses {
    /// The addresses that a name may have. A pass leads past the gate: whoever answers for its name must not point it at
    /// the host itself or at what only the host's link reaches, unless the bundle passed that when it was loaded.
    fn acceptable(&self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
        let Some(passes) = self.passes.get(name) else { return Ok(addresses) };
        let passed = |address: &IpAddr| {
            let known = |port: &Option<u16>| {
                self.passed.iter().any(|(net, own)| net.contains(address) && (own.is_none() || own == port))
            };
            passes.iter().all(|(port, _)| known(port))
        };
        let (told, left): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| !is_near(*address) || passed(address));
        match (told.is_empty(), left.first()) {
            (true, Some(near)) => {
                Err(format!("the name is passed and its address {near} is the host's own or its link's"))
            }
            _ => Ok(told),
        }
    }
}

impl Directory for Names {
    fn standing(&self, name: &str) -> Standing {
        self.0.state.load().uses.standing(name)
    }

    async fn learn(&self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
        let name = name.to_owned();
        // The kernel is asked, perhaps while a bundle is being put in force.
        self.change(move |names| names.take(&name, addresses)).await
    }
}

/// Loopback, link-local, multicast and the like.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || first == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
        }
    }
}

/// What of the learned still counts: not past its time, and of names that are still used.
fn kept(uses: &Uses, learned: &Addresses) -> Addresses {
    let now = Instant::now();
    let counts =
        |((name, _), until): &(&(Arc<str>, IpAddr), &Instant)| **until > now && uses.is_destination(name);
    learned.iter().filter(counts).map(|(key, until)| (key.clone(), *until)).collect()
}

/// What the kernel must know of what was learned.
fn destinations(uses: &Uses, learned: &Addresses) -> Learned {
    let mut resources = BTreeSet::new();
    let mut passes = Vec::new();
    for (name, address) in learned.keys() {
        let net = IpNet::from(*address);
        let ports = uses.resources.get(name).into_iter().flatten().map(|(port, _)| (net, *port));
        resources.extend(ports);
        for (port, subjects) in uses.passes.get(name).into_iter().flatten() {
            passes.push(PassRule { net, port: *port, subjects: subjects.clone() });
        }
    }
    let resources = resources.into_iter().map(|(net, port)| Destination { net, port }).collect();
    Learned { resources, passes }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::test_support::{BUNDLE, World};

    /// Resources `echo` and `twin`, a pass and a wildcard by name; all names are in the host's own table.
    async fn world() -> World {
        let text = BUNDLE
            .replace("\"127.0.0.1:7\"", "\"localhost:7\", \"192.0.2.7:8\"")
            .replace(
                "\nrules:",
                "\n  twin: {protocol: echo, addresses: [\"192.0.2.9:7\"], credential: echo}\npasses:\n  \
                 - {subjects: [ci], to: [\"localhost:443\"]}\ndns: {allow: [\"*.internal\", written.test]}\nrules:",
            )
            .replace("resources: [echo]", "resources: [\"*\"]");
        World::with_bundle(&text).await
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn the_bundle_says_which_names_are_known() {
        let world = world().await;
        let names = world.in_force.names();
        for (name, standing) in [
            ("localhost", Standing::Named),
            ("written.test", Standing::Named),
            ("db.internal", Standing::Wildcard),
            ("a.b.internal", Standing::Unknown),
            ("internal", Standing::Unknown),
            ("localhost.attacker.example", Standing::Unknown),
            ("", Standing::Unknown),
        ] {
            assert_eq!(names.standing(name), standing, "{name:?}");
        }
    }

    #[tokio::test]
    async fn a_name_s_new_address_is_the_kernel_s_and_its_resource_s_before_it_is_told() {
        let world = world().await;
        let names = world.in_force.names();
        let new = addresses(&["10.0.0.5"]);
        let route = || world.in_force.route("10.0.0.5:7".parse().unwrap());
        assert!(route().is_none());
        assert_eq!(names.learn("localhost", new.clone()).await, Ok(new));
        assert_eq!(&*route().unwrap().resource.name, "echo");
        assert!(world.in_force.route("10.0.0.5:9".parse().unwrap()).is_none());
        let learned = world.enforcer.learned.lock().unwrap().clone();
        let net: IpNet = "10.0.0.5/32".parse().unwrap();
        assert_eq!(learned.resources, [Destination { net, port: 7 }]);
        assert_eq!((learned.passes[0].net, learned.passes[0].port), (net, Some(443)));
    }

    #[tokio::test]
    async fn an_address_has_the_names_that_it_was_told_for_or_every_one_where_the_bundle_has_it() {
        let declared = |net: &str, port, name: Option<&str>| Declared {
            net: net.parse().unwrap(),
            port,
            resource: "it".into(),
            name: name.map(Into::into),
        };
        let resources = [("a.test", 7), ("b.test", 7), ("c.test", 8)];
        let uses = Uses {
            resources: resources.map(|(name, port)| (name.into(), vec![(port, "it".into())])).into(),
            declared: vec![
                declared("10.0.0.1/32", 7, Some("a.test")),
                declared("10.0.0.2/32", 7, Some("a.test")),
                declared("10.0.0.2/31", 7, None),
            ],
            ..Uses::default()
        };
        let names = Names::new(World::new().await.enforcer.clone());
        names.install(uses, Rules::default()).await.unwrap();
        let of = |destination: &str| {
            let names = names.of(destination.parse().unwrap());
            names.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("10.0.0.1:7").as_deref(), Some("a.test"));
        assert_eq!(of("10.0.0.2:7"), None, "the bundle has it");
        for name in ["b.test", "c.test"] {
            names.learn(name, addresses(&["10.0.0.1", "10.0.0.5"])).await.unwrap();
        }
        assert_eq!(of("10.0.0.1:7").as_deref(), Some("a.test b.test"), "and not what is at another port");
        assert_eq!(of("10.0.0.5:7").as_deref(), Some("b.test"));
        assert_eq!(of("[::ffff:10.0.0.5]:8").as_deref(), Some("c.test"));
    }

    #[tokio::test]
    async fn an_address_that_the_kernel_does_not_take_is_not_told() {
        let world = world().await;
        world.enforcer.broken.store(true, Ordering::Relaxed);
        let error = world.in_force.names().learn("localhost", addresses(&["10.0.0.5"])).await.unwrap_err();
        assert_eq!(error, "broken on purpose");
        assert!(world.in_force.route("10.0.0.5:7".parse().unwrap()).is_none());
    }

    #[tokio::test]
    async fn a_name_server_cannot_make_one_resource_another() {
        let world = world().await;
        let error = world.in_force.names().learn("localhost", addresses(&["192.0.2.9"])).await.unwrap_err();
        assert!(error.contains("192.0.2.9 port 7") && error.contains("\"twin\""), "{error}");
    }

    #[tokio::test]
    async fn a_name_server_cannot_point_a_pass_at_the_host_or_its_link() {
        let world = world().await;
        let names = world.in_force.names();
        for near in ["169.254.169.254", "127.0.0.9", "0.0.0.0", "fe80::1", "::", "::ffff:169.254.169.254"] {
            assert!(names.learn("localhost", addresses(&[near])).await.is_err(), "{near}");
        }
        let mixed = addresses(&["169.254.169.254", "10.0.0.5"]);
        assert_eq!(names.learn("localhost", mixed).await, Ok(addresses(&["10.0.0.5"])));
        let passed = addresses(&["127.0.0.1"]);
        assert_eq!(names.learn("localhost", passed.clone()).await, Ok(passed), "passed when it was loaded");
    }

    #[tokio::test]
    async fn a_name_that_is_only_answered_makes_nothing_reachable() {
        let world = world().await;
        let told = addresses(&["10.0.0.5"]);
        assert_eq!(world.in_force.names().learn("db.internal", told.clone()).await, Ok(told));
        assert!(world.enforcer.learned.lock().unwrap().resources.is_empty());
    }

    #[tokio::test]
    async fn what_was_learned_survives_a_reload_that_keeps_the_name_and_no_other() {
        let world = world().await;
        let destination = "10.0.0.5:7".parse().unwrap();
        world.in_force.names().learn("localhost", addresses(&["10.0.0.5"])).await.unwrap();
        world.reloader().reload().await.unwrap();
        assert!(world.in_force.route(destination).is_some());
        std::fs::write(world.bundle.path().join("bundle.yaml"), BUNDLE).unwrap();
        world.reloader().reload().await.unwrap();
        assert!(world.in_force.route(destination).is_none());
    }

    #[test]
    fn names_that_wait_for_a_bundle_leave_threads_for_others() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
        runtime.unwrap().block_on(async {
            let world = world().await;
            let mut held = world.enforcer.hold();
            let reloader = world.reloader();
            let reloading = tokio::spawn(async move { reloader.reload().await });
            held.reached().await;
            let learning: Vec<_> = (0..20)
                .map(|last| {
                    let names = world.in_force.names().clone();
                    tokio::spawn(async move { names.learn("localhost", vec![[10, 0, 0, last].into()]).await })
                })
                .collect();
            tokio::task::yield_now().await;
            let other = tokio::time::timeout(Duration::from_secs(20), spawn_blocking(|| ())).await;
            drop(held);
            assert!(other.is_ok(), "nothing that blocks could be done");
            reloading.await.unwrap().unwrap();
            for learned in learning {
                learned.await.unwrap().unwrap();
            }
        });
    }

    #[tokio::test]
    async fn addresses_are_forgotten_in_time_and_never_without_bound() {
        let world = world().await;
        let names = world.in_force.names();
        for block in 0..40 {
            let many: Vec<IpAddr> = (0..=255).map(|last| IpAddr::from([10, 9, block, last])).collect();
            names.learn("localhost", many).await.unwrap();
        }
        assert!(world.enforcer.learned.lock().unwrap().resources.len() <= MOST);
        let state = names.0.state.load();
        let over = state.learned.keys().map(|key| (key.clone(), Instant::now()));
        names.know(&state, over.collect());
        names.sweep().unwrap();
        assert!(world.enforcer.learned.lock().unwrap().resources.is_empty());
    }
}
