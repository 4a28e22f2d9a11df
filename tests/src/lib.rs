//! What the end-to-end tests, the demo and the benchmarks stand on: a private PostgreSQL and nginx, an agent, governed
//! accounts.
//!
//! Everything here needs root, works on loopback only, keeps its state in a temporary directory, and stops what it
//! started, by process id, when it is dropped.

#![forbid(unsafe_code)]

mod account;
mod agent;
mod certificates;
mod cluster;
mod manager;
mod name_server;
mod process;
mod provider;
mod secret;
mod web;
mod world;

pub use account::{Account, CLIENTS, Ran};
pub use agent::{Agent, Settings};
pub use certificates::Certificates;
pub use cluster::{Cluster, Options, SERVERS, SERVERS_FOLDER, SHOP, fetched, programs};
pub use name_server::NameServer;
pub use process::{Process, crash, run};
pub use provider::Provider;
pub use secret::{Secrets, random};
pub use web::Web;
pub use world::{BUNDLE, BY_COLUMNS_ALONE, World, governed_uid, ungoverned_uid};
