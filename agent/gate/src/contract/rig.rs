//! One session of a protocol, with a test at both of its ends.

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tidegate_policy::{Identity, Policy, Principal, SourceFile, Vocabulary};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::People;
use crate::{
    BoxFuture, ClientIo, Credential, CredentialError, Credentials, Entry, Gate, Identified, Masker, Opening,
    Origin, Protocol, Rates, Record, RecordError, Records, Secret, ServeError, Server, Stopping,
};

/// How long anything is waited for before a promise counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What people know the upstream by, whatever its port.
pub const SERVER: &str = "it.test:1";

/// A session under test. The test is its client, its agent, and whoever listens where its upstream should be.
pub struct Rig {
    /// The client's end.
    pub client: TcpStream,
    /// What was recorded.
    pub memory: Memory,
    /// Who is asked.
    pub people: People,
    /// The session itself.
    pub session: JoinHandle<Result<(), ServeError>>,
    agent: Agent,
    vocabulary: &'static Vocabulary,
}

/// What sessions are opened with.
struct Agent {
    server: Arc<dyn Server>,
    address: SocketAddr,
    policy: Arc<ArcSwap<Policy>>,
    changes: watch::Sender<u64>,
    stopping: watch::Sender<Stopping>,
    identities: watch::Sender<Arc<[Identity]>>,
    rates: Arc<Rates>,
    memory: Memory,
    people: People,
}

impl Rig {
    /// Opens a session under a bundle that has one resource, at `127.0.0.1:{port}`, and a subject named `tester`.
    /// The upstream's end is whatever connects to the listener.
    pub async fn set(protocol: &dyn Protocol, bundle: &str, memory: Memory) -> (Self, TcpListener) {
        let listener = bind().await;
        let address = listener.local_addr().expect("a bound listener has an address");
        let vocabulary = protocol.vocabulary();
        let policy = load(bundle, address, vocabulary);
        let resource = policy.resources.first().expect("the bundle has a resource").clone();
        let people = People::default();
        let agent = Agent {
            server: protocol.configure(&resource).expect("the resource can be served"),
            address,
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(Stopping::No),
            identities: watch::Sender::default(),
            rates: Arc::default(),
            memory: memory.clone(),
            people: people.clone(),
        };
        let (client, session) = agent.serve().await;
        (Self { client, memory, people, session, agent, vocabulary }, listener)
    }

    /// A second connection to the same resource; its session is recorded in the same memory.
    pub async fn connect(&self) -> (TcpStream, JoinHandle<Result<(), ServeError>>) {
        self.agent.serve().await
    }

    /// Replaces the bundle.
    pub fn reload(&self, bundle: &str) {
        self.agent.policy.store(Arc::new(load(bundle, self.agent.address, self.vocabulary)));
        self.agent.changes.send_modify(|changes| *changes += 1);
    }

    /// From now on the issuer `people` says that the client is these, and nobody else.
    pub fn identify(&self, subjects: &[&str]) {
        let identity = |subject: &&str| Identity {
            issuer: "people".into(),
            url: "https://people.example".into(),
            account: None,
            subject: (*subject).into(),
            groups: Vec::new(),
            expires: i64::MAX,
            claims: serde_json::Map::new(),
        };
        self.agent.identities.send_replace(subjects.iter().map(identity).collect());
    }

    /// Where the resource is: what clients call it by, where their protocol says so.
    pub fn port(&self) -> u16 {
        self.agent.address.port()
    }

    /// Asks the agent to stop.
    pub fn stop(&self) {
        self.agent.stopping.send_replace(Stopping::Asked);
    }

    /// The grace of the agent that was asked to stop is over.
    pub fn grace_ends(&self) {
        self.agent.stopping.send_replace(Stopping::Now);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.session.abort();
    }
}

fn load(bundle: &str, address: SocketAddr, vocabulary: &'static Vocabulary) -> Policy {
    let text = bundle.replace("{port}", &address.port().to_string());
    let file = SourceFile { path: "contract.yaml".into(), text };
    Policy::load(&[file], &[vocabulary]).expect("the bundle loads")
}

impl Agent {
    async fn serve(&self) -> (TcpStream, JoinHandle<Result<(), ServeError>>) {
        let (client, stream) = pair().await;
        let resource = self.policy.load().resources.first().expect("the bundle has a resource").clone();
        let gate = Gate::open(Opening {
            origin: Origin { destination: self.address, socket: None, principal: tester() },
            identified: Identified::without_proofs(self.identities.subscribe()),
            resource,
            server: SERVER.into(),
            policy: self.policy.clone(),
            changes: self.changes.subscribe(),
            stopping: self.stopping.subscribe(),
            credentials: Arc::new(NoSecrets),
            records: Arc::new(self.memory.clone()),
            approvals: Arc::new(self.people.clone()),
            rates: self.rates.clone(),
            masker: Arc::new(Masker::new(Secret::new(vec![7; 32]))),
            tier: "full".into(),
        });
        let gate = gate.expect("the record opens");
        let client_io = ClientIo { stream: stream.into(), tls: no_tls(), names: None };
        (client, tokio::spawn(self.server.clone().serve(client_io, gate)))
    }
}

/// Records kept in memory, as the lines they would be.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    kept: Mutex<Kept>,
    /// Nothing is held back any more.
    released: Condvar,
    /// Something is held back.
    held: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<Value>,
    closes: usize,
    broken: bool,
    holding: bool,
}

/// While it lives, nothing that something depends on is written.
#[derive(Debug)]
#[must_use = "writes go on when it is dropped"]
pub struct HeldBack(Memory);

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.0.kept(|kept| kept.holding = false);
        self.0.0.released.notify_all();
    }
}

impl Memory {
    /// The lines so far, closing ones left out.
    pub fn lines(&self) -> Vec<Value> {
        self.kept(|kept| kept.lines.clone())
    }

    /// How many actions were recorded.
    pub fn actions(&self) -> usize {
        self.kept(|kept| kept.lines.iter().filter(|line| line["type"] == "action").count())
    }

    /// How many times a record was closed.
    pub fn closes(&self) -> usize {
        self.kept(|kept| kept.closes)
    }

    /// Nothing can be recorded any more.
    pub fn break_down(&self) {
        self.kept(|kept| kept.broken = true);
    }

    /// Writes block from now on, as on a slow disk, until this is dropped. Needs a runtime of several threads.
    pub fn hold_back(&self) -> HeldBack {
        self.kept(|kept| kept.holding = true);
        HeldBack(self.clone())
    }

    /// Resolves when a write blocks.
    pub async fn holds_one_back(&self) {
        let held = tokio::time::timeout(PATIENCE, self.0.held.notified()).await;
        held.expect("something is to be written");
    }

    fn kept<T>(&self, with: impl FnOnce(&mut Kept) -> T) -> T {
        with(&mut self.0.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nothing is held back. Bounded, so that a test that fails meanwhile ends.
    fn wait(&self) {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.holding {
            self.0.held.notify_one();
            let held = |kept: &mut Kept| kept.holding;
            let waiting = || drop(self.0.released.wait_timeout_while(kept, PATIENCE, held));
            tokio::task::block_in_place(waiting);
        }
    }

    fn keep(&self, entry: &Entry<'_>) -> Result<(), RecordError> {
        let line = serde_json::to_value(entry).map_err(|error| RecordError(error.to_string()))?;
        self.kept(|kept| {
            if kept.broken {
                return Err(RecordError("it is broken".into()));
            }
            kept.lines.push(line);
            Ok(())
        })
    }
}

impl Records for Memory {
    fn open(&self, opening: Entry<'_>) -> Result<Box<dyn Record>, RecordError> {
        self.keep(&opening)?;
        Ok(Box::new(MemoryRecord { memory: self.clone(), session: "contract".into() }))
    }
}

struct MemoryRecord {
    memory: Memory,
    session: Arc<str>,
}

impl Record for MemoryRecord {
    fn session(&self) -> &Arc<str> {
        &self.session
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), RecordError> {
        self.memory.wait();
        self.memory.keep(entry)
    }

    fn note(&mut self, entry: &Entry<'_>) {
        // A store that fails says so at the next write.
        let _ = self.memory.keep(entry);
    }

    fn close(self: Box<Self>, _reason: &str) {
        self.memory.kept(|kept| kept.closes += 1);
    }
}

struct NoSecrets;

impl Credentials for NoSecrets {
    fn credential<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        Box::pin(async { Ok(Credential { user: Some("gate".into()), ..Credential::default() }) })
    }
}

fn tester() -> Principal {
    Principal { subjects: vec!["tester".into()], ..Principal::default() }
}

fn no_tls() -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    Arc::new(config)
}

async fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback can be listened on")
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = bind().await;
    let address = listener.local_addr().expect("a bound listener has an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("loopback connects"), accepted.expect("loopback accepts").0)
}
