//! The device authorization grant (RFC 8628), with PKCE (RFC 7636) for issuers that check it.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_gate::Secret;
use tidegate_https::Https;
use zeroize::Zeroizing;

use crate::{Defect, keyring::Metadata, oauth, registry::Known};

/// How long between two questions where the issuer does not say (RFC 8628, section 3.5), and what it adds when it is
/// asked too often.
const INTERVAL: Duration = Duration::from_secs(5);
/// However long the issuer would wait for the person.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// Longest text that a person is shown.
const LONGEST_SHOWN: usize = 2_048;

/// What the person is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Where to go.
    pub url: String,
    /// What to enter there.
    pub code: String,
    /// Where to go with the code entered already.
    pub complete: Option<String>,
    /// For how many seconds.
    pub seconds: u64,
}

/// A device flow that waits for the person.
pub(crate) struct Flow {
    client: Client,
    device_code: Secret,
    /// Where a challenge was sent.
    verifier: Option<Secret>,
    interval: Duration,
    pub(crate) visit: Visit,
}

/// What the agent is to an issuer.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: Https,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) id: Arc<str>,
}

/// What the issuer gave.
pub(crate) struct Tokens {
    pub(crate) id_token: Zeroizing<Vec<u8>>,
    pub(crate) refresh_token: Option<Secret>,
}

/// Why there are no tokens.
#[derive(Debug)]
pub(crate) enum NoTokens {
    /// The person has not decided yet.
    Pending,
    /// The issuer is asked too often.
    SlowDown,
    /// It will not give any: this is its error code.
    Never(String),
    /// It may later.
    Unreachable(String),
}

#[derive(Deserialize)]
struct Authorization {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Given {
    id_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
}

impl Client {
    /// What the agent is to an issuer by this client id.
    pub(crate) async fn of(known: &Known, id: Arc<str>) -> Result<Self, Defect> {
        Ok(Self { http: known.http.clone(), metadata: known.keyring.metadata().await?, id })
    }

    /// Begins a flow.
    pub(crate) async fn begin(self, scopes: &[Arc<str>]) -> Result<Flow, Defect> {
        let failed = |why: String| Defect::NotHandedOut(format!("the issuer does not begin a login: {why}"));
        let Some(endpoint) = self.metadata.device_authorization_endpoint.clone() else {
            return Err(failed("it has no device flow".into()));
        };
        let mut random = Zeroizing::new([0; 32]);
        rand::fill(&mut *random).map_err(|_| failed("no randomness".into()))?;
        let verifier = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
        let (scope, challenge) = (oauth::scope(scopes), oauth::challenge(&self.metadata, &verifier));
        let mut form = vec![("client_id", &*self.id), ("scope", &scope)];
        form.extend(challenge.iter().map(|(name, value)| (*name, &**value)));
        let answer = self.http.post_form(endpoint, &form).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        if answer.status != 200 {
            return Err(failed(format!("it answered {}", error_code(answer.status, &answer.body))));
        }
        let answer: Authorization = serde_json::from_slice(&answer.body)
            .map_err(|_| failed("its answer is not what it should be".into()))?;
        let shown = |text: &str| {
            text.len() <= LONGEST_SHOWN && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        let complete =
            answer.verification_uri_complete.filter(|url| shown(url) && url.starts_with("https://"));
        if !shown(&answer.user_code) || !shown(&answer.verification_uri) {
            return Err(failed("its answer is nothing to show to a person".into()));
        }
        Ok(Flow {
            device_code: Secret::new(answer.device_code.as_bytes().to_vec()),
            verifier: (!challenge.is_empty()).then(|| Secret::new(verifier.as_bytes().to_vec())),
            interval: answer.interval.map_or(INTERVAL, Duration::from_secs).max(Duration::from_secs(1)),
            visit: Visit {
                url: answer.verification_uri,
                code: answer.user_code,
                complete,
                seconds: answer.expires_in.min(LONGEST_WAIT.as_secs()),
            },
            client: self,
        })
    }

    /// Asks for new tokens.
    pub(crate) async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, NoTokens> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &*self.id),
            ("refresh_token", std::str::from_utf8(refresh_token.expose()).unwrap_or_default()),
        ];
        self.tokens(&form).await
    }

    /// Tells the issuer that a refresh token is of no use any more (RFC 7009), if it wants to know.
    pub(crate) async fn revoke(&self, refresh_token: &Secret) {
        let Some(endpoint) = self.metadata.revocation_endpoint.clone() else { return };
        let form = [
            ("client_id", &*self.id),
            ("token_type_hint", "refresh_token"),
            ("token", std::str::from_utf8(refresh_token.expose()).unwrap_or_default()),
        ];
        if let Err(why) = self.http.post_form(endpoint, &form).await {
            tracing::warn!(%why, "a refresh token was forgotten, but could not be revoked");
        }
    }

    /// Asks for tokens by a grant.
    pub(crate) async fn tokens(&self, form: &[(&str, &str)]) -> Result<Tokens, NoTokens> {
        let Some(endpoint) = self.metadata.token_endpoint.clone() else {
            return Err(NoTokens::Never("it has no token endpoint".into()));
        };
        let answer = self.http.post_form(endpoint, form).await;
        let answer = answer.map_err(|error| NoTokens::Unreachable(error.to_string()))?;
        if answer.status != 200 {
            return Err(NoTokens::said(answer.status, &answer.body));
        }
        let given: Given = serde_json::from_slice(&answer.body)
            .map_err(|_| NoTokens::Never("its answer is not what it should be".into()))?;
        let id_token = given.id_token.ok_or_else(|| NoTokens::Never("it gives no ID token".into()))?;
        Ok(Tokens {
            id_token: Zeroizing::new(id_token.as_bytes().to_vec()),
            refresh_token: given.refresh_token.map(|token| Secret::new(token.as_bytes().to_vec())),
        })
    }
}

impl NoTokens {
    /// What an issuer means by another answer than tokens. Only its own error code (RFC 6749, section 5.2) says that it will never
    /// give any: without one a proxy may have answered, and whoever is asked too often answers others later.
    fn said(status: u16, body: &[u8]) -> Self {
        let code = oauth_code(body);
        match (status, code.as_deref()) {
            (_, Some("authorization_pending")) => Self::Pending,
            (_, Some("slow_down")) => Self::SlowDown,
            (500.. | 429, _) | (_, None | Some("temporarily_unavailable" | "server_error")) => {
                Self::Unreachable(code.unwrap_or_else(|| format!("it answered {status}")))
            }
            (_, Some(code)) => Self::Never(code.to_owned()),
        }
    }
}

impl Flow {
    /// Waits for the person.
    pub(crate) async fn finish(mut self) -> Result<(Client, Tokens), Defect> {
        let until = tokio::time::Instant::now() + Duration::from_secs(self.visit.seconds);
        let device_code = self.device_code.clone();
        let verifier = self.verifier.clone();
        let id = self.client.id.clone();
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", &*id),
            ("device_code", std::str::from_utf8(device_code.expose()).unwrap_or_default()),
        ];
        let verifier = verifier.as_ref().map(|verifier| std::str::from_utf8(verifier.expose()));
        form.extend(verifier.map(|verifier| ("code_verifier", verifier.unwrap_or_default())));
        let failed = |why: String| Defect::NotHandedOut(format!("the login failed: {why}"));
        loop {
            tokio::time::sleep(self.interval).await;
            let trouble = match self.client.tokens(&form).await {
                Ok(tokens) => return Ok((self.client, tokens)),
                Err(NoTokens::Pending) => String::new(),
                Err(NoTokens::Unreachable(why)) => format!(" (the issuer: {why})"),
                Err(NoTokens::SlowDown) => {
                    self.interval += INTERVAL;
                    String::new()
                }
                Err(NoTokens::Never(why)) => return Err(failed(why)),
            };
            if tokio::time::Instant::now() >= until {
                return Err(failed(format!("nobody answered in time{trouble}")));
            }
        }
    }
}

/// OAuth's error code (RFC 6749, section 5.2), if it is one; else the status.
fn error_code(status: u16, body: &[u8]) -> String {
    oauth_code(body).unwrap_or_else(|| status.to_string())
}

fn oauth_code(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = answer.get("error").and_then(Value::as_str)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (!code.is_empty() && code.len() <= 64 && code.bytes().all(plain)).then(|| code.to_owned())
}
