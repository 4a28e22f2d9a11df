//! How TLS begins in a tunnel: the one thing in it that is read.

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::target;

/// Longest ClientHello, in bytes.
const LONGEST: usize = 32 * 1024;

/// Reads a client's ClientHello (RFC 8446, 4.1.2), as it came, and what came with it.
///
/// # Errors
/// It is none, or asks for another name than `host`.
pub(super) async fn read(client: &mut (impl AsyncRead + Unpin), host: &str) -> Result<BytesMut, String> {
    let (mut hello, mut acceptor) = (BytesMut::new(), Acceptor::default());
    loop {
        let before = hello.len();
        if before >= LONGEST || client.read_buf(&mut hello).await.map_err(|error| error.to_string())? == 0 {
            return Err("it does not begin with TLS".into());
        }
        let mut came = hello.get(before..).unwrap_or_default();
        while !came.is_empty() {
            acceptor.read_tls(&mut came).map_err(|error| format!("it does not begin with TLS: {error}"))?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let asked = accepted.client_hello().server_name().and_then(target::name);
                return match asked {
                    Some(asked) if asked == host => Ok(hello),
                    Some(asked) => Err(format!("it asks for {asked:?} in TLS, and leads to {host:?}")),
                    None => Err(format!("it asks for no name in TLS, and leads to {host:?}")),
                };
            }
            Err((error, _)) => return Err(format!("it does not begin with TLS: {error}")),
        }
    }
}
