//! A small world for tests: a bundle, a protocol that echoes, and stand-ins for kernel and store.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use tidegate_approvals::{Audience, Desk, Limits as DeskLimits, store::Sqlite};
use tidegate_gate::{
    Answer, ApprovalError, Approvals, Arrival, BoxFuture, ClientIo, ConfigError, Entry, Gate, Masker, Origin,
    OriginError, Origins, Protocol, Question, Record, RecordError, Records, Revocation, Secret, ServeError,
    Server, Stopping, Stream, UnixSocket,
};
use tidegate_identity::Registry;
use tidegate_kernel::{Captured, Learned, Rules};
use tidegate_policy::{
    Carries, FieldKind, FieldSpec, PathForm, PathSpec, Principal, Process, Resource, Shape, Sharer,
    Vocabulary, Word, any_spelling,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{oneshot, watch},
};

use crate::{
    authority::{self, Folder},
    config::Limits,
    credentials::Files,
    dns::{Askers, Dns},
    files,
    live::Live,
    namespaces::Places,
    origins::Enforcer,
    protocols::{Protocols, registered},
    reload::{InForce, Loader, Reloader},
    session::Sessions,
};

/// One subject, one resource, one rule.
pub(crate) const BUNDLE: &str = r#"tidegate: 1
name: demo
subjects:
  ci: {users: ["61090"]}
resources:
  echo:
    protocol: echo
    addresses: ["127.0.0.1:7"]
    credential: echo
    options: {}
rules:
  - name: say
    subjects: [ci]
    resources: [echo]
    allow: [{action: say}]
"#;

static VOCABULARY: Vocabulary = Vocabulary {
    protocol: "echo",
    fields: &[FieldSpec {
        name: "action",
        kind: FieldKind::Word(&[Word { name: "say", spelled_out: false }]),
        about: "What is done.",
    }],
    text: "sql",
    path: PathSpec { written: "word", form: PathForm::Names(1) },
    spelling: any_spelling,
    carries: Some(Carries { place: |_| Ok(()), field: |_| Ok(()) }),
};

/// A directory with this bundle in it.
pub(crate) fn write_bundle(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bundle.yaml"), text).unwrap();
    directory
}

/// The echo protocol alone.
pub(crate) fn protocols() -> Protocols {
    Protocols::for_test(vec![registered(Echo, &[b"echo"], |_, _| Ok(Shape::default()))])
}

/// Echoes until the client's end or until the session is revoked; the word `hang` makes it deaf to both.
struct Echo;

impl Protocol for Echo {
    fn vocabulary(&self) -> &'static Vocabulary {
        &VOCABULARY
    }

    fn configure(&self, resource: &Arc<Resource>) -> Result<Arc<dyn Server>, ConfigError> {
        if resource.options.contains_key("broken") {
            return Err(ConfigError::in_option("broken", "broken on purpose"));
        }
        Ok(Arc::new(Echo))
    }
}

impl Server for Echo {
    fn serve(
        self: Arc<Self>,
        mut client: ClientIo,
        gate: Gate,
    ) -> BoxFuture<'static, Result<(), ServeError>> {
        Box::pin(async move {
            let mut word = [0; 16];
            loop {
                let length = tokio::select! {
                    read = client.stream.read(&mut word) => read.map_err(|e| ServeError::Client(e.to_string()))?,
                    refusal = gate.revoked() => return Err(ServeError::Policy(refusal.message.to_string())),
                };
                match word.get(..length) {
                    None | Some([]) => return Ok(()),
                    Some(said) => {
                        client.stream.write_all(said).await.map_err(|e| ServeError::Client(e.to_string()))?;
                        if said == b"hang" {
                            std::future::pending().await
                        }
                    }
                }
            }
        })
    }
}

/// A kernel that says of every connection what the test wants.
pub(crate) struct FakeOrigins {
    /// Where the client meant to connect; none if the connection has no origin.
    pub(crate) destination: Option<SocketAddr>,
    /// Whether executables are seen the first time, and reading them has no end.
    pub(crate) reads: bool,
    /// Whether accounts are called what a name service that is stuck says.
    pub(crate) names: bool,
    /// The resource whose Unix socket each connection was made to.
    pub(crate) socket_of: Option<Arc<str>>,
}

impl Origins for FakeOrigins {
    fn origin<'a>(&'a self, _: &'a Stream) -> BoxFuture<'a, Result<Arrival, OriginError>> {
        Box::pin(async move {
            let destination = self.destination.ok_or(OriginError::Unknown)?;
            let process = Process { pid: 1, uid: 61_090, ..Process::default() };
            let principal = Principal { subjects: vec!["ci".into()], process, ..Principal::default() };
            let of = |resource| UnixSocket { path: "/run/socket".into(), resource };
            let origin = Origin { destination, socket: self.socket_of.clone().map(of), principal };
            let digest = self.reads.then(|| Box::pin(std::future::pending()) as BoxFuture<'static, _>);
            let name = self.names.then(|| Box::pin(std::future::pending()) as BoxFuture<'static, _>);
            Ok(Arrival { origin, digest, name })
        })
    }
}

/// Every datagram is a governed process's.
pub(crate) struct FakeAskers;

impl Askers for FakeAskers {
    fn asker(
        &self,
        _netns: u64,
        _client: SocketAddr,
        _listener: SocketAddr,
    ) -> Result<Option<(Captured, Sharer)>, String> {
        let asker = Captured {
            socket: None,
            destination: "192.0.2.53:53".parse().unwrap(),
            pid: 1,
            started: 1,
            uid: 61_090,
            sub_uid_of: None,
            gid: 61_090,
            cgroup_id: 1,
            command: "asker".into(),
            connected_at: 1,
            subjects: vec!["ci".into()],
        };
        Ok(Some((asker, Sharer::Account(61_090))))
    }

    fn learn_name(&self, _account: u32) {}

    fn describe(&self, asker: Captured) -> Principal {
        let process = Process { pid: asker.pid, uid: asker.uid, ..Process::default() };
        Principal { subjects: asker.subjects, process, ..Principal::default() }
    }
}

impl Places for FakeAskers {
    fn sharer(&self, namespace: &tidegate_kernel::netns::Namespace) -> Sharer {
        Sharer::Account(namespace.uid)
    }

    fn mark(&self, _listener: &std::net::TcpListener) -> Result<(), String> {
        Ok(())
    }

    fn listen_in(&self, _netns: u64, _ports: Option<(u16, u16)>) -> Result<(), String> {
        Ok(())
    }

    fn inhabited(&self) -> HashSet<u64> {
        HashSet::new()
    }
}

/// A kernel that counts the generations it was given.
#[derive(Default)]
pub(crate) struct FakeEnforcer {
    /// Generations taken.
    pub(crate) generations: AtomicU64,
    /// Takes no more.
    pub(crate) broken: AtomicBool,
    /// Sends connections.
    pub(crate) serving: AtomicBool,
    /// What it was last told of names.
    pub(crate) learned: Mutex<Learned>,
    /// What it can't bring under the rules.
    pub(crate) trouble: Mutex<Vec<String>>,
    /// Where it waits before it takes the next generation.
    held: Mutex<Option<(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>)>>,
}

/// A kernel that takes no generation, until this is dropped.
pub(crate) struct Held {
    reached: oneshot::Receiver<()>,
    _let_go: std::sync::mpsc::Sender<()>,
}

impl Held {
    /// Returns once somebody waits for it.
    pub(crate) async fn reached(&mut self) {
        (&mut self.reached).await.unwrap();
    }
}

impl FakeEnforcer {
    /// Has the next generation wait.
    pub(crate) fn hold(&self) -> Held {
        let ((sender, reached), (let_go, receiver)) = (oneshot::channel(), std::sync::mpsc::channel());
        *self.held.lock().unwrap() = Some((sender, receiver));
        Held { reached, _let_go: let_go }
    }
}

impl Enforcer for FakeEnforcer {
    fn enforce(&self, _rules: &Rules) -> Result<(), String> {
        let held = self.held.lock().unwrap().take();
        if let Some((reached, go_on)) = held {
            reached.send(()).ok();
            // It ends by being dropped.
            go_on.recv().ok();
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err("broken on purpose".into());
        }
        self.generations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn catch_up(&self) -> Vec<String> {
        self.trouble.lock().unwrap().clone()
    }

    fn learn(&self, learned: &Learned) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) {
            return Err("broken on purpose".into());
        }
        *self.learned.lock().unwrap() = learned.clone();
        Ok(())
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        Ok(BTreeMap::from([("generations".into(), self.generations.load(Ordering::Relaxed))]))
    }

    fn live(&self) -> Result<(), String> {
        self.serving.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn rest(&self) -> Result<(), String> {
        self.serving.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn tidy(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A store that keeps how records ended.
#[derive(Clone, Default)]
pub(crate) struct FakeRecords {
    /// Why each record was closed.
    pub(crate) closed: Arc<Mutex<Vec<String>>>,
    /// Records begun.
    pub(crate) opened: Arc<AtomicU64>,
    /// Begins no more.
    pub(crate) full: Arc<AtomicBool>,
    /// What was written, as JSON.
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
}

struct FakeRecord(FakeRecords, Arc<str>);

impl Records for FakeRecords {
    fn open(&self, _opening: Entry<'_>) -> Result<Box<dyn Record>, RecordError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(RecordError("full on purpose".into()));
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FakeRecord(self.clone(), format!("session-{number}").into())))
    }
}

impl Record for FakeRecord {
    fn session(&self) -> &Arc<str> {
        &self.1
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), RecordError> {
        self.note(entry);
        Ok(())
    }

    fn note(&mut self, entry: &Entry<'_>) {
        self.0.lines.lock().unwrap().push(serde_json::to_string(entry).unwrap());
    }

    fn close(self: Box<Self>, reason: &str) {
        self.0.closed.lock().unwrap().push(reason.into());
    }
}

/// Nobody to ask.
struct Nobody;

impl Approvals for Nobody {
    fn put(&self, _question: Question) -> BoxFuture<'_, Result<Answer, ApprovalError>> {
        Box::pin(async { Err(ApprovalError("nobody is there".into())) })
    }

    fn ended<'a>(
        &'a self,
        _questions: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Option<Revocation>, ApprovalError>> {
        Box::pin(async { Ok(None) })
    }

    fn revoked<'a>(&'a self, _questions: &'a [Arc<str>]) -> BoxFuture<'a, Revocation> {
        Box::pin(std::future::pending())
    }
}

/// Everything an agent has but a kernel.
pub(crate) struct World {
    /// Where its authority is.
    pub(crate) state: TempDir,
    /// The bundle's directory.
    pub(crate) bundle: TempDir,
    /// The credentials' directory.
    pub(crate) credentials: TempDir,
    /// The bundle in force.
    pub(crate) in_force: Arc<InForce>,
    /// The kernel's rules.
    pub(crate) enforcer: Arc<FakeEnforcer>,
    /// Limits and counters.
    pub(crate) live: Arc<Live>,
    /// The store.
    pub(crate) records: FakeRecords,
    /// Ends the sessions.
    pub(crate) stopping: watch::Sender<Stopping>,
    /// What asks issuers: there are none.
    pub(crate) registry: Registry,
    /// Whether executables are seen the first time, and reading them has no end.
    pub(crate) reads_executables: bool,
    /// Whether accounts are called what a name service that is stuck says.
    pub(crate) asks_names: bool,
    /// The resource whose Unix socket each connection is made to.
    pub(crate) socket_of: Option<Arc<str>>,
    authority: Folder,
}

impl World {
    /// With [`BUNDLE`] in force.
    pub(crate) async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// With these limits.
    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(BUNDLE, limits).await
    }

    /// With this bundle in force.
    pub(crate) async fn with_bundle(text: &str) -> Self {
        Self::with(text, Limits::default()).await
    }

    async fn with(text: &str, limits: Limits) -> Self {
        let (state, bundle) = (tempfile::tempdir().unwrap(), write_bundle(text));
        let credentials = tempfile::tempdir().unwrap();
        files::write(&credentials.path().join("echo.password"), b"open sesame", 0o600).unwrap();
        let authority = authority::tests::folder(state.path(), &[]);
        let enforcer = Arc::new(FakeEnforcer::default());
        let registry = Registry::new(None, tokio::runtime::Handle::current(), Box::new(|_| ())).unwrap();
        let candidate =
            loader(bundle.path(), credentials.path(), &authority, &registry).load().await.unwrap();
        let in_force = Arc::new(candidate.begin(enforcer.clone(), &registry).await.unwrap());
        Self {
            state,
            bundle,
            credentials,
            in_force,
            enforcer,
            live: Live::new(limits),
            records: FakeRecords::default(),
            stopping: watch::Sender::new(Stopping::No),
            registry,
            reads_executables: false,
            asks_names: false,
            socket_of: None,
            authority,
        }
    }

    /// Where its people are asked.
    pub(crate) fn desk(&self) -> Desk {
        let store = Sqlite::open(&self.state.path().join("approvals.db")).unwrap();
        Desk::open(
            "host",
            Arc::new(store),
            DeskLimits { all: 1_000, of_account: 10, a_minute: 100 },
            Audience::default(),
        )
    }

    /// What reloads this world's bundle.
    pub(crate) fn reloader(&self) -> Reloader {
        let loader = loader(self.bundle.path(), self.credentials.path(), &self.authority, &self.registry);
        Reloader::new(loader, self.in_force.clone())
    }

    /// What answers this world's questions.
    pub(crate) fn dns(&self) -> Arc<Dns> {
        Dns::new(self.in_force.clone(), Arc::new(FakeAskers), Arc::new(self.records.clone()), "full".into())
    }

    /// Sessions whose clients meant to connect there.
    pub(crate) fn sessions(&self, destination: Option<&str>) -> Arc<Sessions> {
        let destination = destination.map(|destination| destination.parse().unwrap());
        Arc::new(Sessions {
            origins: Arc::new(FakeOrigins {
                destination,
                reads: self.reads_executables,
                names: self.asks_names,
                socket_of: self.socket_of.clone(),
            }),
            identities: Arc::new(self.registry.clone()),
            in_force: self.in_force.clone(),
            credentials: Arc::new(Files::new(None, self.credentials.path().into())),
            records: Arc::new(self.records.clone()),
            approvals: Arc::new(Nobody),
            dns: self.dns(),
            rates: Arc::default(),
            masker: Arc::new(Masker::new(Secret::new(vec![0; 32]))),
            stopping: self.stopping.subscribe(),
            live: self.live.clone(),
            tier: "full".into(),
        })
    }
}

fn loader(bundle: &Path, credentials: &Path, authority: &Folder, registry: &Registry) -> Loader {
    Loader {
        directory: bundle.into(),
        protocols: Arc::new(protocols()),
        authority: authority.clone(),
        credentials: Arc::new(Files::new(None, credentials.into())),
        registry: registry.clone(),
        listeners: PathBuf::from("/run/tidegate-test"),
        users: Arc::default(),
    }
}
