//! The bundle in force, and its replacement: all or nothing.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tidegate_dns::Upstream;
use tidegate_gate::Credentials;
use tidegate_identity::{Prepared, Registry};
use tidegate_kernel::{Directory, Rules};
use tidegate_policy::{Host, Policy, Requirement};
use tokio::sync::{Mutex, watch};

use crate::{
    authority::{Authority, Folder, Life},
    bundle::{self, BundleError},
    error::Error,
    names::{Names, Uses},
    origins::{self, Enforcer},
    protocols::Protocols,
    routes::{Resolved, Route, Routes},
};

/// The bundle in force.
pub(crate) struct InForce {
    policy: Arc<ArcSwap<Policy>>,
    routes: ArcSwap<Routes>,
    names: Names,
    upstream: ArcSwap<Upstream>,
    /// What signs the certificates of new routes.
    authority: ArcSwap<Authority>,
    changes: watch::Sender<u64>,
    /// What it does not reach yet.
    trouble: ArcSwap<Vec<String>>,
    /// Which destinations its names don't lead to, and why.
    unresolved: ArcSwap<Vec<String>>,
}

/// A bundle that was found good and is not yet in force.
pub(crate) struct Candidate {
    policy: Policy,
    issuers: Prepared,
    authority: Arc<Authority>,
    routes: Routes,
    rules: Rules,
    /// Who may not be governed by it, and why.
    ungoverned: Vec<String>,
    /// Which destinations its names don't lead to, and why.
    unresolved: Vec<String>,
    uses: Uses,
    upstream: Upstream,
}

/// What a bundle is made from. Host names are looked up each time.
pub(crate) struct Loader {
    /// The bundle's directory.
    pub(crate) directory: PathBuf,
    /// The protocols that it may name.
    pub(crate) protocols: Arc<Protocols>,
    /// Where what signs the resources' certificates is, opened each time.
    pub(crate) authority: Folder,
    /// Where the resources' credentials must be.
    pub(crate) credentials: Arc<dyn Credentials>,
    /// What asks the bundle's issuers.
    pub(crate) registry: Registry,
    /// Where clients of Unix sockets that are resources are sent.
    pub(crate) listeners: PathBuf,
    /// Who its users and groups are.
    pub(crate) users: Arc<Directory>,
}

/// Replaces the bundle in force by what is on disk now.
pub(crate) struct Reloader {
    loader: Loader,
    in_force: Arc<InForce>,
    one_at_a_time: Mutex<()>,
}

/// What is in force, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The bundle's name.
    pub(crate) bundle: String,
    /// Its digest.
    pub(crate) digest: String,
    /// How many subjects are governed.
    pub(crate) subjects: usize,
    /// How many resources there are.
    pub(crate) resources: usize,
    /// How long the host's authority counts.
    pub(crate) authority: Life,
    /// Who or what may not be governed by it yet, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trouble: Vec<String>,
    /// Which destinations its names don't lead to, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unresolved: Vec<String>,
}

impl Loader {
    /// Loads the bundle as a whole: its policy, its protocols' servers, its names, its credentials.
    pub(crate) async fn load(&self) -> Result<Candidate, Error> {
        let (directory, protocols) = (self.directory.clone(), self.protocols.clone());
        let (policy, servers) = off_thread(move || {
            bundle::check_ownership(&directory)?;
            let policy = bundle::load(&directory, &protocols)?;
            let servers = bundle::configure(&policy, &protocols)?;
            Ok::<_, BundleError>((policy, servers))
        })
        .await?;
        self.check_credentials(&policy).await?;
        let authority = self.authority(&policy).await?;
        let upstream = Upstream::new(&policy.dns.servers)
            .map_err(|error| BundleError::Unusable(vec![format!("the name servers: {error}")]))?;
        let resolved = Resolved::of(&policy, &upstream).await;
        let unresolved = resolved.trouble.clone();
        let uses = Uses::of(&policy, &resolved);
        let routes = Routes::build(servers, &resolved, &self.protocols, &authority)?;
        let (listeners, users) = (self.listeners.clone(), self.users.clone());
        let (policy, rules, ungoverned) = off_thread(move || {
            let made = origins::rules(&policy, &resolved, &listeners, &users);
            let (rules, ungoverned) = made.map_err(BundleError::Unusable)?;
            Ok::<_, BundleError>((policy, rules, ungoverned))
        })
        .await?;
        let registry = self.registry.clone();
        let (policy, issuers) = off_thread(move || {
            let issuers = registry.prepare(&policy.issuers).map_err(BundleError::Unusable)?;
            Ok::<_, BundleError>((policy, issuers))
        })
        .await?;
        for why in &unresolved {
            tracing::warn!(why, "a destination can't be reached by its name");
        }
        for who in &ungoverned {
            tracing::warn!(who, "somebody may not be governed; reload once that is mended");
        }
        Ok(Candidate { policy, issuers, authority, routes, rules, ungoverned, unresolved, uses, upstream })
    }

    async fn authority(&self, policy: &Policy) -> Result<Arc<Authority>, Error> {
        let folder = self.authority.clone();
        let authority = off_thread(move || Authority::open(&folder, SystemTime::now())).await?;
        if policy.required.contains(&Requirement::ConstrainedAuthority) && authority.within().is_any() {
            let problem = format!(
                "the bundle requires `constrained-authority`, and this host's authority vouches for {}: say in the \
                 configuration what it is to vouch for, `authority: {{names: [...]}}`, and `tidegate ca renew`",
                authority.within()
            );
            return Err(BundleError::Unusable(vec![problem]).into());
        }
        Ok(Arc::new(authority))
    }

    async fn check_credentials(&self, policy: &Policy) -> Result<(), Error> {
        let mut problems = Vec::new();
        for (needed_by, credential) in policy.credentials() {
            if let Err(error) = self.credentials.credential(credential).await {
                problems.push(format!("{needed_by}: {error}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Credentials(problems)) }
    }
}

impl Candidate {
    /// Puts it in force as the first one, for all that runs already too. Nothing is redirected before this returns.
    pub(crate) async fn begin(
        self,
        enforcer: Arc<dyn Enforcer>,
        registry: &Registry,
    ) -> Result<InForce, Error> {
        let names = Names::new(enforcer);
        names.install(self.uses, self.rules).await.map_err(Error::Kernel)?;
        let enforcer = names.enforcer().clone();
        let trouble = off_thread(move || enforcer.catch_up()).await;
        if !trouble.is_empty() {
            return Err(Error::Kernel(trouble.join("; ")));
        }
        registry.adopt(self.issuers);
        Ok(InForce {
            policy: Arc::new(ArcSwap::from_pointee(self.policy)),
            routes: ArcSwap::from_pointee(self.routes),
            names,
            upstream: ArcSwap::from_pointee(self.upstream),
            authority: ArcSwap::new(self.authority),
            changes: watch::Sender::new(0),
            trouble: ArcSwap::from_pointee(self.ungoverned),
            unresolved: ArcSwap::from_pointee(self.unresolved),
        })
    }
}

impl InForce {
    /// The resource that a destination is now.
    pub(crate) fn route(&self, destination: std::net::SocketAddr) -> Option<Arc<Route>> {
        let routes = self.routes.load();
        if let Some(route) = routes.choose(destination) {
            return Some(route.clone());
        }
        routes.to(&self.names.resource(destination)?).cloned()
    }

    /// The resource of this name.
    pub(crate) fn route_to(&self, resource: &str) -> Option<Arc<Route>> {
        self.routes.load().to(resource).cloned()
    }

    /// Where a resource's server is: at its first address, whatever that name stands for now.
    pub(crate) async fn server(&self, route: &Route) -> Result<std::net::SocketAddr, String> {
        let first = route.resource.addresses.first().ok_or("it has no address")?;
        let ip = match &first.host {
            Host::Net(net) => net.addr(),
            Host::Name(name) => {
                let found = self.upstream().addresses(name).await;
                let found = found.map_err(|error| format!("host name {name:?}: {error}"))?;
                *found.first().ok_or("its name has no address")?
            }
        };
        Ok((ip, first.port.ok_or("its address has no port")?).into())
    }

    /// The names that may be asked for.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Who knows their addresses.
    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        self.upstream.load_full()
    }

    /// The policy, as sessions follow it.
    pub(crate) fn policy(&self) -> &Arc<ArcSwap<Policy>> {
        &self.policy
    }

    /// Ticks when the policy was replaced.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is in force, for people.
    pub(crate) fn summary(&self) -> Summary {
        let policy = self.policy.load();
        Summary {
            bundle: policy.name.to_string(),
            digest: policy.digest.to_string(),
            subjects: policy.subjects.len(),
            resources: policy.resources.len(),
            authority: self.authority.load().life(SystemTime::now()),
            trouble: Vec::clone(&self.trouble.load()),
            unresolved: Vec::clone(&self.unresolved.load()),
        }
    }

    /// Routes go before the policy: a new session meets a policy that is at least as new as its route.
    fn replace(&self, policy: Policy, routes: Routes, upstream: Upstream) {
        self.upstream.store(Arc::new(upstream));
        self.routes.store(Arc::new(routes));
        self.policy.store(Arc::new(policy));
        self.changes.send_modify(|generation| *generation += 1);
    }
}

impl Reloader {
    /// For the bundle that `loader` loaded first.
    pub(crate) fn new(loader: Loader, in_force: Arc<InForce>) -> Self {
        Self { loader, in_force, one_at_a_time: Mutex::default() }
    }

    /// What enforces the bundle.
    pub(crate) fn enforcer(&self) -> &Arc<dyn Enforcer> {
        self.in_force.names.enforcer()
    }

    /// Loads the bundle again and puts it in force, then brings what runs already under it; on an error the old one stays in
    /// force whole.
    pub(crate) async fn reload(&self) -> Result<Summary, Error> {
        let _turn = self.one_at_a_time.lock().await;
        match self.try_reload().await {
            Ok(summary) => {
                tracing::info!(bundle = summary.bundle, digest = summary.digest, "bundle reloaded");
                Ok(summary)
            }
            Err(error) => {
                tracing::error!(%error, "bundle not reloaded; the old one stays in force");
                Err(error)
            }
        }
    }

    async fn try_reload(&self) -> Result<Summary, Error> {
        let Candidate { policy, issuers, authority, routes, rules, ungoverned, unresolved, uses, upstream } =
            Box::pin(self.loader.load()).await?;
        self.in_force.names.install(uses, rules).await.map_err(Error::Kernel)?;
        // From here on nothing fails.
        self.in_force.authority.store(authority);
        self.in_force.replace(policy, routes, upstream);
        self.loader.registry.adopt(issuers);
        let enforcer = self.enforcer().clone();
        let not_reached = off_thread(move || enforcer.catch_up()).await;
        self.in_force.unresolved.store(Arc::new(unresolved));
        self.in_force.trouble.store(Arc::new([ungoverned, not_reached].concat()));
        Ok(self.in_force.summary())
    }
}

/// Runs what blocks (files, the name service, the kernel) off the threads that serve; a panic there is one here.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::atomic::Ordering, time::SystemTime};

    use tidegate_dns::{Directory, Standing};

    use crate::{
        authority::tests::{folder, handshake},
        origins::Enforcer,
        test_support::{BUNDLE, World},
    };

    #[tokio::test]
    async fn a_reload_puts_the_new_bundle_in_force_and_tells_sessions() {
        let world = World::new().await;
        let changes = world.in_force.changes();
        fs::write(world.bundle.path().join("bundle.yaml"), BUNDLE.replace("name: demo", "name: next"))
            .unwrap();
        assert_eq!(world.reloader().reload().await.unwrap().bundle, "next");
        assert!(changes.has_changed().unwrap());
        assert_eq!(world.enforcer.generations.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_broken_bundle_changes_nothing() {
        let world = World::new().await;
        let before = world.in_force.summary();
        let changes = world.in_force.changes();
        fs::write(world.bundle.path().join("bundle.yaml"), "tidegate: 1\nnonsense: true\n").unwrap();
        assert!(world.reloader().reload().await.is_err());
        assert_eq!(world.in_force.summary(), before);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(world.enforcer.generations.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_kernel_that_takes_no_rules_leaves_the_old_bundle_whole() {
        let world = World::new().await;
        let before = world.in_force.summary();
        fs::write(world.bundle.path().join("bundle.yaml"), BUNDLE.replace("127.0.0.1:7", "127.0.0.1:8"))
            .unwrap();
        world.enforcer.broken.store(true, Ordering::Relaxed);
        let error = world.reloader().reload().await.unwrap_err().to_string();
        assert!(error.contains("broken on purpose"), "{error}");
        assert_eq!(world.in_force.summary(), before);
        assert!(world.in_force.route("127.0.0.1:7".parse().unwrap()).is_some());
        assert!(world.in_force.route("127.0.0.1:8".parse().unwrap()).is_none());
    }

    #[tokio::test]
    async fn what_ran_before_and_cannot_be_reached_is_told_of_a_bundle_that_is_in_force() {
        let world = World::new().await;
        fs::write(world.bundle.path().join("bundle.yaml"), BUNDLE.replace("127.0.0.1:7", "127.0.0.1:8"))
            .unwrap();
        world.enforcer.trouble.lock().unwrap().push("no label is left".into());
        let summary = world.reloader().reload().await.unwrap();
        assert_eq!(summary.trouble, ["no label is left"]);
        assert!(world.in_force.route("127.0.0.1:8".parse().unwrap()).is_some());
        world.enforcer.trouble.lock().unwrap().clear();
        assert!(world.reloader().reload().await.unwrap().trouble.is_empty());
    }

    #[tokio::test]
    async fn a_reload_holds_up_no_route_name_or_sign_of_life() {
        let world = World::new().await;
        let mut held = world.enforcer.hold();
        let reloader = world.reloader();
        let reloading = tokio::spawn(async move { reloader.reload().await });
        held.reached().await;
        // On the very thread that serves.
        assert!(world.in_force.route("127.0.0.1:7".parse().unwrap()).is_some());
        assert!(world.in_force.route("127.0.0.1:9".parse().unwrap()).is_none(), "by name, either");
        assert_eq!(world.in_force.names().standing("other.test"), Standing::Unknown);
        world.enforcer.live().unwrap();
        drop(held);
        reloading.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reload_takes_the_authority_that_was_changed_for_without_a_restart() {
        let world = World::new().await;
        let folder = folder(world.state.path(), &[]);
        let before = world.in_force.summary().authority;
        folder.renew(SystemTime::now()).unwrap();
        let begun = world.reloader().reload().await.unwrap().authority;
        assert!(begun.next && !before.next);
        assert_eq!(begun.sha256, before.sha256, "it signs nothing yet");
        folder.finish().unwrap();
        let now = world.reloader().reload().await.unwrap().authority;
        assert!(!now.next && now.sha256 != before.sha256);
        let route = world.in_force.route("127.0.0.1:7".parse().unwrap()).unwrap();
        handshake(world.state.path(), route.tls([127, 0, 0, 1].into()), "localhost").await.unwrap();
    }

    #[tokio::test]
    async fn a_bundle_that_requires_a_constrained_authority_is_refused_where_it_vouches_for_anything() {
        let world = World::new().await;
        let required = BUNDLE.replace("name: demo", "name: demo\nrequire: [constrained-authority]");
        fs::write(world.bundle.path().join("bundle.yaml"), required).unwrap();
        let error = world.reloader().reload().await.unwrap_err().to_string();
        assert!(error.contains("vouches for any name") && error.contains("tidegate ca renew"), "{error}");
        let constrained = folder(world.state.path(), &["127.0.0.1"]);
        constrained.renew(SystemTime::now()).unwrap();
        constrained.finish().unwrap();
        let mut reloader = world.reloader();
        reloader.loader.authority = constrained;
        reloader.reload().await.unwrap();
    }

    #[tokio::test]
    async fn a_resource_without_its_credential_stops_the_load() {
        let world = World::new().await;
        fs::remove_file(world.credentials.path().join("echo.password")).unwrap();
        let error = world.reloader().reload().await.unwrap_err().to_string();
        assert!(
            error.contains("resource \"echo\"") && error.contains("none of the configured places"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn so_does_a_rule_that_fills_in_one_that_is_not_there() {
        let world = World::new().await;
        let fill = "    fill: [{placeholder: \"@deploy@\", credential: deploy, in: [word]}]\n";
        fs::write(world.bundle.path().join("bundle.yaml"), format!("{BUNDLE}{fill}")).unwrap();
        let error = world.reloader().reload().await.unwrap_err().to_string();
        assert!(error.contains("rule \"say\"") && error.contains("deploy"), "{error}");
        let password = world.credentials.path().join("deploy.password");
        fs::copy(world.credentials.path().join("echo.password"), password).unwrap();
        world.reloader().reload().await.unwrap();
    }
}
