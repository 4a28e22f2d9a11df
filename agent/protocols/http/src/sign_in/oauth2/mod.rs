//! Access tokens of an authorization server: the gate's own (RFC 6749, section 4.4), or in exchange for the ID token of whoever
//! is asking (RFC 8693).

mod kept;

use std::{path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::Deserialize;
use tidegate_gate::{Credential, Proof, Secret};
use tidegate_https::{Answer, Https};
use url::Url;
use zeroize::Zeroizing;

pub(crate) use self::kept::Kept;
use self::kept::{Had, Key};

/// How long a token counts whose end isn't told.
const UNTOLD: Duration = Duration::from_secs(60);
/// How long before its end a token isn't used any more; at most a quarter of its time.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest time that a token is kept.
const LONGEST: u64 = 24 * 3600;
/// How long nothing is asked for again that could not be had.
const PAUSE: Duration = Duration::from_secs(2);
/// Kinds of tokens (RFC 8693, section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// Gets tokens, and keeps each until shortly before its end.
pub(crate) struct Tokens {
    grant: Grant,
    http: Https,
    kept: Arc<Kept>,
}

/// A token that counts, as what requests are signed in with.
pub(crate) struct Token {
    pub(crate) credential: Arc<Credential>,
    /// It was got for this very request.
    pub(crate) is_new: bool,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
    token_type: String,
    /// RFC 8693, section 2.2.1.
    issued_token_type: Option<String>,
    expires_in: Option<u64>,
}

/// RFC 6749, section 5.2. Its description is written by others, and could repeat what was sent.
#[derive(Deserialize)]
struct NotGranted {
    error: String,
}

impl Tokens {
    /// Goes on from what was got by the same grant.
    pub(crate) fn new(grant: Grant, kept: Arc<Kept>) -> Result<Self, String> {
        let http = Https::new(grant.ca.as_deref()).map_err(|error| error.to_string())?;
        Ok(Self { grant, http, kept })
    }

    /// A token that still counts, got with this client's id and secret; with a proof, one for whoever it is for (RFC 8693).
    ///
    /// # Errors
    /// Why there is none. Never any part of the secret or the proof, or of what was answered but its error code.
    pub(crate) async fn token(&self, client: &Credential, proof: Option<&Proof>) -> Result<Token, Arc<str>> {
        let known = |had: Had| had.map(|credential| Token { credential, is_new: false });
        let key = key(client, proof);
        if let Some(had) = self.kept.had(&key) {
            return known(had);
        }
        let turn = self.kept.turn(key);
        let _turn = turn.lock().await;
        if let Some(had) = self.kept.had(&key) {
            return known(had);
        }
        match self.get(client, proof).await {
            Ok((credential, counts)) => {
                let credential = Arc::new(credential);
                let counts = proof.map_or(counts, |proof| counts.min(left(proof)));
                self.kept.keep(key, Ok(credential.clone()), counts);
                Ok(Token { credential, is_new: true })
            }
            Err(why) => {
                let why: Arc<str> = format!("{}: {why}", self.grant.url).into();
                self.kept.keep(key, Err(why.clone()), PAUSE);
                Err(why)
            }
        }
    }

    /// Takes a token for over that the upstream did not take.
    pub(crate) fn forget(&self, token: &Arc<Credential>) {
        self.kept.forget(token);
    }

    async fn get(
        &self,
        client: &Credential,
        proof: Option<&Proof>,
    ) -> Result<(Credential, Duration), String> {
        let id = client.user.as_deref().ok_or("the credential has no user, which is the client's id")?;
        let secret = client.password.as_ref();
        let secret = secret.ok_or("the credential has no password, which is the client's secret")?;
        let mut form = match proof {
            None => vec![("grant_type", "client_credentials")],
            Some(proof) => exchange(proof)?.to_vec(),
        };
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
        granted(&answer.map_err(|error| error.to_string())?, proof.is_some())
    }
}

/// What asks for an access token in place of an ID token (RFC 8693, section 2.1).
fn exchange(proof: &Proof) -> Result<[(&'static str, &str); 4], &'static str> {
    let token =
        std::str::from_utf8(proof.token.expose()).map_err(|_| "the token to be exchanged is no text")?;
    Ok([
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ("requested_token_type", ACCESS_TOKEN),
    ])
}

/// How long a proof counts, from now on.
fn left(proof: &Proof) -> Duration {
    let left = proof.expires.saturating_sub(Timestamp::now().as_second());
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

/// The token that was answered, and how long it counts.
fn granted(answer: &Answer, is_exchange: bool) -> Result<(Credential, Duration), String> {
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
    // Of the kinds that RFC 8693 knows, those that Bearer can carry (section 3).
    let issued = granted.issued_token_type.as_deref();
    if is_exchange && !issued.is_some_and(|kind| [ACCESS_TOKEN, JWT].contains(&kind)) {
        return Err("it gives no access token in exchange (issued_token_type)".into());
    }
    if granted.access_token.is_empty() || !granted.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its token has characters that no header field has".into());
    }
    let whole = granted.expires_in.map_or(UNTOLD, |seconds| Duration::from_secs(seconds.min(LONGEST)));
    let password = Some(Secret::new(granted.access_token.as_bytes().to_vec()));
    Ok((Credential { password, ..Credential::default() }, whole - MARGIN.min(whole / 4)))
}

/// What a token is known by: another secret may not do any more what this one could, and what one may have another gets nothing of.
/// Each part after its length.
fn key(client: &Credential, proof: Option<&Proof>) -> Key {
    let mut context = Context::new(&SHA256);
    let user = client.user.as_deref().unwrap_or_default().as_bytes();
    let secret = client.password.as_ref().map_or(&b""[..], Secret::expose);
    let whose = proof.map_or([&b""[..]; 2], |proof| [proof.subject.as_bytes(), proof.token.expose()]);
    for part in [user, secret].into_iter().chain(whose) {
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
        granted(&Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) }, false)
    }

    #[test]
    fn what_is_given_in_exchange_says_that_it_is_an_access_token() {
        let exchanged = |kind: &str| {
            let body = format!(r#"{{"access_token": "t", "token_type": "Bearer"{kind}}}"#);
            granted(&Answer { status: 200, body: Zeroizing::new(body.into_bytes()) }, true).is_ok()
        };
        assert!(exchanged(&format!(r#", "issued_token_type": "{ACCESS_TOKEN}""#)));
        for other in ["", r#", "issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token""#] {
            assert!(!exchanged(other), "{other}");
        }
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
