//! What the agent fetches and sends: over verified TLS, without redirects, bounded in size and time.

#![forbid(unsafe_code)]

use std::{fs, path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tidegate_gate::Secret;
use url::{Url, form_urlencoded::byte_serialize};
use zeroize::Zeroizing;

/// Longest answer, in bytes.
const LONGEST: usize = 256 * 1024;
/// How long a request may take, and connecting alone.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// Fetches, trusting certain authorities.
#[derive(Debug, Clone)]
pub struct Https(Client);

/// What was answered.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, which may hold a secret.
    pub body: Zeroizing<Vec<u8>>,
}

/// The authorities of a PEM file, or the system's. The error names the file.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let pem = fs::read(path).map_err(|error| failed(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.is_empty() {
                return Err(failed(&"no certificate is in it"));
            }
        }
        // Those that cannot be read are not trusted.
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    Ok(roots)
}

impl Https {
    /// Trusts the authorities of this file, or the system's.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            // Requests are rare, and one on a connection that the server is just closing would fail.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(client))
    }

    /// GET, with a bearer token if one is given.
    pub async fn get(&self, url: Url, bearer: Option<&Secret>) -> Result<Answer, String> {
        let mut request = self.0.get(url).header("accept", "application/json");
        if let Some(bearer) = bearer {
            let text = [b"Bearer ", bearer.expose()].concat();
            let value = reqwest::header::HeaderValue::from_bytes(&Zeroizing::new(text));
            let mut value = value.map_err(|_| "the request token is no header's text".to_owned())?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        answered(request.send().await).await
    }

    /// POST of a form.
    pub async fn post_form(&self, url: Url, form: &[(&str, &str)]) -> Result<Answer, String> {
        answered(self.0.post(url).header("accept", "application/json").form(form).send().await).await
    }

    /// POST of a form by a client that signs in with its secret (RFC 6749, section 2.3.1).
    pub async fn post_form_as(
        &self,
        url: Url,
        (client, secret): (&str, &Secret),
        form: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let encoded = |part: &[u8]| byte_serialize(part).collect::<String>();
        let secret = Zeroizing::new(encoded(secret.expose()));
        let request = self.0.post(url).header("accept", "application/json").form(form);
        answered(request.basic_auth(encoded(client.as_bytes()), Some(&*secret)).send().await).await
    }

    /// POST of JSON with these headers.
    pub async fn post_json(
        &self,
        url: Url,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let mut request = self.0.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        answered(request.send().await).await
    }
}

async fn answered(response: reqwest::Result<Response>) -> Result<Answer, String> {
    let mut response = response.map_err(worded)?;
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(worded)? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("the answer is longer than {LONGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), body })
}

/// The innermost cause, which says most; without the URL, which may hold what is nobody's business.
fn worded(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
