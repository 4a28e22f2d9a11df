//! What the agent fetches and sends: over verified TLS, without redirects, bounded in size and time.

#![forbid(unsafe_code)]

mod authorities;
mod error;

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, crypto::aws_lc_rs};
use tidegate_gate::Secret;
use url::{Url, form_urlencoded::byte_serialize};
use zeroize::Zeroizing;

pub use self::{
    authorities::{AuthoritiesError, authorities, roots},
    error::HttpsError,
};

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

impl Https {
    /// Trusts the authorities of this file, or the system's.
    ///
    /// # Errors
    /// There are none.
    pub fn new(ca: Option<&Path>) -> Result<Self, HttpsError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpsError::SetUp(error.to_string()))?
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
            .map_err(|error| HttpsError::SetUp(error.to_string()))?;
        Ok(Self(client))
    }

    /// GET, with a bearer token if one is given.
    pub async fn get(&self, url: Url, bearer: Option<&Secret>) -> Result<Answer, HttpsError> {
        let mut request = self.0.get(url).header("accept", "application/json");
        if let Some(bearer) = bearer {
            let text = [b"Bearer ", bearer.expose()].concat();
            let value = reqwest::header::HeaderValue::from_bytes(&Zeroizing::new(text));
            let mut value = value.map_err(|_| HttpsError::Token)?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        answered(request.send().await).await
    }

    /// POST of a form.
    pub async fn post_form(&self, url: Url, form: &[(&str, &str)]) -> Result<Answer, HttpsError> {
        answered(self.0.post(url).header("accept", "application/json").form(form).send().await).await
    }

    /// POST of a form by a client that signs in with its secret (RFC 6749, section 2.3.1).
    pub async fn post_form_as(
        &self,
        url: Url,
        (client, secret): (&str, &Secret),
        form: &[(&str, &str)],
    ) -> Result<Answer, HttpsError> {
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
    ) -> Result<Answer, HttpsError> {
        let mut request = self.0.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        answered(request.send().await).await
    }
}

async fn answered(response: reqwest::Result<Response>) -> Result<Answer, HttpsError> {
    let mut response = response.map_err(HttpsError::of)?;
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(HttpsError::of)? {
        if body.len() + chunk.len() > LONGEST {
            return Err(HttpsError::TooLong(LONGEST));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status().as_u16(), body })
}
