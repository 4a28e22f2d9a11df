//! HTTP/1.1 and HTTP/2, with TLS and without.
//!
//! Every request is an action: understood strictly, decided, recorded, and made anew for the upstream from what was
//! understood. The two sides may speak different versions.

#![forbid(unsafe_code)]

mod answer;
mod answering;
mod beside;
mod body;
mod client;
mod deciding;
mod exchange;
mod fields;
mod fill;
mod forward;
mod grpc;
mod har;
mod lasting;
mod media;
mod messages;
mod options;
mod overriding;
mod patience;
mod problem;
mod request;
mod secrets;
mod sending;
mod shares;
mod shown;
mod sign_in;
mod target;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzzing"))]
mod tour;
mod traces;
mod transcript;
mod tunnel;
mod upstream;
mod vocabulary;
mod websocket;
mod wire;
mod written;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use tidegate_gate::{
    BoxFuture, ClientIo, ConfigError, Export, Gate, Protocol, ServeError, Server, Stream,
    policy::{Resource, Vocabulary},
};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_rustls::TlsAcceptor;

pub use self::written::shape_of_request;
use self::{
    exchange::Session,
    lasting::{Files, Lasting, Latest},
    options::Options,
    patience::Patience,
    request::Way,
    shares::Shares,
    sign_in::Tokens,
    traces::Spellings,
    upstream::{Lines, Settings},
};

/// What clients are offered in TLS' ALPN extension: some that speak HTTP/1.0 say so, and nothing else.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];

/// How long a client may take until TLS is spoken.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The first byte of TLS (RFC 8446, 5.1): no method begins with it.
const TLS: u8 = 0x16;

/// The protocol.
#[derive(Debug, Default)]
pub struct Http {
    lasting: Lasting,
}

impl Protocol for Http {
    fn vocabulary(&self) -> &'static Vocabulary {
        &vocabulary::VOCABULARY
    }

    fn configure(&self, resource: &Arc<Resource>) -> Result<Arc<dyn Server>, ConfigError> {
        Ok(Arc::new(HttpServer::new(resource, Patience::default(), &self.lasting)?))
    }

    fn exports(&self) -> &'static [Export] {
        &[har::EXPORT]
    }
}

/// Serves one resource.
#[derive(Debug)]
pub(crate) struct HttpServer {
    options: Options,
    settings: Settings,
    /// Where tokens come from, if the resource takes an authorization server's.
    tokens: Option<Tokens>,
    shares: Arc<Shares>,
    /// Those that it was configured with, and those of the last time that it was.
    files: Files,
    latest: Arc<Latest>,
    patience: Patience,
}

impl HttpServer {
    fn new(resource: &Resource, patience: Patience, lasting: &Lasting) -> Result<Self, ConfigError> {
        let options = Options::of(resource)?;
        let tokens = options
            .sign_in
            .grant()
            .map(|grant| Tokens::new(grant.clone(), lasting.tokens(&resource.name, grant)));
        let tokens = tokens.transpose().map_err(|why| {
            ConfigError::in_option("sign-in", format!("options: the authority of the token endpoint: {why}"))
        })?;
        let (files, latest) = (options::files(resource, &options)?, lasting.files(&resource.name));
        latest.set(files);
        Ok(Self {
            options,
            tokens,
            files,
            latest,
            settings: Settings::new(resource).map_err(ConfigError::new)?,
            shares: lasting.shares(&resource.name),
            patience,
        })
    }
}

impl HttpServer {
    /// Whether its files are those that its resource was last configured with.
    pub(crate) fn has_its_files(&self) -> bool {
        self.latest.is(&self.files)
    }
}

impl Server for HttpServer {
    fn names(&self) -> Vec<Arc<str>> {
        self.options.hosts.iter().cloned().collect()
    }

    fn serve(self: Arc<Self>, client: ClientIo, gate: Gate) -> BoxFuture<'static, Result<(), ServeError>> {
        Box::pin(async move {
            let lost = |error: std::io::Error| ServeError::Client(error.to_string());
            let mut first = [0];
            let begun = tokio::select! {
                begun = timeout(HANDSHAKE, client.stream.peek(&mut first)) => begun,
                refusal = gate.revoked() => return Err(ServeError::Policy(refusal.message.to_string())),
            };
            match begun.map_err(|_| ServeError::Client("it sent nothing".into()))?.map_err(lost)? {
                0 => return Ok(()),
                _ if (first == [TLS]) != self.settings.is_tls() => {
                    return mismatch(client.stream, &gate, self.settings.is_tls()).await;
                }
                _ => {}
            }
            let mut session = Session {
                share: self.shares.of(gate.principal().process.sharer()),
                way: Way {
                    tls: self.settings.is_tls(),
                    server_name: None,
                    destination: gate.destination(),
                    names: client.names,
                },
                gate,
                server: self,
                lines: Lines::default(),
                spellings: Spellings::default(),
            };
            if !session.way.tls {
                return client::h1::serve(&session, client.stream).await;
            }
            let accepted = timeout(HANDSHAKE, TlsAcceptor::from(client.tls).accept(client.stream)).await;
            let stream = accepted
                .map_err(|_| ServeError::Client(format!("TLS took longer than {HANDSHAKE:?}")))?
                .map_err(|error| untrusting(&session.gate, &error))?;
            let (_, tls) = stream.get_ref();
            session.way.server_name = tls.server_name().and_then(target::name).map(Into::into);
            match tls.alpn_protocol() {
                Some(b"h2") => client::h2::serve(&session, stream).await,
                _ => client::h1::serve(&session, stream).await,
            }
        })
    }
}

/// A client that speaks TLS where there is none, or none where there is.
async fn mismatch(mut stream: Stream, gate: &Gate, tls: bool) -> Result<(), ServeError> {
    let why = match tls {
        true => "it speaks plain HTTP to a resource that is reached by HTTPS",
        false => "it speaks TLS to a resource that the bundle reaches without (tls: {mode: disable})",
    };
    gate.refuse("request", "(not understood)", why);
    if tls {
        let problem =
            problem::Problem::new(http::StatusCode::BAD_REQUEST, "this is an HTTPS port: write https://");
        let (head, body) = problem.response(gate.session(), problem::Reader::Any).into_parts();
        let length = wire::Length::Known(body.len() as u64);
        let mut text = wire::response_head(head.status, &head.headers, length, true);
        text.extend_from_slice(&body);
        // It is told if it listens.
        let _ = stream.write_all(&text).await;
        let _ = stream.shutdown().await;
    }
    Err(ServeError::Client(why.into()))
}

/// A handshake that failed. A client that trusts other authorities is told apart: it can be helped.
fn untrusting(gate: &Gate, error: &std::io::Error) -> ServeError {
    let text = error.to_string();
    let alerts = ["UnknownCA", "BadCertificate", "CertificateUnknown", "UnknownIssuer"];
    // Some leave without an alert.
    if error.kind() == ErrorKind::UnexpectedEof || alerts.iter().any(|alert| text.contains(alert)) {
        let why = "the client does not trust the gate's certificate (it pins another, or has a store of its own): \
                   see tidegate ca show";
        gate.event("client-distrusts", why);
        return ServeError::Client(format!("{why}: {text}"));
    }
    ServeError::Client(format!("TLS: {text}"))
}

/// Every parser over any bytes: what the fuzzer runs.
#[cfg(feature = "fuzzing")]
pub mod fuzz {
    /// HTTP/1.1 as clients speak it.
    ///
    /// # Panics
    /// If it is read differently in other pieces, or leaves in doubt where it ends.
    pub fn wire(bytes: &[u8]) {
        crate::tour::wire(bytes);
    }

    /// Authorities, paths and queries.
    ///
    /// # Panics
    /// If what is understood has more than one form.
    pub fn targets(bytes: &[u8]) {
        crate::tour::targets(bytes);
    }

    /// Fields of bodies.
    ///
    /// # Panics
    /// If what is no JSON is read as some.
    pub fn bodies(bytes: &[u8]) {
        crate::tour::bodies(bytes);
    }

    /// Messages of gRPC, in their frames.
    ///
    /// # Panics
    /// If they are read differently in other pieces, or what is masked is shown.
    pub fn grpc(bytes: &[u8]) {
        crate::tour::grpc(bytes);
    }

    /// JSON and forms as masks show them.
    ///
    /// # Panics
    /// If they are shown differently in other pieces, or what is masked is shown.
    pub fn masks(bytes: &[u8]) {
        crate::tour::masks(bytes);
    }
}
