//! The agent's life: a start that stops at the first thing missing, service, and an orderly end.

use std::{
    future,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_gate::Stopping;
use tidegate_kernel::{Tier, inherited};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, Notify, watch},
    task::JoinSet,
};

use crate::{
    admin::{self, Admin},
    config::Config,
    confinement,
    error::Error,
    files, hardening,
    heart::{self, Heart},
    identities::Keeper,
    lanes::Lanes,
    listener::{Kept, Listeners, drain},
    namespaces::Namespaces,
    notify,
    origins::HostKernel,
    people::People,
    reload::Reloader,
    session::Sessions,
    socket::Socket,
    start,
};

/// Threads for what blocks beside the sessions: files, the name service.
const BLOCKING_THREADS: usize = 16;

/// How long sessions have to break off what they run and tell their clients, once the grace is over.
const LAST: Duration = Duration::from_secs(8);

/// A started agent: everything that must be there is.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) listeners: Listeners,
    /// Cookie of its own network namespace.
    pub(crate) netns: u64,
    pub(crate) namespaces: Namespaces,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) admin: (Socket, Arc<Admin>),
    pub(crate) user_socket: Socket,
    pub(crate) people: People,
    pub(crate) identities: Keeper,
    pub(crate) stopping: watch::Sender<Stopping>,
    pub(crate) signals: Signals,
}

/// The signals that the agent answers to.
pub(crate) struct Signals {
    end: End,
    hangup: Signal,
}

/// The signals that ask for an end.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

/// What takes more privilege than a running agent has.
pub(crate) struct Privileged {
    /// When the agent began.
    pub(crate) since: Instant,
    /// Listeners that the service manager kept.
    pub(crate) kept: Kept,
    /// What the kernel was found to have.
    pub(crate) tier: Tier,
    /// The programs, attached.
    pub(crate) kernel: HostKernel,
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
        let agent = Box::pin(start::start(config, privileged)).await?;
        agent.serve().await
    })
}

impl Privileged {
    fn take(config: &Config, since: Instant) -> Result<Self, Error> {
        let kept = inherited::descriptors();
        make_directories(config)?;
        let found = tidegate_kernel::features();
        let tier = Tier::of(&found);
        if tier == Tier::Refuse {
            return Err(Error::Unenforceable(Tier::Base.lacking(&found)));
        }
        // From here on nothing that is governed gets out, with this agent or without it.
        let kernel = HostKernel::load(&config.pins, &found).map_err(Error::Kernel)?;
        Ok(Self { since, kept, tier, kernel })
    }
}

impl Agent {
    /// Serves until asked to stop, then ends sessions within the grace, or when asked again; what they still run is
    /// broken off, and whoever takes no notice is cut off, [`LAST`] later or when asked a third time.
    async fn serve(self) -> Result<(), Error> {
        let Self { config, mut listeners, netns, namespaces, sessions, reloader, .. } = self;
        let Self { admin: (socket, admin), user_socket, people, identities, stopping, mut signals, .. } =
            self;
        let (heart, stop) = (Heart::start(reloader.enforcer().clone())?, admin.stop.clone());
        announce(&sessions, &admin);
        let mut administering = JoinSet::new();
        administering.spawn(admin::run(socket, admin));
        people.serve(user_socket, &mut administering);
        let (kept, identities) = (notify::keeps(), Arc::new(Mutex::new(identities)));
        if kept {
            administering.spawn(Keeper::run(identities.clone()));
        }
        let mut resolving = JoinSet::new();
        for socket in listeners.take_datagrams() {
            resolving.spawn(sessions.dns.clone().serve_datagrams(netns, socket));
        }
        resolving.spawn(namespaces.run());
        resolving.spawn(sessions.dns.clone().tidy());
        resolving.spawn(sessions.in_force.names().clone().forget());
        resolving.spawn(heart::tidy(reloader.enforcer().clone()));
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
        if kept && let Err(error) = identities.lock().await.keep().await {
            tracing::warn!(%error, "the service manager was not given the identities to keep");
        }
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
    /// Listens for them.
    pub(crate) fn listen() -> std::io::Result<Self> {
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
        (&config.gate_sockets(), 0o755),
    ] {
        files::directory(path, mode).map_err(Error::file(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use tidegate_approvals::{store::Health, webhooks::Webhooks};

    use super::*;
    use crate::{
        accounts::{Accounts, tests::Fake},
        admin::{Answer, Request, Start},
        test_support::{FakeAskers, World},
        user_socket::Users,
    };

    /// An agent that has everything but a kernel.
    async fn agent(world: &World) -> Agent {
        let config = Config { runtime: world.bundle.path().into(), ..Config::default() };
        let listeners = Listeners::bind(&config.listen, (0, 0), Vec::new()).await.unwrap();
        let reloader = Arc::new(world.reloader());
        let sessions = world.sessions(Some("127.0.0.1:7"));
        let (connections, _) = tokio::sync::mpsc::channel(1);
        let namespaces = Namespaces::new(None, Arc::new(FakeAskers), sessions.dns.clone(), connections);
        let admin = Admin {
            reloader: reloader.clone(),
            in_force: world.in_force.clone(),
            live: world.live.clone(),
            registry: world.registry.clone(),
            ports: listeners.ports().unwrap(),
            start: Start {
                since: Instant::now(),
                took: Duration::ZERO,
                pins: config.pins.clone(),
                adopted: false,
            },
            questions: Box::new(Health::default),
            stop: Arc::new(Notify::new()),
        };
        Agent {
            admin: (Socket::bind(&config.admin_socket()).unwrap(), Arc::new(admin)),
            user_socket: Socket::bind_for_all(&config.user_socket()).unwrap(),
            people: People {
                users: Users::new(
                    world.registry.clone(),
                    world.desk(),
                    Accounts::of(Arc::new(Fake::default()), Duration::ZERO),
                ),
                desk: world.desk(),
                webhooks: Webhooks::default(),
                page: None,
            },
            identities: Keeper::begin(world.registry.clone(), Vec::new()).await,
            config,
            listeners,
            netns: 0,
            namespaces,
            sessions,
            reloader,
            stopping: world.stopping.clone(),
            signals: Signals::listen().unwrap(),
        }
    }

    #[tokio::test]
    async fn an_agent_asked_to_stop_ends_its_sessions_and_leaves_no_socket() {
        let world = World::new().await;
        let agent = agent(&world).await;
        let (port, socket) = (agent.admin.1.ports.0, agent.config.admin_socket());
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
}
