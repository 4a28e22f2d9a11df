//! A PostgreSQL resource's own options.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_gate::{ConfigError, options, policy::Resource};

use crate::{database::AGE, sql::Limits};

/// The `options:` of a resource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Options {
    /// The longest statement that is looked at, in bytes; longer ones are refused. 1 MiB if not given.
    longest_statement: Option<usize>,
    /// The newest protocol version that the upstream is asked for, as libpq's `max_protocol_version`: poolers refuse
    /// connections that ask for more than 3.0.
    max_protocol_version: ProtocolVersion,
    /// As libpq's `channel_binding`.
    channel_binding: ChannelBinding,
    /// As libpq's `sslnegotiation`.
    ssl_negotiation: SslNegotiation,
    /// For how many seconds the catalog's word counts where definitions are changed around the gate.
    catalog_age: Option<CatalogAge>,
}

/// From a second to [`AGE`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
struct CatalogAge(Duration);

impl TryFrom<u64> for CatalogAge {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        let most = AGE.as_secs();
        match seconds {
            seconds if (1..=most).contains(&seconds) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("catalog-age is 1 to {most} seconds")),
        }
    }
}

/// How TLS begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SslNegotiation {
    /// The server is asked first whether it speaks TLS.
    #[default]
    Postgres,
    /// With the first byte: servers from 17 on, and what ends TLS in front of one.
    Direct,
}

/// Whether a server must prove that the gate's TLS connection ends at itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChannelBinding {
    /// Where it offers to, it must.
    #[default]
    Prefer,
    Require,
}

/// A version of protocol 3.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum ProtocolVersion {
    #[default]
    #[serde(rename = "3.0")]
    V3_0,
    #[serde(rename = "3.2")]
    V3_2,
}

impl Options {
    pub(crate) fn of(resource: &Resource) -> Result<Self, ConfigError> {
        Self::read(&resource.options)
    }

    pub(crate) fn read(written: &Map<String, Value>) -> Result<Self, ConfigError> {
        options(
            written,
            "longest-statement (bytes), max-protocol-version (\"3.0\" or \"3.2\"), channel-binding (prefer or require), \
             ssl-negotiation (postgres or direct), catalog-age (seconds)",
        )
    }

    /// The newest minor version of protocol 3 to ask the upstream for.
    pub(crate) fn newest_minor(&self) -> u16 {
        match self.max_protocol_version {
            ProtocolVersion::V3_0 => 0,
            ProtocolVersion::V3_2 => 2,
        }
    }

    /// Nobody is signed in to who doesn't prove where the TLS connection ends.
    pub(crate) fn requires_channel_binding(&self) -> bool {
        self.channel_binding == ChannelBinding::Require
    }

    /// TLS begins with the first byte.
    pub(crate) fn begins_with_tls(&self) -> bool {
        self.ssl_negotiation == SslNegotiation::Direct
    }

    /// For how long the catalog's word counts.
    pub(crate) fn catalog_age(&self) -> Duration {
        self.catalog_age.map_or(AGE, |age| age.0)
    }

    pub(crate) fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits { bytes: self.longest_statement.unwrap_or(limits.bytes), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> Result<Options, ConfigError> {
        Options::read(&serde_json::from_str(options).unwrap())
    }

    #[test]
    fn an_upstream_is_asked_for_3_0_unless_the_resource_says_more() {
        assert_eq!(read("{}").unwrap().newest_minor(), 0);
        assert_eq!(read(r#"{"max-protocol-version": "3.2"}"#).unwrap().newest_minor(), 2);
        let error = read(r#"{"max-protocol-version": "3.1"}"#).unwrap_err();
        assert_eq!(error.option.as_deref(), Some("max-protocol-version"));
        assert!(error.message.contains(r#"max-protocol-version ("3.0" or "3.2")"#), "{error}");
    }

    #[test]
    fn the_catalog_counts_for_half_a_minute_or_less() {
        assert_eq!(read("{}").unwrap().catalog_age(), AGE);
        assert_eq!(read(r#"{"catalog-age": 2}"#).unwrap().catalog_age(), Duration::from_secs(2));
        for wrong in ["0", "31", "\"2s\""] {
            let error = read(&format!(r#"{{"catalog-age": {wrong}}}"#)).unwrap_err();
            assert_eq!(error.option.as_deref(), Some("catalog-age"), "{wrong}: {error}");
        }
    }
}
