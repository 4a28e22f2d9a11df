//! A session between a client that says any bytes and an upstream that answers what a test wants.

mod authority;
mod upstream;
mod vouched;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tidegate_gate::{
    ClientIo, Credential, Gate, Masker, Opening, Origin, Protocol, Rates, Secret, ServeError, Stopping,
    contract::{Memory, People},
    policy::{Policy, Principal, Process, SourceFile},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

pub(super) use tidegate_gate::contract::PATIENCE;

use self::vouched::Known;
pub(super) use self::{
    authority::Authority,
    upstream::{Play, accept, ok, whole},
    vouched::Vouched,
};

use crate::{Http, HttpServer, lasting::Lasting, patience::Patience};

/// The name that the resource has.
pub(super) const HOST: &str = "it.test";

/// A session whose upstream speaks HTTP/1.1 in clear or, with `tls`, over TLS.
pub(super) struct Stage {
    pub(super) memory: Memory,
    pub(super) people: People,
    pub(super) port: u16,
    /// Every request that the upstream got, whole.
    pub(super) received: Arc<Mutex<Vec<String>>>,
    policy: Arc<arc_swap::ArcSwap<Policy>>,
    changes: watch::Sender<u64>,
    stopping: watch::Sender<Stopping>,
    rates: Arc<Rates>,
    /// Whose connections are made from now on.
    pub(super) account: u32,
    /// What its address was told for.
    pub(super) names: Option<Arc<[Arc<str>]>>,
    server: Arc<dyn tidegate_gate::Server>,
    lasting: Lasting,
    credential: Credential,
    /// Who vouches for whoever connects.
    vouched: Arc<Vouched>,
    /// What the gate has beside what it signs in with.
    others: Vec<(&'static str, Credential)>,
    authority: Authority,
    rules: String,
    directory: tempfile::TempDir,
    playing: JoinHandle<()>,
}

/// How a stage's upstream is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Plainly,
    /// By TLS, with a certificate of this name.
    AsNamed(&'static str),
    /// The same, and it asks for one.
    Mutually(&'static str),
}

impl Stage {
    /// With these rules, by which `tester` may do what; `{more}` options of the resource, as JSON.
    pub(super) async fn set(rules: &str, options: &str, reached: Reached, play: Play) -> Self {
        let serving = |listener, tls, received| tokio::spawn(accept(listener, tls, play, received));
        Self::serving(rules, options, reached, serving).await
    }

    /// The same with an upstream of the test's own.
    pub(super) async fn serving(
        rules: &str,
        options: &str,
        reached: Reached,
        serve: impl FnOnce(TcpListener, Option<TlsAcceptor>, Arc<Mutex<Vec<String>>>) -> JoinHandle<()>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let tls = match reached {
            Reached::Plainly => "{mode: disable}".to_owned(),
            Reached::AsNamed(_) | Reached::Mutually(_) => format!("{{ca: {}}}", ca.display()),
        };
        let rules = rules.to_owned();
        let text = format!(
            "tidegate: 1\nname: stage\nsubjects:\n  tester: {{users: [\"0\"]}}\nresources:\n  it:\n    \
             protocol: http\n    addresses: [\"127.0.0.1:{port}\", \"one.test:{port}\", \"two.test:{port}\"]\n    tls: {tls}\n    credential: it\n    \
             options: {options}\n"
        );
        let policy = load(&text, &rules);
        let lasting = Lasting::default();
        let server = Arc::new(HttpServer::new(&policy.resources[0], Patience::default(), &lasting).unwrap());
        let received = Arc::<Mutex<Vec<String>>>::default();
        let upstream = match reached {
            Reached::Plainly => None,
            Reached::AsNamed(name) => Some(authority.server(name, &[b"http/1.1"])),
            Reached::Mutually(name) => Some(authority.mutual(name)),
        };
        let playing = serve(listener, upstream.map(TlsAcceptor::from), received.clone());
        Self {
            memory: Memory::default(),
            people: People::default(),
            port,
            received,
            rates: Arc::default(),
            account: 0,
            names: None,
            policy: Arc::new(arc_swap::ArcSwap::from_pointee(policy)),
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(Stopping::No),
            server,
            lasting,
            credential: Credential::default(),
            vouched: Arc::default(),
            others: Vec::new(),
            authority,
            rules: text,
            directory,
            playing,
        }
    }

    /// Waits no longer than this for bodies, from now on.
    pub(super) fn waits(mut self, patience: Patience) -> Self {
        let policy = self.policy.load();
        self.server = Arc::new(HttpServer::new(&policy.resources[0], patience, &self.lasting).unwrap());
        drop(policy);
        self
    }

    /// Its resource is configured anew, as at every reload of the bundle.
    pub(super) fn configured_anew(self) -> Self {
        self.waits(Patience::default())
    }

    /// Signs in with this from now on.
    pub(super) fn signs_in(mut self, user: Option<&str>, password: &str) -> Self {
        self.credential = Credential {
            user: user.map(Into::into),
            password: Some(Secret::new(password.as_bytes().to_vec())),
            ..Credential::default()
        };
        self
    }

    /// From now on, issuer `people` says of whoever connects that it is this, by this token.
    pub(super) fn vouched_for(&mut self, subject: &str, token: &str) -> Arc<Vouched> {
        self.vouched = Arc::new(Vouched::by(subject, token));
        self.vouched.clone()
    }

    /// The gate has a credential of this name, too.
    pub(super) fn has(mut self, name: &'static str, password: &str) -> Self {
        let password = Some(Secret::new(password.as_bytes().to_vec()));
        self.others.push((name, Credential { password, ..Credential::default() }));
        self
    }

    /// Signs in with a certificate that the upstream's authority signed, from now on.
    pub(super) fn signs_in_by_certificate(&mut self) {
        self.credential = self.authority.credential();
    }

    /// The same with one that another stage's authority signed.
    pub(super) fn signs_in_by_certificate_of(&mut self, other: &Self) {
        self.credential = other.authority.credential();
    }

    /// Replaces the rules.
    pub(super) fn reload(&self, rules: &str) {
        self.policy.store(Arc::new(load(&self.rules, rules)));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Replaces the rules, and something of what the resource is.
    pub(super) fn redefine(&self, was: &str, is: &str, rules: &str) {
        let text = self.rules.replace(was, is);
        assert_ne!(text, self.rules, "nothing is another");
        self.policy.store(Arc::new(load(&text, rules)));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The file of the upstream's authority has something more.
    pub(super) fn writes_to_authority_file(&self, more: &str) {
        let path = self.directory.path().join("ca.pem");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + more).unwrap();
    }

    /// Asks the agent to stop.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(Stopping::Asked);
    }

    /// A client's connection, and the session that serves it.
    pub(super) async fn connect(&self) -> (TcpStream, JoinHandle<Result<(), ServeError>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let tls = self.authority.server(HOST, crate::ALPN);
        let io = ClientIo { stream: accepted.unwrap().0.into(), tls, names: self.names.clone() };
        (client.unwrap(), tokio::spawn(self.server.clone().serve(io, self.gate())))
    }

    /// The gate of one session.
    pub(super) fn gate(&self) -> Gate {
        let destination: SocketAddr = ([127, 0, 0, 1], self.port).into();
        let policy = self.policy.load_full();
        Gate::open(Opening {
            origin: Origin {
                destination,
                socket: None,
                principal: Principal {
                    subjects: vec!["tester".into()],
                    process: Process { uid: self.account, ..Process::default() },
                    ..Principal::default()
                },
            },
            identified: self.vouched.identified(),
            resource: policy.resources[0].clone(),
            server: destination.to_string().into(),
            policy: self.policy.clone(),
            changes: self.changes.subscribe(),
            stopping: self.stopping.subscribe(),
            credentials: Arc::new(Known(self.credential.clone(), self.others.clone())),
            records: Arc::new(self.memory.clone()),
            approvals: Arc::new(self.people.clone()),
            rates: self.rates.clone(),
            masker: Arc::new(Masker::new(Secret::new(vec![7; 32]))),
            tier: "full".into(),
        })
        .unwrap()
    }

    /// The same over TLS, asking for a name and offering these versions.
    pub(super) async fn connect_tls(&self, name: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        self.connect_tls_served(name, alpn).await.0
    }

    /// The same, and the session that serves it.
    pub(super) async fn connect_tls_served(
        &self,
        name: &str,
        alpn: &[&[u8]],
    ) -> (TlsStream<TcpStream>, JoinHandle<Result<(), ServeError>>) {
        let (client, serving) = self.connect().await;
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        (TlsConnector::from(Arc::new(config)).connect(name, client).await.unwrap(), serving)
    }

    /// What a client gets that says this on a connection of its own, up to its end. `PORT` stands for the port.
    pub(super) async fn told(&self, text: &str) -> String {
        let (mut client, _) = self.connect().await;
        client.write_all(text.replace("PORT", &self.port.to_string()).as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut heard))
            .await
            .expect("the connection ends");
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// What the upstream got.
    pub(super) fn received(&self) -> Vec<String> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request line and the right Host, with more.
    pub(super) fn request(&self, line: &str, more: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{more}\r\n", self.port)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

fn load(resource: &str, rules: &str) -> Policy {
    let file = SourceFile { path: "stage.yaml".into(), text: format!("{resource}{rules}") };
    let loaded = Policy::load(&[file], &[Http::default().vocabulary()]);
    loaded
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()))
}
