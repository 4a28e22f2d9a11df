//! Where people are asked, and who is told of it.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use tidegate_approvals::{
    Fact, Told,
    webhooks::{Format, Target},
};
use url::Url;

/// Where people are asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Approvals {
    /// Questions that may wait.
    pub(crate) questions: usize,
    /// Of these, one principal's.
    pub(crate) questions_per_principal: usize,
    /// Questions that one principal may ask within a minute.
    pub(crate) questions_per_minute: usize,
    /// The PostgreSQL of a fleet; without it, a file under the state directory.
    pub(crate) database: Option<Database>,
    /// Who is told of questions and answers.
    #[serde(deserialize_with = "webhooks")]
    pub(crate) webhooks: Vec<Webhook>,
    /// Where they answer in a browser, if they may.
    pub(crate) web: Option<Web>,
}

/// The page where people answer in a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawWeb")]
pub(crate) struct Web {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Its URL for browsers: an origin, and nothing behind it.
    pub(crate) url: Url,
    /// The issuer's name in the bundle.
    pub(crate) issuer: Arc<str>,
    /// The client id that the issuer gave for it.
    pub(crate) client: Arc<str>,
    /// The credential whose password is the client's secret, if it has one.
    pub(crate) client_secret: Option<Arc<str>>,
    /// What to ask for beside `openid`.
    pub(crate) scopes: Vec<Arc<str>>,
    /// What the tokens of programs must have that answer there; none: they don't.
    pub(crate) api: Option<Api>,
    /// The credential whose certificate and key it serves with; none: what stands before it on this host does that.
    pub(crate) tls: Option<Arc<str>>,
}

/// Programs that answer on the page's listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Claims of the tokens that they bear, `*` for any value.
    pub(crate) require: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawWeb {
    listen: SocketAddr,
    url: Url,
    issuer: Arc<str>,
    client: Arc<str>,
    client_secret: Option<Arc<str>>,
    #[serde(default)]
    scopes: Vec<Arc<str>>,
    api: Option<Api>,
    tls: Option<Arc<str>>,
}

impl TryFrom<RawWeb> for Web {
    type Error = String;

    fn try_from(raw: RawWeb) -> Result<Self, String> {
        let RawWeb { listen, url, issuer, client, client_secret, scopes, api, tls } = raw;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "https" || !bare || !url.username().is_empty() || url.password().is_some() {
            return Err("`url` is https://HOST or https://HOST:PORT, and nothing behind it".into());
        }
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(
                "without `tls` it listens on loopback only, for a proxy on this host that has TLS".into()
            );
        }
        if api.as_ref().is_some_and(|api| api.require.is_empty()) {
            return Err(
                "`api` needs `require`: a claim that the issuer's tokens for this client have and no others"
                    .into(),
            );
        }
        Ok(Self { listen, url, issuer, client, client_secret, scopes, api, tls })
    }
}

/// A PostgreSQL that the agents of a fleet share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Database {
    /// A connection string or URL as libpq takes it, without the password: `host=db.internal dbname=tidegate
    /// sslmode=require`. TLS is always verified.
    pub(crate) connection: String,
    /// Name of the credential to sign in with.
    pub(crate) credential: String,
    /// PEM file of the authorities that are trusted; the system's without it.
    pub(crate) ca: Option<PathBuf>,
}

/// A receiver that is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawWebhook")]
pub(crate) struct Webhook(pub(crate) tidegate_approvals::webhooks::Webhook);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawWebhook {
    name: Arc<str>,
    url: Option<Url>,
    url_from: Option<Arc<str>>,
    secret: Option<Arc<str>>,
    #[serde(default)]
    format: Format,
    events: Option<Vec<Told>>,
    facts: Option<Vec<Fact>>,
    ca: Option<PathBuf>,
}

impl TryFrom<RawWebhook> for Webhook {
    type Error = String;

    fn try_from(raw: RawWebhook) -> Result<Self, String> {
        let RawWebhook { name, url, url_from, secret, format, events, facts, ca } = raw;
        let wrong = |what: &str| Err(format!("webhook {name:?} {what}"));
        let target = match (url, url_from) {
            (Some(url), None) if url.scheme() == "https" => Target::Url(url),
            (None, Some(credential)) => Target::Credential(credential),
            (Some(_), None) => return wrong("has a `url` that does not begin with https://"),
            _ => {
                return wrong(
                    "needs one of `url` and `url-from`, the credential whose password is its address",
                );
            }
        };
        if format == Format::Json && secret.is_none() {
            return wrong("needs a `secret`: the credential whose password signs what it is told");
        }
        if format == Format::Json && facts.is_some() {
            return wrong("is told the whole event: `facts` is for slack and teams");
        }
        let facts = facts.unwrap_or_else(|| Fact::ALL.to_vec());
        let events = events.unwrap_or_else(|| Told::ALL.to_vec());
        Ok(Self(tidegate_approvals::webhooks::Webhook { name, target, secret, format, events, facts, ca }))
    }
}

/// The name tells their letters apart.
fn webhooks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Webhook>, D::Error> {
    let webhooks: Vec<Webhook> = Vec::deserialize(deserializer)?;
    let mut names = HashSet::new();
    match webhooks.iter().find(|hook| !names.insert(&*hook.0.name)) {
        Some(hook) => Err(D::Error::custom(format!("two webhooks are called {:?}", hook.0.name))),
        None => Ok(webhooks),
    }
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            questions: 4000,
            questions_per_principal: 300,
            questions_per_minute: 300,
            database: None,
            webhooks: Vec::new(),
            web: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn webhook(text: &str) -> Result<Webhook, String> {
        let text = format!("approvals:\n  webhooks:\n    - {text}\n");
        match Config::parse(Path::new("tidegate.yaml"), &text) {
            Ok(config) => Ok(config.approvals.webhooks[0].clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_webhook_is_told_everything_unless_it_says_what() {
        let Webhook(all) = webhook("{name: ops, url: \"https://hooks.example/\", secret: ops-hook}").unwrap();
        assert_eq!((all.events, all.format), (Told::ALL.to_vec(), Format::Json));
        let Webhook(some) =
            webhook("{name: chat, url-from: chat, format: slack, events: [asked, break-glass]}").unwrap();
        assert_eq!((some.events, some.format), (vec![Told::Asked, Told::BreakGlass], Format::Slack));
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_told_with_its_place() {
        for (text, words) in [
            ("{name: a, secret: s}", "needs one of `url` and `url-from`"),
            ("{name: a, secret: s, url: \"https://x\", url-from: y}", "needs one of `url` and `url-from`"),
            ("{name: a, secret: s, url: \"http://x\"}", "does not begin with https://"),
            ("{name: a, url: \"https://x\"}", "needs a `secret`"),
            ("{name: a, url-from: x, format: irc}", "irc"),
            ("{name: a, url-from: x, format: teams, events: [told]}", "told"),
        ] {
            let error = webhook(text).unwrap_err();
            assert!(error.contains(words) && error.starts_with("tidegate.yaml:3:"), "{error}");
        }
    }

    #[test]
    fn a_page_without_tls_is_for_this_host_alone() {
        let page = |text: &str| {
            let text = format!("approvals:\n  web: {{issuer: people, client: web, {text}}}\n");
            Config::parse(Path::new("tidegate.yaml"), &text).map_err(|error| error.to_string())
        };
        let url = "url: \"https://tidegate.example\"";
        assert!(page(&format!("listen: \"127.0.0.1:8443\", {url}")).is_ok());
        assert!(page(&format!("listen: \"0.0.0.0:8443\", tls: page, {url}")).is_ok());
        let error = page(&format!("listen: \"0.0.0.0:8443\", {url}")).unwrap_err();
        assert!(error.contains("without `tls`") && error.starts_with("tidegate.yaml:2:"), "{error}");
        for url in ["http://tidegate.example", "https://tidegate.example/x", "https://a:b@tidegate.example"] {
            let error = page(&format!("listen: \"127.0.0.1:1\", url: \"{url}\"")).unwrap_err();
            assert!(error.contains("nothing behind it"), "{error}");
        }
    }

    #[test]
    fn two_webhooks_of_one_name_are_refused() {
        let error =
            webhook("{name: a, url-from: x, format: slack}\n    - {name: a, url-from: y, format: slack}");
        assert!(error.unwrap_err().contains("two webhooks are called \"a\""));
    }
}
