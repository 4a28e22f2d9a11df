//! Clients that speak HTTP/2 (RFC 9113).

use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream, SendStream,
    ext::Protocol,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use tidegate_gate::ServeError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};

use super::{gathered::Gathered, stream::Carried};
use crate::{
    answer::Answer,
    body::{self, BodyError, Source},
    exchange::{Ended, Responder, Session},
    forward,
    patience::Coming,
    request::Asked,
    websocket::Switched,
    wire,
};

/// How long a client that was asked to leave may stay once nothing runs that it asked for.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client may take for the first words of the protocol.
const PREFACE: Duration = Duration::from_secs(30);
/// Requests of one connection at a time.
const STREAMS: u32 = 100;
/// Most bytes of a head.
const HEAD: u32 = 64 * 1024;
/// Bytes of one body that are taken ahead of the upstream, of all of a connection's four times as many: clients are near.
const WINDOW: u32 = 64 * 1024;
/// Most bytes of a response that the client has yet to take.
const SENT: usize = 128 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve<S>(session: &Session, stream: S) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .enable_connect_protocol()
        .max_send_buffer_size(SENT);
    let broke = |error: h2::Error| ServeError::Client(error.to_string());
    let handshake = timeout(PREFACE, builder.handshake::<_, Bytes>(Gathered::new(stream))).await;
    let begun = handshake.map_err(|_| ServeError::Client("it did not begin in time".into()))?;
    let mut connection = begun.map_err(|error| {
        let left = if error.is_io() { session.left_at_once() } else { None };
        left.unwrap_or_else(|| broke(error))
    })?;
    let mut streams = FuturesUnordered::new();
    let mut ending = None;
    let (mut revoked, mut replaced) = (pin!(session.gate.revoked()), pin!(session.replaced()));
    let time = session.server.patience.idle;
    // The second time is after it was asked to leave.
    let (mut idle, mut is_over) = (pin!(sleep(time)), false);
    let mut is_replaced = false;
    loop {
        tokio::select! {
            biased;
            refusal = &mut revoked, if ending.is_none() => {
                connection.graceful_shutdown();
                ending = Some(refusal);
                is_over = true;
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
            () = &mut replaced, if !is_replaced => {
                connection.graceful_shutdown();
                (is_replaced, is_over) = (true, true);
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
            // Before the connection: what all that can go on have to say is written together.
            Some(()) = streams.next() => if streams.is_empty() {
                idle.as_mut().reset(Instant::now() + if is_over { FAREWELL } else { time });
            },
            accepted = connection.accept() => match accepted {
                // Clients ask again over another connection (RFC 9113, 8.7).
                Some(Ok((_, mut respond))) if is_replaced => respond.send_reset(Reason::REFUSED_STREAM),
                Some(Ok((request, respond))) => streams.push(one(session, request, respond)),
                // How a client leaves is of no matter once nothing is asked.
                Some(Err(error)) if streams.is_empty() && error.is_io() => break,
                Some(Err(error)) => return Err(broke(error)),
                None => break,
            },
            () = &mut idle, if streams.is_empty() => {
                if is_over {
                    break;
                }
                connection.graceful_shutdown();
                is_over = true;
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
        }
    }
    ending.map_or(Ok(()), |refusal| Err(ServeError::Policy(refusal.message.to_string())))
}

/// Answers one request. What goes wrong with it is no matter of the connection's.
async fn one(session: &Session, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let mut responder = H2Responder { respond, stream: None, is_head: parts.method == Method::HEAD };
    let protocol = parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    // What follows the head of an extended CONNECT is no body (RFC 8441, 4).
    let is_empty = body.is_end_stream() || protocol.is_some();
    let length = match length(&parts.headers, is_empty) {
        Ok(length) => length,
        Err(why) => {
            session.gate.refuse("request", "(not understood)", &why);
            return responder.reset(Reason::PROTOCOL_ERROR);
        }
    };
    let target = parts.uri.path_and_query().map_or_else(|| "*".to_owned(), ToString::to_string);
    let asked = Asked {
        method: parts.method,
        authority: parts.uri.authority().map(ToString::to_string),
        scheme: parts.uri.scheme_str().map(str::to_owned),
        target,
        version: Version::HTTP_2,
        headers: parts.headers,
        length,
        protocol,
    };
    // A stream of gRPC's may be silent for as long as both like.
    let patience = Some(session.server.patience.with(length)).filter(|_| !asked.is_grpc());
    let mut body = RequestBody { body, coming: Coming::new(patience), is_empty };
    match session.exchange(asked, &mut body, &mut responder).await {
        Ok(Some(switched)) => Box::pin(switch(session, *switched, body.body, responder)).await,
        // Clients that may not send to the end take what they got for broken, some of them.
        Ok(None) => _ = body::drain(&mut body).await,
        Err(Ended::Client(why)) => {
            tracing::debug!(why, "request cut off");
            responder.reset(Reason::CANCEL);
        }
        Err(Ended::Upstream(why)) => {
            session.gate.event("response-cut-off", &why);
            responder.reset(Reason::INTERNAL_ERROR);
        }
        Err(Ended::Policy(why)) => {
            session.gate.event("response-cut-off", &why);
            responder.reset(Reason::CANCEL);
        }
    }
}

/// Tells the client that its stream is a WebSocket from now on, and goes on with messages.
async fn switch(session: &Session, mut switched: Switched, receive: RecvStream, responder: H2Responder) {
    let mut head = Response::new(());
    *head.headers_mut() = std::mem::take(&mut switched.headers);
    let H2Responder { mut respond, .. } = responder;
    let error = match respond.send_response(head, false) {
        Ok(send) => session.relay(Carried::new(receive, send), switched).await.err(),
        Err(error) => Some(ServeError::Client(error.to_string())),
    };
    match error {
        None => {}
        Some(ServeError::Client(why)) => tracing::debug!(why, "WebSocket cut off"),
        Some(error) => session.gate.event("websocket-cut-off", &error.to_string()),
    }
}

/// Bytes of the body, if they are known; that they are as many as were said is seen to by the HTTP/2 layer.
fn length(headers: &HeaderMap, is_empty: bool) -> Result<Option<u64>, String> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(is_empty.then_some(0)),
        (Some(length), None) => wire::content_length(length).map(Some).map_err(|error| error.to_string()),
        (Some(_), Some(_)) => Err("the request has more than one Content-Length".into()),
    }
}

/// A request's body, from its stream.
struct RequestBody {
    body: RecvStream,
    coming: Coming,
    /// There is none, whatever follows on the stream.
    is_empty: bool,
}

impl Source for RequestBody {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if self.is_empty {
            return None;
        }
        let bytes = |data: &Option<Result<Bytes, _>>| match data {
            Some(Ok(data)) => data.len(),
            _ => 0,
        };
        match self.coming.next(self.body.data(), bytes).await {
            Err(slow) => return Some(Err(slow)),
            Ok(Some(Err(error))) => return Some(Err(broken(&error))),
            Ok(Some(Ok(data))) => {
                return Some(match self.body.flow_control().release_capacity(data.len()) {
                    Ok(()) => Ok(Frame::data(data)),
                    Err(error) => Err(broken(&error)),
                });
            }
            Ok(None) => {}
        }
        match self.coming.next(self.body.trailers(), |_| 0).await {
            Err(slow) => Some(Err(slow)),
            Ok(Ok(None)) => None,
            Ok(Ok(Some(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Ok(Err(error)) => Some(Err(broken(&error))),
        }
    }

    /// The response's direction tells.
    async fn gone(&mut self) {
        std::future::pending().await
    }
}

fn broken(error: &h2::Error) -> BodyError {
    match error.is_reset() || error.is_io() {
        true => BodyError::Gone,
        false => BodyError::Malformed(error.to_string()),
    }
}

/// Where an HTTP/2 client gets its response.
struct H2Responder {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    /// No response to it has a body (RFC 9110, 9.3.2).
    is_head: bool,
}

impl H2Responder {
    fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl Responder for H2Responder {
    async fn proceed(&mut self) -> Result<(), Ended> {
        // Clients of HTTP/2 need not be told: flow control holds their bodies back.
        Ok(())
    }

    async fn waits(&mut self, question: &str) -> Result<(), Ended> {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::PROCESSING;
        if let Ok(question) = HeaderValue::from_str(question) {
            head.headers_mut().insert("tidegate-approval", question);
        }
        self.respond.send_informational(head).map_err(|error| lost(&error))
    }

    async fn respond(&mut self, head: Response<()>, body: &mut Answer<'_>) -> Result<(), Ended> {
        let mut head = head.map(drop);
        *head.version_mut() = Version::HTTP_2;
        let no_body = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(length) = body.length().filter(|_| head.status() != StatusCode::NO_CONTENT) {
            head.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let is_empty = no_body || self.is_head || body.length() == Some(0) || body.is_over();
        let stream = self.respond.send_response(head, is_empty).map_err(|error| lost(&error))?;
        let stream = self.stream.insert(stream);
        if is_empty {
            return Ok(());
        }
        loop {
            let reset = poll_fn(|context| stream.poll_reset(context));
            let frame = tokio::select! {
                biased;
                frame = body.next() => frame,
                // Nobody waits for the rest.
                _ = reset => return Err(Ended::Client("it wants no more of the response".into())),
            };
            let Some(frame) = frame else { break };
            match frame.map_err(Ended::Upstream)?.into_data() {
                Ok(data) => {
                    let is_last = body.is_over();
                    send(stream, data, is_last).await?;
                    if is_last {
                        // So that the record, too, has its end.
                        body.next().await;
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return stream.send_trailers(forward::client(&trailers)).map_err(|error| lost(&error));
                }
            }
        }
        stream.send_data(Bytes::new(), true).map_err(|error| lost(&error))
    }

    fn has_begun(&self) -> bool {
        self.stream.is_some()
    }

    fn cut(&mut self, trailers: HeaderMap) -> Result<(), Ended> {
        let stream = self.stream.as_mut();
        stream.map_or(Ok(()), |stream| stream.send_trailers(trailers).map_err(|error| lost(&error)))
    }

    async fn gone(&mut self) {
        // Nobody waits for a response that was reset, or whose connection broke.
        let _ = poll_fn(|context| match &mut self.stream {
            Some(stream) => stream.poll_reset(context),
            None => self.respond.poll_reset(context),
        })
        .await;
    }
}

/// Sends data as fast as the client takes it; behind the last of it nothing follows.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, is_last: bool) -> Result<(), Ended> {
    if data.is_empty() && is_last {
        return stream.send_data(data, true).map_err(|error| lost(&error));
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(capacity)) => capacity,
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(Ended::Client("the stream is closed".into())),
        };
        let now = data.split_to(capacity.min(data.len()));
        stream.send_data(now, is_last && data.is_empty()).map_err(|error| lost(&error))?;
    }
    Ok(())
}

fn lost(error: &h2::Error) -> Ended {
    Ended::Client(error.to_string())
}
