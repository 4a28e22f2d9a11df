//! Tunnels through an upstream that is a forward proxy (RFC 9110, 9.3.6): decided by where they lead; from then on bytes that
//! nobody looks into, counted, until either side or the policy ends them.

mod hello;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header, uri};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidegate_gate::{
    Action, Decision, Matter, Outcome, Permit, ServeError,
    policy::{Item, Shape, Value},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use crate::{
    body::Outgoing,
    exchange::Session,
    messages::Stopped,
    options::Tunnels,
    problem::Problem,
    target::Authority,
    upstream::{self, Driver, Versions},
    wire::{Framing, Head},
};

/// How much is read at once.
const READ: usize = 16 * 1024;
/// How long it may take until TLS has begun in a tunnel.
const HELLO: Duration = Duration::from_secs(30);

/// A tunnel that the upstream has opened.
pub(crate) struct Tunnel {
    upstream: Upgraded,
    permit: Permit,
    host: Arc<str>,
    /// The upstream's connection, with its place among the account's.
    driver: Arc<Driver>,
}

/// Where a tunnel is to lead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    host: Arc<str>,
    port: u16,
}

impl Destination {
    /// One place that everybody reads the same.
    pub(crate) fn parse(written: &str) -> Result<Self, &'static str> {
        let Authority { host, port } = Authority::parse(written).map_err(|why| why.0)?;
        Ok(Self { host, port: port.ok_or("its target has no port")? })
    }

    /// Why no rule lets a tunnel lead there, whatever it says.
    pub(crate) fn is_nobody_s(&self) -> Option<String> {
        let is_address = self.host.parse::<IpAddr>().is_ok();
        is_address.then(|| format!("a tunnel leads to a name: {} could be anybody's", self.host))
    }

    /// What is decided.
    pub(crate) fn shape(&self) -> Shape {
        let fields = vec![
            ("action", Value::Word("connect")),
            ("host", Value::Text(self.host.clone())),
            ("port", Value::Number(self.port.into())),
        ];
        Shape { items: vec![Item { fields, must_name: None }], open: true, ..Shape::default() }
    }
}

impl Session {
    /// Whether this asks for a tunnel, of a resource that makes some.
    pub(crate) fn is_for_a_tunnel(&self, head: &Head) -> bool {
        self.server.options.proxy.is_some() && head.method == Method::CONNECT
    }

    /// Opens a tunnel, if it may be; the client was not told yet.
    pub(crate) async fn tunnel(&self, head: &Head, framing: Framing) -> Result<Tunnel, Problem> {
        let destination = match self.destination(head, framing) {
            Ok(destination) => destination,
            Err(problem) => {
                self.gate.refuse("connect", "CONNECT (not understood)", problem.detail());
                return Err(problem);
            }
        };
        let text = format!("CONNECT {}:{} {:?}", destination.host, destination.port, head.version);
        if let Some(why) = self.must_not_lead_there(&destination) {
            return Err(Problem::refused(&self.gate.refuse("connect", &text, &why)));
        }
        let permit = self.permit_tunnel(&destination, &text).await?;
        let opened = self.opened(&destination, &permit).await;
        match opened {
            Ok((upstream, driver)) => Ok(Tunnel { upstream, permit, host: destination.host, driver }),
            Err(problem) => {
                permit.so_far(|outcome| outcome.error = Some(problem.status.as_str().to_owned()));
                permit.ended();
                Err(problem)
            }
        }
    }

    /// Understands the request: one place that everybody reads the same.
    fn destination(&self, head: &Head, framing: Framing) -> Result<Destination, Problem> {
        let bad =
            |why: &str| Problem::new(StatusCode::BAD_REQUEST, format!("the request is ambiguous: {why}"));
        if let Some(name) = &self.way.server_name
            && !self.server.options.knows(&Authority { host: name.clone(), port: None }, &self.way)
        {
            let why = format!("{name:?} is no name that the resource has at {}", self.way.destination);
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, why));
        }
        if framing != Framing::Length(0) {
            return Err(bad("a tunnel is asked for without a body"));
        }
        let destination = Destination::parse(&head.target).map_err(bad)?;
        let mut hosts = head.headers.get_all(header::HOST).iter();
        match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
            (None, _) if head.version == Version::HTTP_10 => {}
            (Some(Ok(host)), None) if Destination::parse(host).is_ok_and(|host| host == destination) => {}
            _ => return Err(bad("its target and its Host differ")),
        }
        Ok(destination)
    }

    /// What speaks against a tunnel, whatever rules say.
    fn must_not_lead_there(&self, destination: &Destination) -> Option<String> {
        let Destination { host, port } = destination;
        let masks = self.gate.standing_masks();
        if masks.columns || masks.content.is_some() {
            return Some("something of this resource is masked, and in a tunnel nothing can be".to_owned());
        }
        if let Some(why) = destination.is_nobody_s() {
            return Some(why);
        }
        let resource = self.gate.resource_at(host, *port)?;
        Some(format!("{host} is resource {resource:?}: it is reached without the proxy, by its own rules"))
    }

    async fn permit_tunnel(&self, destination: &Destination, text: &str) -> Result<Permit, Problem> {
        let shape = Arc::new(destination.shape());
        match self.gate.ask(Action { name: "connect", shape: &shape, text, count: 1 }).await {
            Decision::Permit(permit) => Ok(permit),
            Decision::Refuse(refusal) => Err(Problem::refused(&refusal)),
            Decision::Hold(hold) => {
                let decided = hold.decided(Matter::new(text.as_bytes()), self.server.options.wait).await;
                Ok(decided.map_err(Stopped::from)?)
            }
        }
    }

    /// Asks the upstream for the tunnel, signed in as proxies are.
    async fn opened(
        &self,
        destination: &Destination,
        permit: &Permit,
    ) -> Result<(Upgraded, Arc<Driver>), Problem> {
        let server = &self.server;
        let own = self.way.server_name.clone().or_else(|| server.options.hosts.first().cloned());
        let own = own.unwrap_or_else(|| self.way.destination.ip().to_canonical().to_string().into());
        let versions = Versions::Http11;
        let mut line =
            upstream::new_line(&own, &self.gate, permit, &server.settings, versions, &self.share).await?;
        let shown = self.credential(&line, permit).await?;
        let authority = format!("{}:{}", destination.host, destination.port);
        let unwritten =
            |error: &dyn std::fmt::Display| self.broke(&format!("the target cannot be written: {error}"));
        let target = authority.parse::<uri::Authority>().map_err(|error| unwritten(&error))?;
        let mut request = Request::new(Outgoing::Whole(None));
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from(target);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(&authority).map_err(|error| unwritten(&error))?);
        server.options.sign_in.add(&shown, headers, &mut None).map_err(|why| self.unusable(why))?;
        if let Some(own) = headers.remove(header::AUTHORIZATION) {
            headers.insert(header::PROXY_AUTHORIZATION, own);
        }
        let driver = line.driver();
        let response = line.send(request).await.map_err(|failed| match failed {
            upstream::SendError::Unsent(_) => {
                self.broke("the connection was closed before it took the request")
            }
            upstream::SendError::Failed(error) => self.broke(&upstream::told(&error)),
        })?;
        permit.answered(response.status().to_string());
        match response.status() {
            status if status.is_success() => {
                let upstream = hyper::upgrade::on(response).await;
                Ok((upstream.map_err(|error| self.broke(&upstream::told(&error)))?, driver))
            }
            // The gate's own credential is no matter of the client's.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(self.broke("it did not take the gate's credential"))
            }
            status => {
                let told = if status.is_client_error() || status.is_server_error() {
                    status
                } else {
                    StatusCode::BAD_GATEWAY
                };
                Err(Problem::new(
                    told,
                    format!("the proxy opened no tunnel: it answered {}", status.as_str()),
                ))
            }
        }
    }

    /// How TLS begins in a tunnel to this host; what is none, or for another, goes nowhere.
    async fn hello(&self, client: &mut (impl AsyncRead + Unpin), host: &str) -> Result<BytesMut, ServeError> {
        let read = timeout(HELLO, hello::read(client, host)).await;
        read.unwrap_or_else(|_| Err(format!("TLS did not begin within {HELLO:?}"))).map_err(|why| {
            let why = format!("a tunnel is closed: {why} (options: {{proxy: opaque}} lets anything)");
            self.gate.event("tunnel-closed", &why);
            ServeError::Policy(why)
        })
    }

    /// Carries bytes between the client, which was told that its tunnel is there, and the upstream, to the end.
    pub(crate) async fn carry_bytes<S>(&self, client: S, tunnel: Tunnel) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Tunnel { upstream, permit, host, driver: _driver } = tunnel;
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(TokioIo::new(upstream));
        let sent = |bytes| permit.so_far(|outcome| outcome.sent += bytes);
        let shown = |bytes| permit.so_far(|outcome| outcome.bytes += bytes);
        let both = async {
            if self.server.options.proxy != Some(Tunnels::Opaque) {
                let hello = self.hello(&mut from_client, &host).await?;
                to_server.write_all(&hello).await.map_err(broke_off)?;
                sent(hello.len() as u64);
            }
            let both = tokio::try_join!(
                pipe(&mut from_client, &mut to_server, sent),
                pipe(&mut from_server, &mut to_client, shown)
            );
            both.map(|_| ()).map_err(broke_off)
        };
        let ended = tokio::select! {
            ended = both => ended,
            refusal = permit.revoked() => Err(ServeError::Policy(refusal.message.to_string())),
            refusal = self.gate.over() => Err(ServeError::Policy(refusal.message.to_string())),
        };
        let error = ended.as_ref().err().map(ToString::to_string);
        permit.so_far(|outcome: &mut Outcome| outcome.error = error);
        permit.ended();
        ended
    }
}

fn broke_off(error: io::Error) -> ServeError {
    ServeError::Client(format!("a tunnel broke off: {error}"))
}

/// Hands on bytes in one direction, to its end.
async fn pipe(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
        count(buffer.len() as u64);
        buffer.clear();
    }
}
