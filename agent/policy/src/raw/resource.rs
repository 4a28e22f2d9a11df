//! Where connections lead, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::{
    TlsMode,
    yaml::{At, Entries},
};

/// A named upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Resource")]
pub(crate) struct RawResource {
    /// The protocol spoken there: `postgres`, `http`.
    pub(crate) protocol: At<String>,
    /// Destinations: `host:port`, `10.2.0.0/16:5432`, `[::1]:5432`; and Unix sockets of the first one's server,
    /// `unix:/run/postgresql/.s.PGSQL.5432`.
    pub(crate) addresses: At<List<String>>,
    /// TLS towards the upstream.
    pub(crate) tls: Option<At<RawTls>>,
    /// Name of the credential to sign in with, where the gate signs in.
    pub(crate) credential: Option<At<String>>,
    /// Name of an issuer: who uses the resource does so in the name that this issuer says they have, and nobody without one.
    pub(crate) identity: Option<At<String>>,
    /// How long connecting and signing in may take, with its unit: `10s` (the default).
    pub(crate) connect_timeout: Option<At<String>>,
    /// The protocol's own options.
    pub(crate) options: Option<At<Entries<serde_json::Value>>>,
}

/// TLS towards an upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Tls")]
pub(crate) struct RawTls {
    /// How much is asked of the upstream; `verify-full` where a `ca` is named, else `prefer` for `postgres` and `verify-full` for
    /// `http`.
    pub(crate) mode: Option<At<TlsMode>>,
    /// PEM file of the authorities that are trusted; without it the system's.
    pub(crate) ca: Option<At<String>>,
    /// The name the upstream's certificate must bear, if not the host it is reached by.
    pub(crate) server_name: Option<At<String>>,
}

/// Destinations that subjects may connect to without the gate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Pass")]
pub(crate) struct RawPass {
    /// Names of subjects, or `"*"`.
    pub(crate) subjects: At<List<String>>,
    /// Destinations: `10.0.0.0/8:443`, `mirror.internal:80`; without a port, every port.
    pub(crate) to: At<List<String>>,
}
