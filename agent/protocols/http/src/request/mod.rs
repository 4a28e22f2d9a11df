//! A request, understood: what the policy decides on, what is recorded, and what is sent.

mod asked;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header, uri::Scheme};
use tidegate_gate::policy::{Item, Shape, Value};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use self::asked::Asked;
use crate::{
    fields::{self, Fields},
    fill::Filled,
    grpc::{self, Call},
    media::{Media, media_type},
    messages::{To, know},
    sign_in::Payload,
    target::{self, Authority, Query},
    websocket::Offer,
};

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
    /// What URLs begin with that lead over such a connection.
    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

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
    /// The descriptors have its path, in whichever way it is called.
    is_known: bool,
    /// Rules see it as it is before any message of it is known.
    bare: Arc<Shape>,
    /// Its messages to the server are decided one by one, as they come.
    pub(crate) is_stream: bool,
    /// The first of them, in its frame, which was decided with the request.
    pub(crate) first: Option<Bytes>,
    /// The messages that answer it are decided one by one.
    pub(crate) is_answered_in_messages: bool,
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
        rpc(self.method.as_str(), &self.path, &self.headers, self.is_known)
    }

    /// Whether its body is encoded.
    pub(crate) fn is_compressed(&self) -> bool {
        let identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        !self.headers.get_all(header::CONTENT_ENCODING).iter().all(identity)
    }

    /// Whether what it says of its body is that there are fields in it.
    pub(crate) fn has_fields(&self) -> bool {
        let is_known = |kind: &str| fields::is_json(kind) || kind == "application/x-www-form-urlencoded";
        !self.is_compressed()
            && (self.call.is_some() || media_type(&self.headers).is_some_and(|kind| is_known(&kind)))
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
    rpc: Option<&str>,
) -> Shape {
    let mut fields = vec![
        ("action", Value::Word(action)),
        ("method", Value::Word(method)),
        ("host", Value::Text(host.clone())),
        ("path", Value::Text(target::as_rules_see(path).into())),
    ];
    fields.extend(rpc.map(|rpc| ("grpc", Value::Text(rpc.into()))));
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
/// that a service with a package is known by its path alone, and one that the descriptors have also where it is asked by GET, as
/// Connect does.
fn rpc<'a>(method: &str, path: &'a str, headers: &HeaderMap, is_known: bool) -> Option<&'a str> {
    let rpc = path.strip_prefix('/').filter(|_| method == "POST" || is_known && method == "GET")?;
    let (service, name) = rpc.split_once('/')?;
    let is_grpc = media_type(headers).is_some_and(|kind| kind.starts_with("application/grpc"));
    let fits = !service.is_empty() && !name.is_empty() && !name.contains('/');
    (fits && (is_grpc || is_known || service.contains('.'))).then_some(rpc)
}
