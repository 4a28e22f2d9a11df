//! The gate's own side: connections to the upstream, TLS, and who is asked over which.

mod settings;

use std::{
    error::Error as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tidegate_gate::{BoxFuture, Credential, Gate, Permit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

pub(crate) use settings::{Settings, Versions};

use crate::{
    body::Outgoing,
    problem::Problem,
    shares::{Share, Window},
};

/// Connections of HTTP/1.1 that one session keeps to one host while nothing is asked over them.
const MOST_IDLE: usize = 8;
/// Most bytes of a response's head, and of a response over HTTP/1.1 that are read before the client takes them.
const READ: u32 = 64 * 1024;
/// Most bytes of a request over HTTP/2 that the upstream has yet to take.
const SENT: usize = 256 * 1024;

/// One session's connections upstream.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Vec<Line>>);

/// A connection that can be asked something.
#[derive(Debug)]
pub(crate) struct Line {
    host: Arc<str>,
    sender: Sender,
    credential: Arc<Credential>,
    /// It was asked before, and the server may be about to close it.
    used: bool,
    driver: Arc<Driver>,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Outgoing>),
    H2(http2::SendRequest<Outgoing>),
}

/// The task that carries a connection; it ends with the last that holds it.
#[derive(Debug)]
pub(crate) struct Driver {
    task: JoinHandle<()>,
    /// Its place among the account's connections.
    place: Option<OwnedSemaphorePermit>,
    /// What responses may have on their way, over HTTP/2.
    _window: Option<Window>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a request has no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// It never left: the connection was closed meanwhile. It can be sent again.
    Unsent(Box<Request<Outgoing>>),
    /// It may have been received.
    Failed(hyper::Error),
}

impl Lines {
    /// A connection to the host for a permitted request: one that is there, or a new one.
    pub(crate) async fn line(
        &self,
        host: &Arc<str>,
        gate: &Gate,
        permit: &Permit,
        settings: &Settings,
        versions: Versions,
        share: &Share,
    ) -> Result<Line, Problem> {
        match self.idle(host) {
            Some(line) => Ok(line),
            None => new_line(host, gate, permit, settings, versions, share).await,
        }
    }

    /// Keeps a connection for the next request, if it can carry one.
    pub(crate) fn keep(&self, mut line: Line) {
        let mut lines = self.lock();
        line.used = true;
        lines.retain(|line| !line.is_closed());
        let is_there = line.is_h2() && lines.iter().any(|other| other.is_h2() && other.host == line.host);
        if !is_there && !line.is_closed() && lines.len() < MOST_IDLE {
            lines.push(line);
        }
    }

    /// Asks nothing more over a connection that others may share.
    pub(crate) fn forget(&self, driver: &Arc<Driver>) {
        self.lock().retain(|line| !Arc::ptr_eq(&line.driver, driver));
    }

    fn idle(&self, host: &Arc<str>) -> Option<Line> {
        let mut lines = self.lock();
        lines.retain(|line| !line.is_closed());
        let at = lines.iter().position(|line| line.host == *host && line.is_ready())?;
        match lines.get(at).and_then(Line::shared) {
            Some(shared) => Some(shared),
            None => Some(lines.swap_remove(at)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    /// Whether it was asked before.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// What carries it: a response is cut off where this is dropped.
    pub(crate) fn driver(&self) -> Arc<Driver> {
        self.driver.clone()
    }

    /// What to sign in with over it.
    pub(crate) fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// Sends a request; the response's head.
    pub(crate) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, SendError> {
        let sent = match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| match failed.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Failed(failed.into_error()),
        })
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }

    fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_ready(),
            Sender::H2(sender) => sender.is_ready(),
        }
    }

    /// The same connection once more, where many requests share one.
    fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => Some(Self {
                host: self.host.clone(),
                sender: Sender::H2(sender.clone()),
                credential: self.credential.clone(),
                used: true,
                driver: self.driver.clone(),
            }),
        }
    }
}

/// A new connection to the host. It is rare, and what it takes is not to be part of every session.
pub(crate) fn new_line<'a>(
    host: &'a Arc<str>,
    gate: &'a Gate,
    permit: &'a Permit,
    settings: &'a Settings,
    versions: Versions,
    share: &'a Share,
) -> BoxFuture<'a, Result<Line, Problem>> {
    Box::pin(connect(host, gate, permit, settings, versions, share))
}

async fn connect(
    host: &Arc<str>,
    gate: &Gate,
    permit: &Permit,
    settings: &Settings,
    versions: Versions,
    share: &Share,
) -> Result<Line, Problem> {
    let place = share.connection()?;
    let upstream = gate.upstream(permit).await.map_err(|refusal| Problem::refused(&refusal))?;
    let unusable = |why: &str| {
        gate.event("credential-unusable", why);
        let detail = format!("the gate cannot use its credential for {:?}", gate.resource().name);
        Problem::new(StatusCode::BAD_GATEWAY, detail)
    };
    let tls = settings.client_config(&upstream.credential, versions).map_err(unusable)?;
    let connecting = async {
        match tls {
            None => {
                let is_h2 = versions == Versions::Http2;
                Ok(handshake(upstream.stream, is_h2, share).await.map_err(|error| told(&error))?)
            }
            Some(config) => {
                let name = settings.server_name(host)?;
                let stream = TlsConnector::from(config).connect(name, upstream.stream).await;
                let stream = stream.map_err(|error| format!("TLS: {error}"))?;
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                handshake(stream, is_h2, share).await.map_err(|error| told(&error))
            }
        }
    };
    let timeout = settings.connect_timeout;
    let connected = tokio::time::timeout(timeout, connecting).await;
    let connected: Result<_, String> =
        connected.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
    let (sender, mut driver) = connected.map_err(|why| {
        gate.event("upstream-unreachable", &why);
        // What is wrong with its certificate is for the record: the client could be told of another's network.
        Problem::new(
            StatusCode::BAD_GATEWAY,
            format!("the gate could not speak with {host:?}; its record says why"),
        )
    })?;
    driver.place = Some(place);
    let credential = Arc::new(upstream.credential);
    Ok(Line { host: host.clone(), sender, credential, used: false, driver: Arc::new(driver) })
}

async fn handshake<S>(stream: S, is_h2: bool, share: &Share) -> Result<(Sender, Driver), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    if is_h2 {
        let window = share.window();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window.of_stream)
            .initial_connection_window_size(window.of_connection)
            .max_send_buf_size(SENT)
            .max_header_list_size(READ)
            .handshake(io)
            .await?;
        return Ok((Sender::H2(sender), drive(connection, Some(window))));
    }
    let (sender, connection) =
        http1::Builder::new().max_headers(256).max_buf_size(READ as usize).handshake(io).await?;
    // A connection that is switched goes on without its driver.
    Ok((Sender::H1(sender), drive(connection.with_upgrades(), None)))
}

fn drive(
    connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
    window: Option<Window>,
) -> Driver {
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = told(&error), "upstream connection");
        }
    });
    Driver { task, place: None, _window: window }
}

/// An error with what is behind it.
pub(crate) fn told(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
