//! An upstream that answers what a test wants.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What an upstream answers to a request, given as it was received.
pub(in crate::tests) type Play = fn(&str) -> String;

/// Answers whoever connects.
pub(in crate::tests) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    play: Play,
    received: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, received) = (tls.clone(), received.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, play, received).await,
                // Whoever does not trust it goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, play, received).await;
                    }
                }
            }
        });
    }
}

/// Answers request after request.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    play: Play,
    received: Arc<Mutex<Vec<String>>>,
) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        while let Some(length) = whole(&read) {
            let request = String::from_utf8_lossy(&read.drain(..length).collect::<Vec<_>>()).into_owned();
            let answer = play(&request);
            received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// How long the message at the beginning is, once it is all there.
pub(in crate::tests) fn whole(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        return memchr::memmem::find(&bytes[head..], b"0\r\n\r\n").map(|at| head + at + 5);
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let all = head + length.map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= all).then_some(all)
}

/// Content with everything.
pub(in crate::tests) fn ok(_: &str) -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()
}
