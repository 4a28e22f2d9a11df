//! A request as a client asks it: read strictly, or not at all.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tidegate_gate::policy::Item;

use super::{Understood, Way, rpc, shape};
use crate::{
    beside::Beside,
    forward, grpc,
    media::{self, media_type},
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
        if self.headers.len() > MOST_FIELDS {
            let error = WireError::TooLarge;
            return Err(Problem::new(error.status(), error.to_string()));
        }
        let offer = self.offer(options)?;
        if offer.is_some() {
            // Rules, people and upstreams have it as HTTP/1.1 asks for it, whichever version the client speaks.
            self.method = Method::GET;
        }
        let method = self.known_method()?;
        self.expects_to_be_continued_at_most()?;
        media::one(&self.headers).map_err(ambiguous)?;
        let authority = self.authority(way, options)?;
        let (path, query) = self.path_and_query(options)?;
        let forward::Forwarded { mut headers, own } =
            forward::upstream(&self.headers, &options.pass).map_err(|why| ambiguous(&why))?;
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
        let declared = |path: &str| options.descriptors.as_ref()?.call(path.strip_prefix('/')?);
        let (declared, is_protobuf) = (declared(&path), grpc::is_protobuf(&headers));
        let rpc = rpc(method, &path, &headers, declared.is_some());
        let mut shape =
            shape((action, method), &authority.host, &path, query.as_ref(), &headers, length, rpc);
        let beside = Beside::of(&self.method, &headers, &authority, way.tls, options).map_err(ambiguous)?;
        let mounted = Beside::mounted(&self.method, &path, query.as_ref(), options).map_err(ambiguous)?;
        let beside = beside.into_iter().chain(mounted);
        let beside: Vec<Item> = beside.filter_map(|beside| Some(beside.item(shape.items.first()?))).collect();
        shape.items.extend(beside);
        let is_grpc = self.is_grpc();
        let is_known = declared.is_some();
        let call = declared.filter(|_| is_protobuf && self.method == Method::POST);
        let query = query.map(|query| query.text);
        let line = self.line(way, &authority, &path, query.as_deref(), options);
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
            is_known,
            bare: Arc::default(),
            is_stream: false,
            first: None,
            is_answered_in_messages: false,
        })
    }

    fn known_method(&self) -> Result<&'static str, Problem> {
        vocabulary::method(&self.method).ok_or_else(|| {
            let detail = format!("the gate does not pass on the method {}", self.method);
            Problem::new(StatusCode::NOT_IMPLEMENTED, detail)
        })
    }

    fn expects_to_be_continued_at_most(&self) -> Result<(), Problem> {
        let is_that = |expect: &HeaderValue| expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
        match self.headers.get(header::EXPECT).is_none_or(is_that) {
            true => Ok(()),
            false => Err(Problem::new(StatusCode::EXPECTATION_FAILED, "only 100-continue can be expected")),
        }
    }

    /// What is asked for, in the one form that everybody reads the same.
    fn path_and_query(&self, options: &Options) -> Result<(String, Option<Query>), Problem> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let path = match path {
            "*" if self.method == Method::OPTIONS && query.is_none() => "*".to_owned(),
            path => target::path(path, options.tolerated).map_err(|why| ambiguous(why.0))?,
        };
        let query = query.map(Query::parse).transpose().map_err(|why| ambiguous(why.0))?;
        if !options.tolerated.method_parameters && query.as_ref().is_some_and(Query::changes_the_method) {
            return Err(ambiguous(
                "a parameter of its query changes the method (options: {tolerate: [method-parameters]})",
            ));
        }
        Ok((path, query))
    }

    /// The request line as records have it.
    fn line(
        &self,
        way: &Way,
        authority: &Authority,
        path: &str,
        query: Option<&str>,
        options: &Options,
    ) -> String {
        let recorded = |query| format!("?{}", secrets::shown_query(query, options.sign_in.parameter()));
        let query = query.map_or_else(String::new, recorded);
        let version =
            if self.version == Version::HTTP_2 { "HTTP/2".to_owned() } else { format!("{:?}", self.version) };
        format!("{} {}://{authority}{path}{query} {version}", self.method, way.scheme())
    }

    /// The WebSocket that is asked for, if one is.
    fn offer(&self, options: &Options) -> Result<Option<Offer>, Problem> {
        let is_upgrade = forward::has_token(&self.headers, &header::CONNECTION, "upgrade")
            && !forward::has_token(&self.headers, &header::UPGRADE, "h2c");
        if !is_upgrade && self.protocol.is_none() {
            return Ok(None);
        }
        let read = Offer::read(self, &options.pass).map_err(ambiguous)?;
        let detail = "the gate does not speak what this connection is to be upgraded to: it speaks WebSocket";
        read.map(Some).ok_or_else(|| Problem::new(StatusCode::NOT_IMPLEMENTED, detail))
    }

    /// Who is asked: the target, `Host` and TLS must say the same, and it must be the resource at the very port that the
    /// client connected to. Anything else would be one name's permission for another name's server.
    fn authority(&self, way: &Way, options: &Options) -> Result<Authority, Problem> {
        let authority = self.named(way)?;
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

    /// Whom the target and `Host` name.
    fn named(&self, way: &Way) -> Result<Authority, Problem> {
        if self.scheme.as_deref().is_some_and(|named| !named.eq_ignore_ascii_case(way.scheme())) {
            return Err(ambiguous("its target names another scheme than the connection's"));
        }
        let mut hosts = self.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => Some(host.to_str().map_err(|_| ambiguous("its Host is no name"))?),
            (Some(_), Some(_)) => return Err(ambiguous("it has more than one Host")),
        };
        if host.is_none() && self.version == Version::HTTP_11 {
            return Err(ambiguous("it has no Host"));
        }
        let parse = |written: &str| Authority::parse(written).map_err(|why| ambiguous(why.0));
        let host = host.map(parse).transpose()?;
        let named = self.authority.as_deref().map(parse).transpose()?;
        Ok(match (named, host) {
            (Some(named), Some(host)) if named != host => {
                return Err(ambiguous("its target and its Host differ"));
            }
            (Some(authority), _) | (None, Some(authority)) => authority,
            // HTTP/1.0 needs no Host: it is the name in TLS, or the address itself.
            (None, None) => {
                let host = way.server_name.clone();
                let address = || way.destination.ip().to_canonical().to_string().into();
                Authority { host: host.unwrap_or_else(address), port: Some(way.destination.port()) }
            }
        })
    }
}

fn ambiguous(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the request is ambiguous: {why}"))
}
