//! The traits a protocol implements.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;
use tidegate_policy::{Resource, Vocabulary};

use crate::{Export, Gate, Stream};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A protocol the gate can speak. One folder and one registration line each.
pub trait Protocol: Send + Sync {
    /// Its name and the fields its actions carry, as bundles write them.
    fn vocabulary(&self) -> &'static Vocabulary;
    /// A server for one resource. Called when a bundle is loaded: a resource it cannot serve stops the load.
    fn configure(&self, resource: &Arc<Resource>) -> Result<Arc<dyn Server>, ConfigError>;
    /// Forms that the field has for sessions of this protocol, beside the record's own.
    fn exports(&self) -> &'static [Export] {
        &[]
    }
}

/// Serves the connections to one resource.
pub trait Server: Send + Sync {
    /// Names that clients may call the resource by, beside the hosts among its addresses: the gate's certificate bears them.
    fn names(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
    /// Serves one connection to its end; words every refusal as this protocol's clients expect it.
    fn serve(self: Arc<Self>, client: ClientIo, gate: Gate) -> BoxFuture<'static, Result<(), ServeError>>;
}

/// The client's side of a session.
pub struct ClientIo {
    /// The accepted connection.
    pub stream: Stream,
    /// What to answer TLS with: a leaf for this resource, minted by the host's own authority.
    pub tls: Arc<rustls::ServerConfig>,
    /// The names among the resource's addresses that the destination was told for; none where the bundle has the destination
    /// itself, so that it is whatever the resource is called.
    pub names: Option<Arc<[Arc<str>]>>,
}

impl fmt::Debug for ClientIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIo").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// A resource that a protocol cannot serve as it is written.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What is wrong and what to do.
    pub message: String,
    /// The option that it is about, where it is about one.
    pub option: Option<String>,
}

impl ConfigError {
    /// About the resource as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), option: None }
    }

    /// About one of its options.
    pub fn in_option(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), option: Some(option.into()) }
    }
}

/// A resource's options as a protocol reads them, all of which may be left out; `known` says which there are.
pub fn options<T: DeserializeOwned>(written: &Map<String, Value>, known: &str) -> Result<T, ConfigError> {
    let read = |options: Map<String, Value>| serde_json::from_value::<T>(Value::Object(options));
    read(written.clone()).map_err(|error| {
        let alone =
            |(name, value): (&String, &Value)| read([(name.clone(), value.clone())].into_iter().collect());
        let wrong = written.iter().find_map(|one| Some((one.0, alone(one).err()?)));
        match wrong {
            Some((name, error)) => ConfigError::in_option(name, format!("options: {error}; known: {known}")),
            None => ConfigError::new(format!("options: {error}; known: {known}")),
        }
    })
}

/// Why a session ended early, and who is to blame. The text goes into the record, never to the client.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The client broke the protocol or went away in the middle of a message.
    #[error("client: {0}")]
    Client(String),
    /// The upstream broke the protocol, refused us or went away.
    #[error("upstream: {0}")]
    Upstream(String),
    /// Policy ended the session.
    #[error("policy: {0}")]
    Policy(String),
    /// A fault of the gate.
    #[error("gate: {0}")]
    Gate(String),
}
