//! One request and its response, whatever the versions: understood, decided, recorded, sent, shown.

use std::{future::Future, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, response::Parts};
use hyper::{
    body::{Body, Incoming},
    upgrade::Upgraded,
};
use tidegate_gate::{Gate, Permit, Refusal, ServeError};

use crate::{
    HttpServer,
    answer::{Answer, Looked, Shown, cannot_be_masked},
    body::{self, BodyError, Noted, Outgoing, Source},
    deciding::LOOKED_INTO,
    forward,
    grpc::{self, Framed},
    problem::{Problem, Reader},
    request::{Asked, Understood, Way},
    sending::Heard,
    shares::Share,
    shown::Masks,
    sign_in::{Payload, Unchunked},
    traces::{Spellings, Traces},
    transcript::Transcript,
    upstream::{self, Lines},
    websocket::Switched,
};

/// What the requests of one connection share.
pub(crate) struct Session {
    pub(crate) gate: Gate,
    pub(crate) server: Arc<HttpServer>,
    pub(crate) way: Way,
    pub(crate) lines: Lines,
    /// Of what it signs in with.
    pub(crate) spellings: Spellings,
    /// Of the account whose connection it is.
    pub(crate) share: Arc<Share>,
}

/// Where a response goes.
pub(crate) trait Responder: Send {
    /// Tells a client that waits for it to send its body (RFC 9110, 10.1.1).
    fn proceed(&mut self) -> impl Future<Output = Result<(), Ended>> + Send;
    /// Tells a client, ahead of the response, that it waits for the answer to this question (102, RFC 2518, 10.1).
    fn waits(&mut self, question: &str) -> impl Future<Output = Result<(), Ended>> + Send;
    /// Sends a response. To be called once.
    fn respond(
        &mut self,
        head: Response<()>,
        body: &mut Answer<'_>,
    ) -> impl Future<Output = Result<(), Ended>> + Send;
    /// Whether a response has begun.
    fn has_begun(&self) -> bool;
    /// Ends a response that has begun with these trailers, where they can be told from a whole one's.
    fn cut(&mut self, trailers: HeaderMap) -> Result<(), Ended>;
    /// Resolves when the client wants no response any more, as far as that can be told.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
}

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The client is gone, or broke the protocol.
    Client(String),
    /// The upstream broke off its response.
    Upstream(String),
    /// It is no longer allowed.
    Policy(String),
}

impl From<Ended> for ServeError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Client(why) => Self::Client(why),
            Ended::Upstream(why) => Self::Upstream(why),
            Ended::Policy(why) => Self::Policy(why),
        }
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Client(error.to_string())
    }
}

/// What became of a request that was sent.
enum Answered {
    /// The client has its response.
    Shown,
    /// The upstream has switched to WebSocket; with what the client is to be told, what must not come back, and the place of
    /// that connection.
    Switched(HeaderMap, Upgraded, Box<Traces>, Arc<upstream::Driver>),
}

/// Why a request's body is not sent to its end.
pub(crate) enum Broke {
    Body(BodyError),
    /// A message in it may not go on.
    Message(Problem),
}

impl From<BodyError> for Broke {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// Why nothing was sent upstream.
pub(crate) enum NotSent {
    /// The client is to be told.
    Told(Problem),
    /// There is nobody to be told.
    Ended(Ended),
}

impl From<Problem> for NotSent {
    fn from(problem: Problem) -> Self {
        Self::Told(problem)
    }
}

impl From<Refusal> for NotSent {
    fn from(refusal: Refusal) -> Self {
        Self::Told(Problem::refused(&refusal))
    }
}

impl From<Ended> for NotSent {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<BodyError> for NotSent {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(why) => Self::Told(Problem::new(StatusCode::BAD_REQUEST, why)),
            BodyError::Slow(_) => Self::Told(Problem::new(StatusCode::REQUEST_TIMEOUT, error.to_string())),
            BodyError::Gone => Self::Ended(Ended::Client(error.to_string())),
        }
    }
}

impl Session {
    /// Answers one request. A connection that the upstream switched to WebSocket is returned: the client was not told yet.
    pub(crate) async fn exchange(
        &self,
        asked: Asked,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Box<Switched>>, Ended> {
        let (told, reader) = (asked.told(), asked.reader());
        let exchanged = match asked.understand(&self.way, &self.server.options) {
            Ok(understood) => match self.share.request() {
                Ok(room) => {
                    let mut exchanged = self.understood(Box::new(understood), source, responder).await;
                    if let Ok(Some(switched)) = &mut exchanged {
                        switched.room = Some(room);
                    }
                    exchanged
                }
                Err(busy) => {
                    self.gate.refuse(understood.action(), &understood.text, busy.detail());
                    Err(busy.into())
                }
            },
            Err(problem) => {
                self.gate.refuse("request", &told, problem.detail());
                Err(problem.into())
            }
        };
        match exchanged {
            Ok(switched) => Ok(switched),
            Err(NotSent::Ended(ended)) => Err(ended),
            Err(NotSent::Told(problem)) => self.tell(&problem, reader, responder).await.map(|()| None),
        }
    }

    /// Resolves when the bundle in force says something else of the resource, or its files do: what is asked from then on is for
    /// another connection, which goes by that.
    pub(crate) async fn replaced(&self) {
        let mut reloads = self.gate.reloads();
        while !self.gate.is_redefined() {
            if reloads.changed().await.is_err() {
                // The agent itself is at its end.
                std::future::pending::<()>().await;
            }
            if !self.server.has_its_files() {
                return;
            }
        }
    }

    /// Why a client is gone that left behind the handshake, before it asked anything; none where there was no handshake.
    pub(crate) fn left_at_once(&self) -> Option<ServeError> {
        self.way.tls.then(|| {
            let why = "it left behind the handshake without asking anything, as clients do that don't trust the gate's \
                       certificate or pin another: see tidegate ca show";
            self.gate.event("client-distrusts", why);
            ServeError::Client(why.into())
        })
    }

    async fn tell(
        &self,
        problem: &Problem,
        reader: Reader,
        responder: &mut impl Responder,
    ) -> Result<(), Ended> {
        if responder.has_begun() {
            return match reader {
                Reader::Grpc => responder.cut(problem.status()),
                _ => Err(Ended::Upstream(problem.detail().to_owned())),
            };
        }
        let (head, body) = problem.response(self.gate.session(), reader).into_parts();
        responder.respond(Response::from_parts(head, ()), &mut Answer::Own(Some(body))).await
    }

    async fn understood(
        &self,
        mut understood: Box<Understood>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Box<Switched>>, NotSent> {
        match understood.payload.clone() {
            Payload::Chunked { length, trailer } => {
                let mut source = Unchunked::new(source, length, trailer);
                Box::pin(self.decided(understood, &mut source, responder)).await
            }
            _ if understood.call.as_ref().is_some_and(|call| call.is_client_stream)
                && self.looks_into(&understood) =>
            {
                understood.is_stream = true;
                let mut source = Framed::new(source, LOOKED_INTO);
                Box::pin(self.decided(understood, &mut source, responder)).await
            }
            Payload::Plain | Payload::Digest(_) => self.decided(understood, source, responder).await,
        }
    }

    async fn decided(
        &self,
        mut understood: Box<Understood>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Box<Switched>>, NotSent> {
        let (permit, whole) = self.permit(&mut understood, source, responder).await?;
        let whole = self.fillable(&mut understood, &permit, whole, source, responder).await?;
        let (whole, _kept) = self.kept(&understood, whole, source, responder).await?;
        if whole.is_some() {
            understood.headers.extend(source.set_aside());
        }
        self.carry(understood, permit, whole, source, responder).await
    }

    /// Sends what is permitted, and shows what comes back.
    async fn carry(
        &self,
        mut understood: Box<Understood>,
        permit: Permit,
        whole: Option<Bytes>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Option<Box<Switched>>, NotSent> {
        let carried = match self.fill(&mut understood, &permit, whole.as_ref()).await {
            Ok(()) => self.under_way(&understood, &permit, whole, source, responder).await,
            Err(not_filled) => Err(not_filled),
        };
        let carried = match carried {
            Ok(Answered::Shown) => Ok(None),
            Ok(Answered::Switched(headers, upstream, traces, driver)) => {
                understood.room = None;
                let asked = understood;
                let switched = Switched { headers, upstream, traces, permit, asked, room: None, driver };
                return Ok(Some(Box::new(switched)));
            }
            Err(NotSent::Told(problem)) => {
                permit.so_far(|outcome| outcome.error = Some(problem.status.as_str().to_owned()));
                Err(problem.into())
            }
            // Cut off: the outcome is that of a permit which is dropped.
            Err(ended @ NotSent::Ended(_)) => return Err(ended),
        };
        permit.ended();
        carried
    }

    /// The same until there is a response, or none is to come: the client may leave, or no longer be allowed it.
    async fn under_way(
        &self,
        understood: &Understood,
        permit: &Permit,
        whole: Option<Bytes>,
        source: &mut impl Source,
        responder: &mut impl Responder,
    ) -> Result<Answered, NotSent> {
        let mut noted = Noted::new(permit, &understood.headers);
        let (parts, outgoing) = match (whole, understood.length) {
            (Some(body), _) => {
                noted.take(&body);
                noted.end();
                let body = match &understood.filled {
                    Some(filled) => filled.body(body),
                    None => body,
                };
                (None, Outgoing::Whole(Some(body).filter(|body| !body.is_empty())))
            }
            (None, Some(0)) => (None, Outgoing::Whole(None)),
            (None, length) => {
                let (sender, outgoing) = body::parts(length);
                (Some((sender, noted)), outgoing)
            }
        };
        if parts.is_some() {
            responder.proceed().await?;
        }
        // Each where it stays: a request's memory is for all that it may come to, and moved as a whole.
        let mut client = pin!(async {
            let taken = match parts {
                None => true,
                Some((sender, noted)) if understood.is_stream => {
                    Box::pin(self.pump_messages(understood, source, sender, noted)).await?
                }
                Some((sender, noted)) => Box::pin(body::pump(source, sender, noted)).await?,
            };
            if !taken {
                // The upstream wants no more of it; its response is what counts.
                std::future::pending::<()>().await;
            }
            source.gone().await;
            Err::<(), _>(Broke::Body(BodyError::Gone))
        });
        let mut ended = pin!(async {
            tokio::select! {
                refusal = permit.revoked() => refusal,
                refusal = self.gate.over() => refusal,
            }
        });
        tokio::select! {
            biased;
            answered = self.answer(understood, permit, outgoing, responder) => answered,
            Err(broke) = &mut client => Err(match broke {
                Broke::Message(problem) => problem.into(),
                Broke::Body(broke) if responder.has_begun() => Ended::Client(broke.to_string()).into(),
                Broke::Body(broke) => broke.into(),
            }),
            refusal = &mut ended => match responder.has_begun() {
                true => Err(Ended::Policy(refusal.message.to_string()).into()),
                false => Err(refusal.into()),
            },
        }
    }

    async fn answer(
        &self,
        understood: &Understood,
        permit: &Permit,
        outgoing: Outgoing,
        responder: &mut impl Responder,
    ) -> Result<Answered, NotSent> {
        let verdict = permit.verdict().clone();
        let masks = Masks::of(&verdict, permit.masker());
        let is_looked_at = masks.is_some() || understood.is_answered_in_messages;
        let asking = self.ask(understood, permit, outgoing, is_looked_at);
        let Heard { response, mut traces, driver } = tokio::select! {
            biased;
            asked = asking => asked?,
            () = responder.gone() => return Err(Ended::Client("the client wants no response any more".into()).into()),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (headers, upstream) =
                self.switched(understood, response, permit, &traces, masks.is_some()).await?;
            return Ok(Answered::Switched(headers, upstream, Box::new(traces), driver));
        }
        let (parts, body) = response.into_parts();
        if understood.offer.is_some() {
            return Err(self.stays(parts.status, permit).into());
        }
        let has_body = understood.method != Method::HEAD
            && !body.is_end_stream()
            && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut head = Response::new(());
        *head.status_mut() = parts.status;
        *head.headers_mut() = forward::client(&parts.headers);
        let is_decoded = traces.read(parts.status, head.headers_mut(), has_body);
        let is_decoded = is_decoded.map_err(|why| self.broke(why))?;
        traces.clean(head.headers_mut());
        let declared = forward::declared(&parts.headers).filter(|_| !is_looked_at && !is_decoded);
        let looked = self.looked(understood, permit, masks, &parts, &mut head, has_body)?;
        let line =
            format!("{} {}", parts.status.as_str(), parts.status.canonical_reason().unwrap_or_default());
        permit.answered(forward::recorded(line.trim_end(), head.headers()));
        if parts.status.is_client_error() || parts.status.is_server_error() {
            permit.so_far(|outcome| outcome.error = Some(parts.status.as_str().to_owned()));
        }
        let transcript = Transcript::of_response(permit, head.headers()).filter(|_| has_body);
        let shown = Shown::new(body, (permit, &*self.share), looked, transcript, traces, declared);
        let mut body = Answer::Upstream(Box::new(shown));
        responder.respond(head, &mut body).await?;
        Ok(Answered::Shown)
    }

    /// What of a response's body is looked at; its header fields are masked here.
    fn looked<'a>(
        &'a self,
        understood: &'a Understood,
        permit: &'a Permit,
        masks: Option<Masks<'a>>,
        parts: &Parts,
        head: &mut Response<()>,
        has_body: bool,
    ) -> Result<Looked<'a>, Problem> {
        let decides = understood.is_answered_in_messages;
        let is_call = understood.call.is_some() && grpc::is_protobuf(&parts.headers);
        if is_call && (decides || masks.is_some()) {
            masks.iter().for_each(|masks| masks.headers(head.headers_mut()));
            return Ok(Looked::Messages(grpc::Messages::new(self, understood, permit, masks, decides)));
        }
        if decides && has_body {
            return Err(not_shown(
                parts.status,
                "a rule is about the messages of this response, and it is no gRPC",
            ));
        }
        let Some(masks) = masks else { return Ok(Looked::Not) };
        let ready = masks.ready(parts.status, head.headers_mut(), has_body);
        let ready = ready.map_err(|why| not_shown(parts.status, &cannot_be_masked(&why)))?;
        Ok(ready.map_or(Looked::Not, |masked| Looked::Masked(Box::new(masked))))
    }

    /// An upstream that was asked for a WebSocket and answers something else: what it says was asked for by no request that
    /// was decided, so that its status is all that is told.
    fn stays(&self, status: StatusCode, permit: &Permit) -> Problem {
        permit.answered(status.as_str().to_owned());
        let told = if status.is_client_error() || status.is_server_error() {
            status
        } else {
            StatusCode::BAD_GATEWAY
        };
        Problem::new(told, format!("the upstream opened no WebSocket: it answered {}", status.as_str()))
    }

    /// A connection that the upstream has switched.
    async fn switched(
        &self,
        understood: &Understood,
        response: Response<Incoming>,
        permit: &Permit,
        traces: &Traces,
        is_masked: bool,
    ) -> Result<(HeaderMap, Upgraded), Problem> {
        let offer = understood.offer.as_ref().ok_or("it switches protocols without being asked to");
        let accepted =
            offer.and_then(|offer| Ok((offer.status(), offer.accepted(response.headers(), is_masked)?)));
        let (status, mut headers) = accepted.map_err(|why| self.broke(why))?;
        traces.clean(&mut headers);
        permit.answered(forward::recorded(&status.to_string(), &headers));
        let upstream =
            hyper::upgrade::on(response).await.map_err(|error| self.broke(&upstream::told(&error)))?;
        Ok((headers, upstream))
    }
}

/// What is told instead of a response that is not shown. What the upstream refused it may refuse again: a status of the gate's own
/// would have clients ask on and on.
fn not_shown(status: StatusCode, why: &str) -> Problem {
    match status.is_client_error() || status.is_server_error() {
        true => Problem::new(
            status,
            format!("the upstream answered {}, and what it says is not shown: {why}", status.as_str()),
        ),
        false => Problem::new(StatusCode::BAD_GATEWAY, why),
    }
}
