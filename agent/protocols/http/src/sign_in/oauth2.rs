//! Access tokens by the client-credentials grant (RFC 6749, section 4.4).

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;
use tidegate_gate::{Credential, Secret};
use tidegate_https::{Answer, Https};
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

/// How long a token counts whose end isn't told.
const UNTOLD: Duration = Duration::from_secs(60);
/// How long before its end a token isn't used any more; at most a quarter of its time.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest time that a token is kept.
const LONGEST: u64 = 24 * 3600;
/// How long nothing is asked for again that could not be had.
const PAUSE: Duration = Duration::from_secs(2);

/// What is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The token endpoint.
    pub(crate) url: Url,
    /// PEM file of the authorities that are trusted for it; the system's without it.
    pub(crate) ca: Option<PathBuf>,
    /// Further parameters, such as `scope`.
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// Client and secret stand in the form, not in `Authorization` (`client_secret_post`).
    pub(crate) in_body: bool,
}

/// Gets tokens, one at a time, and keeps the last until shortly before its end.
pub(crate) struct Tokens {
    grant: Grant,
    http: Https,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failed: Option<Failed>,
}

/// A token, as what requests are signed in with.
struct Held {
    /// Of the client's id and secret: another secret may not do any more what this one could.
    of: [u8; 32],
    token: Arc<Credential>,
    until: Instant,
}

struct Failed {
    of: [u8; 32],
    why: Arc<str>,
    until: Instant,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
    token_type: String,
    expires_in: Option<u64>,
}

/// RFC 6749, section 5.2. Its description is written by others, and could repeat what was sent.
#[derive(Deserialize)]
struct NotGranted {
    error: String,
}

impl Tokens {
    pub(crate) fn new(grant: Grant) -> Result<Self, String> {
        let http = Https::new(grant.ca.as_deref()).map_err(|error| error.to_string())?;
        Ok(Self { grant, http, state: Mutex::default() })
    }

    /// A token that still counts, got with this client's id and secret.
    ///
    /// # Errors
    /// Why there is none. Never any part of the secret, or of what was answered but its error code.
    pub(crate) async fn token(&self, client: &Credential) -> Result<Arc<Credential>, Arc<str>> {
        let of = digest(client);
        let mut state = self.state.lock().await;
        if let Some(held) = state.held.as_ref().filter(|held| held.of == of && held.until > Instant::now()) {
            return Ok(held.token.clone());
        }
        if let Some(failed) =
            state.failed.as_ref().filter(|failed| failed.of == of && failed.until > Instant::now())
        {
            return Err(failed.why.clone());
        }
        match self.get(client).await {
            Ok((token, counts)) => {
                let token = Arc::new(token);
                state.held = Some(Held { of, token: token.clone(), until: Instant::now() + counts });
                Ok(token)
            }
            Err(why) => {
                let why: Arc<str> = format!("{}: {why}", self.grant.url).into();
                state.failed = Some(Failed { of, why: why.clone(), until: Instant::now() + PAUSE });
                Err(why)
            }
        }
    }

    /// Takes a token for over that the upstream did not take.
    pub(crate) async fn forget(&self, token: &Arc<Credential>) {
        let mut state = self.state.lock().await;
        if state.held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.token, token)) {
            state.held = None;
        }
    }

    async fn get(&self, client: &Credential) -> Result<(Credential, Duration), String> {
        let id = client.user.as_deref().ok_or("the credential has no user, which is the client's id")?;
        let secret = client.password.as_ref();
        let secret = secret.ok_or("the credential has no password, which is the client's secret")?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.grant.parameters.iter().map(|(name, value)| (*name, value.as_str())));
        let url = self.grant.url.clone();
        let answer = if self.grant.in_body {
            let secret = std::str::from_utf8(secret.expose());
            let secret = secret.map_err(|_| "the client's secret is no text, as a form wants it")?;
            form.extend([("client_id", id), ("client_secret", secret)]);
            self.http.post_form(url, &form).await
        } else {
            self.http.post_form_as(url, (id, secret), &form).await
        };
        granted(&answer.map_err(|error| error.to_string())?)
    }
}

/// The token that was answered, and how long it counts.
fn granted(answer: &Answer) -> Result<(Credential, Duration), String> {
    if answer.status != 200 {
        let said = serde_json::from_slice::<NotGranted>(&answer.body);
        let is_code = |code: &String| {
            code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let code = said.map(|said| said.error).ok().filter(is_code);
        let code = code.map(|code| format!(", {code}")).unwrap_or_default();
        return Err(format!("it gives no token (status {}{code})", answer.status));
    }
    let granted: Granted = serde_json::from_slice(&answer.body)
        .map_err(|_| "it answers with something that is no access token (RFC 6749, 5.1)")?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err("its token is of another type than Bearer".into());
    }
    if granted.access_token.is_empty() || !granted.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its token has characters that no header field has".into());
    }
    let whole = granted.expires_in.map_or(UNTOLD, |seconds| Duration::from_secs(seconds.min(LONGEST)));
    let password = Some(Secret::new(granted.access_token.as_bytes().to_vec()));
    Ok((Credential { password, ..Credential::default() }, whole - MARGIN.min(whole / 4)))
}

/// Each part after its length.
fn digest(client: &Credential) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let user = client.user.as_deref().unwrap_or_default().as_bytes();
    for part in [user, client.password.as_ref().map_or(&b""[..], Secret::expose)] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    // SHA-256 has 32 bytes.
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("grant", &self.grant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Result<(Credential, Duration), String> {
        granted(&Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) })
    }

    #[test]
    fn a_token_counts_until_shortly_before_its_end() {
        for (told, counts) in [("600", 570), ("40", 30), ("0", 0), ("99999999", 86_370)] {
            let body = format!(r#"{{"access_token": "t", "token_type": "bearer", "expires_in": {told}}}"#);
            assert_eq!(answered(200, &body).unwrap().1, Duration::from_secs(counts), "{told}");
        }
        let untold = answered(200, r#"{"access_token": "t", "token_type": "Bearer", "more": 1}"#).unwrap();
        assert_eq!(untold.1, Duration::from_secs(45));
        assert_eq!(untold.0.password.unwrap().expose(), b"t");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        for (status, body) in [
            (200, "hunter2"),
            (200, r#"{"access_token": "", "token_type": "Bearer"}"#),
            (200, r#"{"access_token": "hunter2\r\nX: y", "token_type": "Bearer"}"#),
            (200, r#"{"access_token": "hunter2", "token_type": "mac"}"#),
            (200, r#"{"access_token": "hunter2"}"#),
            (302, r#"{"access_token": "hunter2", "token_type": "Bearer"}"#),
            (401, r#"{"error": "hunter2 is wrong"}"#),
            (400, r#"{"error": "invalid_client", "error_description": "hunter2"}"#),
        ] {
            let error = answered(status, body).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = answered(400, r#"{"error": "invalid_client"}"#).unwrap_err();
        assert_eq!(error, "it gives no token (status 400, invalid_client)");
    }
}
