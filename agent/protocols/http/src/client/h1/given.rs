//! Connections that speak something else than HTTP/1.1 from then on: a WebSocket, or whatever is in a tunnel.

use http::{Response, StatusCode};
use tidegate_gate::ServeError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};

use super::{H1Responder, Reader, linger};
use crate::{
    answer::Answer,
    exchange::{Responder, Session},
    problem,
    websocket::Switched,
    wire::{self, Framing, Head, Length},
};

/// Tells the client that its connection is switched to WebSocket, and goes on with messages.
pub(super) async fn switch<S: AsyncRead + AsyncWrite + Send + Unpin>(
    session: &Session,
    switched: Switched,
    reader: Reader<S>,
    mut write: WriteHalf<S>,
) -> Result<(), ServeError> {
    if !reader.buffer.is_empty() {
        return Err(ServeError::Client(
            "it sent more before it was told that its connection is switched".into(),
        ));
    }
    let lost = |error: std::io::Error| ServeError::Client(error.to_string());
    let head = wire::response_head(StatusCode::SWITCHING_PROTOCOLS, &switched.headers, Length::None, false);
    write.write_all(&head).await.map_err(lost)?;
    write.flush().await.map_err(lost)?;
    session.relay(reader.read.unsplit(write), switched).await
}

/// Opens a tunnel and carries what is in it; whoever may have none is told so, and asks again over another connection.
pub(super) async fn tunnel<S: AsyncRead + AsyncWrite + Send + Unpin>(
    session: &Session,
    head: &Head,
    framing: Framing,
    mut reader: Reader<S>,
    mut write: WriteHalf<S>,
) -> Result<(), ServeError> {
    const EARLY: &str = "it sent more before its tunnel was there";
    if !reader.buffer.is_empty() {
        return Err(ServeError::Client(EARLY.into()));
    }
    let opened = tokio::select! {
        opened = Box::pin(session.tunnel(head, framing)) => opened,
        count = reader.fill() => {
            let why = if matches!(count, Ok(1..)) { EARLY } else { "it went away" };
            return Err(ServeError::Client(why.into()));
        }
    };
    match opened {
        Err(problem) => {
            let (head, body) = problem.response(session.gate.session(), problem::Reader::Any).into_parts();
            let mut responder = H1Responder::last(&mut write);
            responder.respond(Response::from_parts(head, ()), &mut Answer::Own(Some(body))).await?;
            linger(&mut reader, &mut write).await
        }
        Ok(tunnel) => {
            let lost = |error: std::io::Error| ServeError::Client(error.to_string());
            write.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.map_err(lost)?;
            write.flush().await.map_err(lost)?;
            Box::pin(session.carry_bytes(reader.read.unsplit(write), tunnel)).await
        }
    }
}
