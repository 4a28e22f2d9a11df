//! A PostgreSQL resource's own options.

use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_gate::{ConfigError, policy::Resource};

use crate::sql::Limits;

/// The `options:` of a resource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Options {
    /// The longest statement that is looked at, in bytes; longer ones are refused. 1 MiB if not given.
    longest_statement: Option<usize>,
}

impl Options {
    pub(crate) fn of(resource: &Resource) -> Result<Self, ConfigError> {
        Self::read(&resource.options).map_err(|message| ConfigError { message })
    }

    pub(crate) fn read(options: &Map<String, Value>) -> Result<Self, String> {
        serde_json::from_value(Value::Object(options.clone()))
            .map_err(|error| format!("options: {error}; known: longest-statement (bytes)"))
    }

    pub(crate) fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits { bytes: self.longest_statement.unwrap_or(limits.bytes), ..limits }
    }
}
