//! A request, understood: what the policy decides on, what is recorded, and what is sent.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header, uri::Scheme};
use tidegate_gate::policy::{Item, Shape, Value};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    beside::Beside,
    fields::{self, Fields},
    fill::Filled,
    forward,
    grpc::{self, Call},
    media::{self, Media, media_type},
    messages::{To, know},
    options::Options,
    problem::{Problem, Reader},
    secrets,
    sign_in::Payload,
    target::{self, Authority, Query},
    vocabulary,
    websocket::Offer,
    wire::{MOST_FIELDS, WireError},
};

/// A request as it came in, whatever the version.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The authority that the target itself names: in HTTP/2, and in HTTP/1.1's absolute form.
    pub(crate) authority: Option<String>,
    /// The scheme that the target itself names.
    pub(crate) scheme: Option<String>,
    /// Path and query; `*` in asterisk form.
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// Bytes of the body, if they are known; 0 if there is none.
    pub(crate) length: Option<u64>,
    /// What is to be spoken on its stream of HTTP/2 from then on (RFC 8441, 4).
    pub(crate) protocol: Option<String>,
}

/// How the client reached the gate.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// Whether by TLS.
    pub(crate) tls: bool,
    /// The name that the client asked for in TLS (SNI).
    pub(crate) server_name: Option<Arc<str>>,
    /// Where it meant to connect.
    pub(crate) destination: SocketAddr,
    /// The names that were told to have that address; none where the bundle has it.
    pub(crate) names: Option<Arc<[Arc<str>]>>,
}

impl Way {
    /// What people know the server by: the name that it is asked by, where its address was told for that.
    pub(crate) fn server(&self, authority: &Authority) -> Option<String> {
        let names = self.names.as_ref()?;
        names.contains(&authority.host).then(|| format!("{}:{}", authority.host, self.destination.port()))
    }
}

/// A request that can be decided.
#[derive(Debug)]
pub(crate) struct Understood {
    pub(crate) method: Method,
    pub(crate) authority: Authority,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// What goes upstream, apart from what the gate adds.
    pub(crate) headers: HeaderMap,
    /// The client's own credentials: they go no further unless a rule lets them.
    pub(crate) own: HeaderMap,
    /// What goes upstream instead where a rule does, once it is permitted.
    pub(crate) filled: Option<Box<Filled>>,
    pub(crate) length: Option<u64>,
    pub(crate) shape: Arc<Shape>,
    /// As recorded: credentials withheld.
    pub(crate) text: String,
    /// What its body takes of the account's room, where it was read first.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// It asks for a WebSocket.
    pub(crate) offer: Option<Offer>,
    /// How its body comes, where the gate signs the request.
    pub(crate) payload: Payload,
    /// Its client speaks gRPC.
    pub(crate) is_grpc: bool,
    /// What its messages are, where the bundle tells.
    pub(crate) call: Option<Call>,
    /// Rules see it as it is before any message of it is known.
    bare: Arc<Shape>,
    /// Its messages to the server are decided one by one, as they come.
    pub(crate) is_stream: bool,
    /// The first of them, in its frame, which was decided with the request.
    pub(crate) first: Option<Bytes>,
    /// The messages that answer it are decided one by one.
    pub(crate) is_answered_in_messages: bool,
}

impl Asked {
    /// Whether the client speaks gRPC, and so reads refusals in its way.
    pub(crate) fn is_grpc(&self) -> bool {
        media_type(&self.headers).is_some_and(|kind| kind.starts_with("application/grpc"))
    }

    /// Who reads a refusal.
    pub(crate) fn reader(&self) -> Reader {
        let is_git = |agent: &HeaderValue| agent.as_bytes().starts_with(b"git/");
        match self.headers.get(header::USER_AGENT) {
            _ if self.is_grpc() => Reader::Grpc,
            Some(agent) if is_git(agent) => Reader::Git,
            _ => Reader::Any,
        }
    }

    /// As records have what was not understood: nothing of it is trusted, so little is told.
    pub(crate) fn told(&self) -> String {
        let host = self.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
        let host = host.map_or_else(String::new, |host| format!("{:?}", secrets::shown_authority(&host)));
        let path = self.target.split('?').next().unwrap_or_default();
        let authority = secrets::shown_authority(self.authority.as_deref().unwrap_or_default());
        format!("{} {path:?} host {authority}{host}", self.method)
    }

    /// Understands the request.
    pub(crate) fn understand(mut self, way: &Way, options: &Options) -> Result<Understood, Problem> {
        let bad =
            |why: &str| Problem::new(StatusCode::BAD_REQUEST, format!("the request is ambiguous: {why}"));
        if self.headers.len() > MOST_FIELDS {
            let error = WireError::TooLarge;
            return Err(Problem::new(error.status(), error.to_string()));
        }
        let offer = self.offer(options)?;
        if offer.is_some() {
            // Rules, people and upstreams have it as HTTP/1.1 asks for it, whichever version the client speaks.
            self.method = Method::GET;
        }
        let Some(method) = vocabulary::method(&self.method) else {
            let detail = format!("the gate does not pass on the method {}", self.method);
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
        };
        if let Some(expect) = self.headers.get(header::EXPECT)
            && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
        {
            return Err(Problem::new(StatusCode::EXPECTATION_FAILED, "only 100-continue can be expected"));
        }
        media::one(&self.headers).map_err(bad)?;
        let scheme = if way.tls { "https" } else { "http" };
        if self.scheme.as_deref().is_some_and(|named| !named.eq_ignore_ascii_case(scheme)) {
            return Err(bad("its target names another scheme than the connection's"));
        }
        let authority = self.authority(way, options)?;
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let path = match path {
            "*" if self.method == Method::OPTIONS && query.is_none() => "*".to_owned(),
            path => target::path(path, options.tolerated).map_err(|why| bad(why.0))?,
        };
        let query = query.map(Query::parse).transpose().map_err(|why| bad(why.0))?;
        if !options.tolerated.method_parameters && query.as_ref().is_some_and(Query::changes_the_method) {
            return Err(bad(
                "a parameter of its query changes the method (options: {tolerate: [method-parameters]})",
            ));
        }
        let forward::Forwarded { mut headers, own } =
            forward::upstream(&self.headers, &options.pass).map_err(|why| bad(&why))?;
        let payload = options.sign_in.take_off(&mut headers, query.as_ref());
        let payload = payload.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
        if let Some(offer) = &offer {
            offer.keep_protocols(&mut headers);
        }
        let length = match &payload {
            Payload::Chunked { length, .. } => Some(*length),
            _ => self.length,
        };
        let action = if offer.is_some() { "websocket" } else { "request" };
        let mut shape = shape((action, method), &authority.host, &path, query.as_ref(), &headers, length);
        let beside = Beside::of(&self.method, &headers, &authority, way.tls, options).map_err(bad)?;
        let beside: Vec<Item> =
            beside.into_iter().filter_map(|beside| Some(beside.item(shape.items.first()?))).collect();
        shape.items.extend(beside);
        let is_grpc = self.is_grpc();
        let call = rpc(method, &path, &headers).filter(|_| grpc::is_protobuf(&headers));
        let call = call.and_then(|name| options.descriptors.as_ref()?.call(name));
        let query = query.map(|query| query.text);
        let recorded = |query| format!("?{}", secrets::shown_query(query, options.sign_in.parameter()));
        let shown = query.as_deref().map_or_else(String::new, recorded);
        let version =
            if self.version == Version::HTTP_2 { "HTTP/2".to_owned() } else { format!("{:?}", self.version) };
        let line = format!("{method} {scheme}://{authority}{path}{shown} {version}");
        Ok(Understood {
            text: forward::recorded(&line, &headers),
            method: self.method,
            authority,
            path,
            query,
            headers,
            own,
            filled: None,
            length,
            shape: Arc::new(shape),
            room: None,
            offer,
            payload,
            is_grpc,
            call,
            bare: Arc::default(),
            is_stream: false,
            first: None,
            is_answered_in_messages: false,
        })
    }

    /// The WebSocket that is asked for, if one is.
    fn offer(&self, options: &Options) -> Result<Option<Offer>, Problem> {
        let is_upgrade = forward::has_token(&self.headers, &header::CONNECTION, "upgrade")
            && !forward::has_token(&self.headers, &header::UPGRADE, "h2c");
        if !is_upgrade && self.protocol.is_none() {
            return Ok(None);
        }
        let read = Offer::read(self, &options.pass).map_err(|why| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the request is ambiguous: {why}"))
        })?;
        let detail = "the gate does not speak what this connection is to be upgraded to: it speaks WebSocket";
        read.map(Some).ok_or_else(|| Problem::new(StatusCode::NOT_IMPLEMENTED, detail))
    }

    /// Who is asked: the target, `Host` and TLS must say the same, and it must be the resource at the very port that the
    /// client connected to. Anything else would be one name's permission for another name's server.
    fn authority(&self, way: &Way, options: &Options) -> Result<Authority, Problem> {
        let bad =
            |why: &str| Problem::new(StatusCode::BAD_REQUEST, format!("the request is ambiguous: {why}"));
        let mut hosts = self.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => Some(host.to_str().map_err(|_| bad("its Host is no name"))?),
            (Some(_), Some(_)) => return Err(bad("it has more than one Host")),
        };
        if host.is_none() && self.version == Version::HTTP_11 {
            return Err(bad("it has no Host"));
        }
        let parse = |written: &str| Authority::parse(written).map_err(|why| bad(why.0));
        let host = host.map(parse).transpose()?;
        let named = self.authority.as_deref().map(parse).transpose()?;
        let authority = match (named, host) {
            (Some(named), Some(host)) if named != host => return Err(bad("its target and its Host differ")),
            (Some(authority), _) | (None, Some(authority)) => authority,
            // HTTP/1.0 needs no Host: it is the name in TLS, or the address itself.
            (None, None) => {
                let host = way.server_name.clone();
                let address = || way.destination.ip().to_canonical().to_string().into();
                Authority { host: host.unwrap_or_else(address), port: Some(way.destination.port()) }
            }
        };
        let misdirected = |why: String| Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, why));
        if let Some(name) = &way.server_name
            && **name != *authority.host
        {
            return misdirected(format!(
                "{:?} is asked on a connection that TLS opened to {name:?}",
                authority.host
            ));
        }
        if !options.knows(&authority, way) {
            return misdirected(format!(
                "{:?} is no name that the resource has at {}",
                authority.host, way.destination
            ));
        }
        let usual = if way.tls { 443 } else { 80 };
        let port = authority.port.unwrap_or(usual);
        if port != way.destination.port() {
            return misdirected(format!("port {port} is asked on a connection to {}", way.destination));
        }
        Ok(authority)
    }
}

impl Understood {
    /// What it is, in the words of records.
    pub(crate) fn action(&self) -> &'static str {
        if self.offer.is_some() { "websocket" } else { "request" }
    }

    /// Whether something was filled in.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.as_ref().is_some_and(|filled| !filled.secrets().is_empty())
    }

    /// Service and method, where it may be a call of gRPC.
    pub(crate) fn rpc(&self) -> Option<&str> {
        rpc(self.method.as_str(), &self.path, &self.headers)
    }

    /// Whether its body is encoded.
    pub(crate) fn is_compressed(&self) -> bool {
        let identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        !self.headers.get_all(header::CONTENT_ENCODING).iter().all(identity)
    }

    /// The fields of its body, which is all there; an error says why they cannot be told.
    pub(crate) fn fields(&self, body: &[u8]) -> Result<Fields, String> {
        if self.is_compressed() {
            return Err("it is compressed".into());
        }
        let kind = Media::of(&self.headers)?;
        if let Some(charset) = kind.as_ref().and_then(Media::charset)
            && !matches!(charset, "utf-8" | "utf8" | "us-ascii")
        {
            return Err(format!("its character set is {charset}"));
        }
        match &self.call {
            Some(call) => call.fields(body),
            None if self.is_grpc => {
                Err("no descriptors have this call of gRPC (options: {descriptors: FILE})".into())
            }
            None => fields::read(kind.as_ref().map(|kind| &*kind.essence), body),
        }
    }

    /// Adds how many bytes its body has, which were not known before.
    pub(crate) fn measures(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if !self.is_stream {
            self.length = Some(bytes);
        }
        let mut shape = Shape::clone(&self.shape);
        for (_, value) in
            shape.items.iter_mut().flat_map(|item| &mut item.fields).filter(|(name, _)| *name == "size")
        {
            *value = size(Some(bytes));
        }
        self.shape = Arc::new(shape);
    }

    /// Adds what is known of its body's fields. Where rules are about messages, and the body is one, it is decided as that, too.
    pub(crate) fn knows(&mut self, fields: &Fields, body: &[u8], is_about_messages: bool) {
        self.bare = std::mem::take(&mut self.shape);
        self.shape = Arc::new(self.with(fields, body, is_about_messages));
    }

    /// What is decided of another message in its stream: the same as of the first.
    pub(crate) fn with(&self, fields: &Fields, body: &[u8], is_about_messages: bool) -> Shape {
        let mut shape = Shape::clone(&self.bare);
        for (name, value) in shape.items.iter_mut().flat_map(|item| &mut item.fields) {
            if *name == "size" {
                *value = size(Some(body.len() as u64));
            }
        }
        if is_about_messages && !body.is_empty() {
            shape.items.extend(self.message(To::Server, grpc::length(body)).items);
        }
        know(&mut shape, fields);
        shape
    }

    /// The target for a server that speaks HTTP/2, or HTTP/1.1.
    pub(crate) fn uri(
        &self,
        (path, query): (String, Option<String>),
        tls: bool,
        is_h2: bool,
    ) -> Result<Uri, http::Error> {
        let mut target = path;
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        if !is_h2 {
            return Uri::builder().path_and_query(target).build();
        }
        let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
        Uri::builder().scheme(scheme).authority(self.authority.to_string()).path_and_query(target).build()
    }
}

/// What the policy decides on.
pub(crate) fn shape(
    (action, method): (&'static str, &'static str),
    host: &Arc<str>,
    path: &str,
    query: Option<&Query>,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Shape {
    let mut fields = vec![
        ("action", Value::Word(action)),
        ("method", Value::Word(method)),
        ("host", Value::Text(host.clone())),
        ("path", Value::Text(target::as_rules_see(path).into())),
    ];
    fields.extend(rpc(method, path, headers).map(|rpc| ("grpc", Value::Text(rpc.into()))));
    let parameters = query.map(|query| query.parameters.clone()).filter(|parameters| !parameters.is_empty());
    fields.extend(parameters.map(|parameters| ("query", Value::Set(parameters))));
    if !headers.is_empty() {
        let mut line = String::new();
        let each = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            line.clear();
            let value = String::from_utf8_lossy(value.as_bytes());
            [name.as_str(), ": ", &value].iter().for_each(|part| line.push_str(part));
            line.as_str().into()
        };
        fields.push(("header", Value::Set(headers.iter().map(each).collect())));
    }
    fields.extend(media_type(headers).map(|kind| ("type", Value::Text(kind.into()))));
    if length == Some(0) {
        fields.push(("body", Value::Named(Vec::new())));
    }
    fields.push(("size", size(length)));
    Shape { items: vec![Item { fields, must_name: None }], open: true, ..Shape::default() }
}

fn size(length: Option<u64>) -> Value {
    length.map_or(Value::Unknown, |length| Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// Service and method, where a path may be those of gRPC. Servers of some kinds take them in other media types, too, so
/// that a service with a package is known by its path alone.
fn rpc<'a>(method: &str, path: &'a str, headers: &HeaderMap) -> Option<&'a str> {
    let rpc = path.strip_prefix('/').filter(|_| method == "POST")?;
    let (service, name) = rpc.split_once('/')?;
    let is_grpc = media_type(headers).is_some_and(|kind| kind.starts_with("application/grpc"));
    let fits = !service.is_empty() && !name.is_empty() && !name.contains('/');
    (fits && (is_grpc || service.contains('.'))).then_some(rpc)
}
