//! The Tidegate agent and its command line.

#![forbid(unsafe_code)]

mod access;
mod accounts;
mod admin;
mod asking;
mod authority;
mod bundle;
mod cli;
mod config;
mod confinement;
mod credentials;
mod dns;
mod error;
mod files;
mod hardening;
mod heart;
mod host;
mod identities;
mod lanes;
mod listener;
mod live;
mod log;
mod names;
mod namespaces;
mod notify;
mod origins;
mod people;
mod protocols;
mod readers;
mod reload;
mod routes;
mod run;
mod session;
mod socket;
mod start;
mod store;
#[cfg(test)]
mod test_support;
mod unix_listeners;
mod user_socket;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
