//! The packets that open a connection; they have no tag. Source: PostgreSQL documentation, "Start-up".

use super::{Text, WireError, reader::Reader};

/// The largest body of a startup packet, as the server has it (`MAX_STARTUP_PACKET_LENGTH`).
pub(crate) const MAX_STARTUP_BYTES: usize = 10_000;

/// Bytes of a length word.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Request codes take the place of a protocol version, in a major version that will not be.
pub(super) const CANCEL_CODE: u32 = 80_877_102;
pub(super) const SSL_CODE: u32 = 80_877_103;
pub(super) const GSS_ENCRYPTION_CODE: u32 = 80_877_104;

/// How long the secret of a cancel request may be: 4 bytes in 3.0, up to 256 in 3.2.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// What a client opens a connection with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Startup<'a> {
    /// SSLRequest: may we speak TLS?
    Ssl,
    /// GSSENCRequest: may we speak GSSAPI encryption?
    GssEncryption,
    /// CancelRequest: the only message of its connection.
    Cancel {
        /// The process id of the session's BackendKeyData.
        process_id: u32,
        /// The secret of the session's BackendKeyData.
        secret: &'a [u8],
    },
    /// StartupMessage.
    Start {
        /// Protocol version, major.
        major: u16,
        /// Protocol version, minor.
        minor: u16,
        /// Names and values in the order given; empty if the major version isn't 3.
        parameters: Vec<(Text<'a>, Text<'a>)>,
    },
}

/// Reads a startup packet and says how many bytes it was; none while it isn't whole.
pub(crate) fn startup(bytes: &[u8]) -> Result<Option<(Startup<'_>, usize)>, WireError> {
    let Some(length) = body_length(bytes)? else { return Ok(None) };
    let end = LENGTH_BYTES + length;
    match bytes.get(LENGTH_BYTES..end) {
        Some(body) => Ok(Some((parse(body)?, end))),
        None => Ok(None),
    }
}

/// The length of the body that follows a startup packet's length word; none while the word isn't whole.
pub(crate) fn body_length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some((word, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let word = u32::from_be_bytes(*word);
    match usize::try_from(word).ok().and_then(|word| word.checked_sub(LENGTH_BYTES)) {
        Some(length) if (4..=MAX_STARTUP_BYTES).contains(&length) => Ok(Some(length)),
        _ => Err(WireError::StartupLength(word)),
    }
}

fn parse(body: &[u8]) -> Result<Startup<'_>, WireError> {
    let mut reader = Reader::new(body);
    let code = reader.u32("protocol version")?;
    let request = match code {
        SSL_CODE => Startup::Ssl,
        GSS_ENCRYPTION_CODE => Startup::GssEncryption,
        CANCEL_CODE => return cancel(reader),
        _ => return start(code, reader),
    };
    reader.end()?;
    Ok(request)
}

fn cancel(mut reader: Reader<'_>) -> Result<Startup<'_>, WireError> {
    let process_id = reader.u32("process id")?;
    let secret = secret(reader)?;
    Ok(Startup::Cancel { process_id, secret })
}

/// The rest of a message that ends with a session's secret.
pub(super) fn secret(reader: Reader<'_>) -> Result<&[u8], WireError> {
    let secret = reader.rest();
    if SECRET_BYTES.contains(&secret.len()) {
        Ok(secret)
    } else if secret.len() < *SECRET_BYTES.start() {
        Err(WireError::Ends("secret"))
    } else {
        Err(WireError::Trailing(secret.len() - SECRET_BYTES.end()))
    }
}

fn start(version: u32, mut reader: Reader<'_>) -> Result<Startup<'_>, WireError> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let mut parameters = Vec::new();
    if major == 3 {
        loop {
            let name = reader.text("parameter name")?;
            if name.is_empty() {
                break;
            }
            parameters.push((name, reader.text("parameter value")?));
        }
        reader.end()?;
    }
    Ok(Startup::Start { major, minor, parameters })
}
