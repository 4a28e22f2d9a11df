//! The agent's start: everything that it needs, in the order in which it needs it, or the first thing that is missing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rand;
use tidegate_gate::{Masker, Records, Secret, Stopping};
use tidegate_identity::Registry;
use tidegate_kernel::Protection;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
};

use crate::{
    admin::{Admin, Start},
    asking::Asking,
    authority::Folder,
    config::{Config, host_name},
    credentials::Files,
    dns::Dns,
    error::Error,
    files,
    host::HostRecord,
    identities::{self, Keeper},
    listener::{Accepted, Kept, Listeners, addresses},
    live::Live,
    namespaces::Namespaces,
    notify,
    origins::HostKernel,
    people::People,
    protocols::Protocols,
    reload::{Loader, Reloader},
    run::{Agent, Privileged, Signals},
    session::Sessions,
    socket::Socket,
    store,
    unix_listeners::UnixListeners,
};

/// Connections that were accepted elsewhere and wait to be served; more wait in their listeners' own queues.
const WAITING: usize = 1024;

/// What lies in the agent's directories, opened.
struct Opened {
    records: Arc<dyn Records>,
    host: Arc<HostRecord>,
    masker: Arc<Masker>,
    credentials: Arc<Files>,
    registry: Registry,
}

/// Starts an agent. From the moment that the listeners are told to the kernel, its rules are those of the bundle.
pub(crate) async fn start(config: Config, privileged: Privileged) -> Result<Agent, Error> {
    let Privileged { since, kept, tier, mut kernel } = privileged;
    let tier: Arc<str> = tier.to_string().into();
    let signals = Signals::listen().map_err(Error::Runtime)?;
    let opened = Opened::open(&config, &tier)?;
    kernel.read_log(opened.host.clone()).map_err(Error::Kernel)?;
    let on_host = (&*host_name(), kernel.accounts());
    let people = People::gather(&config, &opened.credentials, &opened.registry, on_host).await?;
    let loader = opened.loader(&config);
    let candidate = Box::pin(loader.load()).await?;
    let socket = Socket::bind(&config.admin_socket())?;
    let user_socket = Socket::bind_for_all(&config.user_socket())?;
    let (connections, elsewhere) = mpsc::channel(WAITING);
    let (identities, kept) = identities::part(kept);
    let mut listeners = listen(&config, kept, &mut kernel, &connections).await?;
    listeners.also(elsewhere);
    let in_force = Arc::new(candidate.begin(Arc::new(kernel.clone()), &opened.registry).await?);
    let identities = Keeper::begin(opened.registry.clone(), identities).await;
    tracing::info!(adopted = kernel.adopted(), pins = %config.pins.display(), "the rules are in force");
    let reloader = Arc::new(Reloader::new(loader, in_force.clone()));
    let (stopping, stopped) = watch::channel(Stopping::No);
    let desk = people.desk.clone();
    let live = Live::new(config.limits.clone());
    let admin = Admin {
        reloader: reloader.clone(),
        in_force: in_force.clone(),
        live: live.clone(),
        registry: opened.registry.clone(),
        ports: listeners.ports().map_err(Error::Runtime)?,
        start: Start { since, took: since.elapsed(), pins: config.pins.clone(), adopted: kernel.adopted() },
        questions: Box::new(move || desk.health()),
        stop: Arc::new(Notify::new()),
    };
    let (netns, seen) = (kernel.netns(), kernel.namespaces().map_err(Error::Kernel)?);
    let Opened { records, masker, credentials, registry, .. } = opened;
    let origins = Arc::new(kernel);
    let dns = Dns::new(in_force.clone(), origins.clone(), records.clone(), tier.clone());
    let namespaces = Namespaces::new(seen, origins.clone(), dns.clone(), connections);
    let approvals =
        Arc::new(Asking { desk: Arc::new(people.desk.clone()), accounts: origins.accounts().clone() });
    let sessions = Arc::new(Sessions {
        origins,
        identities: Arc::new(registry),
        in_force,
        credentials,
        records,
        approvals,
        dns,
        rates: Arc::default(),
        masker,
        stopping: stopped,
        live,
        tier,
    });
    let admin = (socket, Arc::new(admin));
    Ok(Agent {
        config,
        listeners,
        netns,
        namespaces,
        sessions,
        reloader,
        admin,
        user_socket,
        people,
        identities,
        stopping,
        signals,
    })
}

impl Opened {
    fn open(config: &Config, tier: &Arc<str>) -> Result<Self, Error> {
        let identity = config.identity();
        let records = store::open(&config.records(), &host_name()).map_err(Error::Records)?;
        let host = HostRecord::start(records.clone(), tier.clone()).map(Arc::new).map_err(Error::Runtime)?;
        // It is to end with the kernel's log.
        let witness = Arc::downgrade(&host);
        let witness = move |stolen: &_| witness.upgrade().into_iter().for_each(|host| host.stolen(stolen));
        let registry = Registry::new(Some(&identity), Handle::current(), Box::new(witness));
        let systemd = std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
        Ok(Self {
            records,
            host,
            masker: Arc::new(Masker::new(token_key(&config.state.join("token.key"))?)),
            credentials: Arc::new(Files::new(systemd, config.credentials.directory.clone())),
            registry: registry.map_err(Error::file(&identity))?,
        })
    }

    fn loader(&self, config: &Config) -> Loader {
        Loader {
            directory: config.bundle.clone(),
            protocols: Arc::new(Protocols::built_in()),
            authority: Folder::of(config),
            credentials: self.credentials.clone(),
            registry: self.registry.clone(),
            listeners: config.gate_sockets(),
            users: Arc::default(),
        }
    }
}

/// Binds the listeners, and tells the kernel of them and of the agent's own files. What is accepted on Unix sockets is sent
/// to `connections`.
async fn listen(
    config: &Config,
    kept: Kept,
    kernel: &mut HostKernel,
    connections: &mpsc::Sender<Accepted>,
) -> Result<Listeners, Error> {
    let earlier = kernel.earlier_ports().map_err(Error::Kernel)?;
    let before = addresses(&kept);
    let listeners = Listeners::bind(&config.listen, earlier, kept).await?;
    let ports = listeners.ports().map_err(Error::Runtime)?;
    if notify::keeps()
        && let Err(error) = listeners.keep(&before)
    {
        tracing::warn!(%error, "the service manager was not given the listeners to keep");
    }
    listeners.mark(kernel).map_err(Error::Kernel)?;
    kernel.listen(ports.0, ports.1).map_err(Error::Kernel)?;
    kernel.protect(&own_files(config)).map_err(Error::Kernel)?;
    let folder = config.gate_sockets();
    let sockets = UnixListeners::new(&folder, connections.clone()).map_err(Error::file(&folder))?;
    kernel.listen_on_unix(sockets, vec![config.user_socket()]);
    Ok(listeners)
}

/// What nobody governed may touch, and what of it nobody governed may read.
fn own_files(config: &Config) -> [(PathBuf, Protection); 8] {
    [
        (config.credentials.directory.clone(), Protection::Hide),
        (config.records(), Protection::Hide),
        (config.identity(), Protection::Hide),
        (config.state.join("token.key"), Protection::Hide),
        (config.state.clone(), Protection::Keep),
        (config.bundle.clone(), Protection::Keep),
        (config.pins.clone(), Protection::Hide),
        (PathBuf::from("/proc/self/exe"), Protection::Keep),
    ]
}

/// The key of masking tokens, made at the first start: tokens stay equal for as long as it does.
fn token_key(path: &Path) -> Result<Secret, Error> {
    const LENGTH: usize = 32;
    if !path.exists() {
        let mut key = zeroize::Zeroizing::new([0; LENGTH]);
        rand::fill(&mut *key).map_err(|_| Error::TokenKey(path.into()))?;
        files::write(path, &*key, 0o600).map_err(Error::file(path))?;
    }
    let key = files::read_trusted(path, LENGTH, 0o077).map_err(Error::file(path))?;
    if key.len() == LENGTH { Ok(Secret::new(key.to_vec())) } else { Err(Error::TokenKey(path.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_key_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.key");
        let first = token_key(&path).unwrap();
        assert_eq!(first.expose().len(), 32);
        assert_eq!(first.expose(), token_key(&path).unwrap().expose());
    }

    #[test]
    fn a_token_key_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.key");
        files::write(&path, b"short", 0o600).unwrap();
        assert!(matches!(token_key(&path), Err(Error::TokenKey(_))));
    }
}
