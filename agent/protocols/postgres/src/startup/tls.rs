//! TLS towards the client.

use std::{io, sync::Arc};

use rustls::{ServerConfig, server::Acceptor};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsStream, server};

use super::{MaybeTls, StartupError};

/// The protocol's name in ALPN. Source: PostgreSQL documentation, "SSL Session Encryption".
pub(crate) const ALPN: &[u8] = b"postgresql";

/// The content type of a TLS handshake record (RFC 8446, 5.1). A startup packet that begins with it would be longer
/// than any may be.
const HANDSHAKE: u8 = 0x16;

/// Whether a connection begins with TLS rather than with a startup packet.
pub(super) fn is_handshake(first: &[u8]) -> bool {
    first.first() == Some(&HANDSHAKE)
}

/// TLS after an SSLRequest. The client may name the protocol, but needn't.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: Arc<ServerConfig>,
) -> Result<MaybeTls<S>, StartupError> {
    let stream = TlsAcceptor::from(with_alpn(config)).accept(stream).await.map_err(StartupError::Tls)?;
    Ok(wrap(stream))
}

/// TLS at once, its first bytes already read. The client must name the protocol, so that no other protocol's client
/// can be made to speak this one (ALPACA); the server requires it, too.
pub(super) async fn accept_direct<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut first: &[u8],
    config: Arc<ServerConfig>,
) -> Result<MaybeTls<S>, StartupError> {
    let mut acceptor = Acceptor::default();
    // Fewer bytes than a record's header: the acceptor can't be done with them.
    while !first.is_empty() {
        if acceptor.read_tls(&mut first).map_err(StartupError::Tls)? == 0 {
            return Err(StartupError::Tls(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    let hello = LazyConfigAcceptor::new(acceptor, stream).await.map_err(StartupError::Tls)?;
    let stream = hello.into_stream(with_alpn(config)).await.map_err(StartupError::Tls)?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(StartupError::NoAlpn);
    }
    Ok(wrap(stream))
}

fn wrap<S>(stream: server::TlsStream<S>) -> MaybeTls<S> {
    MaybeTls::Tls(Box::new(TlsStream::Server(stream)))
}

/// The configuration with the protocol's name on offer.
fn with_alpn(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.alpn_protocols.iter().any(|name| name == ALPN) {
        return config;
    }
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}
