//! The client's side of start-up: TLS, versions, parameters, cancel requests.
//!
//! Nothing is ever read beyond the packet at hand, so bytes sent in clear after an SSLRequest can only reach the TLS
//! handshake, which refuses them, and never pass for bytes sent inside TLS (CVE-2021-23214).

mod error;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use std::{sync::Arc, time::Duration};

use tidegate_gate::{ClientIo, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) use error::StartupError;
pub(crate) use stream::MaybeTls;

use crate::wire::{
    self, ErrorFields, Startup, Text, WireError,
    startup::{LENGTH_BYTES, body_length},
    write,
};

/// How long a client may take to open a session, TLS included: the server's `authentication_timeout`.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The newest minor version of protocol 3 that is spoken with clients.
const NEWEST_MINOR: u16 = 2;

/// The longest name that a server tells apart, in bytes (`NAMEDATALEN` - 1). It cuts longer ones, and so what was
/// decided on would not be what is meant.
const MAX_NAME_BYTES: usize = 63;

/// The client's side of a session.
pub(crate) type ClientStream = MaybeTls<Stream>;

/// What a client wants.
#[derive(Debug)]
pub(crate) enum Accepted<S = Stream> {
    /// A session. Nothing has been answered to the StartupMessage yet.
    Start(Start<S>),
    /// Another session's statement cancelled. No answer is owed.
    Cancel {
        /// Process id that the session was given.
        process_id: u32,
        /// Secret that the session was given.
        secret: Vec<u8>,
    },
}

/// A client that wants a session.
#[derive(Debug)]
pub(crate) struct Start<S = Stream> {
    /// The connection, TLS done.
    pub(crate) io: MaybeTls<S>,
    /// The parameters in the order given, protocol options left out. `user` is there and isn't empty; `user` and
    /// `database` are no longer than the server's names.
    pub(crate) parameters: Vec<(String, String)>,
    /// The protocol version.
    pub(crate) version: Version,
}

/// The last value given for a parameter, which is the one that the server takes.
pub(crate) fn last<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().rev().find_map(|(known, value)| (known == name).then_some(&**value))
}

/// What a client asked to speak, and what is spoken with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// The minor version that was asked for; the major one is 3.
    requested_minor: u16,
    /// Protocol options (`_pq_.*`) that were asked for. None is known.
    options: Vec<String>,
}

impl Version {
    /// The minor version that is spoken. 3.1 was never released; it is 3.0 in all but name.
    pub(crate) fn minor(&self) -> u16 {
        self.requested_minor.min(NEWEST_MINOR)
    }

    /// Whether cancel secrets may be longer than 4 bytes.
    pub(crate) fn has_long_secrets(&self) -> bool {
        self.minor() >= 2
    }

    /// Writes NegotiateProtocolVersion if the client asked for more than is spoken. It comes before anything else.
    pub(crate) fn negotiate(&self, out: &mut impl write::Buffer) {
        if self.requested_minor > NEWEST_MINOR || !self.options.is_empty() {
            write::negotiate_protocol_version(out, self.minor(), &self.options);
        }
    }
}

/// Reads what a client opens its connection with. A client that asked for something impossible has been told so when
/// this returns an error.
pub(crate) async fn accept(client: ClientIo) -> Result<Accepted, StartupError> {
    within(TIME_LIMIT, client.stream, client.tls).await
}

async fn within<S: AsyncRead + AsyncWrite + Unpin>(
    limit: Duration,
    stream: S,
    tls: Arc<rustls::ServerConfig>,
) -> Result<Accepted<S>, StartupError> {
    tokio::time::timeout(limit, open(stream, tls)).await.map_err(|_| StartupError::TimeLimit)?
}

/// The first bytes decide between TLS at once and a startup packet.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    config: Arc<rustls::ServerConfig>,
) -> Result<Accepted<S>, StartupError> {
    let first = first_bytes(&mut stream).await?;
    if tls::is_handshake(&first) {
        let io = tls::accept_direct(stream, &first, config).await?;
        return Negotiation { io, tls: None, gss: true }.run(None).await;
    }
    Negotiation { io: MaybeTls::Plain(stream), tls: Some(config), gss: true }.run(Some(first)).await
}

/// A client that hasn't said yet what it wants.
struct Negotiation<S> {
    io: MaybeTls<S>,
    /// What TLS is answered with, as long as it may be asked for: once, and not inside TLS.
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether GSSAPI encryption may be asked for: once, and not inside TLS that was asked for.
    gss: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Negotiation<S> {
    async fn run(mut self, mut first: Option<[u8; LENGTH_BYTES]>) -> Result<Accepted<S>, StartupError> {
        let mut direct = self.io.is_tls();
        loop {
            let length = match first.take() {
                Some(word) => word,
                None => first_bytes(&mut self.io).await?,
            };
            let packet = packet(&mut self.io, length).await?;
            let request = match wire::startup(&packet) {
                Ok(Some((request, _))) => request,
                Ok(None) => return Err(StartupError::Gone),
                Err(error) => return self.refuse(StartupError::Wire(error)).await,
            };
            match request {
                Startup::Ssl if direct => {
                    direct = false;
                    self.io.write_all(b"N").await?;
                    self.io.flush().await?;
                }
                Startup::Ssl => match (self.io, self.tls) {
                    (MaybeTls::Plain(stream), Some(config)) => self = Self::upgrade(stream, config).await?,
                    (io, tls) => {
                        let twice = StartupError::Version { major: 1234, minor: 5679 };
                        return Self { io, tls, gss: self.gss }.refuse(twice).await;
                    }
                },
                Startup::GssEncryption if self.gss => {
                    self.gss = false;
                    self.io.write_all(b"N").await?;
                    self.io.flush().await?;
                }
                Startup::GssEncryption => {
                    return self.refuse(StartupError::Version { major: 1234, minor: 5680 }).await;
                }
                Startup::Cancel { process_id, secret } => {
                    return Ok(Accepted::Cancel { process_id, secret: secret.to_vec() });
                }
                Startup::Start { major, minor, parameters } => {
                    return match start(major, minor, &parameters) {
                        Ok((version, parameters)) => {
                            Ok(Accepted::Start(Start { io: self.io, parameters, version }))
                        }
                        Err(error) => self.refuse(error).await,
                    };
                }
            }
        }
    }

    async fn upgrade(mut stream: S, config: Arc<rustls::ServerConfig>) -> Result<Self, StartupError> {
        stream.write_all(b"S").await?;
        stream.flush().await?;
        Ok(Self { io: tls::accept(stream, config).await?, tls: None, gss: false })
    }

    /// Tells the client what is wrong, in the server's words.
    async fn refuse<T>(mut self, error: StartupError) -> Result<T, StartupError> {
        let mut message = Vec::new();
        let text = error.to_string();
        write::error_response(&mut message, &ErrorFields::new("FATAL", error.sqlstate(), &text));
        // A client that is gone can't be told; what it did wrong is the news.
        if self.io.write_all(&message).await.is_ok() {
            let _ = self.io.shutdown().await;
        }
        Err(error)
    }
}

/// The length word of a packet, or the start of a TLS handshake.
async fn first_bytes(io: &mut (impl AsyncRead + Unpin)) -> Result<[u8; LENGTH_BYTES], StartupError> {
    let mut word = [0; LENGTH_BYTES];
    let mut got = 0;
    while let Some(rest) = word.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match io.read(rest).await? {
            0 if got == 0 => return Err(StartupError::Probe),
            0 => return Err(StartupError::Gone),
            count => got += count,
        }
    }
    Ok(word)
}

/// The packet that a length word begins, the word included.
async fn packet(
    io: &mut (impl AsyncRead + Unpin),
    word: [u8; LENGTH_BYTES],
) -> Result<Vec<u8>, StartupError> {
    let length = body_length(&word).map_err(StartupError::Wire)?.unwrap_or_default();
    let mut packet = vec![0; LENGTH_BYTES + length];
    if let Some((head, body)) = packet.split_first_chunk_mut() {
        *head = word;
        io.read_exact(body).await?;
    }
    Ok(packet)
}

/// Checks a StartupMessage as the server does.
fn start(
    major: u16,
    minor: u16,
    parameters: &[(Text<'_>, Text<'_>)],
) -> Result<(Version, Vec<(String, String)>), StartupError> {
    if major != 3 {
        return Err(StartupError::Version { major, minor });
    }
    let mut version = Version { requested_minor: minor, options: Vec::new() };
    let mut kept = Vec::with_capacity(parameters.len());
    for (name, value) in parameters {
        let (name, value) = (name.to_str()?, value.to_str()?);
        if name.starts_with("_pq_.") {
            version.options.push(name.to_owned());
            continue;
        }
        if matches!(name, "user" | "database") && value.len() > MAX_NAME_BYTES {
            return Err(StartupError::LongName(if name == "user" { "user" } else { "database" }));
        }
        kept.push((name.to_owned(), value.to_owned()));
    }
    match kept.iter().rev().find(|(name, _)| name == "user") {
        Some((_, user)) if !user.is_empty() => Ok((version, kept)),
        _ => Err(StartupError::NoUser),
    }
}

impl From<WireError> for StartupError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}
