//! The agent's configuration: where things are and how much is allowed. What is governed is the bundle's to say.

mod approvals;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error as _};
use thiserror::Error;

pub(crate) use self::approvals::{Approvals, Database};
use crate::{authority::Within, log::Format};

/// Where the configuration is looked for unless `--config` says otherwise; it need not exist there.
pub(crate) const DEFAULT_PATH: &str = "/etc/tidegate/tidegate.yaml";

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Directory of the bundle.
    pub(crate) bundle: PathBuf,
    /// Records, the host's authority and keys.
    pub(crate) state: PathBuf,
    /// The admin socket, and the one for every account.
    pub(crate) runtime: PathBuf,
    /// What stays in the kernel when the agent ends, on a BPF file system.
    pub(crate) pins: PathBuf,
    /// Where credentials are.
    pub(crate) credentials: Credentials,
    /// What the host's certificate authority vouches for.
    pub(crate) authority: Vouching,
    /// Where the gate listens.
    pub(crate) listen: Listen,
    /// The agent's own log.
    pub(crate) log: Log,
    /// How much is allowed at once.
    pub(crate) limits: Limits,
    /// Where people are asked.
    pub(crate) approvals: Approvals,
    /// How long sessions may take to end when the agent is asked to stop: `10s`.
    #[serde(deserialize_with = "duration")]
    pub(crate) stop_grace: Duration,
    /// Whether a crash may leave a core dump, which holds credentials. For debugging only.
    pub(crate) core_dumps: bool,
}

/// Where credentials are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Credentials {
    /// Directory of credential files; systemd's own credential directory is looked at first.
    pub(crate) directory: PathBuf,
}

/// What the host's certificate authority vouches for. Written into its certificate when it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Vouching {
    /// These names and those below, and these ranges of addresses.
    pub(crate) names: Within,
}

/// Loopback ports of the listeners; 0 for any free one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Listen {
    /// On 127.0.0.1.
    pub(crate) v4_port: u16,
    /// On ::1.
    pub(crate) v6_port: u16,
}

/// The agent's own log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Log {
    /// Its form.
    pub(crate) format: Format,
    /// What is logged, in `RUST_LOG`'s syntax.
    pub(crate) filter: Option<String>,
}

/// How much is allowed at once. Connections beyond are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Limits {
    /// Sessions of everybody.
    pub(crate) sessions: usize,
    /// Sessions of one user id.
    pub(crate) sessions_per_principal: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bundle: "/etc/tidegate/bundle".into(),
            state: "/var/lib/tidegate".into(),
            runtime: "/run/tidegate".into(),
            pins: "/sys/fs/bpf/tidegate".into(),
            credentials: Credentials::default(),
            authority: Vouching::default(),
            listen: Listen::default(),
            log: Log::default(),
            limits: Limits::default(),
            approvals: Approvals::default(),
            stop_grace: Duration::from_secs(10),
            core_dumps: false,
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self { directory: "/etc/tidegate/credentials".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 8192, sessions_per_principal: 2048 }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not what a configuration looks like.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads the file that was asked for, or the default one if it exists, or falls back to the defaults.
    pub(crate) fn read(asked: Option<&Path>) -> Result<Self, ConfigError> {
        let path = asked.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if asked.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Unreadable { path: path.into(), error }),
        }
    }

    /// `path` is for errors.
    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let location = error.location();
            ConfigError::Invalid {
                path: path.into(),
                line: location.map_or(1, |at| at.line()),
                column: location.map_or(1, |at| at.column()),
                message: sentence(&error),
            }
        })
    }

    /// The admin socket.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }

    /// The socket for every account.
    pub(crate) fn user_socket(&self) -> PathBuf {
        self.runtime.join("user.sock")
    }

    /// Where clients of Unix sockets that are resources are sent.
    pub(crate) fn gate_sockets(&self) -> PathBuf {
        self.runtime.join("gate")
    }

    /// The record store.
    pub(crate) fn records(&self) -> PathBuf {
        self.state.join("records")
    }

    /// What is known of tokens and issuers.
    pub(crate) fn identity(&self) -> PathBuf {
        self.state.join("identity")
    }

    /// The host's own authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.state.join("ca")
    }
}

/// What the host calls itself.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "this host".into(), |name| name.to_string_lossy().into_owned())
}

/// The parser's words without the place, which is told apart.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A duration with its unit: `10s`, `1m 30s`, `500ms`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// Shared with the command line's flags.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration: write a number and its unit, such as 10s, 500ms or 2m");
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        Config::parse(Path::new("/etc/tidegate/tidegate.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse(Path::new("c"), "# nothing\n\n").unwrap(), Config::default());
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let text = include_str!("../tidegate.yaml");
        assert_eq!(Config::parse(Path::new("tidegate.yaml"), text).unwrap(), Config::default());
    }

    #[test]
    fn what_a_file_says_counts_and_the_rest_stays_default() {
        let config = Config::parse(
            Path::new("c"),
            "bundle: /srv/bundle\nlimits: {sessions: 10}\nstop-grace: 1m 30s\nlog: {format: json}\n",
        )
        .unwrap();
        assert_eq!(config.bundle, Path::new("/srv/bundle"));
        assert_eq!(config.limits, Limits { sessions: 10, ..Limits::default() });
        assert_eq!(config.stop_grace, Duration::from_secs(90));
        assert_eq!(config.log.format, Format::Json);
        assert_eq!(config.state, Config::default().state);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = error_of("bundle: /b\nlimits:\n  session: 3\n");
        assert!(error.starts_with("/etc/tidegate/tidegate.yaml:3:3: "), "{error}");
        assert!(error.contains("session") && error.contains("sessions-per-principal"), "{error}");
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_advice() {
        let error = error_of("stop-grace: 10\n");
        assert!(error.starts_with("/etc/tidegate/tidegate.yaml:1:13: "), "{error}");
        assert!(error.contains("such as 10s"), "{error}");
    }

    #[test]
    fn a_negative_duration_is_refused() {
        assert!(error_of("stop-grace: -10s\n").contains("not a duration"));
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let error = Config::read(Some(Path::new("/nonexistent/tidegate.yaml"))).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/tidegate.yaml: "), "{error}");
    }
}
