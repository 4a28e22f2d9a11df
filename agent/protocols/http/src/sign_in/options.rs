//! How a resource says that the gate signs in.

use std::path::PathBuf;

use serde::Deserialize;
use tidegate_gate::ConfigError;
use url::Url;

use super::{Grant, Scope, SignIn};
use crate::options::field;

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawSignIn {
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
pub(crate) struct RawGrant {
    url: Url,
    scope: Option<String>,
    audience: Option<String>,
    resource: Option<String>,
    #[serde(default)]
    client: ClientAuth,
    ca: Option<PathBuf>,
}

/// Where client and secret stand.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClientAuth {
    #[default]
    Basic,
    Body,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawScope {
    region: String,
    service: String,
}

impl SignIn {
    /// As a resource's options say; by `Authorization` where they say nothing.
    pub(crate) fn of(raw: Option<RawSignIn>) -> Result<Self, ConfigError> {
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
            None => Self::Fitting,
            Some(RawSignIn::Bearer) => Self::Bearer,
            Some(RawSignIn::Basic) => Self::Basic,
            Some(RawSignIn::Query(name)) => Self::Query(token(&name)?),
            Some(RawSignIn::Cookie(name)) => Self::Cookie(token(&name)?),
            Some(RawSignIn::Sigv4(RawScope { region, service })) => {
                Self::SigV4(Scope { region: token(&region)?, service: token(&service)? })
            }
            Some(RawSignIn::Oauth2(raw)) => Self::OAuth2(Box::new(grant(*raw)?)),
            Some(RawSignIn::Header(name)) => Self::Header(field(&name, "sign-in")?),
        })
    }
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
    Ok(Grant { url: raw.url, ca: raw.ca, parameters, in_body: raw.client == ClientAuth::Body })
}
