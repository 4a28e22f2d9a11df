//! AWS Signature Version 4: what the client signed is taken off, and what was understood is signed anew.
//!
//! Source: the IAM User Guide, "Create a signed AWS API request", and the Amazon S3 API Reference, "Authenticating Requests".
//! The client may sign with any key, or not at all: its signature is looked at by nobody.

mod chunks;
mod signer;
mod unchunked;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use jiff::Timestamp;
use tidegate_gate::Credential;

use self::{chunks::Chunks, signer::Signer};
pub(crate) use self::{chunks::Signed, unchunked::Unchunked};
use crate::{
    body::Outgoing,
    forward,
    target::{self, Query},
    wire,
};

/// Most bytes of a body that is kept until its digest is known.
pub(crate) const KEPT: usize = 8 * 1024 * 1024;

const DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

/// Parameters by which a query bears a signature (of version 4, and 2).
const SIGNATURES: [&str; 5] =
    ["x-amz-algorithm=", "x-amz-credential=", "x-amz-signature=", "x-amz-security-token=", "awsaccesskeyid="];

/// Checksums that may come behind a body, and how long each is in Base64.
const CHECKSUMS: [(&str, usize); 5] = [
    ("x-amz-checksum-crc32", 8),
    ("x-amz-checksum-crc32c", 8),
    ("x-amz-checksum-crc64nvme", 12),
    ("x-amz-checksum-sha1", 28),
    ("x-amz-checksum-sha256", 44),
];

/// What requests are signed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) region: String,
    pub(crate) service: String,
}

impl Scope {
    /// S3 takes the path as it is written, and bodies that are not known beforehand.
    pub(crate) fn is_s3(&self) -> bool {
        self.service == "s3"
    }
}

/// How the client says that its request's body is, apart from its signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Payload {
    /// As it is.
    #[default]
    Plain,
    /// As it is, with this SHA-256 in hexadecimal. The server sees whether that is so.
    Digest(String),
    /// In the `aws-chunked` coding, which is taken off.
    Chunked {
        /// Bytes without the coding.
        length: u64,
        /// The checksum that comes behind it.
        trailer: Option<HeaderName>,
    },
}

/// Takes the client's signature off a request.
///
/// # Errors
/// Says what cannot be signed anew: a query that is signed itself, a body in a coding that the gate doesn't know.
pub(crate) fn take_off(
    scope: &Scope,
    headers: &mut HeaderMap,
    query: Option<&Query>,
) -> Result<Payload, String> {
    let is_signature = |parameter: &str| {
        let parameter = parameter.to_ascii_lowercase();
        SIGNATURES.iter().any(|name| parameter.starts_with(name))
    };
    if query.is_some_and(|query| query.parameters.iter().any(|parameter| is_signature(parameter))) {
        return Err("it is presigned, and the gate signs requests itself: send it without".into());
    }
    let mut one = |name: HeaderName| {
        let mut values = headers.get_all(&name).iter();
        let value = match (values.next(), values.next()) {
            (first, None) => first.map(|value| value.to_str().map(str::to_owned)).transpose(),
            (_, Some(_)) => return Err(format!("it has more than one {name}")),
        };
        headers.remove(&name);
        value.map_err(|_| format!("its {name} is no text"))
    };
    let (digest, length, trailer) = (one(DIGEST)?, one(DECODED_LENGTH)?, one(TRAILER)?);
    for name in [DATE, TOKEN, header::AUTHORIZATION] {
        headers.remove(name);
    }
    let is_coded = without_coding(headers)?;
    let digest = digest.unwrap_or_default();
    if !digest.starts_with("STREAMING-") {
        if is_coded || trailer.is_some() {
            return Err("its body is aws-chunked, and its x-amz-content-sha256 says otherwise".into());
        }
        return match &*digest {
            "" | "UNSIGNED-PAYLOAD" => Ok(Payload::Plain),
            digest if is_digest(digest) => Ok(Payload::Digest(digest.into())),
            _ => Err("its x-amz-content-sha256 is no SHA-256".into()),
        };
    }
    let has_trailer = digest.ends_with("-TRAILER");
    if !matches!(
        digest.trim_end_matches("-TRAILER"),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-UNSIGNED-PAYLOAD"
    ) {
        return Err(format!("the gate does not sign bodies as {digest:?}"));
    }
    if !scope.is_s3() {
        return Err(format!("{:?} takes no aws-chunked body: S3 alone does", scope.service));
    }
    let length = length
        .and_then(|length| HeaderValue::from_str(&length).ok())
        .and_then(|length| wire::content_length(&length).ok());
    let length = length.ok_or("its x-amz-decoded-content-length is missing, or no number")?;
    let trailer = trailer.map(|name| checksum(&name)).transpose()?;
    if has_trailer != trailer.is_some() {
        return Err("its x-amz-trailer and its x-amz-content-sha256 say different things".into());
    }
    Ok(Payload::Chunked { length, trailer })
}

/// Takes `aws-chunked` from the codings; whether it was there.
fn without_coding(headers: &mut HeaderMap) -> Result<bool, String> {
    if !forward::has_token(headers, &header::CONTENT_ENCODING, "aws-chunked") {
        return Ok(false);
    }
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings: Vec<_> = codings.filter_map(|value| value.to_str().ok()).collect();
    let codings = codings.join(",");
    let others: Vec<_> = codings.split(',').map(str::trim).collect();
    let others: Vec<_> =
        others.into_iter().filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked")).collect();
    headers.remove(header::CONTENT_ENCODING);
    if !others.is_empty() {
        let others = HeaderValue::from_str(&others.join(", "));
        headers.insert(header::CONTENT_ENCODING, others.map_err(|_| "its Content-Encoding is no text")?);
    }
    Ok(true)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn checksum(name: &str) -> Result<HeaderName, String> {
    let known = CHECKSUMS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
    known
        .map(|(known, _)| HeaderName::from_static(known))
        .ok_or_else(|| format!("the gate does not know the checksum {name:?}"))
}

/// Bytes of a checksum in Base64.
fn checksum_length(name: &HeaderName) -> usize {
    CHECKSUMS.iter().find(|(known, _)| *known == name.as_str()).map_or(0, |(_, length)| *length)
}

/// Path and query as they are sent, and so in the one form that every service signs: all but unreserved characters are
/// encoded.
pub(crate) fn target(path: &str, query: Option<&str>) -> (String, Option<String>) {
    let query = query.map(|query| {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(encoded_pair).collect::<Vec<_>>().join("&")
    });
    let path = if path == "*" { path.to_owned() } else { target::strictly_encoded(path) };
    (path, query.filter(|query| !query.is_empty()))
}

/// Behind [`Query::parse`], a parameter can be decoded.
fn encoded_pair(pair: &str) -> String {
    let one = |part: &str| target::encoded(target::form_decoded(part).unwrap_or_default().as_bytes());
    match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", one(name), one(value)),
        None => one(pair),
    }
}

/// Whether a body must be whole before its request can be signed: its digest is, or there is none to carry its checksum.
pub(crate) fn needs_whole(scope: &Scope, payload: &Payload, length: Option<u64>, tls: bool) -> bool {
    match payload {
        Payload::Plain => length != Some(0) && !(scope.is_s3() && (tls || length.is_some())),
        Payload::Digest(_) => false,
        Payload::Chunked { length, .. } => *length == 0,
    }
}

/// Signs a request that is otherwise as it will be sent, its target in the form of [`target`].
///
/// # Errors
/// A credential that is no access key; never with any part of it.
pub(crate) fn sign(
    scope: &Scope,
    credential: &Credential,
    request: Request<Outgoing>,
    payload: &Payload,
    tls: bool,
) -> Result<Request<Outgoing>, &'static str> {
    sign_at(scope, credential, request, payload, tls, Timestamp::now())
}

fn sign_at(
    scope: &Scope,
    credential: &Credential,
    request: Request<Outgoing>,
    payload: &Payload,
    tls: bool,
    now: Timestamp,
) -> Result<Request<Outgoing>, &'static str> {
    let id = credential.user.as_deref().ok_or("it has no user, which is the access key's id")?;
    let secret = credential.password.as_ref().ok_or("it has no password, which is the secret access key")?;
    let (mut parts, plain) = request.into_parts();
    let signer = Signer::new(scope, id, secret.expose(), now);
    let chunked = chunked(scope, payload, &plain, tls);
    let digest = match (&plain, payload, &chunked) {
        (Outgoing::Whole(whole), ..) => signer::digest(whole.as_deref().unwrap_or_default()),
        (_, _, Some((_, None))) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into(),
        (_, _, Some((_, Some(_)))) => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".into(),
        (_, Payload::Digest(digest), None) => digest.clone(),
        _ => "UNSIGNED-PAYLOAD".into(),
    };
    let headers = &mut parts.headers;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "it makes no header field");
    headers.insert(DATE, value(signer.date())?);
    headers.insert(DIGEST, value(&digest)?);
    headers.remove(TOKEN);
    if let Some(token) = &credential.token {
        let mut token = HeaderValue::from_bytes(token.expose())
            .map_err(|_| "its token has characters that no header field has")?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
    }
    if let Some((length, trailer)) = &chunked {
        let others = headers.get(header::CONTENT_ENCODING).and_then(|others| others.to_str().ok());
        let codings = others.map_or("aws-chunked".to_owned(), |others| format!("aws-chunked,{others}"));
        headers.insert(header::CONTENT_ENCODING, value(&codings)?);
        headers.insert(DECODED_LENGTH, (*length).into());
        headers.extend(trailer.iter().map(|name| (TRAILER, HeaderValue::from_name(name.clone()))));
    }
    let (authorization, signature) = signer.request(&parts, scope.is_s3(), &digest);
    let mut authorization = value(&authorization)?;
    authorization.set_sensitive(true);
    parts.headers.insert(header::AUTHORIZATION, authorization);
    let body = match chunked {
        Some((length, trailer)) => {
            let signed = Signed::new(plain, Chunks::new(signer, signature), length, trailer);
            parts.headers.insert(header::CONTENT_LENGTH, signed.length().into());
            Outgoing::Signed(Box::new(signed))
        }
        None => plain,
    };
    Ok(Request::from_parts(parts, body))
}

/// Length and trailer of a body that is signed chunk by chunk, if it is.
fn chunked(
    scope: &Scope,
    payload: &Payload,
    plain: &Outgoing,
    tls: bool,
) -> Option<(u64, Option<HeaderName>)> {
    match (plain, payload) {
        (Outgoing::Whole(_), _) => None,
        (_, Payload::Chunked { length, trailer }) => Some((*length, trailer.clone())),
        (Outgoing::Parts { length: Some(length), .. }, Payload::Plain) if scope.is_s3() && !tls => {
            Some((*length, None))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
