//! What an HTTP archive is made of (HAR 1.2, W3C draft of 2012-08-14). Cookies are withheld in records: there are none here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tidegate_gate::policy::{Effect, Principal};

use super::body::Body;
use crate::target;

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Archive {
    pub(super) log: Log,
}

#[derive(Debug, Serialize)]
pub(super) struct Log {
    version: &'static str,
    creator: Creator,
    entries: Vec<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[derive(Debug, Serialize)]
struct Creator {
    name: &'static str,
    version: &'static str,
}

/// One request and what came of it, while it is read.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) begun: Timestamp,
    pub(super) request: Request,
    pub(super) request_body: Body,
    pub(super) response: Response,
    pub(super) response_body: Body,
    pub(super) timings: Timings,
    pub(super) messages: Vec<Message>,
    comments: Vec<String>,
    origin: Origin,
    decision: Option<Decision>,
}

/// The same as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(serialize_with = "instant")]
    started_date_time: Timestamp,
    /// In milliseconds, as all times are.
    time: f64,
    request: WrittenRequest,
    response: WrittenResponse,
    cache: Empty,
    timings: Timings,
    #[serde(rename = "serverIPAddress", skip_serializing_if = "Option::is_none")]
    server_ip_address: Option<String>,
    connection: Arc<str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(rename = "_webSocketMessages", skip_serializing_if = "Vec::is_empty")]
    messages: Vec<WrittenMessage>,
    #[serde(rename = "_tidegate")]
    gate: Gate,
}

#[derive(Debug, Serialize)]
struct Empty {}

/// Where a request came from, and who decided on it.
#[derive(Debug, Serialize)]
struct Gate {
    #[serde(flatten)]
    origin: Origin,
    #[serde(flatten)]
    decision: Option<Decision>,
}

/// Whose session it was.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Origin {
    session: Arc<str>,
    resource: Arc<str>,
    user: String,
    executable: String,
    pid: u32,
    #[serde(skip)]
    destination: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Decision {
    action: u64,
    decision: &'static str,
    rule: Option<String>,
    reason: Option<String>,
}

/// A request's head.
#[derive(Debug, Default)]
pub(super) struct Request {
    method: String,
    url: String,
    pub(super) http_version: String,
    headers: Vec<Pair>,
    pub(super) body_size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRequest {
    method: String,
    url: String,
    http_version: String,
    cookies: [(); 0],
    headers: Vec<Pair>,
    query_string: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_data: Option<PostData>,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    mime_type: String,
    text: String,
    #[serde(rename = "_encoding", skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// A response's head. Status 0 is none.
#[derive(Debug, Default)]
pub(super) struct Response {
    status: u16,
    status_text: String,
    http_version: String,
    headers: Vec<Pair>,
    pub(super) body_size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenResponse {
    status: u16,
    status_text: String,
    http_version: String,
    cookies: [(); 0],
    headers: Vec<Pair>,
    content: Content,
    #[serde(rename = "redirectURL")]
    redirect_url: String,
    headers_size: i64,
    body_size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    size: i64,
    mime_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
struct Pair {
    name: String,
    value: String,
}

/// In milliseconds; -1 where it doesn't apply.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Timings {
    /// Until somebody said yes.
    blocked: f64,
    send: f64,
    wait: f64,
    receive: f64,
}

/// A WebSocket's message.
#[derive(Debug)]
pub(super) struct Message {
    to_server: bool,
    is_text: bool,
    time: Timestamp,
    pub(super) data: Body,
}

/// As Chromium's developer tools have it.
#[derive(Debug, Serialize)]
struct WrittenMessage {
    r#type: &'static str,
    /// Seconds since 1970.
    time: f64,
    opcode: u8,
    data: String,
}

impl Log {
    pub(super) fn new(transfers: Vec<Transfer>, comment: Option<String>) -> Self {
        let creator = Creator { name: "tidegate", version: env!("CARGO_PKG_VERSION") };
        Self {
            version: "1.2",
            creator,
            entries: transfers.into_iter().map(Transfer::written).collect(),
            comment,
        }
    }
}

impl Origin {
    pub(super) fn new(
        session: &Arc<str>,
        principal: &Principal,
        destination: SocketAddr,
        resource: &str,
    ) -> Self {
        let process = &principal.process;
        let user = process.user.as_deref().map_or_else(|| format!("uid {}", process.uid), str::to_owned);
        Self {
            session: session.clone(),
            resource: resource.into(),
            user,
            executable: process.executable.as_deref().unwrap_or_default().to_owned(),
            pid: process.pid,
            destination: Some(destination),
        }
    }
}

impl Transfer {
    pub(super) fn new(begun: Timestamp, request: Request, origin: Origin) -> Self {
        let response = Response { http_version: request.http_version.clone(), ..Response::default() };
        Self {
            begun,
            request,
            request_body: Body::default(),
            response,
            response_body: Body::default(),
            timings: Timings { blocked: -1.0, send: 0.0, wait: 0.0, receive: 0.0 },
            messages: Vec::new(),
            comments: Vec::new(),
            origin,
            decision: None,
        }
    }

    pub(super) fn decided(&mut self, action: u64, effect: Effect, rule: Option<&str>, reason: Option<&str>) {
        let decision = match effect {
            Effect::Allow => "allowed",
            Effect::Hold => "held",
            Effect::Deny => "refused",
        };
        if effect == Effect::Deny {
            self.comment(&format!("refused by the gate: {}", reason.unwrap_or_default()));
        }
        let (rule, reason) = (rule.map(str::to_owned), reason.map(str::to_owned));
        self.decision = Some(Decision { action, decision, rule, reason });
    }

    /// Whether somebody had to say yes.
    pub(super) fn was_held(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.decision == "held")
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.comments.push(text.to_owned());
    }

    fn written(self) -> Written {
        let Self { request, response, timings, .. } = self;
        let own = |headers: &[Pair], name: &str| {
            let found = headers.iter().find(|pair| pair.name.eq_ignore_ascii_case(name));
            found.map_or_else(String::new, |pair| pair.value.clone())
        };
        let kind = own(&request.headers, "content-type");
        let post_data =
            self.request_body.text().map(|(text, encoding)| PostData { mime_type: kind, text, encoding });
        let size = self.response_body.size().unwrap_or(response.body_size);
        let (text, encoding) =
            self.response_body.text().map_or((None, None), |(text, how)| (Some(text), how));
        let mime_type = own(&response.headers, "content-type");
        Written {
            started_date_time: self.begun,
            time: timings.total(),
            request: WrittenRequest {
                query_string: query(&request.url),
                method: request.method,
                url: request.url,
                http_version: request.http_version,
                cookies: [],
                headers: request.headers,
                post_data,
                headers_size: -1,
                body_size: request.body_size,
            },
            response: WrittenResponse {
                redirect_url: own(&response.headers, "location"),
                status: response.status,
                status_text: response.status_text,
                http_version: response.http_version,
                cookies: [],
                headers: response.headers,
                content: Content { size, mime_type, text, encoding },
                headers_size: -1,
                body_size: response.body_size,
            },
            cache: Empty {},
            timings,
            server_ip_address: self.origin.destination.map(|address| address.ip().to_string()),
            connection: self.origin.session.clone(),
            comment: self.comments.join("; "),
            messages: self.messages.into_iter().map(Message::written).collect(),
            gate: Gate { origin: self.origin, decision: self.decision },
        }
    }
}

impl Request {
    /// A request's head as it is recorded; none, if it wasn't understood.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        let (method, url) = (words.next()?, words.next().filter(|url| url.contains("://"))?);
        Some(Self {
            method: method.to_owned(),
            url: url.to_owned(),
            http_version: words.next().unwrap_or_default().to_owned(),
            headers: fields(lines),
            body_size: 0,
        })
    }
}

impl Response {
    /// A response's head as it is recorded.
    pub(super) fn read(text: &str, http_version: &str) -> Self {
        let mut lines = text.lines();
        let (status, reason) = lines.next().unwrap_or_default().split_once(' ').unwrap_or_default();
        Self {
            status: status.parse().unwrap_or_default(),
            status_text: reason.to_owned(),
            http_version: http_version.to_owned(),
            headers: fields(lines),
            body_size: 0,
        }
    }
}

impl Timings {
    /// Of microseconds: until somebody said yes, if somebody was asked; from then to the end; and from then to the answer.
    pub(super) fn new(blocked: Option<u64>, in_all: u64, waited: Option<u64>) -> Self {
        let wait = waited.unwrap_or(in_all).min(in_all);
        Self {
            blocked: blocked.map_or(-1.0, milliseconds),
            send: 0.0,
            wait: milliseconds(wait),
            receive: milliseconds(in_all - wait),
        }
    }

    fn total(self) -> f64 {
        self.blocked.max(0.0) + self.send + self.wait + self.receive
    }
}

impl Message {
    /// A message as it is recorded: `message text to server, ...`.
    pub(super) fn read(text: &str, time: Timestamp) -> Self {
        let head = text.split(',').next().unwrap_or_default();
        let (to_server, is_text) = (head.ends_with(" to server"), head.starts_with("message text "));
        Self { to_server, is_text, time, data: Body::default() }
    }

    fn written(self) -> WrittenMessage {
        let since = Duration::from_micros(u64::try_from(self.time.as_microsecond()).unwrap_or_default());
        WrittenMessage {
            r#type: if self.to_server { "send" } else { "receive" },
            time: since.as_secs_f64(),
            opcode: if self.is_text { 1 } else { 2 },
            data: self.data.text().map(|(text, _)| text).unwrap_or_default(),
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Pair> {
    let fields =
        lines.filter_map(|line| line.split_once(": ").or_else(|| Some((line.strip_suffix(':')?, ""))));
    fields.map(|(name, value)| Pair { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// The parameters of a URL's query, decoded where that is possible.
fn query(url: &str) -> Vec<Pair> {
    let decoded = |text: &str| target::form_decoded(text).unwrap_or_else(|_| text.to_owned());
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| Pair { name: decoded(name), value: decoded(value) }).collect()
}

fn milliseconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64() * 1000.0
}

fn instant<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}
