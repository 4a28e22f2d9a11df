//! An issuer on loopback, with a certificate of its own.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tempfile::TempDir;
use tidegate_policy::{Claims, Elsewhere, Issuer, Policy, SourceFile, TokenSource};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::minted::{AUDIENCE, CLIENT, Signer, key_set};

/// An answer: its status and its body.
pub(super) type Reply = (u16, String);
type Handler = Box<dyn FnMut(&str) -> Reply + Send>;

/// A running issuer.
pub(super) struct Stub {
    pub(super) url: String,
    pub(super) ca: PathBuf,
    handlers: Arc<Mutex<HashMap<String, Handler>>>,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
    _directory: TempDir,
}

impl Stub {
    /// Publishes its metadata and these keys.
    pub(super) async fn start(signers: &[&Signer]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (handlers, asked) = (Arc::new(Mutex::new(HashMap::new())), Arc::default());
        let serving = tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&handlers),
            Arc::clone(&asked),
        ));
        let stub = Self { url, ca, handlers, asked, serving, _directory: directory };
        let url = &stub.url;
        let metadata = json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": format!("{url}/token"),
            "device_authorization_endpoint": format!("{url}/device"),
            "revocation_endpoint": format!("{url}/revoke"),
        });
        let metadata = metadata.to_string();
        stub.on("/.well-known/openid-configuration", move |_| (200, metadata.clone()));
        stub.publish(signers);
        stub
    }

    /// Publishes these keys from now on.
    pub(super) fn publish(&self, signers: &[&Signer]) {
        let set = key_set(signers);
        self.on("/keys", move |_| (200, set.clone()));
    }

    /// Answers requests for a path; the handler gets the request's text.
    pub(super) fn on(&self, path: &str, handler: impl FnMut(&str) -> Reply + Send + 'static) {
        self.handlers.lock().unwrap().insert(path.into(), Box::new(handler));
    }

    /// The requests for a path so far.
    pub(super) fn asked(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|request| path_of(request) == path).cloned().collect()
    }

    /// The host and port.
    pub(super) fn host(&self) -> &str {
        self.url.trim_start_matches("https://")
    }

    /// Answers nobody any more.
    pub(super) fn stop(&self) {
        self.serving.abort();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handlers: Arc<Mutex<HashMap<String, Handler>>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &acceptor, &handlers, &asked).await;
    }
}

/// Whoever breaks the connection off gets no answer.
async fn answer(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    handlers: &Mutex<HashMap<String, Handler>>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&chunk[..length]);
    }
    let request = String::from_utf8(request).unwrap();
    let (status, body) = match handlers.lock().unwrap().get_mut(path_of(&request)) {
        Some(handler) => handler(&request),
        None => (404, String::new()),
    };
    asked.lock().unwrap().push(request);
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

fn path_of(request: &str) -> &str {
    request.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or_default()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// An issuer at this URL that takes tokens in every way and requires a claim.
pub(super) fn issuer(url: &str, stub: Option<&Stub>) -> Arc<Issuer> {
    Arc::new(Issuer {
        name: "ci".into(),
        url: url.into(),
        audience: AUDIENCE.into(),
        algorithms: vec![tidegate_policy::Algorithm::RS256],
        require: required(),
        account: None,
        groups: Vec::new(),
        kept: ["repository".into()].into(),
        clock_skew: Duration::from_secs(30),
        offline: Duration::from_secs(3600),
        ca: stub.map(|stub| stub.ca.clone()),
        tokens: vec![
            TokenSource::Variable { name: "CI_TOKEN".into(), siblings: false },
            TokenSource::GithubActions { hosts: stub.iter().map(|stub| stub.host().into()).collect() },
            TokenSource::Present,
            TokenSource::Login { client: CLIENT.into(), scopes: vec!["offline_access".into()] },
        ],
        step: None,
        elsewhere: Elsewhere::Refuse,
        shown: false,
    })
}

/// What a bundle requires, which only a bundle can say.
fn required() -> Claims {
    let text = "tidegate: 1\nname: x\nissuers:\n  ci: {url: \"https://x.example\", audience: a, tokens: [present], \
                require: {repository: acme/shop}}\n";
    let policy = Policy::load(&[SourceFile { path: "x.yaml".into(), text: text.into() }], &[]).unwrap();
    policy.issuers[0].require.clone()
}
