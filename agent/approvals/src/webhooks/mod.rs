//! Receivers that are told of questions over HTTPS.
//!
//! A letter waits in the store until its receiver took it. Each receiver has a task of its own, so that a dead one holds
//! up neither the others nor whoever asks.

mod sender;
mod signature;
mod words;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use tidegate_gate::{Credentials, Secret};
use tidegate_https::Https;
use tokio::task::JoinSet;
use url::Url;

use self::{sender::Sender, signature::Key};
use crate::{
    Desk, Fact,
    letter::{LONGEST_WAIT, Told},
};

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// What it is called in logs and in the store.
    pub name: Arc<str>,
    /// Where it is.
    pub target: Target,
    /// The credential whose password signs what is sent; none: it is not signed.
    pub secret: Option<Arc<str>>,
    /// How it wants to be told.
    pub format: Format,
    /// What it wants to be told.
    pub events: Vec<Told>,
    /// What its messages tell beside what will run; of [`Format::Json`] all.
    pub facts: Vec<Fact>,
    /// PEM file of the authorities that are trusted for it; the system's without it.
    pub ca: Option<PathBuf>,
}

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At this address.
    Url(Url),
    /// At the address that is the password of this credential: whoever knows those of chat services may write there.
    Credential(Arc<str>),
}

/// How a receiver wants to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The whole event.
    #[default]
    Json,
    /// A message for Slack's incoming webhooks.
    Slack,
    /// An adaptive card for Microsoft Teams' workflows.
    Teams,
}

/// How often a letter is tried.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// How long after the first attempt; four times as long after each further one.
    pub first: Duration,
    /// The longest wait between two attempts, an hour at most.
    pub longest: Duration,
    /// The longest that a receiver which does not answer is left alone, whatever waits for it.
    pub pause: Duration,
    /// How old a letter is when it is given up.
    pub end: Duration,
}

/// All receivers, checked; by default none.
#[derive(Default)]
pub struct Webhooks(Vec<Sender>);

impl Default for Retries {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            longest: LONGEST_WAIT,
            pause: Duration::from_secs(60),
            end: Duration::from_secs(24 * 3600),
        }
    }
}

impl Webhooks {
    /// Makes receivers ready: what they need is there now, and is read anew for each letter.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with any.
    pub async fn new(
        hooks: Vec<Webhook>,
        credentials: Arc<dyn Credentials>,
        retries: Retries,
    ) -> Result<Self, Vec<String>> {
        let (mut senders, mut problems) = (Vec::new(), Vec::new());
        for hook in hooks {
            let name = hook.name.clone();
            let ready = async {
                let https = Https::new(hook.ca.as_deref()).map_err(|error| error.to_string())?;
                let sender = Sender { hook, https, credentials: credentials.clone(), retries };
                sender.url().await?;
                sender.key().await?;
                Ok(sender)
            };
            match ready.await {
                Ok(sender) => senders.push(sender),
                Err(why) => {
                    let why: String = why;
                    problems.push(format!("webhook {name:?}: {why}"));
                }
            }
        }
        if problems.is_empty() { Ok(Self(senders)) } else { Err(problems) }
    }

    /// Sends what a desk has to tell, until dropped.
    pub async fn run(self, desk: Desk) {
        let mut sending = JoinSet::new();
        for sender in self.0 {
            sending.spawn(sender.run(desk.clone()));
        }
        while sending.join_next().await.is_some() {}
    }
}

impl Sender {
    /// Where the receiver is.
    async fn url(&self) -> Result<Url, String> {
        let name = match &self.hook.target {
            Target::Url(url) => return Ok(url.clone()),
            Target::Credential(name) => name,
        };
        let secret = self.password(name).await?;
        let url = std::str::from_utf8(secret.expose()).ok().and_then(|text| Url::parse(text.trim()).ok());
        // Nothing of it is told: it is a secret.
        url.filter(|url| url.scheme() == "https")
            .ok_or_else(|| format!("credential {name:?}: {name}.password is not an https:// address"))
    }

    /// What signs, if anything does.
    async fn key(&self) -> Result<Option<Key>, String> {
        let Some(name) = &self.hook.secret else { return Ok(None) };
        let secret = self.password(name).await?;
        Key::parse(&secret).map(Some).map_err(|why| format!("credential {name:?}: {name}.password {why}"))
    }

    async fn password(&self, name: &str) -> Result<Secret, String> {
        let credential = self.credentials.credential(name).await.map_err(|error| error.to_string())?;
        credential.password.ok_or_else(|| format!("credential {name:?} has no {name}.password"))
    }
}
