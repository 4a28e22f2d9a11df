//! Clients that speak HTTP/1.1.

mod given;

use std::{
    future::{Future, poll_fn},
    io::Cursor,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode, Version, header};
use http_body::Frame;
use tidegate_gate::ServeError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, join, split},
    time::timeout,
};

use crate::{
    answer::Answer,
    body::{self, BodyError, DRAINED, LINGER, Source},
    exchange::{Ended, Responder, Session},
    forward,
    patience::Coming,
    problem::{self, Problem},
    request::Asked,
    websocket::Switched,
    wire::{self, Decoded, Decoder, Framing, Head, HeadReader, Length, WireError},
};

/// How a client begins that speaks HTTP/2 (RFC 9113, 3.4), up to what would be the end of a head.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a client may take for a head, once it has begun.
const HEAD: Duration = Duration::from_secs(30);
/// Most bytes that are read ahead of a request's turn.
const AHEAD: usize = 64 * 1024;
/// How much is read at once.
const READ: usize = 16 * 1024;
/// How much is put together before it is written, of what is there at once.
const WRITTEN: usize = 16 * 1024;
/// How much of what begins a request: most heads are no longer.
const FIRST_READ: usize = 1024;

/// Serves a connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    session: &Session,
    stream: S,
) -> Result<(), ServeError> {
    let (read, mut write) = split(stream);
    let mut reader = Reader { read, buffer: BytesMut::new(), ended: false, first: true };
    let mut revoked = pin!(session.gate.revoked());
    let mut replaced = pin!(session.replaced());
    loop {
        let head = tokio::select! {
            biased;
            () = &mut replaced => return Ok(()),
            head = reader.head(session.server.patience.idle) => head,
            refusal = &mut revoked => return Err(ServeError::Policy(refusal.message.to_string())),
        };
        if reader.first
            && (head.is_err() || reader.ended)
            && let Some(left) = session.left_at_once()
        {
            return Err(left);
        }
        let head = match head? {
            None => return Ok(()),
            Some(head) => head.and_then(|head| head.framing().map(|framing| (head, framing))),
        };
        let (head, framing) = match head {
            Ok(head) => head,
            // It knows that HTTP/2 is spoken here, or tries (RFC 9113, 3.3).
            Err(WireError::Preface) if !session.way.tls => {
                let read = Cursor::new(reader.buffer.freeze()).chain(reader.read);
                return super::h2::serve(session, join(read, write)).await;
            }
            Err(error) => return malformed(session, &mut reader, &mut write, error).await,
        };
        if session.is_for_a_tunnel(&head) {
            return given::tunnel(session, &head, framing, reader, write).await;
        }
        match one(session, head, framing, &mut reader, &mut write).await? {
            Next::Request => {}
            Next::Close => return linger(&mut reader, &mut write).await,
            Next::Messages(switched) => return given::switch(session, *switched, reader, write).await,
        }
    }
}

/// What may follow a request.
enum Next {
    Request,
    Close,
    /// A WebSocket's.
    Messages(Box<Switched>),
}

/// Answers one request.
async fn one<S: AsyncRead + AsyncWrite + Send>(
    session: &Session,
    head: Head,
    framing: Framing,
    reader: &mut Reader<S>,
    write: &mut WriteHalf<S>,
) -> Result<Next, ServeError> {
    let expects = head.version == Version::HTTP_11
        && framing != Framing::Length(0)
        && forward::has_token(&head.headers, &header::EXPECT, "100-continue");
    let mut responder = H1Responder {
        write,
        is_head: head.method == Method::HEAD,
        version: head.version,
        last: head.version != Version::HTTP_11
            || forward::has_token(&head.headers, &header::CONNECTION, "close"),
        expects,
        begun: false,
    };
    let coming = Coming::new(Some(session.server.patience.with(framing.length())));
    let mut body = RequestBody { reader, decoder: Decoder::new(framing), coming };
    if let Some(switched) = session.exchange(asked(head, framing), &mut body, &mut responder).await? {
        return Ok(Next::Messages(switched));
    }
    // A client that still waits to be told to go on may send its body or not: nobody could say what comes next.
    if responder.last || responder.expects || !body.drain().await {
        return Ok(Next::Close);
    }
    Ok(Next::Request)
}

/// The request, its target taken apart as far as its form tells (RFC 9112, 3.2).
fn asked(head: Head, framing: Framing) -> Asked {
    let length = framing.length();
    let (scheme, authority, target) = match head.target.split_once("://") {
        Some((scheme, rest)) if !head.target.starts_with('/') => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at_checked(at).unwrap_or_default();
            let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
            (Some(scheme.to_owned()), Some(authority.to_owned()), target)
        }
        _ => (None, None, head.target),
    };
    Asked {
        method: head.method,
        authority,
        scheme,
        target,
        version: head.version,
        headers: head.headers,
        length,
        protocol: None,
    }
}

/// Records and answers what is no request; nothing after it can be trusted.
async fn malformed<S: AsyncRead + AsyncWrite + Send>(
    session: &Session,
    reader: &mut Reader<S>,
    write: &mut WriteHalf<S>,
    error: WireError,
) -> Result<(), ServeError> {
    let why = error.to_string();
    session.gate.refuse("request", "(not understood)", &why);
    let problem = Problem::new(error.status(), format!("this is no request that the gate takes: {why}"));
    let (head, body) = problem.response(session.gate.session(), problem::Reader::Any).into_parts();
    let mut responder = H1Responder::last(write);
    responder.respond(Response::from_parts(head, ()), &mut Answer::Own(Some(body))).await?;
    linger(reader, write).await?;
    Err(ServeError::Client(why))
}

/// Ends a connection so that the client can read what it was told: whoever closes on unread bytes takes that away.
async fn linger<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    write: &mut WriteHalf<S>,
) -> Result<(), ServeError> {
    let closed = async {
        write.shutdown().await?;
        let mut left = DRAINED;
        while left > 0 {
            reader.buffer.clear();
            match reader.fill().await? {
                0 => break,
                count => left = left.saturating_sub(count as u64),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whoever does not read has had the time.
    let _ = timeout(LINGER, closed).await;
    Ok(())
}

/// The client's bytes.
struct Reader<S> {
    read: ReadHalf<S>,
    buffer: BytesMut,
    /// The client sends no more.
    ended: bool,
    /// Nothing was read yet that the client has sent.
    first: bool,
}

impl<S: AsyncRead> Reader<S> {
    /// The next request's head; none if the client is done, or was idle for too long.
    async fn head(&mut self, idle: Duration) -> Result<Option<Result<Head, WireError>>, ServeError> {
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
            match timeout(idle, self.fill_by(FIRST_READ)).await {
                Err(_) | Ok(Ok(0)) => return Ok(None),
                Ok(filled) => filled.map_err(|error| ServeError::Client(error.to_string()))?,
            };
        }
        let mut head = HeadReader::default();
        let whole = async {
            loop {
                // It is left where it is, for whoever speaks it.
                if self.first && self.buffer.starts_with(PREFACE) {
                    return Ok(Some(Err(WireError::Preface)));
                }
                match head.take(&mut self.buffer) {
                    Ok(Some(head)) => return Ok(Some(Ok(head))),
                    Ok(None) => {}
                    Err(error) => return Ok(Some(Err(error))),
                }
                if self.fill().await? == 0 {
                    return Ok::<_, std::io::Error>(None);
                }
            }
        };
        let whole = timeout(HEAD, whole).await;
        self.first = false;
        match whole {
            Ok(Ok(Some(head))) => Ok(Some(head)),
            Ok(Ok(None)) if self.buffer.is_empty() => Ok(None),
            Ok(Ok(None)) => Err(ServeError::Client("it went away in the middle of a request's head".into())),
            Ok(Err(error)) => Err(ServeError::Client(error.to_string())),
            Err(_) => Err(ServeError::Client(format!("it took longer than {HEAD:?} for a request's head"))),
        }
    }

    /// Reads more; 0 at the end. Nothing is lost by dropping the future.
    async fn fill(&mut self) -> std::io::Result<usize> {
        self.fill_by(READ).await
    }

    async fn fill_by(&mut self, most: usize) -> std::io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        self.buffer.reserve(most);
        let count = self.read.read_buf(&mut self.buffer).await?;
        self.ended = count == 0;
        Ok(count)
    }
}

/// A request's body, from the connection that it came on.
struct RequestBody<'a, S> {
    reader: &'a mut Reader<S>,
    decoder: Decoder,
    coming: Coming,
}

impl<S: AsyncRead + Send> Source for RequestBody<'_, S> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        loop {
            match self.decoder.take(&mut self.reader.buffer) {
                Ok(Decoded::Data(data)) => return Some(Ok(Frame::data(data))),
                Ok(Decoded::Trailers(trailers)) => return Some(Ok(Frame::trailers(trailers))),
                Ok(Decoded::End) => return None,
                Ok(Decoded::More) => {}
                Err(error) => return Some(Err(BodyError::Malformed(error.to_string()))),
            }
            let bytes = |filled: &std::io::Result<usize>| *filled.as_ref().unwrap_or(&0);
            match self.coming.next(self.reader.fill(), bytes).await {
                Ok(Ok(0) | Err(_)) => return Some(Err(BodyError::Gone)),
                Ok(Ok(_)) => {}
                Err(slow) => return Some(Err(slow)),
            }
        }
    }

    /// A client that closes its end is gone: what it sends ahead is the next requests.
    async fn gone(&mut self) {
        while self.reader.buffer.len() < AHEAD {
            match self.reader.fill().await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
        std::future::pending().await
    }
}

impl<S: AsyncRead + Send> RequestBody<'_, S> {
    /// Reads what is left of the body for nothing; false if that is too much.
    async fn drain(&mut self) -> bool {
        if self.decoder.left().is_some_and(|left| left > DRAINED) {
            return false;
        }
        body::drain(self).await && self.decoder.is_done()
    }
}

/// What a future has already, if it has it.
async fn ready<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Where an HTTP/1.1 client gets its response.
struct H1Responder<'a, S> {
    write: &'a mut WriteHalf<S>,
    is_head: bool,
    version: Version,
    /// The connection closes behind the response.
    last: bool,
    /// The client waits to be told to go on.
    expects: bool,
    begun: bool,
}

impl<'a, S: AsyncWrite + Send> H1Responder<'a, S> {
    /// For an answer of the gate's own, behind which the connection closes.
    fn last(write: &'a mut WriteHalf<S>) -> Self {
        let version = Version::HTTP_11;
        Self { write, is_head: false, version, last: true, expects: false, begun: false }
    }

    /// The body's next part. While there is none, nobody waits for what is still in `out`.
    async fn next(
        &mut self,
        body: &mut Answer<'_>,
        out: &mut BytesMut,
    ) -> std::io::Result<Option<Result<Frame<Bytes>, String>>> {
        let mut next = pin!(body.next());
        if let Poll::Ready(frame) = ready(next.as_mut()).await {
            return Ok(frame);
        }
        self.write.write_all(out).await?;
        self.write.flush().await?;
        out.clear();
        Ok(next.await)
    }
}

impl<S: AsyncWrite + Send> Responder for H1Responder<'_, S> {
    async fn proceed(&mut self) -> Result<(), Ended> {
        if std::mem::take(&mut self.expects) {
            self.write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            self.write.flush().await?;
        }
        Ok(())
    }

    async fn waits(&mut self, question: &str) -> Result<(), Ended> {
        if self.version == Version::HTTP_11 {
            let head = format!("HTTP/1.1 102 Processing\r\ntidegate-approval: {question}\r\n\r\n");
            self.write.write_all(head.as_bytes()).await?;
            self.write.flush().await?;
        }
        Ok(())
    }

    async fn respond(&mut self, head: Response<()>, body: &mut Answer<'_>) -> Result<(), Ended> {
        self.begun = true;
        let no_body = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = match (body.length(), self.version) {
            (None, _) if no_body || self.is_head => Length::None,
            (Some(_), _) if head.status() == StatusCode::NO_CONTENT => Length::None,
            (Some(length), _) => Length::Known(length),
            (None, Version::HTTP_11) => Length::Chunked,
            (None, _) => Length::Close,
        };
        // What the client was not told to send, or still sends, cannot be told from its next request.
        self.last |=
            self.expects || matches!(body, Answer::Own(_)) && head.status() == StatusCode::REQUEST_TIMEOUT;
        let mut out = wire::response_head(head.status(), head.headers(), length, self.last);
        self.last |= length == Length::Close;
        if self.is_head || no_body {
            self.write.write_all(&out).await?;
            return Ok(self.write.flush().await?);
        }
        let mut trailers = HeaderMap::new();
        while let Some(frame) = self.next(body, &mut out).await? {
            match frame.map_err(Ended::Upstream)?.into_data() {
                Ok(data) if length == Length::Chunked => wire::chunk(&data, &mut out),
                Ok(data) if out.is_empty() => self.write.write_all(&data).await?,
                Ok(data) => out.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
            if out.len() >= WRITTEN {
                self.write.write_all(&out).await?;
                out.clear();
            }
        }
        if length == Length::Chunked {
            wire::last_chunk(&forward::client(&trailers), &mut out);
        }
        self.write.write_all(&out).await?;
        Ok(self.write.flush().await?)
    }

    fn has_begun(&self) -> bool {
        self.begun
    }

    fn cut(&mut self, _: HeaderMap) -> Result<(), Ended> {
        Err(Ended::Policy("a message of it may not go on".into()))
    }

    /// The connection's other direction tells.
    fn gone(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
