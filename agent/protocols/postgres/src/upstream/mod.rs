//! The gate's own side: TLS and signing in to the server.

mod authentication;
mod channel_binding;
mod error;
mod settings;
#[cfg(test)]
mod tests;
mod verifier;

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use rustls::{ClientConfig, pki_types::ServerName};
use tidegate_gate::{Credential, Gate, policy::TlsMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, TlsStream};

pub(crate) use error::SignInError;
pub(crate) use settings::UpstreamSettings;

use crate::{
    sql,
    startup::{MaybeTls, tls::ALPN},
    wire::{
        ErrorFields, HEADER_BYTES,
        backend::{
            Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, TransactionStatus, tag,
        },
        header, write,
    },
};
use authentication::{Authenticator, Channel, Step};

/// The largest message a server may send before it is ready.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The most that a server may send before it is ready.
const MAX_SIGN_IN_BYTES: usize = 1024 * 1024;

/// The upstream's side of a session.
pub(crate) type UpstreamStream = MaybeTls<TcpStream>;

/// A session with the server, ready for its first query.
#[derive(Debug)]
pub(crate) struct SignedIn<S = TcpStream> {
    /// The connection, TLS done.
    pub(crate) io: MaybeTls<S>,
    /// What the server reported of its settings, in order: names and values.
    pub(crate) parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// What a cancel request must show; servers needn't give one.
    pub(crate) key: Option<CancelKey>,
    /// Where the session stands.
    pub(crate) status: TransactionStatus,
    /// Notices sent meanwhile.
    pub(crate) notices: Vec<ErrorFields<'static>>,
    /// Bytes read beyond the end of sign-in.
    pub(crate) leftover: BytesMut,
    /// The minor protocol version that is spoken.
    pub(crate) minor: u16,
}

/// What a cancel request must show of a session.
#[derive(Clone)]
pub(crate) struct CancelKey {
    /// The server's process id.
    pub(crate) process_id: u32,
    /// The secret that goes with it.
    pub(crate) secret: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// Signs in as `user`, within the resource's time limit. `parameters` are the other startup parameters; a `user` among
/// them is ignored. Where the mode has it tried otherwise, `again` is where it is tried: another connection to the server.
pub(crate) async fn sign_in<F: Future<Output = Option<TcpStream>>>(
    stream: TcpStream,
    again: impl FnOnce() -> F,
    settings: &UpstreamSettings,
    credential: &Credential,
    user: &str,
    parameters: &[(String, String)],
) -> Result<SignedIn, SignInError> {
    let address = stream.peer_addr()?;
    settings.timed(establish(stream, again, address, settings, credential, user, parameters)).await
}

/// Another connection to where the session's own leads, if there is one to be had.
pub(crate) async fn again(gate: &Gate) -> Option<TcpStream> {
    gate.consult().await.ok().map(|upstream| upstream.stream)
}

/// Asks the server to cancel what a session runs. Whether there was anything to cancel is not said.
pub(crate) async fn cancel<F: Future<Output = Option<TcpStream>>>(
    stream: TcpStream,
    again: impl FnOnce() -> F,
    settings: &UpstreamSettings,
    process_id: u32,
    secret: &[u8],
) -> Result<(), SignInError> {
    settings
        .timed(async {
            let address = stream.peer_addr()?;
            let config = settings.client_config(&Credential::default())?;
            let first = config.filter(|_| settings.mode() != TlsMode::Allow);
            let mut io = match secure(stream, address, settings, first).await {
                Err(SignInError::Tls(error)) if settings.mode() == TlsMode::Prefer => {
                    MaybeTls::Plain(again().await.ok_or(SignInError::Tls(error))?)
                }
                secured => secured?,
            };
            let mut request = Vec::new();
            write::cancel_request(&mut request, process_id, secret);
            io.write_all(&request).await?;
            io.flush().await?;
            // The server closes once it has sent the signal. How it closes is of no matter.
            let _ = io.read(&mut [0; 1]).await;
            Ok(())
        })
        .await
}

async fn establish<S: AsyncRead + AsyncWrite + Unpin, F: Future<Output = Option<S>>>(
    stream: S,
    again: impl FnOnce() -> F,
    address: SocketAddr,
    settings: &UpstreamSettings,
    credential: &Credential,
    user: &str,
    parameters: &[(String, String)],
) -> Result<SignedIn<S>, SignInError> {
    if user.is_empty() || user.contains('\0') {
        return Err(SignInError::Unusable("its user name is empty or holds a zero byte"));
    }
    let config = settings.client_config(credential)?;
    let mut hello = Vec::new();
    let others = parameters.iter().filter(|(name, _)| name != "user");
    let all = std::iter::once(("user", user)).chain(others.map(|(name, value)| (&**name, &**value)));
    write::startup(&mut hello, settings.minor(), all);
    let attempt = Attempt { address, settings, credential, user, hello };
    let in_clear = settings.mode() == TlsMode::Allow;
    let begun = match attempt.begin(stream, config.clone().filter(|_| !in_clear)).await {
        // What went wrong first is told, unless the other way leads there.
        Err(Failed { error, otherwise: true }) => match again().await {
            Some(stream) => attempt.begin(stream, config.filter(|_| in_clear)).await.map_err(|_| error),
            None => Err(error),
        },
        begun => begun.map_err(|failed| failed.error),
    };
    until_ready(begun?).await
}

/// What is said to a server, whichever way.
struct Attempt<'a> {
    address: SocketAddr,
    settings: &'a UpstreamSettings,
    credential: &'a Credential,
    user: &'a str,
    hello: Vec<u8>,
}

/// A server that let the gate in.
struct Begun<S> {
    server: Conversation<S>,
    minor: u16,
    notices: Vec<ErrorFields<'static>>,
}

/// Why it did not.
struct Failed {
    error: SignInError,
    /// With TLS instead of without, or the other way round, it may: the mode leaves that open.
    otherwise: bool,
}

impl Attempt<'_> {
    /// Up to where the server is content with who signs in. What it says then against the session it says either way.
    async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        config: Option<Arc<ClientConfig>>,
    ) -> Result<Begun<S>, Failed> {
        let mode = self.settings.mode();
        let io = secure(stream, self.address, self.settings, config).await.map_err(|error| {
            let otherwise = mode == TlsMode::Prefer && matches!(error, SignInError::Tls(_));
            Failed { error, otherwise }
        })?;
        let other = match io {
            MaybeTls::Plain(_) => TlsMode::Allow,
            MaybeTls::Tls(_) => TlsMode::Prefer,
        };
        let mut server = Conversation { io, buffer: BytesMut::new(), received: 0 };
        let mut notices = Vec::new();
        let authenticated = async {
            server.send(&self.hello).await?;
            authenticate(&mut server, self.settings, self.user, self.credential, &mut notices).await
        };
        match authenticated.await {
            Ok(minor) => Ok(Begun { server, minor, notices }),
            Err(error) => {
                let is_refused = matches!(error, SignInError::Rejected(_) | SignInError::Refused(_));
                Err(Failed { error, otherwise: is_refused && mode == other })
            }
        }
    }
}

/// Encrypts the connection as the mode says. Nothing is read beyond the server's one-byte answer, so nothing sent in
/// clear can pass for something sent inside TLS (CVE-2021-23222).
async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: SocketAddr,
    settings: &UpstreamSettings,
    config: Option<Arc<ClientConfig>>,
) -> Result<MaybeTls<S>, SignInError> {
    let Some(config) = config else { return Ok(MaybeTls::Plain(stream)) };
    if !settings.begins_with_tls() && !speaks_tls(&mut stream, settings).await? {
        return Ok(MaybeTls::Plain(stream));
    }
    let name = settings.server_name().cloned().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(SignInError::Tls)?;
    // As libpq: without it, the server may speak another protocol and take one for the other.
    if settings.begins_with_tls() && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(SignInError::Protocol(
            "TLS without saying that PostgreSQL is spoken in it (ALPN)".to_owned(),
        ));
    }
    Ok(MaybeTls::Tls(Box::new(TlsStream::Client(stream))))
}

/// Asks the server; false if it doesn't and needn't.
async fn speaks_tls<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    settings: &UpstreamSettings,
) -> Result<bool, SignInError> {
    let mut request = Vec::new();
    write::ssl_request(&mut request);
    stream.write_all(&request).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' if settings.mode() == TlsMode::Prefer => Ok(false),
        b'N' => Err(SignInError::TlsNotOffered),
        // An error sent in clear could be anyone's: it is not shown (CVE-2024-10977).
        b'E' => Err(SignInError::Protocol("an error in answer to the request for TLS".to_owned())),
        _ => Err(SignInError::Protocol("no answer to the request for TLS".to_owned())),
    }
}

/// Answers until the server is content; gives the minor version that it speaks.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    server: &mut Conversation<S>,
    settings: &UpstreamSettings,
    user: &str,
    credential: &Credential,
    notices: &mut Vec<ErrorFields<'static>>,
) -> Result<u16, SignInError> {
    let certificate = server.certificate();
    let channel = match &server.io {
        MaybeTls::Plain(_) => Channel::Plain,
        MaybeTls::Tls(_) => Channel::Tls(certificate.as_deref()),
    };
    let must_bind = settings.requires_channel_binding();
    let mut authenticator = Authenticator::new(user, credential.password.as_ref(), channel, must_bind);
    let mut minor = settings.minor();
    loop {
        let (kind, body) = server.next().await?;
        match kind {
            tag::AUTHENTICATION => match authenticator.answer(&Authentication::parse(&body)?)? {
                Step::Send(answer) => server.send(&answer).await?,
                Step::Wait => {}
                Step::Done => return Ok(minor),
            },
            tag::NEGOTIATE_PROTOCOL_VERSION => {
                minor = negotiated(&NegotiateProtocolVersion::parse(&body)?, settings.minor())?;
            }
            tag::ERROR_RESPONSE => return Err(SignInError::refused(ErrorFields::parse(&body)?)),
            tag::NOTICE_RESPONSE => notices.push(ErrorFields::parse(&body)?.into_owned()),
            other => return Err(SignInError::unexpected(other)),
        }
    }
}

/// The version that a server says it speaks instead of the one it was asked for.
fn negotiated(answer: &NegotiateProtocolVersion<'_>, wanted: u16) -> Result<u16, SignInError> {
    let (major, minor) = (answer.newest >> 16, answer.newest & 0xffff);
    match u16::try_from(minor) {
        // The documentation has the minor version alone.
        Ok(minor) if matches!(major, 0 | 3) && minor <= wanted => Ok(minor),
        _ => Err(SignInError::Protocol(format!("protocol version {major}.{minor}, not asked for"))),
    }
}

/// Collects what the server says of itself.
async fn until_ready<S: AsyncRead + AsyncWrite + Unpin>(begun: Begun<S>) -> Result<SignedIn<S>, SignInError> {
    let Begun { mut server, minor, mut notices } = begun;
    let (mut parameters, mut key) = (Vec::new(), None);
    loop {
        let (kind, body) = server.next().await?;
        match kind {
            tag::PARAMETER_STATUS => {
                let ParameterStatus { name, value } = ParameterStatus::parse(&body)?;
                let (shown, set) =
                    (String::from_utf8_lossy(name.as_bytes()), String::from_utf8_lossy(value.as_bytes()));
                sql::setting_is_safe(&shown, &set).map_err(SignInError::Setting)?;
                parameters.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            }
            tag::BACKEND_KEY_DATA => {
                let BackendKeyData { process_id, secret } = BackendKeyData::parse(&body)?;
                key = Some(CancelKey { process_id, secret: secret.into() });
            }
            tag::NOTICE_RESPONSE => notices.push(ErrorFields::parse(&body)?.into_owned()),
            tag::ERROR_RESPONSE => return Err(SignInError::refused(ErrorFields::parse(&body)?)),
            tag::READY_FOR_QUERY => {
                let status = TransactionStatus::parse(&body)?;
                let Conversation { io, buffer, .. } = server;
                // The buffer's allocation goes with it unless something is in it.
                let leftover = if buffer.is_empty() { BytesMut::new() } else { buffer };
                return Ok(SignedIn { io, parameters, key, status, notices, leftover, minor });
            }
            other => return Err(SignInError::unexpected(other)),
        }
    }
}

/// The server, message by message.
struct Conversation<S> {
    io: MaybeTls<S>,
    buffer: BytesMut,
    received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn send(&mut self, messages: &[u8]) -> Result<(), SignInError> {
        self.io.write_all(messages).await?;
        self.io.flush().await?;
        Ok(())
    }

    /// The next message: its tag and its body.
    async fn next(&mut self) -> Result<(u8, BytesMut), SignInError> {
        loop {
            if let Some(header) = header(&self.buffer)? {
                if header.length > MAX_MESSAGE_BYTES {
                    let length = header.length;
                    return Err(SignInError::Protocol(format!("a message of {length} bytes during sign-in")));
                }
                if self.buffer.len() >= header.size() {
                    let body = self.buffer.split_to(header.size()).split_off(HEADER_BYTES);
                    return Ok((header.tag, body));
                }
            }
            let count = self.io.read_buf(&mut self.buffer).await?;
            self.received += count;
            if count == 0 {
                return Err(SignInError::Closed);
            }
            if self.received > MAX_SIGN_IN_BYTES {
                return Err(SignInError::Protocol("no end of messages during sign-in".to_owned()));
            }
        }
    }

    /// The server's certificate in DER form.
    fn certificate(&self) -> Option<Vec<u8>> {
        match &self.io {
            MaybeTls::Plain(_) => None,
            MaybeTls::Tls(stream) => {
                let (_, session) = stream.get_ref();
                session.peer_certificates()?.first().map(|leaf| leaf.to_vec())
            }
        }
    }
}
