//! One request and its response, whatever the versions: understood, decided, recorded, sent, shown.

use std::{future::Future, pin::pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::Upgraded;
use tidegate_gate::{Gate, Permit, Refusal, ServeError};

use crate::{
    HttpServer,
    answer::Answer,
    body::{self, BodyError, Noted, Outgoing, Source},
    deciding::LOOKED_INTO,
    grpc::Framed,
    problem::{Problem, Reader},
    request::{Asked, Understood, Way},
    shares::Share,
    sign_in::{Payload, Unchunked},
    traces::{Spellings, Traces},
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
pub(crate) enum Answered {
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
}
