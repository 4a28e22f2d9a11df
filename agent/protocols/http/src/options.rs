//! An HTTP resource's own options.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use serde::Deserialize;
use tidegate_gate::{
    ConfigError,
    policy::{Host, Resource, TlsMode},
};

use url::Url;

use crate::{
    oauth2::Grant,
    request::Way,
    sigv4::Scope,
    target::{self, Authority, Tolerated},
};

/// How long a held request waits where the resource doesn't say.
const WAIT: Duration = Duration::from_secs(60);
/// The longest that it may say.
const LONGEST_WAIT: u64 = 3600;

/// What a resource says of itself.
#[derive(Debug)]
pub(crate) struct Options {
    /// What clients may call it, apart from its addresses.
    pub(crate) hosts: BTreeSet<Arc<str>>,
    /// Those of them that it has beside its addresses'.
    pub(crate) added: BTreeSet<Arc<str>>,
    pub(crate) sign_in: SignIn,
    /// The client's own header fields that go upstream although they are credentials.
    pub(crate) pass: Vec<HeaderName>,
    pub(crate) tolerated: Tolerated,
    /// Without TLS, the server speaks HTTP/2 and nothing else (RFC 9113, 3.3).
    pub(crate) h2c: bool,
    /// How long a held request waits for its answer before the client is told to ask again.
    pub(crate) wait: Duration,
}

/// How the gate's credential is shown to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// By `Authorization`: Basic if the credential has a user, else Bearer.
    Fitting,
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// `Authorization: Basic` (RFC 7617).
    Basic,
    /// A header field with the password as its value.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// A signature of the request with an access key (AWS Signature Version 4).
    SigV4(Scope),
    /// A token that an authorization server gives (RFC 6749), as Bearer.
    OAuth2(Box<Grant>),
}

impl SignIn {
    /// What requests are signed for, if they are.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        match self {
            Self::SigV4(scope) => Some(scope),
            _ => None,
        }
    }

    /// What tokens are asked for, if they are.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        if let Self::OAuth2(grant) = self { Some(grant) } else { None }
    }

    /// The query parameter that it is: a client's own of that name is a credential, too.
    pub(crate) fn parameter(&self) -> Option<&str> {
        if let Self::Query(name) = self { Some(name) } else { None }
    }

    /// The header field that it is, where that isn't known for one.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        if let Self::Header(name) = self { Some(name) } else { None }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Raw {
    hosts: Vec<String>,
    sign_in: Option<RawSignIn>,
    pass: Vec<String>,
    tolerate: Vec<Trick>,
    h2c: bool,
    /// In seconds.
    wait: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawSignIn {
    Bearer,
    Basic,
    Header(String),
    Query(String),
    Cookie(String),
    Sigv4(RawScope),
    Oauth2(Box<RawGrant>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    url: Url,
    scope: Option<String>,
    audience: Option<String>,
    resource: Option<String>,
    #[serde(default)]
    client: Shown,
    ca: Option<PathBuf>,
}

/// Where client and secret stand.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Shown {
    #[default]
    Basic,
    Body,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScope {
    region: String,
    service: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Trick {
    EncodedSlash,
    EmptySegments,
    PathParameters,
    MethodParameters,
}

const KNOWN: &str = "hosts, sign-in (bearer, basic, {header: NAME}, {query: NAME}, {cookie: NAME}, {sigv4: {region: NAME, service: NAME}}, \
                     {oauth2: {url, scope, audience, resource, client: basic or body, ca}}), pass (names of header fields), tolerate (encoded-slash, empty-segments, path-parameters, method-parameters), h2c (true for HTTP/2 without TLS), wait (seconds)";

impl Options {
    pub(crate) fn of(resource: &Resource) -> Result<Self, ConfigError> {
        let raw: Raw = tidegate_gate::options(&resource.options, KNOWN)?;
        if raw.h2c && resource.tls.mode != Some(TlsMode::Disable) {
            let message =
                "options: h2c is for a server without TLS; with TLS, both sides agree on the version";
            return Err(ConfigError::in_option("h2c", message));
        }
        let has = |trick| raw.tolerate.contains(&trick);
        let wait = raw.wait.map_or(WAIT, Duration::from_secs);
        if wait.as_secs() > LONGEST_WAIT {
            return Err(ConfigError::in_option(
                "wait",
                format!("options: wait is at most {LONGEST_WAIT} seconds"),
            ));
        }
        let sign_in = sign_in(raw.sign_in)?;
        if sign_in.scope().is_some_and(Scope::is_s3) && has(Trick::EncodedSlash) {
            let message =
                "options: S3 reads an encoded slash as a slash: a rule on one path would be for another";
            return Err(ConfigError::in_option("tolerate", message));
        }
        let added = added(&raw.hosts)?;
        Ok(Self {
            hosts: hosts(resource, &added),
            added,
            sign_in,
            pass: raw.pass.iter().map(|name| field(name, "pass")).collect::<Result<_, _>>()?,
            tolerated: Tolerated {
                encoded_slash: has(Trick::EncodedSlash),
                empty_segments: has(Trick::EmptySegments),
                path_parameters: has(Trick::PathParameters),
                method_parameters: has(Trick::MethodParameters),
            },
            h2c: raw.h2c,
            wait,
        })
    }

    /// Whether a client may call the resource this on its way to it: by the very address that it connected to, by a name that
    /// was told for that address, or by one that the options add.
    pub(crate) fn knows(&self, host: &Authority, way: &Way) -> bool {
        if host.address().is_some_and(|own| own.to_canonical() == way.destination.ip().to_canonical()) {
            return true;
        }
        let is_there = way.names.as_ref().is_none_or(|names| names.contains(&host.host));
        self.added.contains(&host.host) || is_there && self.hosts.contains(&host.host)
    }
}

/// A header field's name that is not the connection's own.
fn field(name: &str, of: &str) -> Result<HeaderName, ConfigError> {
    let wrong = |message: String| ConfigError::in_option(of, message);
    let name: HeaderName =
        name.parse().map_err(|_| wrong(format!("options: {name:?} in {of} is no header field's name")))?;
    match crate::forward::is_connections_own(&name) {
        true => Err(wrong(format!("options: {name} in {of} is the connection's own"))),
        false => Ok(name),
    }
}

/// The names among the resource's addresses, and those that its options add.
fn hosts(resource: &Resource, added: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let named = resource.addresses.iter().filter_map(|address| match &address.host {
        Host::Name(name) => Some(name),
        Host::Net(_) => None,
    });
    named.chain(added).cloned().collect()
}

/// Names that the options add.
fn added(names: &[String]) -> Result<BTreeSet<Arc<str>>, ConfigError> {
    let wrong = |name: &String| {
        ConfigError::in_option("hosts", format!("options: {name:?} in hosts is no host name"))
    };
    names.iter().map(|name| Ok(target::name(name).ok_or_else(|| wrong(name))?.into())).collect()
}

fn sign_in(raw: Option<RawSignIn>) -> Result<SignIn, ConfigError> {
    let token = |name: &String| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match !name.is_empty() && name.bytes().all(is_token) {
            true => Ok(name.clone()),
            false => {
                Err(ConfigError::in_option("sign-in", format!("options: {name:?} in sign-in is no name")))
            }
        }
    };
    Ok(match raw {
        None => SignIn::Fitting,
        Some(RawSignIn::Bearer) => SignIn::Bearer,
        Some(RawSignIn::Basic) => SignIn::Basic,
        Some(RawSignIn::Query(name)) => SignIn::Query(token(&name)?),
        Some(RawSignIn::Cookie(name)) => SignIn::Cookie(token(&name)?),
        Some(RawSignIn::Sigv4(RawScope { region, service })) => {
            SignIn::SigV4(Scope { region: token(&region)?, service: token(&service)? })
        }
        Some(RawSignIn::Oauth2(raw)) => SignIn::OAuth2(Box::new(grant(*raw)?)),
        Some(RawSignIn::Header(name)) => SignIn::Header(field(&name, "sign-in")?),
    })
}

fn grant(raw: RawGrant) -> Result<Grant, ConfigError> {
    let wrong = |what: &str| Err(ConfigError::in_option("sign-in", format!("options: oauth2: {what}")));
    let is_plain =
        raw.url.username().is_empty() && raw.url.password().is_none() && raw.url.fragment().is_none();
    if raw.url.scheme() != "https" || !is_plain {
        return wrong("url is the token endpoint, https:// with neither user nor fragment");
    }
    if raw.ca.as_ref().is_some_and(|ca| !ca.is_absolute()) {
        return wrong("ca is an absolute path");
    }
    let parameters = [("scope", raw.scope), ("audience", raw.audience), ("resource", raw.resource)];
    let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Ok(Grant { url: raw.url, ca: raw.ca, parameters, in_body: raw.client == Shown::Body })
}
