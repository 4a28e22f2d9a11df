//! A connection's way, from accept to close.

use std::{future::Future, net::SocketAddr, sync::Arc};

use tidegate_gate::{
    Approvals, Arrival, ClientIo, Credentials, Gate, Identities, Masker, Opening, Origin, OriginError,
    Origins, Rates, Records, Stopping, Stream,
};
use tokio::sync::watch;
use tracing::{Instrument, Span, field};

use crate::{
    access::Access,
    dns::{self, Dns},
    listener::{Caller, reset},
    live::{Live, Refused},
    reload::InForce,
    routes::Route,
};

/// What the gate of each connection is opened with.
pub(crate) struct Sessions {
    /// Where origins come from.
    pub(crate) origins: Arc<dyn Origins>,
    /// Where identities come from.
    pub(crate) identities: Arc<dyn Identities>,
    /// The bundle in force.
    pub(crate) in_force: Arc<InForce>,
    /// Where credentials come from.
    pub(crate) credentials: Arc<dyn Credentials>,
    /// Where records are kept.
    pub(crate) records: Arc<dyn Records>,
    /// Where people are asked.
    pub(crate) approvals: Arc<dyn Approvals>,
    /// What answers DNS over TCP.
    pub(crate) dns: Arc<Dns>,
    /// What everybody has done lately where rules say how often they may.
    pub(crate) rates: Arc<Rates>,
    /// What applies masks.
    pub(crate) masker: Arc<Masker>,
    /// How far the agent's end has come.
    pub(crate) stopping: watch::Receiver<Stopping>,
    /// Limits and counters.
    pub(crate) live: Arc<Live>,
    /// What this kernel lets the agent enforce, by name.
    pub(crate) tier: Arc<str>,
}

/// What a connection is for.
enum Opened {
    /// A resource, and the names that its address has, where it has some.
    Resource(Arc<Route>, Gate, Option<Arc<[Arc<str>]>>),
    /// DNS, whichever server was meant.
    Questions(Box<Origin>),
}

impl Sessions {
    /// Serves one connection to its end. Cancelling it closes its record and writes its access line all the same.
    pub(crate) fn serve(
        self: &Arc<Self>,
        stream: Stream,
        client: Caller,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let sessions = self.clone();
        let span = tracing::info_span!("session", id = field::Empty);
        let serve = async move {
            let mut access = Access::begin(client);
            // Boxed and dropped at once: an idle session keeps only what its protocol needs.
            let opened = Box::pin(sessions.open(&stream, &mut access)).await;
            match opened {
                Ok(Opened::Questions(origin)) => {
                    let dns = sessions.dns.clone();
                    drop(sessions);
                    access.ended(Box::pin(async move { dns.serve_connection(stream, *origin).await }).await);
                }
                Ok(Opened::Resource(route, gate, names)) => {
                    drop(sessions);
                    let client = ClientIo { stream, tls: route.tls(gate.destination().ip()), names };
                    let served = route.server.clone().serve(client, gate);
                    drop(route);
                    access.ended(served.await);
                }
                Err(refused) => {
                    sessions.live.count(&refused);
                    reset(stream);
                    access.refused(&refused);
                }
            }
        };
        serve.instrument(span)
    }

    /// Finds out who connects to what, and begins the session's record.
    async fn open(&self, stream: &Stream, access: &mut Access) -> Result<Opened, Refused> {
        let place = access.hold(self.live.enter()?);
        let arrival = self.origins.origin(stream).await.map_err(|error| match error {
            OriginError::Unknown => Refused::UnknownOrigin,
            OriginError::Kernel(why) => Refused::Kernel(why),
        })?;
        let Arrival { mut origin, digest, name } = arrival;
        let claimed = place.claim(origin.principal.process.sharer());
        access.known(origin.destination, &origin.principal);
        claimed?;
        if let Some(name) = name {
            name.await.tell(&mut origin.principal.process);
        }
        if origin.destination.port() == dns::PORT {
            return Ok(Opened::Questions(Box::new(origin)));
        }
        let route = self.route(&mut origin).await?;
        access.leads_to(origin.destination);
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%error, "small packets may wait");
        }
        if let Some(digest) = digest {
            origin.principal.process.executable_sha256 = digest.await;
        }
        let socket = origin.socket.clone();
        let names = self.in_force.names().of(origin.destination);
        let server = called(origin.destination, names.as_deref());
        // A Unix socket is its resource's, whatever that is called.
        let names = names.filter(|_| socket.is_none());
        let identified = self.identities.identities(&origin.principal.process).await;
        let gate = Gate::open(Opening {
            origin,
            identified,
            resource: route.resource.clone(),
            server,
            policy: self.in_force.policy().clone(),
            changes: self.in_force.changes(),
            stopping: self.stopping.clone(),
            credentials: self.credentials.clone(),
            records: self.records.clone(),
            approvals: self.approvals.clone(),
            rates: self.rates.clone(),
            masker: self.masker.clone(),
            tier: self.tier.clone(),
        })
        .map_err(|error| Refused::NoRecord(error.to_string()))?;
        Span::current().record("id", &**gate.session());
        if let Some(socket) = socket {
            gate.event("unix-socket", &socket.path.display().to_string());
        }
        self.live.count_served();
        access.opened(gate.clone());
        Ok(Opened::Resource(route, gate, names))
    }

    /// The resource that was asked for, and where its server is: a Unix socket says the one, an address the other.
    async fn route(&self, origin: &mut Origin) -> Result<Arc<Route>, Refused> {
        let Some(socket) = &origin.socket else {
            return self.in_force.route(origin.destination).ok_or(Refused::NoResource);
        };
        let route = self.in_force.route_to(&socket.resource).ok_or(Refused::NoResource)?;
        origin.destination = self.in_force.server(&route).await.map_err(Refused::NoAddress)?;
        Ok(route)
    }
}

/// What people know a server by: the first of the names that its address was told for, by their order, else the address. Not all of them:
/// whoever looks another one up would make another server of it.
fn called(destination: SocketAddr, names: Option<&[Arc<str>]>) -> Arc<str> {
    match names.and_then(<[_]>::first) {
        Some(name) => format!("{name}:{}", destination.port()).into(),
        None => destination.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::BTreeMap,
        fmt::Debug,
        net::SocketAddr,
        sync::{Mutex, Once, atomic::Ordering},
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::mpsc,
        task::JoinSet,
    };
    use tracing::{Event, Subscriber, field::Field};
    use tracing_subscriber::{Layer, layer::Context, prelude::*};

    use super::*;
    use crate::{
        access::TARGET,
        config::{Limits, Listen},
        lanes::Lanes,
        listener::{Listeners, drain},
        test_support::World,
    };

    #[test]
    fn a_server_is_called_by_one_of_its_names_or_else_its_address() {
        let destination = "192.0.2.7:5432".parse().unwrap();
        let names: [Arc<str>; 2] = ["a.test".into(), "b.test".into()];
        for told in [&names[..1], &names] {
            assert_eq!(
                &*called(destination, Some(told)),
                "a.test:5432",
                "another look-up made another server of it"
            );
        }
        for nameless in [None, Some(&[] as &[Arc<str>])] {
            assert_eq!(&*called(destination, nameless), "192.0.2.7:5432");
        }
    }

    const ECHO: Option<&str> = Some("127.0.0.1:7");
    const LONG: Duration = Duration::from_secs(3600);

    type Line = BTreeMap<&'static str, String>;

    thread_local! {
        /// Where this thread's access lines go: a test and its sessions are one thread.
        static LINES: RefCell<Option<mpsc::UnboundedSender<Line>>> = const { RefCell::new(None) };
    }

    /// The log of the whole test run. One for each test would miss lines: what a call site logs is cached by process.
    static LOG: Once = Once::new();

    /// Sends each access line to its thread.
    struct AccessLines;

    struct Fields(Line);

    impl tracing::field::Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
        }
    }

    impl<S: Subscriber> Layer<S> for AccessLines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if event.metadata().target() == TARGET {
                let mut fields = Fields(Line::new());
                event.record(&mut fields);
                // Whoever does not listen any more needs no lines.
                LINES.with_borrow(|lines| lines.as_ref().map(|lines| lines.send(fields.0)));
            }
        }
    }

    /// A listener with its sessions, on this test's thread.
    struct Served {
        address: SocketAddr,
        lines: mpsc::UnboundedReceiver<Line>,
        running: tokio::task::JoinHandle<(JoinSet<()>, Listeners)>,
    }

    impl Served {
        async fn begin(world: &World, destination: Option<&str>) -> Self {
            let (sender, lines) = mpsc::unbounded_channel();
            LOG.call_once(|| tracing_subscriber::registry().with(AccessLines).init());
            LINES.set(Some(sender));
            let listeners = Listeners::bind(&Listen::default(), (0, 0), Vec::new()).await.unwrap();
            let address = ([127, 0, 0, 1], listeners.ports().unwrap().0).into();
            let (sessions, told) = (world.sessions(destination), world.stopping.subscribe());
            let serve = move |stream, client| sessions.serve(stream, client);
            let running = tokio::spawn(async move { listeners.run(&Lanes::here(), serve, told).await });
            Self { address, lines, running }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn line(&mut self) -> Line {
            self.lines.recv().await.unwrap()
        }

        fn no_more_lines(&mut self) {
            assert!(self.lines.try_recv().is_err());
        }
    }

    async fn say(client: &mut TcpStream, word: &str) {
        client.write_all(word.as_bytes()).await.unwrap();
        let mut answer = vec![0; word.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, word.as_bytes());
    }

    fn closed(world: &World) -> Vec<String> {
        let closed: &Mutex<Vec<String>> = &world.records.closed;
        closed.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn a_session_that_ends_has_one_access_line_and_one_closed_record() {
        let world = World::new().await;
        let mut served = Served::begin(&world, ECHO).await;
        let mut client = served.connect().await;
        say(&mut client, "hello").await;
        drop(client);
        let line = served.line().await;
        assert_eq!(
            (&*line["outcome"], &*line["session"], &*line["resource"]),
            ("ended", "session-0", "echo")
        );
        assert_eq!((&*line["uid"], &*line["subjects"]), ("61090", "ci"));
        served.no_more_lines();
        assert_eq!(closed(&world), ["it ended in order"]);
        assert_eq!((world.live.now(), world.live.served()), (0, 1));
    }

    #[tokio::test]
    async fn a_session_that_is_cut_off_has_one_access_line_and_one_closed_record() {
        let world = World::new().await;
        let mut served = Served::begin(&world, ECHO).await;
        let mut client = served.connect().await;
        say(&mut client, "hang").await;
        world.stopping.send_replace(Stopping::Asked);
        let (mut tasks, _) = (&mut served.running).await.unwrap();
        assert_eq!(drain(&mut tasks, Duration::ZERO, std::future::pending()).await, 1);
        tasks.shutdown().await;
        assert_eq!(served.line().await["outcome"], "cut-off");
        served.no_more_lines();
        assert_eq!(closed(&world), ["the session was cut off"]);
        assert_eq!(world.live.now(), 0);
    }

    #[tokio::test]
    async fn asking_the_agent_to_stop_ends_sessions_within_the_grace() {
        let world = World::new().await;
        let mut served = Served::begin(&world, ECHO).await;
        let mut client = served.connect().await;
        say(&mut client, "hello").await;
        world.stopping.send_replace(Stopping::Asked);
        let (mut tasks, _) = (&mut served.running).await.unwrap();
        assert_eq!(drain(&mut tasks, LONG, std::future::pending()).await, 0);
        assert_eq!(served.line().await["reason"], "policy: the gate is stopping");
        assert_eq!(closed(&world), ["policy: the gate is stopping"]);
    }

    #[tokio::test]
    async fn a_stopping_agent_keeps_its_port_and_resets_who_comes() {
        let world = World::new().await;
        let mut served = Served::begin(&world, ECHO).await;
        world.stopping.send_replace(Stopping::Asked);
        let (_, listeners) = (&mut served.running).await.unwrap();
        let refusing = tokio::spawn(listeners.refuse());
        let error = served.connect().await.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        served.no_more_lines();
        refusing.abort();
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_grace() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        assert_eq!(drain(&mut tasks, LONG, std::future::ready(())).await, 1);
    }

    #[tokio::test]
    async fn a_connection_made_to_the_listener_directly_is_reset_and_counted() {
        let world = World::new().await;
        let mut served = Served::begin(&world, None).await;
        let mut client = served.connect().await;
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let line = served.line().await;
        assert_eq!((&*line["outcome"], line.get("session")), ("refused", None));
        assert_eq!(world.live.refused()["unknown-origin"], 1);
        assert_eq!(world.records.opened.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_destination_that_is_no_longer_a_resource_is_refused_by_name_of_the_process() {
        let world = World::new().await;
        let mut served = Served::begin(&world, Some("127.0.0.1:8")).await;
        let mut client = served.connect().await;
        assert!(client.read(&mut [0; 1]).await.is_err());
        let line = served.line().await;
        assert_eq!((&*line["destination"], &*line["uid"]), ("127.0.0.1:8", "61090"));
        assert_eq!(world.live.refused()["no-resource"], 1);
    }

    #[tokio::test]
    async fn a_unix_socket_leads_to_its_resource_wherever_that_is_now() {
        let text = crate::test_support::BUNDLE.replace("127.0.0.1:7", "localhost:7");
        let mut world = World::with_bundle(&text).await;
        world.socket_of = Some("echo".into());
        let mut served = Served::begin(&world, Some("0.0.0.0:0")).await;
        let mut client = served.connect().await;
        say(&mut client, "hello").await;
        drop(client);
        let line = served.line().await;
        assert_eq!((&*line["destination"], &*line["resource"]), ("127.0.0.1:7", "echo"));
        world.socket_of = Some("gone".into());
        let mut served = Served::begin(&world, Some("0.0.0.0:0")).await;
        let mut client = served.connect().await;
        assert!(client.read(&mut [0; 1]).await.is_err());
        assert_eq!(world.live.refused()["no-resource"], 1);
        assert_eq!(served.line().await["outcome"], "refused");
    }

    #[tokio::test]
    async fn without_a_record_there_is_no_session() {
        let world = World::new().await;
        world.records.full.store(true, Ordering::Relaxed);
        let mut served = Served::begin(&world, ECHO).await;
        let mut client = served.connect().await;
        assert!(client.read(&mut [0; 1]).await.is_err());
        assert!(served.line().await["reason"].contains("full on purpose"));
        assert_eq!(world.live.refused()["no-record"], 1);
    }

    #[tokio::test]
    async fn a_session_beyond_the_limit_is_refused_until_another_ends() {
        let world = World::with_limits(Limits { sessions: 8, sessions_per_principal: 1 }).await;
        let mut served = Served::begin(&world, ECHO).await;
        let mut first = served.connect().await;
        say(&mut first, "hello").await;
        let mut second = served.connect().await;
        assert!(second.read(&mut [0; 1]).await.is_err());
        assert_eq!(served.line().await["outcome"], "refused");
        assert_eq!(world.live.refused()["limit-of-principal"], 1);
        drop(first);
        assert_eq!(served.line().await["outcome"], "ended");
        say(&mut served.connect().await, "again").await;
    }

    #[tokio::test]
    async fn a_connection_counts_as_its_account_s_before_its_executable_is_read() {
        let mut world = World::with_limits(Limits { sessions: 8, sessions_per_principal: 1 }).await;
        world.reads_executables = true;
        second_is_refused(world).await;
    }

    #[tokio::test]
    async fn a_connection_counts_as_its_account_s_before_its_name_is_told() {
        let mut world = World::with_limits(Limits { sessions: 8, sessions_per_principal: 1 }).await;
        world.asks_names = true;
        second_is_refused(world).await;
    }

    /// Of two connections of an account that may have one, whose first waits for what is told of it.
    async fn second_is_refused(world: World) {
        let mut served = Served::begin(&world, ECHO).await;
        let waits = served.connect().await;
        // It may be reset before it is known here to be there.
        let second = TcpStream::connect(served.address).await;
        assert_eq!(served.line().await["outcome"], "refused");
        assert_eq!(world.live.refused()["limit-of-principal"], 1);
        drop(second);
        assert_eq!(world.records.opened.load(Ordering::Relaxed), 0, "nothing is decided without it");
        drop(waits);
    }

    #[tokio::test]
    async fn a_session_s_task_is_small() {
        let world = World::new().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let task = world.sessions(ECHO).serve(stream.into(), Caller::Tcp(address));
        assert!(size_of_val(&task) <= 1024, "{} bytes", size_of_val(&task));
    }
}
