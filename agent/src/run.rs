//! The agent's life: a start that stops at the first thing missing, service, and an orderly end.

use std::{
    future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use tidegate_approvals::{Desk, webhooks::Webhooks};
use tidegate_approvals_web::{Pages, Server};
use tidegate_gate::{Masker, Records, Secret, Stopping};
use tidegate_identity::Registry;
use tidegate_kernel::{Protection, Tier, inherited};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    admin::{Admin, Socket, Start},
    answering::Answering,
    approvals,
    authority::Authority,
    config::Config,
    confinement,
    credentials::Files,
    dns::Dns,
    error::Error,
    files, hardening,
    heart::Heart,
    host::HostRecord,
    lanes::Lanes,
    listener::{Kept, Listeners, drain},
    live::Live,
    namespaces::Namespaces,
    notify,
    origins::HostKernel,
    protocols::Protocols,
    reload::{Loader, Reloader},
    session::Sessions,
    store,
    user_socket::Users,
};

/// Threads for what blocks beside the sessions: files, the name service.
const BLOCKING_THREADS: usize = 16;

/// How long sessions have to break off what they run and tell their clients, once the grace is over.
const LAST: Duration = Duration::from_secs(8);

/// A started agent: everything that must be there is.
struct Agent {
    config: Config,
    listeners: Listeners,
    /// Cookie of its own network namespace.
    netns: u64,
    namespaces: Namespaces,
    sessions: Arc<Sessions>,
    reloader: Arc<Reloader>,
    socket: Socket,
    people: (Socket, Arc<Answering>),
    webhooks: (Webhooks, Desk),
    page: Option<(Server, Pages)>,
    admin: Arc<Admin>,
    user_socket: Socket,
    users: Arc<Users>,
    stop: Arc<Notify>,
    stopping: watch::Sender<Stopping>,
    signals: Signals,
}

/// The signals that the agent answers to.
struct Signals {
    end: End,
    hangup: Signal,
}

/// The signals that ask for an end.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

/// What takes more privilege than a running agent has.
struct Privileged {
    /// When the agent began.
    since: Instant,
    /// Listeners that the service manager kept.
    kept: Kept,
    /// What the kernel was found to have.
    tier: Tier,
    /// The programs, attached.
    kernel: HostKernel,
}

/// Runs the agent until it is asked to stop. Logging has begun already.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    let since = Instant::now();
    hardening::require_root()?;
    hardening::apply(config.core_dumps)?;
    let privileged = Privileged::take(&config, since)?;
    // Before there are other threads: they are confined from their beginning.
    confinement::process()?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .thread_name("tidegate")
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(async {
        let agent = Box::pin(start(config, privileged)).await?;
        agent.serve().await
    })
}

impl Privileged {
    fn take(config: &Config, since: Instant) -> Result<Self, Error> {
        let kept = inherited::descriptors();
        make_directories(config)?;
        let tier = Tier::of(&tidegate_kernel::features());
        // From here on nothing that is governed gets out, with this agent or without it.
        let kernel = HostKernel::load(&config.pins).map_err(Error::Kernel)?;
        Ok(Self { since, kept, tier, kernel })
    }
}

async fn start(config: Config, privileged: Privileged) -> Result<Agent, Error> {
    let Privileged { since, kept, tier, mut kernel } = privileged;
    let tier: Arc<str> = tier.to_string().into();
    let signals = Signals::listen().map_err(Error::Runtime)?;
    let records: Arc<dyn Records> = store::open(&config.records(), &host_name()).map_err(Error::Records)?;
    let host = HostRecord::start(records.clone(), tier.clone()).map_err(Error::Runtime)?;
    kernel.read_log(host).map_err(Error::Kernel)?;
    let authority = Arc::new(Authority::open(&config.authority(), &host_name())?);
    let masker = Arc::new(Masker::new(token_key(&config.state.join("token.key"))?));
    let systemd = std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
    let credentials = Arc::new(Files::new(systemd, config.credentials.directory.clone()));
    let desk = approvals::open(&config, &*credentials, &host_name()).await?;
    let webhooks = (approvals::webhooks(&config, credentials.clone()).await?, desk.clone());
    let identity = config.identity();
    let registry = Registry::new(Some(&identity), tokio::runtime::Handle::current());
    let registry = registry.map_err(Error::file(&identity))?;
    let page = approvals::page(&config, &*credentials, &desk, &registry).await?;
    let loader = Loader {
        directory: config.bundle.clone(),
        protocols: Arc::new(Protocols::built_in()),
        authority,
        credentials: credentials.clone(),
        registry: registry.clone(),
    };
    let candidate = Box::pin(loader.load()).await?;
    let socket = Socket::bind(&config.admin_socket())?;
    let user_socket = Users::bind(&config.user_socket())?;
    let answering = Answering::new(desk.clone(), Arc::new(registry.clone()));
    let people = (Answering::bind(&config.approvals_socket())?, answering);
    let earlier = kernel.earlier_ports().map_err(Error::Kernel)?;
    let mut listeners = Listeners::bind(&config.listen, earlier, kept).await?;
    let ports = listeners.ports().map_err(Error::Runtime)?;
    if notify::keeps()
        && let Err(error) = listeners.keep()
    {
        tracing::warn!(%error, "the service manager was not given the listeners to keep");
    }
    listeners.mark(&kernel).map_err(Error::Kernel)?;
    kernel.listen(ports.0, ports.1).map_err(Error::Kernel)?;
    kernel.protect(&own_files(&config)).map_err(Error::Kernel)?;
    let in_force = Arc::new(candidate.begin(Arc::new(kernel.clone()), &registry)?);
    tracing::info!(adopted = kernel.adopted(), pins = %config.pins.display(), "the rules are in force");
    let reloader = Arc::new(Reloader::new(loader, in_force.clone()));
    let (stopping, told) = watch::channel(Stopping::No);
    let (live, stop) = (Live::new(config.limits.clone()), Arc::new(Notify::new()));
    let admin = Admin {
        reloader: reloader.clone(),
        in_force: in_force.clone(),
        live: live.clone(),
        ports,
        start: Start { since, took: since.elapsed(), pins: config.pins.clone(), adopted: kernel.adopted() },
        stop: stop.clone(),
    };
    let (netns, seen) = (kernel.netns(), kernel.namespaces().map_err(Error::Kernel)?);
    let origins = Arc::new(kernel);
    let approvals = Arc::new(desk);
    let identities = Arc::new(registry.clone());
    let dns = Dns::new(in_force.clone(), origins.clone(), records.clone(), tier.clone());
    let (namespaces, elsewhere) = Namespaces::new(seen, origins.clone(), dns.clone());
    listeners.also(elsewhere);
    let sessions = Sessions {
        origins,
        identities,
        in_force,
        credentials,
        records,
        approvals,
        dns,
        masker,
        stopping: told,
        live,
        tier,
    };
    Ok(Agent {
        config,
        listeners,
        netns,
        namespaces,
        sessions: Arc::new(sessions),
        reloader,
        socket,
        people,
        webhooks,
        page,
        admin: Arc::new(admin),
        user_socket,
        users: Users::new(registry),
        stop,
        stopping,
        signals,
    })
}

impl Agent {
    /// Serves until asked to stop, then ends sessions within the grace, or when asked again; what they still run is
    /// broken off, and whoever takes no notice is cut off, [`LAST`] later or when asked a third time.
    async fn serve(self) -> Result<(), Error> {
        let Self { config, mut listeners, netns, namespaces, sessions, reloader, socket, admin, .. } = self;
        let Self { people, webhooks, page, user_socket, users, stop, stopping, mut signals, .. } = self;
        let heart = Heart::start(reloader.enforcer().clone())?;
        announce(&sessions, &admin);
        let mut administering = JoinSet::new();
        administering.spawn(socket.run(admin));
        administering.spawn(users.run(user_socket));
        let (people_socket, answering) = people;
        administering.spawn(answering.run(people_socket));
        let (webhooks, desk) = webhooks;
        administering.spawn(webhooks.run(desk));
        if let Some((server, pages)) = page {
            administering.spawn(server.run(pages));
        }
        let mut resolving = JoinSet::new();
        for socket in listeners.take_datagrams() {
            resolving.spawn(sessions.dns.clone().serve_datagrams(netns, socket));
        }
        resolving.spawn(namespaces.run());
        resolving.spawn(sessions.dns.clone().tidy());
        resolving.spawn(sessions.in_force.names().clone().forget());
        let lanes = Arc::new(Lanes::start().map_err(Error::Runtime)?);
        let (told, assigning) = (stopping.subscribe(), lanes.clone());
        let mut listening = tokio::spawn(async move {
            listeners.run(&assigning, |stream, client| sessions.serve(stream, client), told).await
        });
        let ended = tokio::select! {
            () = until_stopped(&mut signals, &stop, &reloader) => None,
            ended = &mut listening => Some(ended),
        };
        tracing::info!(grace = ?config.stop_grace, "stopping");
        if let Err(error) = notify::stopping() {
            tracing::warn!(%error, "the service manager was not told");
        }
        let kept = notify::keeps();
        // With listeners that are kept, connections wait for the next agent; for five seconds, if none comes.
        if kept {
            heart.leave()
        } else {
            heart.stop().await
        }
        stopping.send_replace(Stopping::Asked);
        let ended = match ended {
            Some(failed) => failed,
            None => listening.await,
        };
        let (mut tasks, listeners) = ended.map_err(|error| Error::Runtime(error.into()))?;
        if !kept {
            drop(tokio::spawn(listeners.refuse()));
        }
        if drain(&mut tasks, config.stop_grace, signals.end.next()).await > 0 {
            tracing::info!(sessions = tasks.len(), "the grace is over");
            stopping.send_replace(Stopping::Now);
        }
        let cut_off = drain(&mut tasks, LAST, signals.end.next()).await;
        tasks.shutdown().await;
        resolving.shutdown().await;
        drop(lanes);
        tracing::info!(cut_off, "stopped");
        administering.shutdown().await;
        Ok(())
    }
}

/// Returns when the agent is asked to end; reloads whenever it is asked for that.
async fn until_stopped(signals: &mut Signals, stop: &Notify, reloader: &Arc<Reloader>) {
    loop {
        tokio::select! {
            () = signals.end.next() => return,
            () = stop.notified() => return,
            _ = signals.hangup.recv() => {
                let reloader = reloader.clone();
                // Its outcome is logged; ending the agent need not wait for it.
                drop(tokio::spawn(async move { reloader.reload().await.map(drop) }));
            }
        }
    }
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let end =
            End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { end, hangup: signal(SignalKind::hangup())? })
    }
}

impl End {
    /// Resolves at the next one.
    async fn next(&mut self) {
        let asked = tokio::select! {
            asked = self.terminate.recv() => asked,
            asked = self.interrupt.recv() => asked,
        };
        if asked.is_none() {
            future::pending().await
        }
    }
}

fn announce(sessions: &Sessions, admin: &Admin) {
    let summary = sessions.in_force.summary();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        tier = &*sessions.tier,
        bundle = summary.bundle,
        digest = summary.digest,
        subjects = summary.subjects,
        resources = summary.resources,
        v4_port = admin.ports.0,
        v6_port = admin.ports.1,
        after_ms = admin.start.took.as_millis(),
        "ready"
    );
    if let Err(error) = notify::ready() {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// The state directory is open to look into, for the authority's certificate; what is private in it is private itself.
fn make_directories(config: &Config) -> Result<(), Error> {
    for (path, mode) in [
        (&config.state, 0o755),
        (&config.authority(), 0o755),
        (&config.records(), 0o700),
        (&config.identity(), 0o700),
        (&config.runtime, 0o755),
    ] {
        files::directory(path, mode).map_err(Error::file(path))?;
    }
    Ok(())
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

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "this host".into(), |name| name.to_string_lossy().into_owned())
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
    use std::sync::atomic::Ordering;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        admin::{self, Answer, Request},
        test_support::{FakeAskers, World},
    };

    /// An agent that has everything but a kernel.
    async fn agent(world: &World) -> Agent {
        let config = Config { runtime: world.bundle.path().into(), ..Config::default() };
        let listeners = Listeners::bind(&config.listen, (0, 0), Vec::new()).await.unwrap();
        let (reloader, stop) = (Arc::new(world.reloader()), Arc::new(Notify::new()));
        let sessions = world.sessions(Some("127.0.0.1:7"));
        let (namespaces, _) = Namespaces::new(None, Arc::new(FakeAskers), sessions.dns.clone());
        let admin = Admin {
            reloader: reloader.clone(),
            in_force: world.in_force.clone(),
            live: world.live.clone(),
            ports: listeners.ports().unwrap(),
            start: Start {
                since: Instant::now(),
                took: Duration::ZERO,
                pins: config.pins.clone(),
                adopted: false,
            },
            stop: stop.clone(),
        };
        Agent {
            socket: Socket::bind(&config.admin_socket()).unwrap(),
            user_socket: Users::bind(&config.user_socket()).unwrap(),
            users: Users::new(world.registry.clone()),
            webhooks: (Webhooks::default(), world.desk()),
            page: None,
            people: (
                Answering::bind(&config.approvals_socket()).unwrap(),
                Answering::new(world.desk(), Arc::new(world.registry.clone())),
            ),
            config,
            listeners,
            netns: 0,
            namespaces,
            sessions,
            reloader,
            admin: Arc::new(admin),
            stop,
            stopping: world.stopping.clone(),
            signals: Signals::listen().unwrap(),
        }
    }

    #[tokio::test]
    async fn an_agent_asked_to_stop_ends_its_sessions_and_leaves_no_socket() {
        let world = World::new().await;
        let agent = agent(&world).await;
        let (port, socket) = (agent.admin.ports.0, agent.config.admin_socket());
        let serving = tokio::spawn(agent.serve());
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        assert!(world.enforcer.serving.load(Ordering::Relaxed));

        let path = socket.clone();
        let answer = tokio::task::spawn_blocking(move || admin::ask(&path, Request::Stop)).await.unwrap();
        assert_eq!(answer.unwrap(), Answer::Stopping);
        serving.await.unwrap().unwrap();
        assert_eq!(*world.records.closed.lock().unwrap(), ["policy: the gate is stopping"]);
        assert!(!socket.exists());
        assert!(!world.enforcer.serving.load(Ordering::Relaxed), "the kernel still sends connections");
    }

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
