//! The agent's own log. Goes to standard error: lines for people on a terminal, JSON otherwise.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    sync::Mutex,
};

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::error::Error;

/// The log's form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Begins logging. `filter` is in `RUST_LOG`'s syntax; without one `RUST_LOG` counts, and without that, `info`.
pub(crate) fn begin(format: Format, filter: Option<&str>) -> Result<(), Error> {
    let filter = match filter {
        Some(filter) => EnvFilter::try_new(filter).map_err(|error| Error::Log(error.to_string()))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let human = match format {
        Format::Auto => io::stderr().is_terminal(),
        Format::Human => true,
        Format::Json => false,
    };
    // A descriptor of its own: the SQL parser points the process's standard error elsewhere while it works.
    let own = io::stderr().as_fd().try_clone_to_owned().map_err(|error| Error::Log(error.to_string()))?;
    let writer = Mutex::new(File::from(own));
    let registry = tracing_subscriber::registry().with(filter);
    let begun = if human {
        registry
            .with(fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal()).with_target(false))
            .try_init()
    } else {
        registry
            .with(fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer))
            .try_init()
    };
    begun.map_err(|error| Error::Log(error.to_string()))
}
