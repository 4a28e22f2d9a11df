//! An issuer's metadata and keys, as they were last fetched.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidegate_https::Https;
use tidegate_policy::Algorithm;
use tokio::time::Instant;
use url::Url;

use crate::{
    Defect,
    keys::KeySet,
    registry::now,
    shelf::{Published, Shelf},
};

/// How old keys may be before they are fetched again.
const FRESH: Duration = Duration::from_secs(600);
/// How long the issuer is left alone after it was asked, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);
/// How long after an issuer could not be asked it is asked again by itself.
const AGAIN: Duration = Duration::from_secs(60);
/// How often it is told that tokens are refused because the issuer can't be asked.
const TELLS: Duration = Duration::from_secs(60);

/// What an issuer publishes of itself (OpenID Connect Discovery 1.0, section 3; RFC 8628, section 4).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    issuer: String,
    jwks_uri: Url,
    pub(crate) authorization_endpoint: Option<Url>,
    pub(crate) token_endpoint: Option<Url>,
    pub(crate) device_authorization_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    /// RFC 8414, section 2.
    pub(crate) code_challenge_methods_supported: Option<Vec<String>>,
}

/// An issuer that can't be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// Its URL.
    pub issuer: Arc<str>,
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// Why.
    pub why: String,
    /// How many seconds old the keys are that go on; none if there are none.
    pub keys_age: Option<u64>,
}

/// Keys of one issuer, kept fresh.
pub(crate) struct Keyring {
    url: Arc<str>,
    http: Https,
    shelf: Option<Shelf>,
    kept: Mutex<Option<Kept>>,
    /// Since when it can't be asked, in seconds since 1970, and why.
    trouble: Mutex<Option<(i64, String)>>,
    /// When it was last told that tokens are refused for that.
    told: Mutex<Option<Instant>>,
    /// When the issuer was last asked, and what came of it. Held while it is asked.
    asked: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

#[derive(Clone)]
struct Kept {
    metadata: Arc<Metadata>,
    keys: Arc<KeySet>,
    since: Instant,
}

impl Metadata {
    fn parse(text: &[u8], url: &str) -> Result<Self, String> {
        let metadata: Self = serde_json::from_slice(text)
            .map_err(|error| format!("its metadata is not what it should be: {error}"))?;
        if metadata.issuer == url { Ok(metadata) } else { Err("its metadata is another issuer's".into()) }
    }
}

impl Kept {
    /// What was published before this start; none if the clock says that it is yet to come.
    fn of(url: &str, published: &Published) -> Option<Self> {
        let age = Duration::from_secs(u64::try_from(now().checked_sub(published.fetched)?).ok()?);
        Some(Self {
            metadata: Arc::new(Metadata::parse(published.metadata.as_bytes(), url).ok()?),
            keys: Arc::new(KeySet::parse(published.keys.as_bytes()).ok()?),
            since: Instant::now().checked_sub(age)?,
        })
    }
}

impl Keyring {
    /// Nothing is fetched before it is needed; what is on the shelf counts as long as it would have.
    pub(crate) fn new(url: Arc<str>, http: Https, shelf: Option<Shelf>) -> Self {
        let kept = shelf.as_ref().and_then(|shelf| Kept::of(&url, &shelf.get(&url)?));
        let (trouble, told, asked) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { url, http, shelf, kept: Mutex::new(kept), trouble, told, asked }
    }

    /// Takes over what a former one knows.
    pub(crate) fn succeed(former: &Self, http: Https) -> Self {
        let new = Self::new(former.url.clone(), http, former.shelf.clone());
        *lock(&new.kept) = former.kept();
        lock(&new.trouble).clone_from(&*lock(&former.trouble));
        new
    }

    /// Keys with which the token of this header can be verified. Known keys are given out at once, and fetched again
    /// beside that if they are old; for an unknown one the issuer is asked, but not all the time.
    pub(crate) async fn keys(
        self: &Arc<Self>,
        key_id: Option<&str>,
        algorithm: Algorithm,
        offline: Duration,
    ) -> Result<Arc<KeySet>, Defect> {
        let known = |kept: &Kept| kept.since.elapsed() < offline && kept.keys.has(key_id, algorithm);
        if let Some(kept) = self.kept().filter(known) {
            if kept.since.elapsed() > FRESH {
                let keyring = self.clone();
                drop(tokio::spawn(async move { keyring.refresh(kept.since).await }));
            }
            return Ok(kept.keys);
        }
        let since = self.kept().map(|kept| kept.since);
        let refreshed = match since {
            Some(since) => self.refresh(since).await,
            None => self.refresh_first().await,
        };
        match (self.kept().filter(known), refreshed) {
            (Some(kept), _) => Ok(kept.keys),
            (None, Ok(())) => Err(Defect::UnknownKey),
            (None, Err(why)) => {
                self.refuses(&why);
                Err(Defect::NoKeys(why))
            }
        }
    }

    /// How it is, where the issuer can't be asked.
    pub(crate) fn trouble(&self) -> Option<Unreachable> {
        let (since, why) = lock(&self.trouble).clone()?;
        let keys_age = self.kept().map(|kept| kept.since.elapsed().as_secs());
        Some(Unreachable { issuer: self.url.clone(), since, why, keys_age })
    }

    /// Asks an issuer again that could not be asked, now and then: nobody else may have a reason to.
    pub(crate) fn ask_again(self: &Arc<Self>) {
        let Ok(asked) = self.asked.try_lock() else { return };
        let is_due = asked.as_ref().is_none_or(|(when, _)| when.elapsed() >= AGAIN);
        drop(asked);
        if is_due && self.trouble().is_some() {
            let keyring = self.clone();
            drop(tokio::spawn(async move { keyring.ask(|_| false).await }));
        }
    }

    /// Tells that tokens are refused, not at each of them.
    fn refuses(&self, why: &str) {
        let mut told = lock(&self.told);
        if told.is_none_or(|when| when.elapsed() >= TELLS) {
            *told = Some(Instant::now());
            tracing::error!(issuer = %self.url, why, "tokens are refused: the issuer cannot be asked for their keys");
        }
    }

    /// What the issuer publishes of itself, if it can be asked.
    pub(crate) async fn metadata(&self) -> Result<Arc<Metadata>, Defect> {
        if let Some(kept) = self.kept() {
            return Ok(kept.metadata);
        }
        self.refresh_first().await.map_err(Defect::NoKeys)?;
        self.kept().map(|kept| kept.metadata).ok_or_else(|| Defect::NoKeys("it was not asked".into()))
    }

    async fn refresh_first(&self) -> Result<(), String> {
        self.ask(|kept| kept.is_some()).await
    }

    /// Fetches keys that are newer than this, unless somebody else just did.
    async fn refresh(&self, than: Instant) -> Result<(), String> {
        self.ask(|kept| kept.is_some_and(|kept| kept.since > than)).await
    }

    async fn ask(&self, done: impl Fn(Option<&Kept>) -> bool) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if done(self.kept().as_ref()) {
            return Ok(());
        }
        if let Some((when, outcome)) = &*asked
            && when.elapsed() < PAUSE
        {
            return outcome.clone();
        }
        let outcome = match self.fetch().await {
            Ok(kept) => {
                *lock(&self.kept) = Some(kept);
                *lock(&self.trouble) = None;
                Ok(())
            }
            Err(why) => {
                tracing::warn!(issuer = %self.url, why, "the issuer cannot be asked; known keys go on, new ones are refused");
                let since = lock(&self.trouble).as_ref().map_or_else(now, |(since, _)| *since);
                *lock(&self.trouble) = Some((since, why.clone()));
                Err(why)
            }
        };
        *asked = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn fetch(&self) -> Result<Kept, String> {
        let place = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        let place = Url::parse(&place).map_err(|error| error.to_string())?;
        let text = self.get(place).await?;
        let metadata = Metadata::parse(&text, &self.url)?;
        let keys = self.get(metadata.jwks_uri.clone()).await?;
        let set =
            KeySet::parse(&keys).map_err(|why| format!("its key set is not what it should be: {why}"))?;
        self.put(&text, &keys).await;
        Ok(Kept { metadata: Arc::new(metadata), keys: Arc::new(set), since: Instant::now() })
    }

    /// Puts what was fetched on the shelf. Without it the agent only has to ask again.
    async fn put(&self, metadata: &[u8], keys: &[u8]) {
        let (Some(shelf), Ok(metadata), Ok(keys)) =
            (self.shelf.clone(), str::from_utf8(metadata), str::from_utf8(keys))
        else {
            return;
        };
        let published = Published {
            issuer: self.url.to_string(),
            fetched: now(),
            metadata: metadata.into(),
            keys: keys.into(),
        };
        let put = tokio::task::spawn_blocking(move || shelf.put(&published)).await;
        if let Ok(Err(error)) = put {
            tracing::warn!(issuer = %self.url, %error, "its keys are not kept for the next start");
        }
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, String> {
        let answer = self.http.get(url, None).await.map_err(|error| error.to_string())?;
        if answer.status == 200 {
            Ok(answer.body.to_vec())
        } else {
            Err(format!("it answered {}", answer.status))
        }
    }

    fn kept(&self) -> Option<Kept> {
        lock(&self.kept).clone()
    }
}

/// A lock whose holder panicked guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
