//! The signature itself. Pure.

use std::{collections::BTreeMap, fmt::Write};

use aws_lc_rs::{
    digest::{self, SHA256},
    hmac::{self, HMAC_SHA256},
};
use http::{HeaderMap, HeaderName, header, request::Parts};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Scope;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs for one access key, scope and second.
pub(super) struct Signer {
    key: hmac::Key,
    id: String,
    scope: String,
    date: String,
}

/// A SHA-256 in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&SHA256, bytes))
}

impl Signer {
    pub(super) fn new(scope: &Scope, id: &str, secret: &[u8], now: Timestamp) -> Self {
        let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = date.get(..8).unwrap_or_default();
        let first = Zeroizing::new([b"AWS4", secret].concat());
        let steps = [day, &scope.region, &scope.service, "aws4_request"];
        let key = steps.iter().fold(hmac::Key::new(HMAC_SHA256, &first), |key, step| {
            hmac::Key::new(HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref())
        });
        let scope = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
        Self { key, id: id.to_owned(), scope, date }
    }

    /// The second, as `x-amz-date` has it.
    pub(super) fn date(&self) -> &str {
        &self.date
    }

    /// The `Authorization` of a request, and the signature in it.
    pub(super) fn request(&self, request: &Parts, is_s3: bool, digest: &str) -> (String, String) {
        let headers = signed_headers(request);
        let names = headers.keys().copied().collect::<Vec<_>>().join(";");
        let mut canonical = format!(
            "{}\n{}\n{}\n",
            request.method,
            canonical_path(request.uri.path(), is_s3),
            canonical_query(request.uri.query().unwrap_or_default())
        )
        .into_bytes();
        for (name, value) in &headers {
            canonical.extend_from_slice(name.as_bytes());
            canonical.push(b':');
            canonical.extend_from_slice(value);
            canonical.push(b'\n');
        }
        canonical.extend_from_slice(format!("\n{names}\n{digest}").as_bytes());
        let signature = self.sign(ALGORITHM, &[&self::digest(&canonical)]);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            self.id, self.scope
        );
        (authorization, signature)
    }

    /// A signature over what follows algorithm, date and scope line by line.
    pub(super) fn sign(&self, algorithm: &str, lines: &[&str]) -> String {
        let mut text = format!("{algorithm}\n{}\n{}", self.date, self.scope);
        for line in lines {
            // A String takes everything.
            let _ = write!(text, "\n{line}");
        }
        hex::encode(hmac::sign(&self.key, text.as_bytes()))
    }
}

/// What is signed of the header: the host, what says how the body is to be read, and all that the service itself reads.
fn is_signed(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-amz-")
        || name.starts_with("content-") && name != header::CONTENT_LENGTH.as_str()
        || matches!(name, "host" | "date" | "range")
}

fn signed_headers(request: &Parts) -> BTreeMap<&str, Vec<u8>> {
    let headers: &HeaderMap = &request.headers;
    let names = headers.keys().filter(|name| is_signed(name));
    let mut signed: BTreeMap<_, _> = names
        .map(|name| {
            let values = headers.get_all(name).iter().map(|value| squeezed(value.as_bytes()));
            (name.as_str(), values.collect::<Vec<_>>().join(&b","[..]))
        })
        .collect();
    // HTTP/2 has the host in the target.
    if let Some(authority) = request.uri.authority() {
        signed.insert(header::HOST.as_str(), authority.as_str().into());
    }
    signed
}

/// Without blanks at both ends, and with one where there are more.
fn squeezed(value: &[u8]) -> Vec<u8> {
    let words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b" "[..])
}

/// S3 signs the path as it is sent; others encode it once more, and know no empty segments.
fn canonical_path(path: &str, is_s3: bool) -> String {
    if is_s3 {
        return path.to_owned();
    }
    let mut canonical = path.replace('%', "%25");
    while canonical.contains("//") {
        canonical = canonical.replace("//", "/");
    }
    canonical
}

fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}
